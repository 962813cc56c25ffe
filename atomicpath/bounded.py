"""Steps and requests that end in bounded time, whatever the storage does: what probes are made with.

A file system whose server is gone does not answer a system call, and nothing can break into that call. So each step
runs in a daemon thread of its own, in every face. One that has no answer when the time is over is left behind.
"""

from __future__ import annotations

import contextvars
import errno
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Generic, ParamSpec, TypeVar

import anyio
import anyio.lowlevel

from .concurrency import start_thread, wake
from .environment import Environment, EventLoopNeeded, need_event_loop

__all__ = ["BoundedEnvironment", "NoAnswerError"]

P = ParamSpec("P")
T = TypeVar("T")

_CANCELLED_WAIT = 5.0  # seconds that a step has to end after its caller was cancelled


class NoAnswerError(TimeoutError):
    """The storage did not answer in time; the operation may have happened, or may yet happen."""


class BoundedEnvironment(Environment):
    """Another environment, with steps that run in daemon threads, and steps and requests that end by a deadline.

    System calls and requests are still made through the other environment; its own way of running steps is not used,
    since it may run them in the thread of the caller, one after the other. Nothing more is sent to a storage that once
    left a step without an answer.
    """

    def __init__(self, outer: Environment, *, seconds: float) -> None:
        """`seconds` is the time for everything that is done in one `limit`."""
        self.lease = outer.lease
        self._outer = outer
        self._seconds = seconds
        self._deadline = outer.monotonic() + seconds
        self.is_silent = False

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Give the block its own time."""
        before, self._deadline = self._deadline, self._outer.monotonic() + self._seconds
        try:
            yield
        finally:
            self._deadline = before

    def wall_ns(self) -> int:
        return self._outer.wall_ns()

    def monotonic(self) -> float:
        return self._outer.monotonic()

    def token(self) -> str:
        return self._outer.token()

    async def sleep(self, seconds: float) -> None:
        await self._outer.sleep(seconds)

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._outer.call(function, *args, **kwargs)

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        left = self._left()
        with anyio.move_on_after(left):
            return await self._outer.request(function, *args, **kwargs)
        raise self._no_answer()

    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        left = self._left()
        running = _Step(partial(function, *args, **kwargs))
        try:
            need_event_loop()
        except EventLoopNeeded:
            answered = running.wait_for(left)
        else:
            answered = await running.wait(left)
        if not answered:
            self.is_silent = True
            raise self._no_answer()
        return running.result()

    def _left(self) -> float:
        left = self._deadline - self._outer.monotonic()
        if self.is_silent or left <= 0:
            raise self._no_answer()
        return left

    def _no_answer(self) -> NoAnswerError:
        error = NoAnswerError(f"no answer within {self._seconds:g} s")
        error.errno = errno.ETIMEDOUT
        return error


class _Step(Generic[T]):
    """One function in a daemon thread of its own, under way from the start."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._ended = threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._wake: Callable[[], object] | None = None
        self._lock = threading.Lock()
        context = contextvars.copy_context()
        if not start_thread(lambda: context.run(self._run), "atomicpath-probe"):
            self._run()

    def wait_for(self, seconds: float) -> bool:
        """Block until it has ended, at most for so long; return whether it has."""
        return self._ended.wait(seconds)

    async def wait(self, seconds: float) -> bool:
        """Wait the same way in an event loop. A cancelled caller waits a little longer."""
        token, over = anyio.lowlevel.current_token(), anyio.Event()
        with self._lock:
            if not self._ended.is_set():
                self._wake = partial(wake, token, over.set)
        if self._wake is None:
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
