"""What all coordinators of several processes have in common: their place in the job, and waiting in short slices."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from atomicpath._core.environment import Environment, current
from atomicpath.abc import Coordinator, Watch
from atomicpath.errors import CoordinationError, CoordinationTimeoutError, ValidationError

__all__ = ["SLICE", "BaseCoordinator", "Deadline", "too_late"]

SLICE = 0.5
"""Seconds that a worker thread waits at most before cancellation and signs of a rank's end are looked at again."""

_MAX_GRACE = 5.0
T = TypeVar("T")

Look = Callable[[float, float], bool]
"""One slice of waiting, in a worker thread: seconds to wait at most, seconds waited before; whether all is there."""


class BaseCoordinator(Coordinator):
    """A rank of a job of `world_size` processes; `timeout` in seconds, for calls that do not say."""

    def __init__(self, rank: int, world_size: int, *, timeout: float) -> None:
        if world_size < 1:
            raise ValidationError(f"a job cannot have world_size={world_size} processes")
        if not 0 <= rank < world_size:
            raise ValidationError(f"rank={rank} cannot be in a job of world_size={world_size}: ranks count from 0")
        self._rank, self._world_size, self._timeout = rank, world_size, _checked(timeout)
        self._process = os.getpid()

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    @property
    def timeout(self) -> float:
        return self._timeout

    @property
    def _others(self) -> tuple[int, ...]:
        return tuple(rank for rank in range(self._world_size) if rank != self._rank)

    def _begin(self, key: str, timeout: float, watch: Watch | None, root: int = 0) -> Deadline:
        """Check what every call is given, before anything is sent."""
        if not key:
            raise ValidationError("a call of a coordinator needs a key, the same in all processes")
        if not 0 <= root < self._world_size:
            raise ValidationError(f"root={root} is no rank of a job of world_size={self._world_size}")
        if os.getpid() != self._process:
            raise CoordinationError(
                f"rank {self._rank} of the job is process {self._process}, of which this one, {os.getpid()}, was "
                "forked: only the parent can take part"
            )
        return Deadline(current(), _checked(timeout), watch)


class Deadline:
    """One call's patience: until when it waits, and who else knows that waiting is in vain."""

    def __init__(self, environment: Environment, timeout: float, watch: Watch | None) -> None:
        self.environment = environment
        self.timeout = timeout
        self._watches: list[Watch] = [watch] if watch is not None else []
        self._began = environment.monotonic()

    @property
    def waited(self) -> float:
        """Return the seconds since the call began."""
        return self.environment.monotonic() - self._began

    @property
    def grace(self) -> float:
        """Return the seconds that a verdict is waited for beyond the time in which the root gives it."""
        return min(_MAX_GRACE, self.timeout)

    def also(self, watch: Watch) -> None:
        """Ask this one as well."""
        self._watches.append(watch)

    async def until(
        self, look: Look, pending: Callable[[], Sequence[int]], *, grace: float = 0.0
    ) -> Mapping[int, str] | None:
        """Wait until `look` says that all is there.

        Return None then, or, when the time is up, what is known of the ranks of `pending`.

        Each slice is a step of the environment; between two, cancellation is seen and `watch` is asked.
        """
        limit = self.timeout + grace
        while True:
            waited = self.waited
            if await self.environment.step(look, max(0.0, min(SLICE, limit - waited)), waited):
                return None
            missing = tuple(pending())
            reasons = await self.environment.step(self._reasons, missing)
            if self.waited >= limit or all(rank in reasons for rank in missing):
                # a value that came after the last look, but before the sign of an end, still counts
                return None if await self.environment.step(look, 0.0, self.waited) else reasons
            await self.environment.sleep(0)  # lets a cancellation in where steps run in this thread

    def _reasons(self, missing: Sequence[int]) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for watch in self._watches:
            unexplained = [rank for rank in missing if rank not in reasons]
            if unexplained:
                reasons |= {rank: why for rank, why in watch(unexplained).items() if rank in unexplained}
        return reasons


def too_late(
    what: str,
    key: str,
    missing: Sequence[int],
    *,
    waited: float,
    reasons: Mapping[int, str] | None = None,
    received: Mapping[int, bytes] | None = None,
) -> CoordinationTimeoutError:
    """Return the error that names the ranks that did not come and, as far as it is known, says why."""
    ranks = ", ".join(str(rank) for rank in missing)
    named = f"rank{'s' if len(missing) > 1 else ''} {ranks}"
    known = "".join(f"; rank {rank}: {why}" for rank, why in sorted((reasons or {}).items()) if rank in missing)
    text = f"{named} did not come to the {what} {key!r} in {waited:.1f} s{known}. See the logs of {named}"
    return CoordinationTimeoutError(text, tuple(missing), received)


def _checked(timeout: float) -> float:
    if not timeout > 0 or timeout == float("inf"):
        raise ValidationError(f"timeout={timeout} must be a number of seconds greater than 0, and finite")
    return timeout
