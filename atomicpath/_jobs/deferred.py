"""Paths whose location is allocated later, by another thread or process."""

from __future__ import annotations

import abc

from upath import UPath

from atomicpath._core.one_shot import OneShot
from atomicpath._profile.location import PathLike, upath_of
from atomicpath.abc import TemporaryPath
from atomicpath.errors import CoordinationTimeoutError, ValidationError

__all__ = ["DeferredPath", "DeferredWritableTemporaryPath"]

_LONGEST = 600.0  # seconds


class DeferredPath:
    """A path that is told once, later, to everybody who waits for it, in any thread and any event loop.

    `deferred / "child"` is told together with its parent. Safe to call from many threads at once.
    """

    def __init__(self) -> None:
        self._latch: OneShot[UPath] = OneShot()
        self._parts: tuple[str, ...] = ()

    def __truediv__(self, part: str) -> DeferredPath:
        child = DeferredPath()
        child._latch, child._parts = self._latch, (*self._parts, part)
        return child

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {'told' if self._latch.is_set else 'not told yet'}>"

    def set_path(self, path: PathLike) -> None:
        """Set the path, which wakes all that wait for it.

        Raise ValidationError if it was set before, or if this is a child.
        """
        self._tell("set_path", upath_of(path))

    def set_error(self, error: Exception) -> None:
        """Set the error because of which there will be no path.

        `error` is raised wherever the path is asked for, now and later.
        """
        self._tell("set_error", error)

    @property
    def path(self) -> UPath:
        """The path; ValidationError until it is known."""
        return self._look(
            ValidationError("the deferred path is not told yet: await await_creation(), or call wait(), first")
        )

    async def await_creation(self, *, timeout: float = _LONGEST) -> UPath:
        """Return the path once it is known.

        Call this in any event loop. Cancelling one wait disturbs no other.

        Raise CoordinationTimeoutError after `timeout` seconds.
        """
        await self._latch.wait(timeout)
        return self._look(_too_late(timeout))

    def wait(self, timeout: float = _LONGEST) -> UPath:
        """Return the path once it is known; block a thread that has no event loop until then.

        Raise CoordinationTimeoutError after `timeout` seconds.
        """
        self._latch.wait_blocking(timeout)
        return self._look(_too_late(timeout))

    def _tell(self, what: str, outcome: UPath | Exception) -> None:
        if self._parts:
            raise ValidationError(
                f"{'/'.join(self._parts)!r} is below a deferred path and follows it: call {what} of that one"
            )
        if not self._latch.set(outcome):
            raise ValidationError(f"{what}: the deferred path was told before, and it is told only once")

    def _look(self, otherwise: Exception) -> UPath:
        top = self._latch.result(lambda: otherwise)
        return top.joinpath(*self._parts) if self._parts else top


class DeferredWritableTemporaryPath(TemporaryPath):
    """A strategy whose backend allocates the temporary path asynchronously, after `from_final` and during `create`."""

    @abc.abstractmethod
    def get_awaitable_path(self) -> DeferredPath:
        """Return the path to write to, as an object that can be waited for. No I/O.

        Every call returns the same object, before `create` too.
        """

    def get(self) -> UPath:
        return self.get_awaitable_path().path


def _too_late(timeout: float) -> Exception:
    return CoordinationTimeoutError(
        f"the deferred path was not told within {timeout:g} s: whoever allocates it has to call set_path, or set_error"
    )
