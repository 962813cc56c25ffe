"""A kernel that reports other mounts than there are, for environments of tests."""

from __future__ import annotations

from atomicpath_local.lookup import read_proc
from atomicpath_local.statx import Seen, see

__all__ = ["ASKED", "answer"]

ASKED = (read_proc, see)
"""The calls by which the local backend asks the kernel for mounts."""


def answer(mountinfo: str, function: object, place: str | int) -> str | Seen:
    """Answer one of these calls. No mount has a number, so that `mountinfo` decides."""
    if function is see:
        return see(place)._replace(mount=None)
    return mountinfo if str(place).endswith("mountinfo") else "flags: 0\n"
