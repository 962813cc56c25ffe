"""Single files: reading, exclusive creation, atomic replacement, copying in and out."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from atomicpath.abc import Content, Entry
from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath.guarantees import Guarantee

from .directories import make_ancestors, sync_directory
from .kinds import kind_of
from .rename import NO_SUCH_RENAME, no_replace
from .system import NOFOLLOW, NONBLOCK, System

__all__ = ["UNFINISHED", "create", "delete", "download", "entry", "look", "read", "upload", "write", "write_private"]

UNFINISHED = ".atomicpath-tmp-"  # what the core never counts as committed; short, so that long names fit
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW


def read(system: System, path: str) -> Content:
    with _opened(system, path) as (fd, status):
        data = b"".join(system.chunks(fd))
        now = system.call(time.time_ns)
    return Content(data=data, version=None, age=max(0.0, (now - status.st_mtime_ns) / 1e9))


def entry(system: System, path: str) -> Entry | None:
    try:
        status = system.call(os.lstat, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Entry(name="", size=status.st_size, kind=kind_of(status.st_mode))


def look(system: System, path: str) -> Entry | None:
    """As `entry`, with the age and the mode."""
    try:
        status = system.call(os.lstat, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind, mode = kind_of(status.st_mode), stat.S_IMODE(status.st_mode)
    return Entry(name="", size=status.st_size, kind=kind, age=system.age(status), mode=mode)


def create(system: System, path: str, data: bytes) -> None:
    if entry(system, path) is not None:  # so that a writer that comes late leaves no trace in the other's directory
        raise FileExistsError(errno.EEXIST, "something is there already", path)
    _publish(system, path, [data], exclusive=True)


def write(system: System, path: str, data: bytes) -> None:
    _publish(system, path, [data], exclusive=False)


def write_private(system: System, path: str, data: bytes) -> None:
    # Not O_TRUNC: ext4 writes a file that was truncated to the disk as soon as it is closed (auto_da_alloc in ext4(5)).
    with system.descriptor(path, os.O_WRONLY | os.O_CREAT | NOFOLLOW) as fd:
        system.write(fd, data)
        if system.call(os.fstat, fd).st_size > len(data):
            system.call(os.ftruncate, fd, len(data))


def upload(system: System, path: str, source: Path) -> Entry:
    with _opened(system, str(source)) as (fd, status):
        make_ancestors(system, path, durable=True)
        _publish(system, path, _checked(system, fd, str(source), status.st_size), exclusive=True)
    return Entry(name="", size=status.st_size)


def download(system: System, path: str, target: Path) -> Entry:
    with _opened(system, path) as (fd, status):
        _fill(system, str(target), _checked(system, fd, path, status.st_size), durable=False)
    return Entry(name="", size=status.st_size)


def delete(system: System, path: str) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        system.call(os.unlink, path)


@contextmanager
def _opened(system: System, path: str) -> Iterator[tuple[int, os.stat_result]]:
    with _absent_if_below_a_file(), system.descriptor(path, os.O_RDONLY | NONBLOCK) as fd:
        status = system.call(os.fstat, fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValidationError(f"{path} is {kind_of(status.st_mode)}, not a file: move it away")
        yield fd, status


@contextmanager
def _absent_if_below_a_file() -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), error.filename) from error


def _checked(system: System, fd: int, path: str, size: int) -> Iterator[bytes]:
    copied = 0
    for piece in system.chunks(fd):
        copied += len(piece)
        yield piece
    if copied != size:
        raise OSError(errno.EIO, f"{copied} bytes were read where {size} were announced: it changed meanwhile", path)


def _fill(system: System, path: str, pieces: Iterable[bytes], *, durable: bool) -> None:
    """Write a file that must not exist; none is left behind after an error."""
    ours = False
    try:
        with system.descriptor(path, _NEW) as fd:
            ours = True
            for piece in pieces:
                system.write(fd, piece)
            if durable:
                system.sync(fd, path)
    except BaseException:
        if ours:
            _discard(system, path)
        raise


def _publish(system: System, path: str, pieces: Iterable[bytes], *, exclusive: bool) -> None:
    """Make a file appear whole under its name, durably: nobody ever sees, or finds after a power cut, a part."""
    parent = os.path.dirname(path)
    temporary = f"{parent}/{UNFINISHED}{system.environment.token()}"
    _fill(system, temporary, pieces, durable=True)
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
    with suppress(OSError):  # an error is on its way already, and is the one to report
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
