"""What tells a directory from any other: device, number, and when it was made, which os.stat does not tell on Linux."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Seen", "see"]

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_STATX_CTIME, _STATX_INO, _STATX_BTIME = 0x80, 0x100, 0x800
_NEEDED = _STATX_CTIME | _STATX_INO
_STATX_MNT_ID_UNIQUE = 0x4000
_WANTED = _NEEDED | _STATX_BTIME | _STATX_MNT_ID_UNIQUE


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


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_uint32), ("reserved", ctypes.c_int32))

    def in_nanoseconds(self) -> int:
        seconds: int = self.seconds
        nanoseconds: int = self.nanoseconds
        return seconds * 1_000_000_000 + nanoseconds


class _Statx(ctypes.Structure):
    """As statx(2) says: 256 bytes on every architecture."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("links", ctypes.c_uint32),
        ("owner", ctypes.c_uint32),
        ("group", ctypes.c_uint32),
        ("mode", ctypes.c_uint16),
        ("spare", ctypes.c_uint16),
        ("number", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("attributes_mask", ctypes.c_uint64),
        ("accessed", _Time),
        ("born", _Time),
        ("changed", _Time),
        ("modified", _Time),
        ("special_major", ctypes.c_uint32),
        ("special_minor", ctypes.c_uint32),
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("mount", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 104),
    )


def see(place: str | int) -> Seen:
    """What is at a path, links followed, or open as a descriptor. An `OSError` if nothing is."""
    statx = _statx()
    if statx is not None:
        answer = _Statx()
        if isinstance(place, int):
            failed = statx(place, b"", _AT_EMPTY_PATH, _WANTED, ctypes.byref(answer))
        else:
            failed = statx(_AT_FDCWD, os.fsencode(place), 0, _WANTED, ctypes.byref(answer))
        if not failed and answer.mask & _NEEDED == _NEEDED:
            return Seen(
                device=os.makedev(answer.major, answer.minor),
                number=answer.number,
                changed=answer.changed.in_nanoseconds(),
                birth=answer.born.in_nanoseconds() or None if answer.mask & _STATX_BTIME else None,
                mount=answer.mount if answer.mask & _STATX_MNT_ID_UNIQUE else None,
            )
    status = os.stat(place)  # of a kernel without the call; and any error comes from here
    return Seen(device=status.st_dev, number=status.st_ino, changed=status.st_ctime_ns, birth=None, mount=None)


@lru_cache(maxsize=1)
def _statx() -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None, use_errno=True), "statx", None) if os.name == "posix" else None
