"""Single files: reading, exclusive creation, atomic replacement, copying in and out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from atomicpath.abc import Content, Entry, EntryKind
from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath.guarantees import Guarantee

from .ages import age_of, changed
from .ancestors import make_ancestors, sync_directory
from .content import copy_content
from .names import UNFINISHED
from .rename import NO_SUCH_RENAME, no_replace
from .system import NOFOLLOW, NONBLOCK, System

__all__ = ["create", "delete", "download", "entry", "look", "read", "upload", "write", "write_private"]

LARGEST_READ = 256 << 20
"""Bytes that `get` takes into memory at most: a record that names 100,000 files has some 10 MB."""

Fill = Callable[[int], None]
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_READ = os.O_RDONLY | NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW


def read(system: System, path: str) -> Content:
    with _opened(system, path, NOFOLLOW) as (fd, status):
        _refuse_if_large(path, status.st_size)
        data = bytearray()
        for piece in system.chunks(fd):
            data += piece
            _refuse_if_large(path, len(data))
        age = age_of(system, path, status, status.st_mtime_ns)
    return Content(data=bytes(data), version=None, age=age)


def entry(system: System, path: str) -> Entry | None:
    try:
        status = system.call(os.lstat, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Entry(name="", size=status.st_size, kind=EntryKind.of_mode(status.st_mode))


def look(system: System, path: str) -> Entry | None:
    """Return what `entry` returns, with the age and the mode."""
    try:
        status = system.call(os.lstat, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind, mode = EntryKind.of_mode(status.st_mode), stat.S_IMODE(status.st_mode)
    return Entry(name="", size=status.st_size, kind=kind, age=age_of(system, path, status, changed(status)), mode=mode)


def create(system: System, path: str, data: bytes) -> None:
    if entry(system, path) is not None:  # so that a late writer leaves no trace in the directory of another one
        raise FileExistsError(errno.EEXIST, "something is there already", path)
    _publish(system, path, lambda fd: system.write(fd, data), exclusive=True)


def write(system: System, path: str, data: bytes) -> None:
    _publish(system, path, lambda fd: system.write(fd, data), exclusive=False)


def write_private(system: System, path: str, data: bytes) -> None:
    # Not O_TRUNC: ext4 writes a file that was truncated to the disk as soon as it is closed (auto_da_alloc in ext4(5)).
    with system.descriptor(path, os.O_WRONLY | os.O_CREAT | NOFOLLOW) as fd:
        system.write(fd, data)
        if system.call(os.fstat, fd).st_size > len(data):
            system.call(os.ftruncate, fd, len(data))


def upload(system: System, path: str, source: Path) -> Entry:
    with _opened(system, str(source), 0) as (fd, status):
        make_ancestors(system, path, durable=True)

        def fill(writer: int) -> None:
            copy_content(system, fd, writer, str(source))

        _publish(system, path, fill, exclusive=True, mode=_permissions(status))
    return Entry(name="", size=status.st_size)


def download(system: System, path: str, target: Path) -> Entry:
    with _opened(system, path, NOFOLLOW) as (fd, status):

        def fill(writer: int) -> None:
            copy_content(system, fd, writer, path)

        _fill(system, str(target), fill, durable=False, mode=_permissions(status))
    return Entry(name="", size=status.st_size)


def delete(system: System, path: str) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        system.call(os.unlink, path)


@contextmanager
def _opened(system: System, path: str, flags: int) -> Iterator[tuple[int, os.stat_result]]:
    with _refusals_of_an_open(path), system.descriptor(path, _READ | flags) as fd:
        status = system.call(os.fstat, fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValidationError(f"{path} is {EntryKind.of_mode(status.st_mode)}, not a file: move it away")
        yield fd, status


@contextmanager
def _refusals_of_an_open(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename != path:
            raise
        if error.errno == errno.ENOTDIR:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        if error.errno in (errno.ELOOP, errno.EMLINK):  # EMLINK: FreeBSD's word for O_NOFOLLOW
            raise ValidationError(f"{path} is a symbolic link, not a file: move it away") from error
        if error.errno in (errno.ENXIO, errno.ENODEV):
            raise ValidationError(f"{path} is a socket or a device, not a file: move it away") from error
        raise


def _permissions(status: os.stat_result) -> int:
    """Return the permission bits of a copy, less the umask, as cp(1) has them."""
    return status.st_mode & 0o777


def _refuse_if_large(path: str, size: int) -> None:
    if size > LARGEST_READ:
        raise ValidationError(
            f"{path} has {size} bytes, where a small file is expected, of at most {LARGEST_READ}: it is not one of"
            " atomicpath's own; move it away"
        )


def _fill(system: System, path: str, fill: Fill, *, durable: bool, mode: int = 0o666) -> None:
    """Write a file that must not exist; none is left behind after an error."""
    ours = False
    try:
        with system.descriptor(path, _NEW, mode) as fd:
            ours = True
            fill(fd)
            if durable:
                system.sync(fd, path)
    except BaseException:
        if ours:
            _discard(system, path)
        raise


def _publish(system: System, path: str, fill: Fill, *, exclusive: bool, mode: int = 0o666) -> None:
    """Make a file appear whole under its name, durably: nobody ever sees, or finds after a power cut, a part."""
    parent = os.path.dirname(path)
    temporary = f"{parent}/{UNFINISHED}{system.environment.token()}"
    _fill(system, temporary, fill, durable=True, mode=mode)
    try:
        if exclusive:
            _link(system, temporary, path)
        else:
            system.call(os.replace, temporary, path)
    except BaseException:
        _discard(system, temporary)
        raise
    sync_directory(system, parent)


def _discard(system: System, path: str) -> None:
    with suppress(OSError):  # another error is being raised, and is the one to report
        system.call(os.unlink, path)


def _link(system: System, temporary: str, path: str) -> None:
    try:
        system.call(os.link, temporary, path)
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, "something is there already", path) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_file(system, temporary, path)
    else:
        system.call(os.unlink, temporary)


def _rename_file(system: System, temporary: str, path: str) -> None:
    try:
        system.call(no_replace, temporary, path)
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, "something is there already", path) from error
    except OSError as error:
        if error.errno not in NO_SUCH_RENAME:
            raise
        raise GuaranteeError(
            f"{path}: the file system there has neither hard links nor a rename that refuses an existing target, "
            f"so {Guarantee.EXCLUSIVE_CREATE} does not hold: publish on another one"
        ) from error
