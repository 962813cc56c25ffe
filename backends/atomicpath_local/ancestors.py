"""The directories above a path: making those that are missing, and making their names durable; links are followed."""

from __future__ import annotations

import os
import time

from atomicpath.errors import ValidationError

from .system import DIRECTORY, System

__all__ = ["make_ancestors", "open_to_sync", "settle", "sync_directory"]

_COARSE = 1_000_000_000  # nanoseconds; more than the steps in which any file system counts
_MOST = 4096

_settled: dict[tuple[int, int], int] = {}
"""The directories whose names this process has synced, by device and inode, and the time of their last change then.

Every name that is made, renamed or deleted changes that time, so one that has not changed holds no name that is not
durable. It belongs to the process, not to a storage: a storage is opened for every commit.
"""


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
        try:
            system.call(os.mkdir, directory)
        except FileExistsError as error:
            if system.call(os.path.islink, directory) and not _exists(system, directory):
                raise ValidationError(
                    f"{directory} is a symbolic link to {system.call(os.readlink, directory)!r}, which does not exist:"
                    " create that directory, or correct the link"
                ) from error
        if durable:
            sync_directory(system, os.path.dirname(directory))


def settle(system: System, path: str) -> None:
    """Make the names of a directory and of those above it durable, whoever made them, up to the mount they are on.

    A directory above which this process may not write ends it: no name in there is ours. One that has not changed
    since this process synced it is not synced again, so that in a series of commits this costs a stat for each level.
    """
    here = system.call(os.path.realpath, path)
    device = system.call(os.stat, here).st_dev
    while (above := os.path.dirname(here)) != here:
        status = system.call(os.stat, above)
        if status.st_dev != device:
            return
        if _settled.get((status.st_dev, status.st_ino)) != status.st_ctime_ns:
            if not system.call(os.access, above, os.W_OK):
                return
            sync_directory(system, above)
            _remember(system, status)
        here = above


def sync_directory(system: System, path: str) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no directories; untested here
        return
    fd = open_to_sync(system, path)
    with system.closing(fd, path):
        system.sync(fd, path)


def open_to_sync(system: System, path: str) -> int:
    """Open a directory; where it may not be read the error says why that is needed."""
    try:
        return system.call(os.open, path, os.O_RDONLY | DIRECTORY)
    except PermissionError as error:
        reason = (
            f"{error.strerror}: to make a commit durable this directory is opened and synced, which needs permission"
            " to read it: chmod u+r, or pass durable=False to accept that a power cut may undo the commit"
        )
        raise PermissionError(error.errno, reason, path) from error


def _remember(system: System, before: os.stat_result) -> None:
    """Unless it changed just now: a change that follows could bear the same time."""
    if system.call(time.time_ns) - before.st_ctime_ns > _COARSE:
        if len(_settled) >= _MOST:
            _settled.clear()
        _settled[before.st_dev, before.st_ino] = before.st_ctime_ns


def _exists(system: System, path: str) -> bool:
    try:
        system.call(os.stat, path)
    except FileNotFoundError:
        return False
    return True
