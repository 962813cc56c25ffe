"""The seam: everything the protocols ask of the world besides storage's own meaning.

Every system call, store request, clock reading, random token and sleep of atomicpath passes through an
`Environment`. Tests put their own in place with `use` and so count, delay, fail or kill at any of them.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

from .interruption import GIVING_UP, Run

__all__ = [
    "Environment",
    "EventLoopNeeded",
    "cleaning_up",
    "current",
    "in_this_thread",
    "is_in_this_thread",
    "look_ahead",
    "looking_ahead",
    "need_event_loop",
    "shielded",
    "this_run",
    "under",
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
        """Return the nanoseconds since the epoch.

        They are written into records for people; nothing is decided by them.
        """
        return time.time_ns()

    def monotonic(self) -> float:
        """Return the seconds of boot time.

        This clock only goes forward, and it goes on while the host is suspended. Every lease and deadline is measured
        by it, so that a host that slept past its lease sees that on waking.
        """
        return time.clock_gettime(_BOOT_TIME) if _BOOT_TIME is not None else time.monotonic()

    def token(self) -> str:
        """Return a name that no other attempt will ever have: 80 random bits in hexadecimal."""
        return secrets.token_hex(10)

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; the wait can be cancelled."""
        run = _run.get()
        if run is not None and not run.has_event_loop:
            run.check()
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
        """Run one protocol step of system calls: in a worker thread, or in this one under `in_this_thread`.

        A step that has begun is not abandoned when the caller is cancelled, because its outcome would be unknown. The
        begin of a step is the safe point at which an interruption is seen.
        """
        run = _run.get()
        if run is not None and not run.has_event_loop:
            run.check()
            return function(*args, **kwargs)
        if run is not None:
            await run.checkpoint()
        if _inline.get():
            return function(*args, **kwargs)
        return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))


_LOG = logging.getLogger("atomicpath")

_current: ContextVar[Environment] = ContextVar("atomicpath_environment")
_inline: ContextVar[bool] = ContextVar("atomicpath_inline", default=False)
_run: ContextVar[Run | None] = ContextVar("atomicpath_run", default=None)
_REAL = Environment()


@dataclass(slots=True)
class _Look:
    """What is looked at before each request of a block; not any more once it has ended the block."""

    ahead: Callable[[], Awaitable[None]] | None


_look: ContextVar[_Look | None] = ContextVar("atomicpath_look", default=None)


def current() -> Environment:
    """Return the environment in force here.

    A storage keeps the environment it was opened with.
    """
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
def looking_ahead(ahead: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Have each request of the block wait for a look, whose error ends the block.

    A block may be many requests, such as the parts of an upload, and the host may be suspended between any two. What is
    sent after the error, to clean up, is sent without a look, and so is what the look itself sends.
    """
    token = _look.set(_Look(ahead))
    try:
        yield
    finally:
        _look.reset(token)


async def look_ahead() -> None:
    """Look, if the next request has to wait for a look.

    Storages call this before each request.
    """
    look = _look.get()
    if look is None or look.ahead is None:
        return
    token = _look.set(None)
    try:
        await look.ahead()
    except BaseException:
        look.ahead = None
        raise
    finally:
        _look.reset(token)


@contextmanager
def in_this_thread(inline: bool = True) -> Iterator[None]:
    """Run steps in the calling thread for the block.

    The blocking interface has nothing else to do meanwhile.
    """
    token = _inline.set(inline)
    try:
        yield
    finally:
        _inline.reset(token)


def is_in_this_thread() -> bool:
    """Tell whether steps run in the calling thread."""
    return _inline.get()


class under:  # noqa: N801 - read as a word: `with under(run)`
    """Make the block part of a call of a face, by which its safe points and shields are ruled.

    If the call has no event loop, steps run in the calling thread, and nothing can be waited for.
    """

    __slots__ = ("_run", "_token")

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> None:
        self._token = _run.set(self._run)

    def __exit__(self, *_: object) -> None:
        _run.reset(self._token)


def without_event_loop() -> AbstractContextManager[None]:
    """Return a context for a block that drives a coroutine by hand.

    In the block, steps run in the calling thread, and nothing can be waited for.
    """
    return under(Run(lambda: False))


def this_run() -> Run | None:
    """Return the call that the caller is a part of, or None."""
    return _run.get()


async def safe_point() -> None:
    """Break the call off here if it was interrupted.

    The interruption would otherwise be seen only at the next step or wait.
    """
    run = _run.get()
    if run is not None:
        await run.checkpoint()


def need_event_loop() -> None:
    """Raise EventLoopNeeded if no event loop is running. Call before any side effect."""
    run = _run.get()
    if run is not None and not run.has_event_loop:
        raise EventLoopNeeded


def shielded() -> AbstractContextManager[None]:
    """Let the block end in spite of any interruption: for a commit and what settles its outcome."""
    return (_run.get() or Run()).shielded()


@contextmanager
def cleaning_up(what: object, error: BaseException | None = None) -> Iterator[None]:
    """Let the block give up `what` after `error`, in spite of any interruption.

    After an interruption the block has only a limited time. A store that does not answer would otherwise hold up an
    interrupted process for minutes. What is left then is an attempt that nobody holds, as after a kill.
    """

    def late() -> None:
        _LOG.warning(
            "%s was interrupted, and could not be cleaned up within %.0f s: what is left of it is cleared by the next"
            " attempt there, or by sweep(...)",
            what,
            GIVING_UP,
        )

    bounded = error is not None and not isinstance(error, Exception)
    with (_run.get() or Run()).cleaning_up(late, bounded=bounded):
        yield
