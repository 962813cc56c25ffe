"""How one method of an fsspec class is called: on an instance of our own, in a thread, within bounded time.

A class that blocks and one that is asynchronous are called alike, by the methods without an underscore, which fsspec
gives to both. So no class meets an event loop of the caller's, whatever that is.

- The instances are ours: users' own, which fsspec keeps and shares, may have a cache of listings, or be made for an
  event loop of theirs.
- One of a class that blocks makes one call at a time, since few of them may be used by two threads (an FTP connection
  has one dialogue). One that has failed, or that has waited for long, is not used again.
- A call that takes too long is left behind in its thread. A transfer that was left behind ends with its next piece.
"""

from __future__ import annotations

import errno
import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
from fsspec.callbacks import Callback
from fsspec.dircache import DirCache

from atomicpath._core.concurrency import InThread
from atomicpath._core.environment import look_ahead, need_event_loop
from atomicpath.abc import Environment
from atomicpath.errors import ValidationError

from .access import limiter_of
from .fsspec_errors import fsspec_answers

__all__ = ["DEFINITE", "Allowance", "Instances", "check_arguments", "in_instance"]

T = TypeVar("T")

_LOG = logging.getLogger("atomicpath")

_PATIENCE = 40.0  # seconds without a sign of progress, including the time to connect
_SLOWEST = 64 * 1024  # bytes a second, for classes that report no progress before the end
_IDLE = 30.0  # seconds: servers end connections that nobody uses, some after a minute
_AT_ONCE = 8  # calls of one event loop: sshd drops connections of which ten are not authenticated yet (MaxStartups)

DEFINITE = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
"""By what a store says that it has done nothing."""


class Allowance(Callback):  # type: ignore[misc]  # fsspec is not typed
    """The time that a call may take: it begins anew with each sign, and is longer by what is left to be sent.

    As fsspec's callback of a transfer it hears of each piece, and ends a transfer that nobody waits for any more.
    """

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        """`size` is the number of bytes to be sent or received. `clock` gives seconds."""
        super().__init__(size=size)
        self._clock = clock
        self._left = size
        self._sign = clock()
        self.is_over = False

    def call(self, hook_name: str | None = None, **kwargs: object) -> None:  # noqa: ARG002 - fsspec's
        if self.is_over:
            raise OSError(errno.ECANCELED, "nobody waits for this transfer any more")
        left = max((self.size or 0) - self.value, 0)
        if left < self._left:
            self._left, self._sign = left, self._clock()

    def seconds(self) -> float:
        """Return the seconds that the transfer has left."""
        return self._sign + _PATIENCE + self._left / _SLOWEST - self._clock()


class Instances:
    """The instances of one class under one set of options, in one process."""

    def __init__(self, of: Mapping[str, Any]) -> None:
        """`of` has the class as "kind", its "options", and what closes an instance as "close"."""
        self._kind: type[Any] = of["kind"]
        self._options: Mapping[str, object] = of["options"]
        self._close: Callable[[Any], None] = of["close"]
        self._is_shared = bool(getattr(self._kind, "async_impl", False))
        self._idle: list[tuple[float, Any]] = []

    @contextmanager
    def use(self) -> Iterator[Any]:
        """Give an instance for one call; an `OSError` that says nothing definite ends its use."""
        instance = self._take()
        try:
            yield instance
        except DEFINITE:
            self._give_back(instance)
            raise
        except BaseException:
            self._end(instance)
            raise
        self._give_back(instance)

    def _take(self) -> Any:
        while self._idle:
            since, instance = self._idle[-1] if self._is_shared else self._idle.pop()
            if self._is_shared or time.monotonic() - since < _IDLE:
                return instance
            self._end(instance)
        with fsspec_answers(f"{self._kind.__name__}(...), made from storage_options", about=None):
            instance = self._kind(**self._options, skip_instance_cache=True)
        if isinstance(getattr(instance, "dircache", None), DirCache):
            instance.dircache = DirCache(use_listings_cache=False)
        if self._is_shared:
            self._idle.append((time.monotonic(), instance))
        return instance

    def _end(self, instance: Any) -> None:
        if self._is_shared:
            return
        try:
            self._close(instance)
        except Exception as error:  # noqa: BLE001 - the instance is not used any more, so its errors do not matter
            _LOG.debug("an instance of %s could not be closed: %r", self._kind.__name__, error)

    def _give_back(self, instance: Any) -> None:
        if not self._is_shared:
            self._idle.append((time.monotonic(), instance))


def check_arguments(kind: type[Any], options: Mapping[str, object]) -> None:
    """Raise ValidationError, naming what is missing or unknown, if a class cannot be made with these options."""
    try:
        inspect.signature(kind.__init__).bind(None, **options)
    except TypeError as error:
        raise ValidationError(f"storage_options do not fit {kind.__name__}: {error}") from None


async def in_instance(
    environment: Environment, instances: Instances, work: Callable[[Any], T], allowance: Allowance
) -> T:
    """Make one request: call `work` with an instance, in a thread.

    Raises:
        TimeoutError: There was no answer in time. What was asked for may have happened, or may yet happen.
    """
    need_event_loop()
    await look_ahead()
    return await environment.request(partial(_in_thread, instances, work, allowance))


async def _in_thread(instances: Instances, work: Callable[[Any], T], allowance: Allowance) -> T:
    def call() -> T:
        with instances.use() as instance:
            return work(instance)

    async with limiter_of(_limiters, _AT_ONCE):
        running = InThread(call, "atomicpath-fsspec")
        try:
            while not await running.wait(max(allowance.seconds(), 0.0)):
                if allowance.seconds() <= 0:
                    raise TimeoutError(errno.ETIMEDOUT, f"no answer within {_PATIENCE:.0f} s")
        finally:
            allowance.is_over = True
        return running.result()


_limiters: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("atomicpath_fsspec_calls")
