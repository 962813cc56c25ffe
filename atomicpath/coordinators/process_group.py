"""The processes that act together, seen from one of them: their keys, their messages and their announcements."""

from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256

from atomicpath._core.concurrency import Turn
from atomicpath._core.environment import current
from atomicpath._core.failures import described
from atomicpath._core.one_shot import OneShot, bounded
from atomicpath.abc import Coordinator, Watch
from atomicpath.errors import CoordinationError, CoordinationTimeoutError, RankFailedError, ValidationError

from . import chosen
from .options import MultiprocessingOptions

__all__ = ["ProcessGroup", "SharedOutcome"]

_PREFIX = "atomicpath"
_SLICE = 0.05  # seconds


class ProcessGroup:
    """The active processes of `MultiprocessingOptions`."""

    def __init__(self, options: MultiprocessingOptions | None) -> None:
        options = options or MultiprocessingOptions()
        coordinator = self._coordinator = chosen(options.coordinator)
        self.rank, world_size = coordinator.rank, coordinator.world_size
        active = options.active_processes
        self._is_whole = active is None or len(active) == world_size
        self._ranks = tuple(range(world_size)) if active is None else tuple(sorted(active))
        for what, ranks in (("active_processes", self._ranks), ("primary_host", (options.primary_host or 0,))):
            if ranks[-1] >= world_size:
                raise ValidationError(
                    f"{what} names rank {ranks[-1]} of a job of world size {world_size}: ranks count from 0"
                    + ("" if world_size > 1 else "; pass coordinator=, or initialise the job's engine first")
                )
        if self.rank not in self._ranks:
            raise ValidationError(
                f"rank {self.rank} is not among active_processes={list(self._ranks)}: only those may call this"
            )
        self.is_primary = options.primary_host in (None, self.rank)
        self.independent = options.primary_host is None
        self.primary_rank = self._ranks[0] if options.primary_host is None else options.primary_host
        self.is_primary_rank = self.rank == self.primary_rank
        self.timeout = options.seconds(coordinator.timeout)
        self.leave_together = coordinator.leave_together
        self._prefix = options.barrier_sync_key_prefix or _PREFIX

    def key(self, what: str) -> str:
        """Return a key that is used once.

        All processes of the group that have asked for it equally often get the same key.
        """
        ranks = "all" if self._is_whole else sha256(repr(self._ranks).encode()).hexdigest()[:12]
        name = f"{self._prefix}/{what}/{ranks}"
        return f"{name}/{_count(self._coordinator, name)}"

    @property
    def is_alone(self) -> bool:
        """Tell whether the group has no other process."""
        return len(self._ranks) == 1

    async def gather(
        self, key: str, value: bytes, *, timeout: float, watch: Watch | None = None
    ) -> Mapping[int, bytes]:
        """Return in the primary what every process of the group passes, by rank; elsewhere return nothing, at once.

        CoordinationTimeoutError names the ranks whose value did not come, and has in `received` the values that did.
        """
        if self._is_whole:
            with _in_our_words():
                values = await self._coordinator.gather(
                    key, value, root=self.primary_rank, timeout=timeout, watch=watch
                )
            return dict(enumerate(values or ()))
        if not self.is_primary_rank:
            with _in_our_words():
                await self._coordinator.broadcast(f"{key}/{self.rank}", value, root=self.rank, timeout=timeout)
            return {}
        return await self._collect(key, value, timeout, watch)

    async def send(self, key: str, value: bytes) -> None:
        """Send a value from the primary to all processes, however late they ask for it."""
        with _in_our_words():
            await self._coordinator.broadcast(key, value, root=self.primary_rank, timeout=self.timeout)

    async def receive(self, key: str, *, timeout: float, watch: Watch | None = None) -> bytes:
        """Return the value that the primary sends."""
        with _in_our_words():
            return await self._coordinator.broadcast(key, root=self.primary_rank, timeout=timeout, watch=watch)

    async def _collect(self, key: str, value: bytes, timeout: float, watch: Watch | None) -> Mapping[int, bytes]:
        """Gather the values of a part of the job, as a coordinator's own `gather` does for whole jobs only."""
        began, received, missing = current().monotonic(), {self.rank: value}, dict[int, str]()
        for rank in (rank for rank in self._ranks if rank != self.primary_rank):
            left = max(timeout - (current().monotonic() - began), _SLICE)
            try:
                with _in_our_words():
                    received[rank] = await self._coordinator.broadcast(
                        f"{key}/{rank}", root=rank, timeout=left, watch=watch
                    )
            except CoordinationTimeoutError as error:
                missing[rank] = str(error)
        if missing:
            raise CoordinationTimeoutError("; ".join(missing.values()), tuple(missing), received)
        return dict(sorted(received.items()))


class SharedOutcome:
    """One outcome, told once by the primary of a group to all its processes, however late they ask.

    In the primary itself nothing is sent to be heard; where every process is primary, each hears its own.
    """

    def __init__(self, group: ProcessGroup, key: str, what: str) -> None:
        self._group, self._key, self._what = group, key, what
        self._latch: OneShot[bool] = OneShot()
        self._turn = Turn()  # where several threads wait, one at a time asks the engine

    async def set(self, error: BaseException | None) -> None:
        """Send, in the primary, that all went well, or the error. Raise CoordinationError if it cannot be sent."""
        if self._latch.is_set:
            raise ValidationError(f"{self._what} was sent before, and that is done only once: make another")
        if not self._group.independent:
            await self._group.send(self._key, _outcome(error))
        self._note(None if error is None else described(error))

    async def wait(self, timeout: float | None = None) -> None:
        """Return once it is told that all went well; RankFailedError if it is told otherwise.

        CoordinationTimeoutError after `timeout` seconds, by default those of the group.
        """
        limit = bounded(self._group.timeout if timeout is None else timeout)
        began = current().monotonic()
        while not self._latch.is_set and (left := limit - (current().monotonic() - began)) > 0:
            if self._group.is_primary:
                await self._latch.wait(left)
            elif self._turn.take():
                try:
                    if not self._latch.is_set:
                        data = await self._group.receive(self._key, timeout=left)
                        self._note(json.loads(data)["error"])
                finally:
                    self._turn.give_back()
            else:
                await self._latch.wait(min(left, _SLICE))
        self._latch.result(
            lambda: CoordinationTimeoutError(f"{self._what} was not received within {limit:g} s", self._lead)
        )

    @property
    def _lead(self) -> tuple[int, ...]:
        return (self._group.primary_rank,)

    def _note(self, words: str | None) -> None:
        lead = self._group.rank if self._group.independent else self._group.primary_rank
        error = RankFailedError(f"{self._what} will not come: rank {lead} failed with {words}", {lead: words or ""})
        self._latch.set(True if words is None else error)


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Turn every error of the block into CoordinationError.

    A user's coordinator may raise anything. After a commit, its error must not pass for a failure of the commit.
    """
    try:
        yield
    except CoordinationError:
        raise
    except Exception as error:
        raise CoordinationError(f"the job's coordinator failed: {described(error)}") from error


def _outcome(error: BaseException | None) -> bytes:
    return json.dumps({"error": None if error is None else described(error)}).encode("ascii")


_counts: weakref.WeakKeyDictionary[Coordinator, dict[str, Iterator[int]]] = weakref.WeakKeyDictionary()


def _count(coordinator: Coordinator, name: str) -> int:
    # no lock, which a forked child could find taken: each of these steps is indivisible
    return next(_counts.setdefault(coordinator, {}).setdefault(name, itertools.count(1)))
