"""What tells a local directory from every copy of it: its number, the moment it was made, and its file system."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

from .system import DIRECTORY, System

__all__ = ["identity"]

_FOR_LOOKING: int = getattr(os, "O_PATH", os.O_RDONLY)  # needs no permission on the directory itself
_AT_EMPTY_PATH = 0x1000
_STATX_INO, _STATX_BTIME = 0x100, 0x800
_WANTED = _STATX_INO | _STATX_BTIME


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_uint32), ("reserved", ctypes.c_int32))


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
        ("rest", ctypes.c_uint8 * 160),
    )


def identity(system: System, path: str) -> str:
    """Numbers are given again to directories made later, so without the moment of birth nothing is told: ""."""
    if sys.platform != "linux":
        return ""
    with system.descriptor(path, _FOR_LOOKING | DIRECTORY) as fd:
        told = system.call(_number_and_birth, fd)
        if told is None:
            return ""
        return f"{system.call(os.fstatvfs, fd).f_fsid:x}-{told}"


def _number_and_birth(fd: int) -> str | None:
    statx = _statx()
    answer = _Statx()
    if statx is None or statx(fd, b"", _AT_EMPTY_PATH, _WANTED, ctypes.byref(answer)) != 0:
        return None  # a C library or a kernel without the call
    if answer.mask & _WANTED != _WANTED or not answer.born.seconds:
        return None
    return f"{answer.number:x}-{answer.born.seconds:x}-{answer.born.nanoseconds:x}"


@lru_cache(maxsize=1)
def _statx() -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
