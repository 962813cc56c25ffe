"""The port of coordinators: a fixed number of processes that pass small messages and wait for one another."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

__all__ = ["Coordinator", "Watch"]

Watch: TypeAlias = Callable[[Iterable[int]], Mapping[int, str]]
"""Asked now and then about the ranks still waited for: which of them will never come, and why."""


class Coordinator(abc.ABC):
    """One process's membership in a job of `world_size` processes, numbered by `rank` from 0.

    A call with one `key` belongs together in all processes; a key is used once in the life of a job, by
    one kind of call. A process that comes late finds what was sent under its key and disturbs no other.
    Time-outs are in seconds, greater than 0, and bounded: an engine's own longer ones do not count.

    Raises CoordinationTimeoutError, naming the ranks that did not come, once the time is up, or as soon as
    `watch` says of every rank still waited for that it will never come; CoordinationError if the engine
    itself is gone or was shut down. Every call can be cancelled; it then may or may not have been seen.
    No call uses the accelerators' own process group.

    Calls come from any thread and any event loop, also where the caller's own one is another: a commit runs in a thread
    of its own, so that nothing interrupts it. What belongs to one event loop cannot be awaited here.
    """

    @property
    @abc.abstractmethod
    def rank(self) -> int:
        """Return this process's number."""

    @property
    @abc.abstractmethod
    def world_size(self) -> int:
        """Return the number of processes."""

    @property
    def timeout(self) -> float:
        """Return the seconds that others are waited for if a caller does not say.

        Ranks that write may differ by that much.
        """
        return 600.0

    @property
    def leave_together(self) -> bool:
        """Tell whether a process that ends breaks the messages of others that still wait.

        If so, a process leaves an operation only when all processes have heard how the operation ended.
        """
        return False

    @abc.abstractmethod
    async def broadcast(
        self, key: str, value: bytes | None = None, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> bytes:
        """Return, in every process, what `root` passes as `value`. The root does not wait for the others."""

    @abc.abstractmethod
    async def gather(
        self, key: str, value: bytes, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> list[bytes] | None:
        """Return the values of all processes by rank at `root`; elsewhere return None, at once.

        The time-out's `received` has, by rank, what did come.
        """

    @abc.abstractmethod
    async def barrier(self, key: str, *, timeout: float, watch: Watch | None = None) -> None:
        """Return once every process has called it."""
