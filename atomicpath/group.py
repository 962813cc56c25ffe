"""The processes that act together, seen from one of them: their keys, barriers, verdicts and announcements."""

from __future__ import annotations

import json
import logging
import threading
import weakref
from collections.abc import Mapping
from hashlib import sha256

from .abc import Coordinator
from .coordinators import initialised
from .environment import current
from .errors import CoordinationTimeoutError, RankFailedError, ValidationError
from .latch import Latch, bounded
from .multiprocessing_options import MultiprocessingOptions

__all__ = ["Announcement", "Group"]

_LOG = logging.getLogger("atomicpath")
_PREFIX = "atomicpath"
_SLICE = 0.05  # seconds


class Group:
    """The active processes of `MultiprocessingOptions`."""

    def __init__(self, options: MultiprocessingOptions | None) -> None:
        options = options or MultiprocessingOptions()
        coordinator = self._coordinator = options.coordinator or initialised()
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
        self.each_for_itself = options.primary_host is None
        self.lead = self._ranks[0] if options.primary_host is None else options.primary_host
        self.timeout = options.seconds(coordinator.timeout)
        self._prefix = options.barrier_sync_key_prefix or _PREFIX

    def key(self, what: str) -> str:
        """A key that is used once: the same in all processes of the group that have asked for it as often."""
        ranks = "all" if self._is_whole else sha256(repr(self._ranks).encode()).hexdigest()[:12]
        name = f"{self._prefix}/{what}/{ranks}"
        return f"{name}/{_count(self._coordinator, name)}"

    async def barrier(self, key: str) -> None:
        """Return once every process of the group has called it; CoordinationTimeoutError names who has not."""
        if len(self._ranks) == 1:
            return
        if self._is_whole:
            await self._coordinator.barrier(key, timeout=self.timeout)
        else:
            await self.agree(key)

    async def agree(self, key: str) -> None:
        """Say that all went well here; return once every process of the group has said so too.

        RankFailedError if one has said otherwise, CoordinationTimeoutError if one did not come: the same in all.
        """
        if len(self._ranks) == 1:
            return
        if self.rank != self.lead:
            await self._send(f"{key}/outcome", _outcome(None))
            # the lead itself may wait as long as that for one that does not come, and says so then
            verdict = await self._receive(f"{key}/verdict", 2 * self.timeout)
        else:
            verdict = await self._collect(f"{key}/outcome")
            await self._send(f"{key}/verdict", verdict)
        self._judge(verdict)

    async def fail(self, key: str, error: BaseException) -> None:
        """Instead of `agree`: tell the others. Never raises: the error counts."""
        if len(self._ranks) == 1:
            return
        try:
            if self.rank != self.lead:
                await self._send(f"{key}/outcome", _outcome(error))
            else:
                await self._send(f"{key}/verdict", _verdict({self.rank: _words(error)}, ()))
        except Exception as second:  # noqa: BLE001 - as promised
            _LOG.warning("the other processes could not be told that this one failed: %s", second)

    async def send(self, key: str, data: bytes, *, timeout: float) -> None:
        """From this process to whoever asks for the key."""
        await self._coordinator.broadcast(key, data, root=self.rank, timeout=timeout)

    async def receive(self, key: str, root: int, *, timeout: float) -> bytes:
        """What `root` sends under the key."""
        return await self._coordinator.broadcast(key, root=root, timeout=timeout)

    async def _send(self, key: str, data: bytes) -> None:
        if self.rank != self.lead:
            if self._is_whole:
                await self._coordinator.gather(key, data, root=self.lead, timeout=self.timeout)
                return
            key = f"{key}/{self.rank}"
        await self.send(key, data, timeout=self.timeout)

    async def _receive(self, key: str, timeout: float) -> bytes:
        return await self.receive(key, self.lead, timeout=timeout)

    async def _collect(self, key: str) -> bytes:
        """The verdict of the lead."""
        missing: tuple[int, ...] = ()
        received: Mapping[int, bytes]
        try:
            received = await self._gather(key)
        except CoordinationTimeoutError as error:
            received, missing = error.received, error.missing
        failures = {rank: json.loads(data)["error"] for rank, data in received.items() if rank != self.lead}
        return _verdict({rank: words for rank, words in failures.items() if words is not None}, missing)

    async def _gather(self, key: str) -> Mapping[int, bytes]:
        """As a coordinator's own `gather`, which knows only of whole jobs."""
        if self._is_whole:
            values = await self._coordinator.gather(key, _outcome(None), root=self.lead, timeout=self.timeout)
            return dict(enumerate(values or ()))
        began, received, missing = current().monotonic(), dict[int, bytes](), list[int]()
        for rank in (rank for rank in self._ranks if rank != self.lead):
            left = self.timeout - (current().monotonic() - began)
            try:
                received[rank] = await self.receive(f"{key}/{rank}", rank, timeout=max(left, _SLICE))
            except CoordinationTimeoutError:
                missing.append(rank)
        if missing:
            raise CoordinationTimeoutError("", tuple(missing), received)
        return received

    def _judge(self, data: bytes) -> None:
        verdict = json.loads(data)
        failures = {int(rank): str(words) for rank, words in verdict["failures"].items()}
        missing = tuple(verdict["missing"])
        if failures:
            said = "; ".join(f"rank {rank}: {words}" for rank, words in sorted(failures.items()))
            raise RankFailedError(f"nothing was created, in any process, because one of them failed: {said}", failures)
        if missing:
            raise CoordinationTimeoutError(
                f"nothing was created: of the ranks of this job {', '.join(map(str, missing))} did not come within"
                f" {self.timeout:g} s. See what became of them, or wait longer: MultiprocessingOptions(timeout=...)",
                missing,
            )


