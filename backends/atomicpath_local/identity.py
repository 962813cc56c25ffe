"""What tells a local directory from every copy of it: its number, the moment it was made, and its file system."""

from __future__ import annotations

import os
import sys

from .statx import see
from .system import System

__all__ = ["identity"]

_SECOND = 1_000_000_000


def identity(system: System, path: str) -> str:
    """Numbers are given again to directories made later, so without the moment of birth nothing is told: ""."""
    if sys.platform != "linux":
        return ""
    seen = system.call(see, f"{path}/")  # a directory, or an error
    if seen.birth is None:
        return ""
    born = f"{seen.birth // _SECOND:x}-{seen.birth % _SECOND:x}"
    return f"{system.call(os.statvfs, path).f_fsid:x}-{seen.number:x}-{born}"
