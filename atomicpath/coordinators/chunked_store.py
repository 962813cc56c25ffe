"""Values larger than a store takes at once, such as the manifest of very many files, kept there in parts."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from atomicpath._core.environment import current
from atomicpath.errors import CoordinationError

from .key_value_store import KeyValues

__all__ = ["ChunkedStore"]

_WHOLE, _PARTS = b"=", b"+"


class ChunkedStore(KeyValues):
    """Over `values`, of which none will be larger than `largest` bytes.

    What is larger stands in parts under names that nobody else has, and under its key, written after them, are
    the names. Who deletes the key deletes them too, where this process has written or read it.
    """

    def __init__(self, values: KeyValues, largest: int) -> None:
        self._values = values
        self._largest = largest
        self._lock = threading.Lock()
        self._parts: dict[str, list[str]] = {}  # names of the parts, by the key of the whole value

    def create(self, key: str, value: bytes) -> bytes:
        ours = self._written(key, value)
        found = self._values.create(key, ours)
        if found == ours:
            return value
        self._delete_parts(key)
        return self._read(key, found)

    def put(self, key: str, value: bytes) -> None:
        self._values.put(key, self._written(key, value))

    def collect(self, keys: Sequence[str], seconds: float, waited: float) -> Mapping[str, bytes]:
        return {key: self._read(key, found) for key, found in self._values.collect(keys, seconds, waited).items()}

    def count(self, key: str) -> int:
        return self._values.count(key)

    def delete(self, key: str) -> None:
        self._values.delete(key)
        self._delete_parts(key)

    def _written(self, key: str, value: bytes) -> bytes:
        """Return what to store under the key itself.

        A value that is too large for one key is first stored in parts, each under a key of its own.
        """
        room = self._largest - 1
        if len(value) <= room:
            return _WHOLE + value
        word = current().token()
        starts = range(0, len(value), room)
        names = [f"{key}/{word}/{index}" for index in range(len(starts))]
        with self._lock:
            self._parts[key] = names
        for name, start in zip(names, starts, strict=True):
            self._values.put(name, _WHOLE + value[start : start + room])
        return _PARTS + "\n".join(names).encode()

    def _read(self, key: str, found: bytes) -> bytes:
        if found[:1] == _WHOLE:
            return found[1:]
        names = found[1:].decode().split("\n")
        with self._lock:
            self._parts[key] = names
        parts: list[bytes] = []
        for name in names:  # one at a time: one answer with all parts would be as large as the value that is too large
            part = self._values.collect([name], 0.0, 0.0).get(name)
            if part is None:
                raise CoordinationError(f"a part of the message {key!r} was deleted before it was read here")
            parts.append(part[1:])
        return b"".join(parts)

    def _delete_parts(self, key: str) -> None:
        with self._lock:
            names = self._parts.pop(key, ())
        for name in names:
            self._values.delete(name)
