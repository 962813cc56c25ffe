"""One value or one error, told once, to everybody who waits for it in any thread and any event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

from atomicpath.errors import ValidationError

from .concurrency import wake

__all__ = ["Latch", "bounded"]

T = TypeVar("T")


class Latch(Generic[T]):
    """Safe to call from many threads at once; whoever tells waits for nobody."""

    def __init__(self) -> None:
        # Without a lock, which a signal handler or a forked child could find taken: each step below is indivisible.
        self._told: list[tuple[T | Exception]] = []  # the first one counts
        self._waiting: dict[object, Callable[[], object]] = {}  # how to wake each

    @property
    def is_told(self) -> bool:
        return bool(self._told)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def tell(self, outcome: T | Exception) -> bool:
        """Tell a value, or an error that is raised wherever the value is asked for; False if it was told before."""
        mine = (outcome,)
        self._told.append(mine)
        for wake_up in list(self._waiting.values()):
            wake_up()
        return self._told[0] is mine

    def look(self, otherwise: Callable[[], Exception]) -> T:
        """What was told; raises what `otherwise` makes if nothing was yet."""
        if not self._told:
            raise otherwise()
        (outcome,) = self._told[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def told(self, timeout: float) -> bool:
        """Wait at most so many seconds, in any event loop; whether it is told. Cancelling disturbs no other."""
        token, event = anyio.lowlevel.current_token(), anyio.Event()
        with anyio.move_on_after(bounded(timeout)), self._woken(lambda: wake(token, event.set)):
            if not self.is_told:
                await event.wait()
        return self.is_told

    def wait(self, timeout: float) -> bool:
        """The same for a thread without an event loop; it holds up the one it is called in."""
        events: SimpleQueue[None] = SimpleQueue()  # the one that a signal handler may put into
        with self._woken(lambda: events.put(None)), suppress(Empty):
            if not self.is_told:
                events.get(timeout=bounded(timeout))
        return self.is_told

    @contextmanager
    def _woken(self, wake_up: Callable[[], object]) -> Iterator[None]:
        mine = object()
        self._waiting[mine] = wake_up
        try:
            yield
        finally:
            del self._waiting[mine]


def bounded(timeout: float) -> float:
    """`timeout`, if it may be waited for; else ValidationError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValidationError(f"timeout cannot be {timeout!r}: give the seconds to wait at most, more than 0")
    return float(timeout)
