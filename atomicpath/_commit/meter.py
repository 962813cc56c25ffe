"""Telling a caller how many bytes of a commit, a copy or a verification are done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from atomicpath._profile.storage_errors import of_the_caller

__all__ = ["Meter", "Progress"]

Progress: TypeAlias = Callable[[int, int], object]
"""Called with the bytes that are done and the bytes in all."""


class Meter:
    """Counts bytes that are done, and tells the caller after each file. An error of the callback comes out as it is."""

    def __init__(self, progress: Progress | None, total: int, *, done: int = 0) -> None:
        self._progress = progress
        self.total = total
        self.done = done

    def add(self, size: int) -> None:
        """Count the bytes of a file, and tell the caller."""
        self.done += size
        self.tell()

    def tell(self) -> None:
        """Tell the caller how far it is."""
        if self._progress is not None:
            with of_the_caller():
                self._progress(self.done, self.total)
