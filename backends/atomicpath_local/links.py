"""Symbolic links: read, made, and moved from one target to another in one step."""

from __future__ import annotations

import errno
import os

from atomicpath.errors import GuaranteeError

from .ancestors import sync_directory
from .names import UNFINISHED
from .rename import exchange_directories
from .system import System

__all__ = ["link_target", "set_link"]

_TRIES = 100  # each lost to somebody who made or removed the same link at that moment


def link_target(system: System, path: str) -> str | None:
    try:
        return system.call(os.readlink, path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTDIR):  # not a link; a file above it
            return None
        raise


def set_link(system: System, path: str, target: str) -> None:
    for _ in range(_TRIES):
        try:
            system.call(os.symlink, target, path)
        except FileExistsError:
            if _moved(system, path, target):
                break
        else:
            break
    else:
        raise OSError(errno.EBUSY, "the link is made and removed by others again and again", path)
    sync_directory(system, os.path.dirname(path))


def _moved(system: System, path: str, target: str) -> bool:
    """Put a new link in the place of the one that is there; False if that has gone meanwhile."""
    if link_target(system, path) is None:
        if system.call(os.path.lexists, path):
            raise FileExistsError(errno.EEXIST, "something that is no link is there", path)
        return False
    temporary = f"{os.path.dirname(path)}/{UNFINISHED}{system.environment.token()}"
    system.call(os.symlink, target, temporary)
    try:
        exchange_directories(system, temporary, path)  # what was there comes out, and can be looked at
    except GuaranteeError:  # rename(2) does it as well, unless somebody has just put a file of his own in its place
        system.call(os.replace, temporary, path)
        return True
    except FileNotFoundError:
        system.call(os.unlink, temporary)
        return False
    except BaseException:
        system.call(os.unlink, temporary)
        raise
    if link_target(system, temporary) is None:
        exchange_directories(system, temporary, path)
        system.call(os.unlink, temporary)
        raise FileExistsError(errno.EEXIST, "something that is no link is there", path)
    system.call(os.unlink, temporary)
    return True
