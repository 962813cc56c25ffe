"""What a mode says of a directory: what it has from its parent."""

from __future__ import annotations

import os
import stat

__all__ = ["inherited"]


def inherited(status: os.stat_result) -> int:
    """The setgid bit that a new directory has from its parent (mkdir(2)): setting a mode must not lose it."""
    return status.st_mode & stat.S_ISGID if stat.S_ISDIR(status.st_mode) else 0
