"""The lock that proves that a process lives, on a file or a directory: it ends with the process."""

from __future__ import annotations

import errno
import os
import stat
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from atomicpath.abc import EntryKind, FileLock
from atomicpath.errors import ValidationError

from .system import NOFOLLOW, NONBLOCK, System, named

if sys.platform != "win32":
    import fcntl

__all__ = ["LockHold", "lock", "lock_file", "lock_new_file"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_NOT_A_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EOPNOTSUPP)
"""By which open(2) refuses a link under O_NOFOLLOW, a directory, a socket, and a device without a driver."""

_TRIES = 16  # each one that fails shows that another process has just replaced or deleted the file


class LockHold(FileLock):
    """An exclusive flock on an open file or directory. `path` is the name it had when it was opened."""

    def __init__(self, system: System, fd: int, path: str) -> None:
        self._system = system
        self._fd: int | None = fd
        self._path = path
        _held.add(self)

    def release(self) -> None:
        """Unlock and close. An `OSError` names the path; the descriptor is closed even then."""
        if sys.platform == "win32" or self._fd is None:
            return
        fd, self._fd = self._fd, None
        with named(self._path):
            try:
                self._system.call(fcntl.flock, fd, fcntl.LOCK_UN)
            finally:
                self._system.call(os.close, fd)

    def keep_if_at(self, path: str) -> bool:
        """Release it, and return False, unless `path` still names what is locked; it is also released by an error."""
        try:
            if self._fd is not None and self._is_at(self._fd, path):
                return True
        except BaseException:
            with suppress(OSError):  # the first error is the one that is raised
                self.release()
            raise
        self.release()
        return False

    def _is_at(self, fd: int, path: str) -> bool:
        try:
            return os.path.samestat(self._system.call(os.fstat, fd), self._system.call(os.lstat, path))
        except FileNotFoundError:
            return False

    def forget(self) -> None:
        """Close the descriptor in a forked child, which neither keeps a share in the lock nor gives it up.

        The lock proves that the parent lives.
        """
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


_held: weakref.WeakSet[LockHold] = weakref.WeakSet()


def _after_fork() -> None:
    for hold in list(_held):
        hold.forget()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


def lock(system: System, fd: int, path: str) -> LockHold | None:
    """Lock an open file or directory; None, and the descriptor closed, where the file system has no locks."""
    if sys.platform == "win32":  # Windows has no such locks
        system.call(os.close, fd)
        return None
    try:
        system.call(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        with suppress(OSError):  # the first error is the one that is raised
            system.call(os.close, fd)
        if isinstance(error, OSError) and error.errno in _NO_LOCKS:
            return None
        raise
    return LockHold(system, fd, path)


def lock_file(system: System, path: str, *, existing: bool = False) -> LockHold | None:
    """Lock the file that `path` names, and make sure that it is still named so.

    One that is missing is created, unless it is to be `existing`: then it is a FileNotFoundError.
    """
    if sys.platform == "win32":  # Windows has no such locks
        return None
    return _locked(system, path, lambda: _open(system, path, existing=existing))


def lock_new_file(system: System, path: str, data: bytes) -> LockHold | None:
    """Create a file that must not exist, write `data` to it, and lock it; it is never locked without its content."""
    return _locked(system, path, lambda: _create(system, path, data))


def _locked(system: System, path: str, open_file: Callable[[], int | None]) -> LockHold | None:
    """Lock what `open_file` opens once it is what `path` names: a sweep may be there first, and delete it."""
    for _ in range(_TRIES):
        with named(path):
            fd = open_file()
            if fd is None:
                continue  # the file was deleted between two calls
            held = lock(system, fd, path)
            if held is None or held.keep_if_at(path):
                return held
    reason = f"another process replaced or deleted it {_TRIES} times while it was being locked: try again later"
    raise OSError(errno.EAGAIN, reason, path)


def _create(system: System, path: str, data: bytes) -> int:
    fd = system.call(os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o666)
    with _closed_on_error(system, fd):
        system.write(fd, data)
    return fd


def _open(system: System, path: str, *, existing: bool) -> int | None:
    """Open a file; None if it was deleted between two calls."""
    fd = _open_whatever(system, path, existing=existing)
    if fd is not None:
        with _closed_on_error(system, fd):
            mode = system.call(os.fstat, fd).st_mode
            if not stat.S_ISREG(mode):
                raise _no_file(path, EntryKind.of_mode(mode))
    return fd


@contextmanager
def _closed_on_error(system: System, fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the first error is the one that is raised
            system.call(os.close, fd)
        raise


def _open_whatever(system: System, path: str, *, existing: bool) -> int | None:
    flags = os.O_RDWR | NOFOLLOW | NONBLOCK
    try:
        return system.call(os.open, path, flags if existing else flags | os.O_CREAT, 0o666)
    except PermissionError as error:
        if existing:
            raise
        # In a sticky directory Linux refuses O_CREAT on another user's file, even to root (fs.protected_regular).
        try:
            return system.call(os.open, path, flags)
        except FileNotFoundError:
            raise error from None
    except OSError as error:
        if error.errno not in _NOT_A_FILE:
            raise
        try:
            kind = EntryKind.of_mode(system.call(os.lstat, path).st_mode)
        except FileNotFoundError:
            return None
        raise _no_file(path, kind) from error


def _no_file(path: str, kind: EntryKind) -> ValidationError:
    return ValidationError(f"{path} is {kind}, where a file that can be locked is needed: move it away")
