"""Where conformance checks run: a directory of their own on some storage, and a look at it past the code under test."""

from __future__ import annotations

import abc
from collections.abc import Mapping

__all__ = ["Place"]


class Place(abc.ABC):
    """An empty directory in which nobody else writes, and what is really stored in it.

    `read_all`, `write` and `delete` use a client of the store's own (boto3, `os`, a vendor's SDK), never
    the backend under test: a backend that believes its own cache would otherwise confirm itself. Names are
    relative to the directory, with "/" between their parts.
    """

    url: str
    """The directory. It need not exist, but what it is in must: probes write there, and remove it again."""

    storage_options: Mapping[str, object] = {}

    def __truediv__(self, name: str) -> str:
        return f"{self.url}/{name}"

    @abc.abstractmethod
    def read_all(self, below: str = "") -> dict[str, bytes]:
        """Return the content of every file below a name, by the file's name relative to that name."""

    @abc.abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Store a file, whatever is there, and the directories it needs."""

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file."""
