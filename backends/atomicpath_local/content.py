"""The bytes of a file, from one open file to another: shared extents where there are any, and holes stay holes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator

from .system import System

if sys.platform == "linux":
    import fcntl

__all__ = ["copy_content"]

_PIECE = 1 << 30  # bytes asked of one system call
_BLOCK = 512  # the unit of st_blocks, whatever the file system's own
_FICLONE = 0x40049409  # ioctl_ficlone(2): _IOW(0x94, 9, int)
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOTTY, errno.EOPNOTSUPP, errno.EXDEV)
"""By which ioctl_ficlone(2) and copy_file_range(2) say that these two files cannot be copied that way."""


def copy_content(system: System, reader: int, writer: int, source: str) -> int:
    """Copy a whole file into an empty one, and return its size; an `OSError` if it changed its size meanwhile."""
    status = system.call(os.fstat, reader)
    size = status.st_size
    if not _clone(system, reader, writer):
        for start, end in _extents(system, reader, status):
            if (copied := _copy_range(system, reader, writer, start, end)) != end:
                raise _changed(copied, size, source)
        system.call(os.ftruncate, writer, size)  # what follows the last extent is a hole, too
    for descriptor in (writer, reader):
        if (found := system.call(os.fstat, descriptor).st_size) != size:
            raise _changed(found, size, source)
    return size


def _clone(system: System, reader: int, writer: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        system.call(fcntl.ioctl, writer, _FICLONE, reader)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _extents(system: System, reader: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
    """Yield the parts of a file that are not holes, as the file system knows them (SEEK_DATA in lseek(2))."""
    size = status.st_size
    if sys.platform == "win32" or status.st_blocks * _BLOCK >= size:
        yield from [(0, size)] if size else []
        return
    position = 0
    while position < size:
        try:
            start = system.call(os.lseek, reader, position, os.SEEK_DATA)
            end = min(system.call(os.lseek, reader, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            if error.errno not in _CANNOT:
                raise
            start, end = position, size
        if start < end:
            yield start, end
        position = max(end, position + 1)


def _copy_range(system: System, reader: int, writer: int, start: int, end: int) -> int:
    """Copy a part to the same place; the end of what was there to be copied."""
    position = start
    if sys.platform == "linux":
        try:
            while position < end:
                count = min(_PIECE, end - position)
                taken = system.call(os.copy_file_range, reader, writer, count, position, position)
                if not taken:
                    break  # some file systems say so of what they cannot copy: reading shows what is there
                position += taken
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    if position < end:
        system.call(os.lseek, reader, position, os.SEEK_SET)
        system.call(os.lseek, writer, position, os.SEEK_SET)
    while position < end and (piece := system.read(reader, end - position)):
        system.write(writer, piece)
        position += len(piece)
    return position


def _changed(found: int, announced: int, source: str) -> OSError:
    return OSError(errno.EIO, f"{found} bytes were read where {announced} were announced: it changed meanwhile", source)
