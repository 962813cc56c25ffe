"""What tells a local directory from every copy of it: its number, the moment it was made, and its file system."""

from __future__ import annotations

import os
import sys

from .statx import see
from .system import DIRECTORY, System

__all__ = ["identity"]

_FOR_LOOKING: int = getattr(os, "O_PATH", os.O_RDONLY)  # needs no permission on the directory itself
_SECOND = 1_000_000_000


def identity(system: System, path: str) -> str:
    """Numbers are given again to directories made later, so without the moment of birth nothing is told: ""."""
    if sys.platform != "linux":
        return ""
    with system.descriptor(path, _FOR_LOOKING | DIRECTORY) as fd:
        seen = system.call(see, fd)
        if seen.birth is None:
            return ""
        born = f"{seen.birth // _SECOND:x}-{seen.birth % _SECOND:x}"
        return f"{system.call(os.fstatvfs, fd).f_fsid:x}-{seen.number:x}-{born}"
