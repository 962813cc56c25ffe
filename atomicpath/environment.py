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

__all__ = ["Environment", "current", "in_this_thread", "use"]

P = ParamSpec("P")
T = TypeVar("T")


class Environment:
    """The real world. Subclass it and hand an instance to `use` to change any part of it."""

    lease = 60.0
    """Seconds after which a holder that is not on this host and gives no sign counts as gone."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch; written into records for people, never decided on."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds of a clock that only goes forward, for deadlines."""
        return time.monotonic()

    def token(self) -> str:
        """A name no other attempt will ever have: 80 random bits in hexadecimal."""
        return secrets.token_hex(10)

    async def sleep(self, seconds: float) -> None:
        """Wait, cancellably."""
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
