"""How much of the files that are sent and fetched is in memory at once, and how many requests move them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.lowlevel

__all__ = ["CONNECTIONS", "Budget", "memory_for"]

_BYTES = 128 * 2**20
_REQUESTS = 64

CONNECTIONS = _REQUESTS + 16
"""The requests of one event loop at once: those that move data, and the others, which must not wait behind them."""


def memory_for(size: int) -> AbstractAsyncContextManager[None]:
    """Return a block in which a request may hold so many bytes of a file in memory.

    All such blocks of one event loop hold 128 MiB at most, or one of them alone more, and there are 64 at most. Whoever
    comes first goes first: a large body is not kept waiting by small ones.
    """
    budget = _budgets.get(None)
    if budget is None:
        budget = Budget(_BYTES, _REQUESTS)
        _budgets.set(budget)
    return budget.hold(size)


class Budget:
    """Bytes and places that are given out in the order in which they were asked for.

    A block that wants more bytes than there are gets all of them, and so is alone.
    """

    def __init__(self, size: int, places: int) -> None:
        self._size = size
        self._free = size
        self._places = places
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold so many bytes in the block, and one place."""
        size = min(size, self._size)
        turn = anyio.Event()
        self._waiting.append((size, turn))
        self._admit()
        try:
            if not turn.is_set():
                await turn.wait()
            yield
        finally:
            if turn.is_set():
                self._free += size
                self._places += 1
            else:
                self._waiting.remove((size, turn))
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._places and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            self._free -= size
            self._places -= 1
            turn.set()


_budgets: anyio.lowlevel.RunVar[Budget] = anyio.lowlevel.RunVar("atomicpath_budget")
