"""What tells a directory from any other: device, number, and when it was made, which os.stat does not tell on Linux."""

from __future__ import annotations

import ctypes
import os
import struct
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Seen", "see"]

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_STATX_CTIME, _STATX_INO, _STATX_BTIME = 0x80, 0x100, 0x800
_NEEDED = _STATX_CTIME | _STATX_INO
_STATX_MNT_ID_UNIQUE = 0x4000
_WANTED = _NEEDED | _STATX_BTIME | _STATX_MNT_ID_UNIQUE
_SECOND = 1_000_000_000


class Seen(NamedTuple):
    """A file or directory. Times are in nanoseconds; that of birth is None where it is not told, or was never set.

    `mount` is the number of the mount it is on, which no other mount gets as long as the host runs; None on Linux
    before 6.8, which gives the numbers of mounts again (STATX_MNT_ID_UNIQUE in statx(2)).
    """

    device: int
    number: int
    changed: int
    birth: int | None
    mount: int | None


_ANSWER = struct.Struct("=I28xQ40xqI4xqI28xIIQ104x")
"""What statx(2) fills in, 256 bytes on every architecture: mask, number, birth, change, device, mount.

Unpacked by hand, since a commit asks once for each directory above it and structures of ctypes take twice as long.
"""
_Buffer = ctypes.c_char * _ANSWER.size


def see(place: str | int) -> Seen:
    """Return what is at a path, links followed, or open as a descriptor. Raise OSError if nothing is."""
    statx = _statx()
    if statx is not None:
        answer = _Buffer()
        if isinstance(place, int):
            failed = statx(place, b"", _AT_EMPTY_PATH, _WANTED, answer)
        else:
            failed = statx(_AT_FDCWD, os.fsencode(place), 0, _WANTED, answer)
        if not failed:
            mask, number, born, born_ns, changed, changed_ns, major, minor, mount = _ANSWER.unpack(answer)
            if mask & _NEEDED == _NEEDED:
                return Seen(
                    device=os.makedev(major, minor),
                    number=number,
                    changed=changed * _SECOND + changed_ns,
                    birth=born * _SECOND + born_ns or None if mask & _STATX_BTIME else None,
                    mount=mount if mask & _STATX_MNT_ID_UNIQUE else None,
                )
    status = os.stat(place)  # for a kernel without statx(2); it also raises the error if there is one
    return Seen(device=status.st_dev, number=status.st_ino, changed=status.st_ctime_ns, birth=None, mount=None)


@lru_cache(maxsize=1)
def _statx() -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None, use_errno=True), "statx", None) if os.name == "posix" else None
