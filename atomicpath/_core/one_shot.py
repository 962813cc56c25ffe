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

__all__ = ["OneShot", "bounded"]

T = TypeVar("T")


class OneShot(Generic[T]):
    """Safe to call from many threads at once; whoever tells waits for nobody."""

    def __init__(self) -> None:
        # Without a lock, which a signal handler or a forked child could find taken: each step below is indivisible.
        self._told: list[tuple[T | Exception]] = []  # the first one counts
        self._waiting: dict[object, Callable[[], object]] = {}  # how to wake each

    @property
    def is_set(self) -> bool:
        return bool(self._told)

    @property
    def waiting(self) -> int:
        """The number of waits that are under way."""
        return len(self._waiting)

    def set(self, outcome: T | Exception) -> bool:
        """Set a value, or an error that `result` raises.

        Return False if another outcome was set before, which then stays.
        """
        mine = (outcome,)
        self._told.append(mine)
        for wake_up in list(self._waiting.values()):
            wake_up()
        return self._told[0] is mine

    def result(self, otherwise: Callable[[], Exception]) -> T:
        """Return the value that was set, or raise the error that was set.

        Raise what `otherwise` makes if nothing was set yet.
        """
        if not self._told:
            raise otherwise()
        (outcome,) = self._told[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds, in any event loop; return whether the outcome is set.

        Cancelling one wait disturbs no other.
        """
        token, event = anyio.lowlevel.current_token(), anyio.Event()
        with anyio.move_on_after(bounded(timeout)), self._woken(lambda: wake(token, event.set)):
            if not self.is_set:
                await event.wait()
        return self.is_set

    def wait_blocking(self, timeout: float) -> bool:
        """Wait as `wait` does, in a thread without an event loop, and block that thread."""
        events: SimpleQueue[None] = SimpleQueue()  # the one kind of queue that a signal handler may put into
        with self._woken(lambda: events.put(None)), suppress(Empty):
            if not self.is_set:
                events.get(timeout=bounded(timeout))
        return self.is_set

    @contextmanager
    def _woken(self, wake_up: Callable[[], object]) -> Iterator[None]:
        mine = object()
        self._waiting[mine] = wake_up
        try:
            yield
        finally:
            del self._waiting[mine]


def bounded(timeout: float) -> float:
    """Return `timeout` if it is a time that can be waited for; else raise ValidationError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValidationError(f"timeout cannot be {timeout!r}: give the seconds to wait at most, more than 0")
    return float(timeout)
