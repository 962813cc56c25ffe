"""What crosses threads: waking an event loop, threads for many items, a lock that signals and forks may meet."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterable
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
from anyio.lowlevel import EventLoopToken

__all__ = ["InThread", "Lock", "Turn", "in_threads", "start_thread", "wake"]

T = TypeVar("T")

_CANCELLED_WAIT = 5.0  # seconds that a function has to end after its caller was cancelled


class Lock:
    """A lock that the thread which has it may take again, and that a forked child finds free.

    A signal handler runs in the main thread, which may have the lock; in a forked child the thread that had it does not
    exist.
    """

    def __init__(self) -> None:
        self._locks: dict[int, Any] = {}  # by process

    def __enter__(self) -> None:
        self._mine().acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mine().release()

    def _mine(self) -> Any:
        pid = os.getpid()
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.RLock())


class Turn:
    """One of many takes it, in any task and thread, and nobody waits for it. In a forked child it is free."""

    def __init__(self) -> None:
        self._free: dict[int, list[None]] = {}  # by process; taking an element out of a list is indivisible

    def take(self) -> bool:
        """Take it if it is free; return whether it was."""
        try:
            self._free.setdefault(os.getpid(), [None]).pop()
        except IndexError:
            return False
        return True

    def give_back(self) -> None:
        """Give it to the next one that waits."""
        self._free[os.getpid()].append(None)


def wake(token: EventLoopToken, function: Callable[[], object]) -> None:
    """Have an event loop call a function soon, from any thread and any signal handler.

    Do nothing if that loop has ended. Unlike `anyio.from_thread`, this waits for nothing.
    """
    native: Any = token.native_token
    call = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon  # of asyncio, of trio
    try:
        # In a context of its own: the caller's may say that another kind of loop runs.
        Context().run(call, function)
    except RuntimeError:
        return  # closed: nobody waits in it any more


def start_thread(function: Callable[[], object], name: str) -> bool:
    """Start a thread; return False if none can be started, as at the end of the interpreter."""
    thread = threading.Thread(target=function, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


class InThread(Generic[T]):
    """One function in a daemon thread of its own, under way from the start. Who waits for it may leave it behind."""

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._ended = threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._wake: Callable[[], object] | None = None
        self._lock = threading.Lock()
        context = contextvars.copy_context()
        if not start_thread(lambda: context.run(self._run), name):
            self._run()

    def wait_for(self, seconds: float) -> bool:
        """Block until it has ended, at most for `seconds`; return whether it has."""
        return self._ended.wait(seconds)

    async def wait(self, seconds: float) -> bool:
        """Wait as `wait_for` does in an event loop, from one task at a time.

        A cancelled caller waits a little longer.
        """
        over = anyio.Event()
        with self._lock:
            has_ended = self._ended.is_set()
            self._wake = None if has_ended else partial(wake, anyio.lowlevel.current_token(), over.set)
        if has_ended:
            await anyio.lowlevel.checkpoint()
            return True
        try:
            with anyio.move_on_after(seconds):
                await over.wait()
        except BaseException:
            with anyio.move_on_after(min(seconds, _CANCELLED_WAIT), shield=True):
                await over.wait()
            raise
        return self._ended.is_set()

    def result(self) -> T:
        """Return what the function returned once it has ended, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _run(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._error = error
        with self._lock:
            self._ended.set()
            tell = self._wake
        if tell is not None:
            tell()


def in_threads(function: Callable[[T], object], items: Iterable[T], *, threads: int) -> None:
    """Call `function` for every item, at most `threads` at once.

    The first failure is raised once all have ended.

    The calling thread works too, so that everything is done where no thread can be started. Pools of
    `concurrent.futures` refuse to work in `atexit`, and in a thread that outlives the main one.
    """
    left = iter(list(items))
    failures: list[BaseException] = []
    ended: list[threading.Event] = []

    def work() -> None:
        for item in left:  # of a list: `next` is one step
            if failures:
                return
            try:
                function(item)
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                failures.append(error)

    def beside(event: threading.Event) -> None:
        try:
            work()
        finally:
            event.set()

    for _ in range(threads - 1):
        event = threading.Event()
        if not start_thread(lambda event=event: beside(event), "atomicpath-files"):  # type: ignore[misc]
            break
        ended.append(event)
    work()
    for event in ended:
        event.wait()
    if failures:
        raise failures[0]
