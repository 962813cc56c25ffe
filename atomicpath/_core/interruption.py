"""Interruptions of one call: signal handlers are noted and run at safe points, and what may not be broken off says so.

A signal handler that raises may do so between any two byte codes of the main thread: inside an `except` block, right
after a lock was taken, or where its TimeoutError passes for an `OSError` of the storage. So no handler runs inside the
code of a protocol. While a call is under way each handler written in Python is replaced by one that takes a note. The
handlers themselves run at the next safe point, and what one raises ends the call there.
"""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Self, cast

import anyio
import anyio.lowlevel

__all__ = ["GIVING_UP", "Interrupted", "Run", "Signals"]

GIVING_UP = 15.0
"""Seconds that the clean-up of an interrupted call may take."""

_Handler = Callable[[int, FrameType | None], object]

# The functions behind those of `signal`, which convert to enumerations: 64 look-ups take 5 µs and not 200.
_SYSTEM = importlib.import_module("_signal")
_getsignal = cast("Callable[[int], object]", _SYSTEM.getsignal)
_setsignal = cast("Callable[[int, object], object]", _SYSTEM.signal)
_SIGNALS = tuple(sorted(map(int, signal.valid_signals())))


class Interrupted(BaseException):
    """Raised at a safe point where no event loop runs, as its cancellation is elsewhere; never seen by a user.

    The user's own exception does not travel through the protocols: it may be an `OSError`, which they handle.
    """


class Signals:
    """Note the signals of the block, and run their handlers where `deliver` is called, and at the end.

    Only the main thread ever runs signal handlers: in any other one this does nothing. What a handler raises is kept as
    `error`, the first one only. One that raises while the handlers are being exchanged may come out of `__enter__` or
    of `__exit__`; every handler is in its place then.
    """

    def __init__(self, noticed: Callable[[], object] | None = None) -> None:
        """Take the callback `noticed`, which is called when a signal was noted.

        It must be safe to call at any moment.
        """
        self.error: BaseException | None = None
        self.raised = 0
        self._handlers: dict[int, object] = {}
        self._noted: list[tuple[int, FrameType | None]] = []
        self._delivering = False
        self._noticed = noticed

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        try:
            for number in _SIGNALS:
                handler = _getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    _setsignal(number, self._take_note)
        except ValueError:  # an interpreter inside another one has no handlers
            return self
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        self.deliver()

    def deliver(self) -> bool:
        """Run the handlers of the signals that were noted; return whether any has raised by now."""
        while self._noted:
            try:
                self._delivering = True
                number, frame = self._noted.pop(0)
                cast("_Handler", self._handlers[number])(number, frame)
            except BaseException as error:  # noqa: BLE001 - kept for the caller to raise
                self.keep(error)
            finally:
                self._delivering = False
        return self.error is not None

    def keep(self, error: BaseException) -> None:
        """Add an error that was raised in this thread by other means."""
        self.raised += 1
        self.error = self.error or error

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        if self._delivering:  # inside a handler of the user's, which another signal may break into as ever
            cast("_Handler", self._handlers[number])(number, frame)
            return
        self._noted.append((number, frame))
        if self._noticed is not None:
            self._noticed()

    def _restore(self) -> None:
        """Put every handler back, except where the user has set another one meanwhile."""
        for number, handler in self._handlers.items():
            while True:
                try:
                    if _getsignal(number) == self._take_note:
                        _setsignal(number, handler)
                    break
                except BaseException as error:  # noqa: BLE001 - of a handler that is back already; kept
                    self.keep(error)


class Run:
    """One call of a face under way: where it may be broken off, and for how long its clean-up may go on after that.

    `poll`: for a call without an event loop, tells whether it is to be broken off at this safe point.
    """

    def __init__(self, poll: Callable[[], bool] | None = None) -> None:
        self.loop: object = None  # the event loop that the call has to itself
        self._poll = poll
        self.has_event_loop = poll is None  # to wait with
        self._shields = 0
        self._clean_ups: set[anyio.CancelScope] = set()
        self.interrupted = False
        self._until: float | None = None
        self.asked = False  # from any thread: whether the call is to be broken off
        self.break_off: Callable[[], object] | None = None  # how, in its event loop

    @property
    def is_shielded(self) -> bool:
        """True while something is under way that has to come to its end, such as a commit and its settlement."""
        return self._shields > 0

    def check(self) -> None:
        """Raise Interrupted if the call is to be broken off.

        This is a safe point of a call without an event loop.
        """
        if self._poll is not None and not self._shields and self._poll():
            raise Interrupted

    async def checkpoint(self) -> None:
        """Break the call off here if that was asked for.

        This is a safe point of any call. Where steps run in the thread of the call's event loop, the request would
        otherwise be seen only at a wait.
        """
        self.check()
        if self.asked and self.break_off is not None:
            self.break_off()
            await anyio.lowlevel.checkpoint_if_cancelled()

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Let the block end, in a clean-up too: for what is local, or is bounded by itself."""
        self._shields += 1
        try:
            if self._poll is not None:
                yield
            else:
                with anyio.CancelScope(shield=True):
                    yield
        finally:
            self._shields -= 1

    @contextmanager
    def cleaning_up(self, late: Callable[[], object], *, bounded: bool) -> Iterator[None]:
        """Let the block end, but at most GIVING_UP seconds after an interruption.

        Call `late` if it did not end in time. `bounded` says that the interruption itself is the reason for the
        clean-up.
        """
        if self._poll is not None:
            with self.shielded():
                yield
            return
        if _cleaning_up.get():
            yield
            return
        token = _cleaning_up.set(True)
        try:
            with anyio.CancelScope(shield=True) as scope:
                self._clean_ups.add(scope)
                if bounded or self.interrupted:
                    self._bound(scope)
                yield
        finally:
            _cleaning_up.reset(token)
            self._clean_ups.discard(scope)
        if scope.cancelled_caught:
            late()

    def bound(self) -> None:
        """Bound every clean-up that is under way, and each later one, since the call was interrupted.

        Call this in the event loop.
        """
        self.interrupted = True
        for scope in self._clean_ups:
            self._bound(scope)

    def _bound(self, scope: anyio.CancelScope) -> None:
        if self._until is None:
            self._until = anyio.current_time() + GIVING_UP
        scope.deadline = self._until


_cleaning_up: ContextVar[bool] = ContextVar("atomicpath_cleaning_up", default=False)
