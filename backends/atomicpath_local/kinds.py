"""The words for what can be at a path."""

from __future__ import annotations

import stat

__all__ = ["kind_of"]

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def kind_of(mode: int) -> str:
    """In the words of `Entry.kind`."""
    return _KINDS.get(stat.S_IFMT(mode), "a special file")
