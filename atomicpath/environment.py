"""The seam: everything the protocols ask of the world besides storage's own meaning.

Every system call, store request, clock reading, random token and sleep of atomicpath passes through an
`Environment`. Tests put their own in place with `use` and so count, delay, fail or kill at any of them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

__all__ = [
    "Environment",
    "EventLoopNeeded",
    "current",
    "in_this_thread",
    "need_event_loop",
    "shielded",
    "use",
    "without_event_loop",
]

P = ParamSpec("P")
T = TypeVar("T")

# CLOCK_MONOTONIC stands still on Linux while the host is suspended, and goes on on macOS, which lacks CLOCK_BOOTTIME:
# clock_gettime(2), clock_gettime(3) of macOS. Windows has neither; its time.monotonic() goes on.
_BOOT_TIME: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


class EventLoopNeeded(Exception):  # noqa: N818 - a request to the blocking face, not an error
    """What was asked for needs an event loop, and nothing has been done yet."""


class Environment:
    """The real world. Subclass it and hand an instance to `use` to change any part of it."""

    lease = 60.0
    """Seconds after which a holder that is not on this host and gives no sign counts as gone."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch; written into records for people, never decided on."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds of boot time: a clock that only goes forward, and that goes on while the host is suspended.

        Every lease and deadline is measured by it, so that a host that slept past its lease sees that on waking.
        """
        return time.clock_gettime(_BOOT_TIME) if _BOOT_TIME is not None else time.monotonic()

    def token(self) -> str:
        """A name no other attempt will ever have: 80 random bits in hexadecimal."""
        return secrets.token_hex(10)

    async def sleep(self, seconds: float) -> None:
        """Wait, cancellably."""
        if _alone.get():
            time.sleep(seconds)  # noqa: ASYNC251 - there is no loop to block
        else:
            await anyio.sleep(seconds)

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make one system call."""
        return function(*args, **kwargs)

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make one request to a store."""
        return await function(*args, **kwargs)

    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one protocol step of system calls: in a worker thread, or right here under `in_this_thread`.

        A step that has begun is not abandoned when the caller is cancelled: its outcome would be unknown.
        """
        if _inline.get():
            return function(*args, **kwargs)
        return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))


_current: ContextVar[Environment] = ContextVar("atomicpath_environment")
_inline: ContextVar[bool] = ContextVar("atomicpath_inline", default=False)
_alone: ContextVar[bool] = ContextVar("atomicpath_alone", default=False)
_REAL = Environment()


def current() -> Environment:
    """The environment in force here; a storage keeps the one it was opened with."""
    return _current.get(_REAL)


@contextmanager
def use(environment: Environment) -> Iterator[Environment]:
    """Put another environment in force for the block, in this thread or task and those started from it."""
    token = _current.set(environment)
    try:
        yield environment
    finally:
        _current.reset(token)


@contextmanager
def in_this_thread() -> Iterator[None]:
    """Run steps in the calling thread for the block: the blocking face has nothing else to do meanwhile."""
    token = _inline.set(True)
    try:
        yield
    finally:
        _inline.reset(token)


@contextmanager
def without_event_loop() -> Iterator[None]:
    """For a block that drives a coroutine by hand: steps run in the calling thread, and nothing can be waited for."""
    token = _alone.set(True)
    try:
        with in_this_thread():
            yield
    finally:
        _alone.reset(token)


def need_event_loop() -> None:
    """Said before the first thing that cannot be done without one; EventLoopNeeded where there is none."""
    if _alone.get():
        raise EventLoopNeeded


@contextmanager
def shielded() -> Iterator[None]:
    """Let the block end, whoever cancels; without an event loop nobody can."""
    if _alone.get():
        yield
    else:
        with anyio.CancelScope(shield=True):
            yield
