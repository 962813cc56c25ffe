"""Steps and requests that end in bounded time, whatever the storage does: what probes are made with.

A file system whose server is gone does not answer a system call, and nothing can break into that call. So each step
runs in a daemon thread of its own, in every face. One that has no answer when the time is over is left behind.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec, TypeVar

import anyio

from .concurrency import InThread
from .environment import Environment, EventLoopNeeded, need_event_loop

__all__ = ["BoundedEnvironment", "NoAnswerError"]

P = ParamSpec("P")
T = TypeVar("T")


class NoAnswerError(TimeoutError):
    """The storage did not answer in time; the operation may have happened, or may yet happen."""


class BoundedEnvironment(Environment):
    """Another environment, with steps that run in daemon threads, and steps and requests that end by a deadline.

    System calls and requests are still made through the other environment; its own way of running steps is not used,
    since it may run them in the thread of the caller, one after the other. Nothing more is sent to a storage that once
    left a step without an answer.
    """

    def __init__(self, outer: Environment, *, seconds: float) -> None:
        """Take in `seconds` the time for everything that is done in one `limit`."""
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
        running = InThread(partial(function, *args, **kwargs), "atomicpath-probe")
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
