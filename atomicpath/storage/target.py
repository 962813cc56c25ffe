"""What came from a store: a local file that is whole or not there, and how old an object is by the store's clock."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from atomicpath._core.environment import Environment, cleaning_up

__all__ = ["age_of", "check_length", "receive"]

T = TypeVar("T")


async def receive(environment: Environment, target: Path, fetch: Callable[[BinaryIO], Awaitable[T]]) -> T:
    """Create a local file, which must not exist, and have `fetch` fill it; nothing is left of a failed one."""
    file = await environment.step(target.open, "xb")
    try:
        result = await fetch(file)
        await environment.step(file.close)
    except BaseException as error:
        with cleaning_up(target, error):
            await environment.step(_drop, file, target)
        raise
    return result


def check_length(size: int, announced: int) -> None:
    """Raise an `OSError` if a reply's body has not the length that its head announced."""
    if size != announced:
        raise OSError(errno.EIO, f"the reply ended after {size} of {announced} bytes")


def age_of(written: datetime | None, date: str | None) -> float | None:
    """Return the seconds from when an object was written to the `Date` of the reply that said so.

    Return None if one of the two is missing.
    """
    if not date or written is None:
        return None
    try:
        return max((parsedate_to_datetime(date) - written).total_seconds(), 0.0)
    except (TypeError, ValueError):  # not a date, or only one of the two has a time zone
        return None


def _drop(file: BinaryIO, target: Path) -> None:
    with suppress(OSError):  # a full disk fails again at closing
        file.close()
    with suppress(OSError):
        target.unlink()
