"""Running a coroutine to its end from blocking code: a script, a thread, a notebook's cell, a forked child."""

from __future__ import annotations

import functools
import queue
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
from upath import UPath

from . import telemetry
from .aio import Committing
from .environment import EventLoopNeeded, current, in_this_thread, use, without_event_loop

__all__ = ["BlockingCommit", "blocking", "blocking_context"]

P = ParamSpec("P")
T = TypeVar("T")

_ENDED = "ended"
_INTERRUPT = "interrupt"


def blocking(function: Callable[P, Coroutine[object, object, T]], *, interruptible: bool = False) -> Callable[P, T]:
    """The blocking form of a coroutine function: same arguments, same documentation."""
    runner = _beside if interruptible else _run

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return runner(functools.partial(function, *args, **kwargs))

    return call


def blocking_context(function: Callable[P, Committing]) -> Callable[P, BlockingCommit]:
    """The same for a function that returns an async context manager."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> BlockingCommit:
        return BlockingCommit(function(*args, **kwargs))

    return call


class BlockingCommit:
    """What the blocking `commit` returns: a context manager, to be entered once."""

    def __init__(self, committing: Committing) -> None:
        self._committing = committing
        self._alone = committing.is_local

    def __enter__(self) -> Path | UPath:
        try:
            return self._run(self._committing.__aenter__)
        except KeyboardInterrupt as interrupt:
            self._abandon(interrupt)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(functools.partial(self._committing.__aexit__, kind, error, trace))
        except KeyboardInterrupt as interrupt:
            self._abandon(interrupt)
            raise

    def _run(self, main: Callable[[], Coroutine[object, object, T]]) -> T:
        if not self._committing.is_local:
            return _beside(main)
        if self._alone and not _in_event_loop():
            try:
                return _alone(main)
            except EventLoopNeeded:
                self._alone = False
        return _run(main)

    def _abandon(self, interrupt: KeyboardInterrupt) -> None:
        """An interrupt may come right before the work begins or after it has ended: then nobody else gives up.

        Does nothing where the work itself saw it, or where it had committed.
        """
        self._run(functools.partial(self._committing.__aexit__, KeyboardInterrupt, interrupt, None))


def _run(main: Callable[[], Coroutine[object, object, T]]) -> T:
    """In this thread, or beside it where an event loop is running here already."""
    return _beside(main) if _in_event_loop() else _here(main)


def _alone(main: Callable[[], Coroutine[object, object, T]]) -> T:
    """Without any event loop, which would cost as much as a whole commit to a disk: no step of one ever waits.

    Ctrl-C is noted and raised when the steps are done; a second one breaks into them.
    """
    noted: list[bool] = []
    error: BaseException | None = None
    value: list[T] = []

    def note(*_: object) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(True)

    with _on_interrupt(note):
        try:
            with without_event_loop():
                main().send(None)
        except StopIteration as end:
            value.append(end.value)
        except BaseException as raised:  # noqa: BLE001 - raised again below
            error = raised
        else:
            error = RuntimeError("a step of a local commit waited for something: this is a mistake in atomicpath")
    if noted and not isinstance(error, EventLoopNeeded):
        raise KeyboardInterrupt from error
    if error is not None:
        raise error
    return value[0]


@contextmanager
def _on_interrupt(handler: Callable[..., object]) -> Generator[None]:
    """Have Ctrl-C call `handler` for the block, where it would else raise KeyboardInterrupt."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _here(main: Callable[[], Coroutine[object, object, T]]) -> T:
    with in_this_thread():
        return anyio.run(main)


def _in_event_loop() -> bool:
    try:
        anyio.lowlevel.current_token()
        return True
    except RuntimeError:
        # In a callback no task runs and anyio sees no loop; asyncio itself, if anybody uses it, knows better.
        running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
        return running is not None and running() is not None


def _beside(main: Callable[[], Coroutine[object, object, T]]) -> T:
    """In a thread of its own: Ctrl-C then cancels as anyio does, which lets a commit and its settlement end.

    An event loop in the main thread would have the interrupt break into the middle of them.
    """
    return _Beside(main).result()


class _Beside(Generic[T]):
    """One coroutine in an event loop of its own, in a thread of its own."""

    def __init__(self, main: Callable[[], Coroutine[object, object, T]]) -> None:
        self._main = main
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._scope: anyio.CancelScope | None = None
        self._events: queue.SimpleQueue[str] = queue.SimpleQueue()  # the one that signal handlers may use
        self._loop: anyio.lowlevel.EventLoopToken | None = None
        self._thread = threading.Thread(target=self._work, name=f"atomicpath, for {threading.current_thread().name}")
        self._environment = current()  # and nothing else of this context, which may say that a loop runs in it,
        self._trace = telemetry.here()  # but who called

    def result(self) -> T:
        interrupt: BaseException | None = None
        ended = cancelled = False
        # only noted, however often it is pressed: raised here, it would let go of the other thread
        with _on_interrupt(lambda *_: self._events.put(_INTERRUPT)):
            self._thread.start()
            while not ended:
                try:
                    ended = self._events.get() == _ENDED
                except BaseException as error:  # noqa: BLE001 - a handler of the user's raised it; raised again below
                    interrupt = interrupt or error
                if not (ended or cancelled):
                    cancelled = True
                    threading.Thread(target=self._cancel, name="atomicpath-cancel", daemon=True).start()
            self._thread.join()
        if cancelled or not self._events.empty():  # an interrupt that came with the end is not swallowed
            raise interrupt or KeyboardInterrupt
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _work(self) -> None:
        try:
            with use(self._environment), telemetry.within(self._trace), in_this_thread():
                anyio.run(self._scoped)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error
        finally:
            self._events.put(_ENDED)

    async def _scoped(self) -> None:
        with anyio.CancelScope() as self._scope:
            self._loop = anyio.lowlevel.current_token()
            self._value.append(await self._main())

    def _cancel(self) -> None:
        if self._scope is None or self._loop is None:
            return
        with suppress(Exception):  # the loop has just ended, and with it what was to be cancelled
            anyio.from_thread.run_sync(self._scope.cancel, token=self._loop)
