"""A local file that has to stay the same while it is uploaded."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

__all__ = ["Source"]

_FEW = 2**18  # bytes that each file may have in memory before it asks for more


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was when its upload began. A difference found later is an `OSError`."""

    path: Path
    size: int
    state: tuple[int, ...]

    @classmethod
    def look(cls, path: Path) -> Self:
        """Return the file as it is now."""
        found = path.stat()
        return cls(path, found.st_size, _state(found))

    @classmethod
    def take(cls, path: Path) -> tuple[Self, bytes | None]:
        """Return the file as it is now, and its bytes if they are few. One trip to a thread does both."""
        seen = cls.look(path)
        return seen, seen.read(0, seen.size) if seen.size <= _FEW else None

    def open(self) -> BinaryIO:
        """Open the file, and check that it is still the same."""
        file = self.path.open("rb")
        try:
            self.check(file)
        except OSError:
            file.close()
            raise
        return file

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes of the file; all of them are there and were not changed meanwhile."""
        with self.open() as file:
            file.seek(offset)
            data = file.read(length)
            self.check(file)
        if len(data) != length:
            raise OSError(errno.EIO, f"{self.path} ends after {offset + len(data)} of {self.size} bytes")
        return data

    def check(self, file: BinaryIO) -> None:
        """Raise unless the open file is the one seen first, unchanged."""
        if _state(os.fstat(file.fileno())) != self.state:
            raise OSError(errno.EBUSY, f"{self.path} was changed while it was uploaded")


def _state(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
