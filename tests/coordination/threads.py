"""A job whose ranks are threads of this process: a key-value store in a dictionary, and a way to run them."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import anyio

from atomicpath.abc import Coordinator
from atomicpath.coordinators import KeyValueCoordinator, KeyValues
from tests.support.waiting import PATIENCE

__all__ = ["DictValues", "in_threads", "members"]

T = TypeVar("T")


class DictValues(KeyValues):
    """What the threads share. `requests` counts what was asked of it."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.requests = 0
        self._changed = threading.Condition()

    def create(self, key: str, value: bytes) -> bytes:
        assert value
        with self._changed:
            self.requests += 1
            found = self.values.setdefault(key, value)
            self._changed.notify_all()
            return found

    def put(self, key: str, value: bytes) -> None:
        assert value
        with self._changed:
            self.requests += 1
            self.values[key] = value
            self._changed.notify_all()

    def collect(self, keys: Sequence[str], seconds: float, waited: float) -> Mapping[str, bytes]:
        deadline = time.monotonic() + seconds
        with self._changed:
            self.requests += 1
            while any(key not in self.values for key in keys) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return {key: self.values[key] for key in keys if key in self.values}

    def count(self, key: str) -> int:
        with self._changed:
            self.requests += 1
            number = int(self.values.get(key, b"0")) + 1
            self.values[key] = str(number).encode()
            return number

    def delete(self, key: str) -> None:
        with self._changed:
            self.requests += 1
            self.values.pop(key, None)


def members(size: int, values: KeyValues | None = None) -> list[Coordinator]:
    """The ranks of a job of that size."""
    shared = DictValues() if values is None else values
    return [KeyValueCoordinator(shared, rank, size) for rank in range(size)]


def in_threads(
    ranks: Sequence[Coordinator], main: Callable[[Coordinator], Awaitable[T]], backend: str = "asyncio"
) -> list[T | BaseException]:
    """What `main` of each rank returned or raised, each in a thread and an event loop of its own."""
    outcomes: list[T | BaseException] = [TimeoutError("still running")] * len(ranks)

    def run(index: int) -> None:
        try:
            outcomes[index] = anyio.run(main, ranks[index], backend=backend)
        except BaseException as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(ranks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return outcomes
