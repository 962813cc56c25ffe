"""What a mode says of a directory: what it has from its parent."""

from __future__ import annotations

import os
import stat

__all__ = ["inherited"]


def inherited(status: os.stat_result) -> int:
    """Return the setgid bit that a new directory has from its parent (mkdir(2)).

    Setting a mode must not lose this bit.
    """
    return status.st_mode & stat.S_ISGID if stat.S_ISDIR(status.st_mode) else 0
