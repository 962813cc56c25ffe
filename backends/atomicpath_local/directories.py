"""Single directories: exclusive creation with their ancestors, opening, syncing."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from atomicpath.abc import OpenDirectory

from .ancestors import make_ancestors, open_to_sync, settle
from .kinds import inherited
from .system import DIRECTORY, NOFOLLOW, System

__all__ = ["make_directory", "make_parents", "open_directory"]

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
    return LocalDirectory(system, open_to_sync(system, path), path)


def make_directory(system: System, path: str, mode: int | None, durable: bool) -> None:
    try:
        system.call(os.mkdir, path)
    except FileNotFoundError:
        make_ancestors(system, path, durable=durable)
        system.call(os.mkdir, path)
    if mode is None or sys.platform == "win32":  # Windows has no such modes
        return
    try:
        with system.descriptor(path, _OPEN | NOFOLLOW) as fd:
            system.call(os.fchmod, fd, mode | inherited(system.call(os.fstat, fd)))
    except BaseException:
        with suppress(OSError):  # the first error is the one that is raised
            system.call(os.rmdir, path)
        raise


def make_parents(system: System, path: str, durable: bool) -> None:
    make_ancestors(system, path, durable=False)
    if durable:
        settle(system, os.path.dirname(path))
