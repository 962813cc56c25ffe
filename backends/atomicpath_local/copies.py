"""Copying files within and between local file systems: shared extents where there are any, else bytes."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence

from atomicpath.errors import ValidationError
from atomicpath.storage import in_threads

from .kinds import kind_of
from .system import NOFOLLOW, NONBLOCK, System

if sys.platform == "linux":
    import fcntl

__all__ = ["copy_files"]

_THREADS = 8
_FEW = 16  # below this starting threads costs more than it saves
_PIECE = 1 << 30  # bytes asked of one system call
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW
_FICLONE = 0x40049409  # ioctl_ficlone(2): _IOW(0x94, 9, int)
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOTTY, errno.EOPNOTSUPP, errno.EXDEV)
"""By which ioctl_ficlone(2) and copy_file_range(2) say that these two files cannot be copied that way."""


def copy_files(system: System, source: str, target: str, names: Sequence[str]) -> None:
    directories = sorted({above for name in names for above in _above(name)})
    for name in directories:
        system.call(os.mkdir, f"{target}/{name}", 0o700)

    def copy(name: str) -> None:
        _copy(system, f"{source}/{name}", f"{target}/{name}")

    if len(names) > _FEW:
        in_threads(copy, names, threads=_THREADS)
    else:
        for name in names:
            copy(name)
    for name in reversed(directories):  # last: one that may not be written to could not be filled
        mode = stat.S_IMODE(system.call(os.lstat, f"{source}/{name}").st_mode)
        system.call(os.chmod, f"{target}/{name}", mode)


def _above(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _copy(system: System, source: str, target: str) -> None:
    with system.descriptor(source, os.O_RDONLY | NOFOLLOW | NONBLOCK) as reader:
        status = system.call(os.fstat, reader)
        if not stat.S_ISREG(status.st_mode):
            raise ValidationError(f"{source} is {kind_of(status.st_mode)}, not a file: put a file in its place")
        with system.descriptor(target, _NEW, 0o600) as writer:
            _fill(system, reader, writer)
            if (size := system.call(os.fstat, writer).st_size) != status.st_size:
                reason = f"{size} bytes were copied where {status.st_size} were announced: it changed meanwhile"
                raise OSError(errno.EIO, reason, source)
            if sys.platform != "win32":
                system.call(os.fchmod, writer, stat.S_IMODE(status.st_mode))


def _fill(system: System, reader: int, writer: int) -> None:
    if sys.platform == "linux":
        try:
            system.call(fcntl.ioctl, writer, _FICLONE, reader)
            return
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        try:
            while system.call(os.copy_file_range, reader, writer, _PIECE):
                pass
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    for piece in system.chunks(reader):  # from where the kernel's own copy left off
        system.write(writer, piece)
