"""The directories above a path: making those that are missing, and making their names durable; links are followed."""

from __future__ import annotations

import os
import time

from atomicpath.errors import ValidationError

from .statx import see
from .system import DIRECTORY, System

__all__ = ["make_ancestors", "open_to_sync", "settle", "sync_directory"]

_COARSE = 1_000_000_000  # nanoseconds; more than the steps in which any file system counts
_MOST = 4096

_settled: dict[tuple[int, int, str], tuple[int, int]] = {}
"""The names that this process has made durable, by the device and inode of the directory they are in, and what they
led to then: its inode, and the moment it was made, since an inode is soon given again.

Only that one name matters: the directory that it is in may be as busy as /tmp, and is not synced again for the names of
others. Where no moment of birth is known, the last change of that directory takes its place, for every name that is
made, renamed or deleted in it changes that. Who moves a directory away and back meanwhile has to sync both moves
himself. All this belongs to the process, not to a storage: a storage is opened for every commit.
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

    A directory above which this process may not write ends it: no name in there is ours. A name that this process has
    synced, and that leads where it led then, is not synced again, so that in a series of commits this costs a look at
    each level.
    """
    here = system.call(os.path.realpath, path)
    below = system.call(see, here)
    while (above := os.path.dirname(here)) != here:
        seen = system.call(see, above)
        if seen.device != below.device:
            return
        name = (seen.device, seen.number, os.path.basename(here))
        led_to = (below.number, below.birth or -seen.changed)
        if _settled.get(name) != led_to:
            if not system.call(os.access, above, os.W_OK):
                return
            sync_directory(system, above)
            # A change that follows one of just now could bear the same time.
            if below.birth or system.call(time.time_ns) - seen.changed > _COARSE:
                _remember(name, led_to)
        here, below = above, seen


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


def _remember(name: tuple[int, int, str], led_to: tuple[int, int]) -> None:
    if len(_settled) >= _MOST:
        _settled.clear()
    _settled[name] = led_to


def _exists(system: System, path: str) -> bool:
    try:
        system.call(os.stat, path)
    except FileNotFoundError:
        return False
    return True
