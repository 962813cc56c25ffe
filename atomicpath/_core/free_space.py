"""Room on a local file system: whether what is to be written fits, and what to do once it is full or read-only."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from atomicpath.errors import ValidationError

from .environment import Environment

__all__ = ["describe", "expect_room", "is_full", "is_used_up", "stored_size"]

_BLOCK = 512  # bytes in one unit of st_blocks, stat(2)
_NEXT_TO_NOTHING = 64 * 1024  # bytes
_REASONS = {
    errno.ENOSPC: "the file system is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
}


def is_full(error: BaseException) -> bool:
    """Tell whether an error, or one that it came from, says that a file system accepts no more data."""
    seen: list[BaseException] = []
    pending: BaseException | None = error
    while pending is not None and pending not in seen:
        if isinstance(pending, OSError) and pending.errno in _REASONS:
            return True
        seen.append(pending)
        pending = pending.__cause__ or pending.__context__
    return False


def is_used_up(environment: Environment, directory: str | os.PathLike[str]) -> bool:
    """Tell whether almost nothing is free where `directory` is.

    Libraries often raise an error of their own for that.
    """
    free = _free(environment, Path(directory))
    return free is not None and free < _NEXT_TO_NOTHING


def describe(environment: Environment, error: OSError, directory: str | os.PathLike[str], advice: str) -> str:
    """Describe an error in words.

    If `directory` accepts no more data, the text has its name, how much is free there, and the advice.
    """
    reason = _REASONS.get(error.errno or 0)
    if reason is None:
        return str(error)
    free = _free(environment, Path(directory))
    left = "" if free is None or error.errno == errno.EROFS else f" ({_shown(free)} free)"
    at = f" at {error.filename}" if error.filename else ""
    return f"{reason} in {directory}{left}: {error.strerror}{at}. {advice}"


def expect_room(environment: Environment, directory: Path, needed: int, advice: str) -> None:
    """Raise ValidationError if more than the free bytes are needed where `directory` is or will be.

    A file system that does not tell how much is free is not asked twice. What others write meanwhile, and quotas, show
    only later.
    """
    free = _free(environment, directory)
    if free is not None and needed > free:
        raise ValidationError(
            f"{directory} has not enough room: {_shown(needed)} are needed, {_shown(free)} are free. Nothing was"
            f" written. {advice}"
        )


def stored_size(status: os.stat_result) -> int:
    """Return the bytes that a file takes on its disk, at most its size.

    A file with holes, or on a file system that compresses, takes less. A file system that does not tell says 0.
    """
    return min(status.st_size, getattr(status, "st_blocks", 0) * _BLOCK)


def _free(environment: Environment, directory: Path) -> int | None:
    """Return the bytes that this user may still write; None if the file system does not tell."""
    if not hasattr(os, "statvfs"):
        return None  # Windows; untested here
    for place in (directory, *directory.parents):
        try:
            found = environment.call(os.statvfs, place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
        blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
        return blocks * found.f_frsize if found.f_blocks else None  # some FUSE mounts have no size
    return None


def _shown(size: int) -> str:
    return f"{size:,} bytes"
