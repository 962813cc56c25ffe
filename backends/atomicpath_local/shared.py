"""Directories that several users share: made with their parent's mode and group, removed when they are empty."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress

from atomicpath.abc import EntryKind
from atomicpath.errors import ValidationError

from .system import System

__all__ = ["make_shared_directory", "remove_empty"]

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_STAYS = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS)


def make_shared_directory(system: System, path: str) -> bool:
    parent = system.call(os.stat, os.path.dirname(path))
    with suppress(FileExistsError):
        _make_like(system, path, parent)
        return True
    try:
        found = system.call(os.lstat, path)
    except FileNotFoundError:
        return False  # removed again meanwhile, as the caller will find
    if not stat.S_ISDIR(found.st_mode):
        raise ValidationError(
            f"{path} is {EntryKind.of_mode(found.st_mode)}, where a directory is needed: move it away"
        )
    if sys.platform == "win32":
        return False
    trusted = {0, parent.st_uid, system.call(os.geteuid)}
    if parent.st_mode & stat.S_ISVTX and found.st_uid not in trusted:
        raise ValidationError(
            f"{path} belongs to user {found.st_uid}, who could exchange what you write there before it is published:"
            f" remove it, or commit below a directory that is yours and not {os.path.dirname(path)}"
        )
    return False


def remove_empty(system: System, path: str) -> None:
    try:
        system.call(os.rmdir, path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _STAYS:
            raise


def _make_like(system: System, path: str, parent: os.stat_result) -> None:
    """Make a directory that nobody sees before it has the mode and the group of its parent."""
    mode = stat.S_IMODE(parent.st_mode)
    if sys.platform == "win32" or not mode & _WRITABLE_BY_OTHERS:
        system.call(os.mkdir, path, mode)
        return
    if system.call(os.path.lexists, path):  # with no need of a draft
        raise FileExistsError(errno.EEXIST, "it is there already", path)
    draft = f"{path}-probe-{system.environment.token()}"  # a name that sweep knows, should this process be killed now
    system.call(os.mkdir, draft, 0o700)
    try:
        made = system.call(os.stat, draft)
        if made.st_gid != parent.st_gid:
            with suppress(PermissionError):  # we are not in that group: then its members cannot write here
                system.call(os.chown, draft, -1, parent.st_gid)
        system.call(os.chmod, draft, mode)
        # An empty directory makes room for this one, which is as good; one in use, or a file, does not.
        system.call(os.rename, draft, path)
    except BaseException as error:
        with suppress(OSError):  # the first error is the one that is raised
            system.call(os.rmdir, draft)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.ENOTDIR, errno.EEXIST):
            raise FileExistsError(errno.EEXIST, "it has been made meanwhile", path) from error
        raise
