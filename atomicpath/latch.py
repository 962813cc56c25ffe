"""One value or one error, told once, to everybody who waits for it in any thread and any event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

from .errors import ValidationError

__all__ = ["Latch", "bounded"]

T = TypeVar("T")


class Latch(Generic[T]):
    """Safe to call from many threads at once; whoever tells waits for nobody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: list[T] = []
        self._error: Exception | None = None
        self._waiting: set[threading.Event] = set()

    @property
    def is_told(self) -> bool:
        return bool(self._value) or self._error is not None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def tell(self, outcome: T | Exception) -> bool:
        """Tell a value, or an error that is raised wherever the value is asked for; False if it was told before."""
        with self._lock:
            if self.is_told:
                return False
            if isinstance(outcome, Exception):
                self._error = outcome
            else:
                self._value.append(outcome)
            for waiter in self._waiting:
                waiter.set()
            return True

    def look(self, otherwise: Callable[[], Exception]) -> T:
        """What was told; raises what `otherwise` makes if nothing was yet."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._value:
                return self._value[0]
        raise otherwise()

    async def told(self, timeout: float) -> bool:
        """Wait at most so many seconds, in any event loop; whether it is told. Cancelling disturbs no other."""
        waiter = self._join()
        try:
            if not waiter.is_set():
                # A thread of its own, which ends as soon as the caller does: no loop's own way to be woken is needed.
                await anyio.to_thread.run_sync(
                    waiter.wait, bounded(timeout), abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
                )
        finally:
            self._leave(waiter)
        return self.is_told

    def wait(self, timeout: float) -> bool:
        """The same for a thread without an event loop; it holds up the one it is called in."""
        waiter = self._join()
        try:
            waiter.wait(bounded(timeout))
        finally:
            self._leave(waiter)
        return self.is_told

    def _join(self) -> threading.Event:
        waiter = threading.Event()
        with self._lock:
            if self.is_told:
                waiter.set()
            self._waiting.add(waiter)
        return waiter

    def _leave(self, waiter: threading.Event) -> None:
        with self._lock:
            self._waiting.discard(waiter)
        waiter.set()  # ends the thread of one that was cancelled


def bounded(timeout: float) -> float:
    """`timeout`, if it may be waited for; else ValidationError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValidationError(f"timeout cannot be {timeout!r}: give the seconds to wait at most, more than 0")
    return float(timeout)