class Announcement:
    """One outcome, told once by the primary of a group to all its processes, however late they ask.

    In the primary itself nothing is sent to be heard; where every process is primary, each hears its own.
    """

    def __init__(self, group: Group, key: str, what: str) -> None:
        self._group, self._key, self._what = group, key, what
        self._latch: Latch[bool] = Latch()
        self._turn = threading.Lock()  # one asks the engine, where several threads wait

    async def tell(self, error: BaseException | None) -> None:
        """In the primary: that all went well, or with what it failed. CoordinationError if it cannot be sent."""
        if self._latch.is_told:
            raise ValidationError(f"{self._what} was told before, and that is done only once: make another")
        if not self._group.each_for_itself:
            await self._group.send(self._key, _outcome(error), timeout=self._group.timeout)
        self._note(None if error is None else _words(error))

    async def hear(self, timeout: float | None = None) -> None:
        """Return once it is told that all went well; RankFailedError if it is told otherwise.

        CoordinationTimeoutError after `timeout` seconds, by default those of the group.
        """
        limit = bounded(self._group.timeout if timeout is None else timeout)
        began = current().monotonic()
        while not self._latch.is_told and (left := limit - (current().monotonic() - began)) > 0:
            if self._group.is_primary:
                await self._latch.told(left)
            elif self._turn.acquire(blocking=False):
                try:
                    if not self._latch.is_told:
                        data = await self._group.receive(self._key, self._group.lead, timeout=left)
                        self._note(json.loads(data)["error"])
                finally:
                    self._turn.release()
            else:
                await self._latch.told(min(left, _SLICE))
        self._latch.look(lambda: CoordinationTimeoutError(f"{self._what} was not told within {limit:g} s", self._lead))

    @property
    def _lead(self) -> tuple[int, ...]:
        return (self._group.lead,)

    def _note(self, words: str | None) -> None:
        lead = self._group.rank if self._group.each_for_itself else self._group.lead
        error = RankFailedError(f"{self._what} will not come: rank {lead} failed with {words}", {lead: words or ""})
        self._latch.tell(True if words is None else error)


def _outcome(error: BaseException | None) -> bytes:
    return json.dumps({"error": None if error is None else _words(error)}).encode("ascii")


def _verdict(failures: Mapping[int, str], missing: tuple[int, ...]) -> bytes:
    return json.dumps({"failures": failures, "missing": missing}).encode("ascii")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


_lock = threading.Lock()
_counts: weakref.WeakKeyDictionary[Coordinator, dict[str, int]] = weakref.WeakKeyDictionary()


def _count(coordinator: Coordinator, name: str) -> int:
    with _lock:
        counts = _counts.setdefault(coordinator, {})
        counts[name] = counts.get(name, 0) + 1
        return counts[name]
