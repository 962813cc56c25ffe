"""Paths whose location is allocated later, by another thread or process, and what waits for them."""

from __future__ import annotations

import abc
import os
import threading
from typing import TypeAlias

import anyio
import anyio.to_thread
from upath import UPath

from .abc import TemporaryPath
from .errors import CoordinationTimeoutError, ValidationError

__all__ = ["DeferredPath", "DeferredWritableTemporaryPath"]

AnyPath: TypeAlias = "str | os.PathLike[str] | UPath"
_LONGEST = 600.0  # seconds


class DeferredPath:
    """A path that is told once, later, to everybody who waits for it, in any thread and any event loop.

    `deferred / "child"` is told together with its parent. Safe to call from many threads at once.
    """

    def __init__(self) -> None:
        self._allocation = _Allocation()
        self._parts: tuple[str, ...] = ()

    def __truediv__(self, part: str) -> DeferredPath:
        child = DeferredPath()
        child._allocation, child._parts = self._allocation, (*self._parts, part)
        return child

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._allocation.state}>"

    def set_path(self, path: AnyPath) -> None:
        """Tell it, which wakes all that wait. ValidationError if it was told before, or if this is a child."""
        self._own("set_path").tell(UPath(path), None)

    def set_error(self, error: Exception) -> None:
        """Tell instead that there will be none: `error` is raised wherever the path is asked for, now and later."""
        self._own("set_error").tell(None, error)

    @property
    def path(self) -> UPath:
        """The path; ValidationError as long as it is not told."""
        return self._joined(self._allocation.look())

    async def await_creation(self, *, timeout: float = _LONGEST) -> UPath:
        """The path, once it is told. Works in any event loop; cancelling one that waits disturbs no other.

        CoordinationTimeoutError after `timeout` seconds.
        """
        waiter = self._allocation.join()
        try:
            if not waiter.is_set():
                # A thread of its own, ended as soon as the caller is: no loop's own way to be woken is needed, and
                # whoever tells the path waits for nobody.
                await anyio.to_thread.run_sync(
                    waiter.wait, _bounded(timeout), abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
                )
        finally:
            self._allocation.leave(waiter)
        return self._joined(self._allocation.look(waited=timeout))

    def wait(self, timeout: float = _LONGEST) -> UPath:
        """The path, once it is told, for a thread without an event loop; it holds up the one it is called in.

        CoordinationTimeoutError after `timeout` seconds.
        """
        waiter = self._allocation.join()
        try:
            waiter.wait(_bounded(timeout))
        finally:
            self._allocation.leave(waiter)
        return self._joined(self._allocation.look(waited=timeout))

    def _own(self, what: str) -> _Allocation:
        if self._parts:
            raise ValidationError(
                f"{'/'.join(self._parts)!r} is below a deferred path and follows it: call {what} of that one"
            )
        return self._allocation

    def _joined(self, top: UPath) -> UPath:
        return top.joinpath(*self._parts) if self._parts else top


class DeferredWritableTemporaryPath(TemporaryPath):
    """A strategy whose backend allocates the temporary path asynchronously, after `from_final` and during `create`."""

    @abc.abstractmethod
    def get_awaitable_path(self) -> DeferredPath:
        """Where to write, for those who can wait for it: the same object at every call, before `create` too. No I/O."""

    def get(self) -> UPath:
        return self.get_awaitable_path().path


class _Allocation:
    """One path or one error, told once, and the events of those who wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: UPath | None = None
        self._error: Exception | None = None
        self._waiting: set[threading.Event] = set()

    @property
    def state(self) -> str:
        if self._error is not None:
            return f"failed with {type(self._error).__name__}"
        return "not told yet" if self._path is None else self._path.path

    def tell(self, path: UPath | None, error: Exception | None) -> None:
        with self._lock:
            if self._path is not None or self._error is not None:
                raise ValidationError(f"the deferred path was told before ({self.state}), and that is told once only")
            self._path, self._error = path, error
            for waiter in self._waiting:
                waiter.set()

    def look(self, *, waited: float | None = None) -> UPath:
        with self._lock:
            path, error = self._path, self._error
        if error is not None:
            raise error
        if path is None and waited is not None:
            raise CoordinationTimeoutError(
                f"the deferred path was not told within {waited:g} s: whoever allocates it has to call set_path, or"
                " set_error"
            )
        if path is None:
            raise ValidationError("the deferred path is not told yet: await await_creation(), or call wait(), first")
        return path

    def join(self) -> threading.Event:
        waiter = threading.Event()
        with self._lock:
            if self._path is not None or self._error is not None:
                waiter.set()
            self._waiting.add(waiter)
        return waiter

    def leave(self, waiter: threading.Event) -> None:
        with self._lock:
            self._waiting.discard(waiter)
        waiter.set()  # ends the thread of one who was cancelled


def _bounded(timeout: float) -> float:
    if not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValidationError(f"timeout cannot be {timeout!r}: give the seconds to wait at most, more than 0")
    return timeout
