"""What tells a local directory from every copy of it: its number, the moment it was made, and its file system."""

from __future__ import annotations

import os
import sys

from .statx import see
from .system import System

__all__ = ["identity"]

_SECOND = 1_000_000_000


def identity(system: System, path: str) -> str:
    """Return a text that tells a directory from all others, or "" where the moment of birth is not known.

    Inode numbers are given again to directories made later, so a number without the moment of birth tells nothing.
    """
    if sys.platform != "linux":
        return ""
    seen = system.call(see, f"{path}/")  # a directory, or an error
    if seen.birth is None:
        return ""
    born = f"{seen.birth // _SECOND:x}-{seen.birth % _SECOND:x}"
    return f"{system.call(os.statvfs, path).f_fsid:x}-{seen.number:x}-{born}"
