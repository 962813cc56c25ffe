"""Running a coroutine to its end from blocking code: a script, a thread, a notebook's cell, a forked child."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
from upath import UPath

from .aio import Committing
from .environment import in_this_thread

__all__ = ["BlockingCommit", "blocking", "blocking_context"]

P = ParamSpec("P")
T = TypeVar("T")


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
        self._run = _run if committing.is_local else _beside

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

    def _abandon(self, interrupt: KeyboardInterrupt) -> None:
        """An interrupt may come right before the work begins or after it has ended: then nobody else gives up.

        Does nothing where the work itself saw it, or where it had committed.
        """
        self._run(functools.partial(self._committing.__aexit__, KeyboardInterrupt, interrupt, None))


def _run(main: Callable[[], Coroutine[object, object, T]]) -> T:
    """In this thread, or beside it where an event loop is running here already."""
    try:
        anyio.lowlevel.current_token()
    except RuntimeError:
        with in_this_thread():
            return anyio.run(main)
    return _beside(main)


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
        self._loop: anyio.lowlevel.EventLoopToken | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), name="atomicpath")

    def result(self) -> T:
        self._thread.start()
        interrupt: BaseException | None = None
        while not self._over.is_set():
            try:
                # not Thread.join, after whose interruption CPython 3.11 and 3.12 say that the thread has ended
                self._over.wait()
            except KeyboardInterrupt as error:
                interrupt = interrupt or error
                self._cancel()
        if interrupt is not None:
            raise interrupt
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _work(self) -> None:
        try:
            with in_this_thread():
                anyio.run(self._scoped)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error
        finally:
            self._over.set()

    async def _scoped(self) -> None:
        with anyio.CancelScope() as self._scope:
            self._loop = anyio.lowlevel.current_token()
            self._value.append(await self._main())

    def _cancel(self) -> None:
        if self._scope is not None and self._loop is not None:
            with suppress(anyio.RunFinishedError):
                anyio.from_thread.run_sync(self._scope.cancel, token=self._loop)
