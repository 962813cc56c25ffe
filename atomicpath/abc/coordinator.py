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
    """

    @property
    @abc.abstractmethod
    def rank(self) -> int:
        """This process's number."""

    @property
    @abc.abstractmethod
    def world_size(self) -> int:
        """How many processes there are."""

    @property
    def timeout(self) -> float:
        """Seconds that others are waited for, if a caller does not say; ranks that write may differ that much."""
        return 600.0

    @property
    def leave_together(self) -> bool:
        """Whether a process that ends breaks the messages of others that still wait.

        Then a process leaves an operation only when all have heard how it ended.
        """
        return False

    @abc.abstractmethod
    async def broadcast(
        self, key: str, value: bytes | None = None, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> bytes:
        """What `root` passes as `value`, in every process. The root does not wait for the others."""

    @abc.abstractmethod
    async def gather(
        self, key: str, value: bytes, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> list[bytes] | None:
        """At `root` the values of all processes by rank; elsewhere None, at once.

        The time-out's `received` has, by rank, what did come.
        """

    @abc.abstractmethod
    async def barrier(self, key: str, *, timeout: float, watch: Watch | None = None) -> None:
        """Return once every process has called it."""
