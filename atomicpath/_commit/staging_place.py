"""Where staging directories lie: in a directory of this user, into which nobody else can put anything."""

from __future__ import annotations

import errno
import logging
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from atomicpath._core.environment import Environment
from atomicpath._core.tree_removal import opened
from atomicpath._profile.location import PathLike, local_directory

__all__ = ["VARIABLE", "named_place", "private_place"]

VARIABLE = "ATOMICPATH_STAGING_DIR"
"""The environment variable that names the place if `staging_dir=` does not."""

_LOG = logging.getLogger("atomicpath")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_NOT_OURS = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EACCES, errno.EPERM)  # a link, no directory, or closed
_HAS_OWNERS = hasattr(os, "geteuid")  # Windows has none, and a temporary directory for each user; untested here


def named_place(staging_dir: PathLike | None) -> Path | None:
    """Return the absolute path that the caller or the environment variable names; None if neither does."""
    if staging_dir is not None:
        return local_directory(staging_dir, "staging_dir")
    named = os.environ.get(VARIABLE)
    return local_directory(named, VARIABLE) if named else None


def private_place(environment: Environment, named: Path | None) -> Path:
    """Return the directory to make staging directories in; make it if need be.

    A named directory that nobody else may write to is used itself. In any other, and in the system's temporary
    directory, it is `atomicpath-<uid>`, with mode 0700. Whatever else has that name, such as another user's directory
    or a link, is left as it is, and a directory with a random name is made. So nobody can keep this user from staging.
    """
    within = Path(os.path.realpath(named or tempfile.gettempdir()))
    if not _HAS_OWNERS or (named is not None and _is_ours(environment, within, _OTHERS_WRITE)):
        return within
    name = f"atomicpath-{os.geteuid()}"
    with suppress(FileExistsError):
        environment.call(os.mkdir, within / name, 0o700)
    again = sorted(other for other in environment.call(os.listdir, within) if other.startswith(f"{name}-"))
    for candidate in (name, *again):
        if _is_ours(environment, within / candidate, _OTHERS):
            return within / candidate
    fresh = Path(environment.call(tempfile.mkdtemp, prefix=f"{name}-", dir=within))
    if _is_ours(environment, fresh, _OTHERS):
        _LOG.warning("%s is not a directory of this user alone: staging in %s instead", within / name, fresh)
        return fresh
    environment.call(os.rmdir, fresh)
    _LOG.warning("%s keeps no owners and modes: others who may use it can read and change what is staged", within)
    return within


def _is_ours(environment: Environment, path: Path, denied: int) -> bool:
    """Tell whether `path` is a directory of this user, not a link, with none of the denied permissions."""
    try:
        with opened(environment, str(path)) as fd:
            status = environment.call(os.fstat, fd)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise  # an error of the disk says nothing about the owner
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & denied
