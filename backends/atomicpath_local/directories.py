"""Single directories: exclusive creation with their ancestors, opening, holding."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

from atomicpath.abc import Hold, OpenDirectory

from .ancestors import make_ancestors, open_to_sync, settle
from .kinds import inherited
from .locks import LockHold, lock
from .system import DIRECTORY, NOFOLLOW, System

__all__ = ["hold_directory", "make_directory", "open_directory"]

_OPEN = os.O_RDONLY | DIRECTORY


class LocalDirectory(OpenDirectory):
    """An open directory of a local file system."""

    def __init__(self, system: System, fd: int, path: str) -> None:
        self._system = system
        self._fd: int | None = fd
        self._path = path

    async def sync(self) -> None:
        if self._fd is None:
            raise ValueError(f"{self._path} has been closed: sync a directory while it is open")
        await self._system.environment.step(self._system.sync, self._fd, self._path)

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):  # it was only read: nothing can be lost by a failing close
                self._system.call(os.close, fd)


def open_directory(system: System, path: str) -> OpenDirectory | None:
    if sys.platform == "win32":  # it opens no directories; untested here
        return None
    opened = LocalDirectory(system, open_to_sync(system, path), path)
    try:
        settle(system, path)
    except BaseException:
        opened.close()
        raise
    return opened


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
    if held is not None and not held.keep_if_at(path):
        raise FileNotFoundError(errno.ENOENT, "it was renamed or replaced while it was being held", path)
    return held


def _hold(system: System, path: str, mode: int | None) -> LockHold | None:
    if sys.platform == "win32":  # it opens no directories; untested here
        return None
    fd = system.call(os.open, path, _OPEN | NOFOLLOW)
    try:
        if mode is not None:
            system.call(os.fchmod, fd, mode | inherited(system.call(os.fstat, fd)))
    except BaseException:
        with suppress(OSError):
            system.call(os.close, fd)
        raise
    return lock(system, fd, path)
