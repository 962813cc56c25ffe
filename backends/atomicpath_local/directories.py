"""Single directories: exclusive creation with their ancestors, the lock that proves life, syncing."""

from __future__ import annotations

import errno
import os
import sys
import weakref
from contextlib import suppress

from atomicpath.abc import Hold

from .system import DIRECTORY, NOFOLLOW, System

if sys.platform != "win32":
    import fcntl

__all__ = ["LockHold", "hold_directory", "make_ancestors", "make_directory", "sync_directory"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class LockHold(Hold):
    """An exclusive flock on a directory's descriptor."""

    def __init__(self, system: System, fd: int) -> None:
        self._system = system
        self._fd: int | None = fd
        _held.add(self)

    def release(self) -> None:
        if sys.platform == "win32" or self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            self._system.call(fcntl.flock, fd, fcntl.LOCK_UN)
        finally:
            self._system.call(os.close, fd)

    def is_at(self, path: str) -> bool:
        """Whether the name is still that of the directory held."""
        if self._fd is None:
            return False
        try:
            return os.path.samestat(self._system.call(os.fstat, self._fd), self._system.call(os.lstat, path))
        except FileNotFoundError:
            return False

    def forget(self) -> None:
        """In a forked child: the lock proves its parent's life, so it neither keeps a share in it nor gives it up."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


_held: weakref.WeakSet[LockHold] = weakref.WeakSet()


def _after_fork() -> None:
    for hold in list(_held):
        hold.forget()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


def make_directory(system: System, path: str, mode: int | None, durable: bool) -> Hold | None:
    try:
        system.call(os.mkdir, path)
    except FileNotFoundError:
        make_ancestors(system, path, durable=durable)
        system.call(os.mkdir, path)
    try:
        return _hold(system, path, mode)
    except BaseException:
        with suppress(OSError):
            system.call(os.rmdir, path)
        raise


def hold_directory(system: System, path: str) -> Hold | None:
    held = _hold(system, path, None)
    if isinstance(held, LockHold) and not held.is_at(path):
        held.release()
        raise FileNotFoundError(errno.ENOENT, "it was renamed or replaced while it was being held", path)
    return held


def make_ancestors(system: System, path: str, *, durable: bool) -> None:
    """Create the directories above `path` that are missing, each synced into its parent if `durable`.

    One that another process makes meanwhile is synced too: its maker may not have come to that yet.
    """
    missing = []
    above = os.path.dirname(path)
    while not _exists(system, above):
        missing.append(above)
        above = os.path.dirname(above)
    for directory in reversed(missing):
        with suppress(FileExistsError):
            system.call(os.mkdir, directory)
        if durable:
            sync_directory(system, os.path.dirname(directory))


def sync_directory(system: System, path: str) -> None:
    system.sync_path(path, DIRECTORY)


def _exists(system: System, path: str) -> bool:
    try:
        system.call(os.stat, path)
    except FileNotFoundError:
        return False
    return True


def _hold(system: System, path: str, mode: int | None) -> Hold | None:
    if sys.platform == "win32":  # it opens no directories; untested here
        return None
    fd = system.call(os.open, path, os.O_RDONLY | DIRECTORY | NOFOLLOW)
    try:
        if mode is not None:
            system.call(os.fchmod, fd, mode)
        system.call(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        with suppress(OSError):
            system.call(os.close, fd)
        if isinstance(error, OSError) and error.errno in _NO_LOCKS:
            return None
        raise
    return LockHold(system, fd)
