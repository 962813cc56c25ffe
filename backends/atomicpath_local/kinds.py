"""What a mode says: the words for what can be at a path, and what a directory has from its parent."""

from __future__ import annotations

import os
import stat

__all__ = ["inherited", "kind_of"]

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


def inherited(status: os.stat_result) -> int:
    """The setgid bit that a new directory has from its parent (mkdir(2)): setting a mode must not lose it."""
    return status.st_mode & stat.S_ISGID if stat.S_ISDIR(status.st_mode) else 0
