"""Broadcast, gather and barrier on a key-value store that the processes of a job share."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

from atomicpath.abc import Watch
from atomicpath.errors import CoordinationError, CoordinationTimeoutError, ValidationError

from .meeting import Meeting
from .member import SLICE, JobMember, Waiting, too_late
from .values import KeyValues

__all__ = ["KeyValueCoordinator", "KeyValues"]

_KEPT = 1000  # published values that not every rank is known to have read; older ones are deleted all the same


class KeyValueCoordinator(JobMember):
    """A rank of a job whose processes share `values`.

    At their first call the ranks meet (`Meeting`), and all keys of the run stand below a name that no
    earlier run had; rank 0 therefore waits for every other rank once. After that a message to a rank is a
    key of its own: written by one rank, read by one, then deleted by one of them. What is meant for all
    (a broadcast, the verdict of a barrier) is created, never overwritten, and deleted when every rank's
    later messages have said that it was read: so a late one still finds it, and the store does not grow.

    A rank that runs on this host and has provably ended is not waited for.

    All keys begin with `name`. A second coordinator of the same name, made in all processes, is a new run;
    two that meet at the same time need different names.
    """

    def __init__(
        self, values: KeyValues, rank: int, world_size: int, *, timeout: float = 600.0, name: str = "atomicpath"
    ) -> None:
        super().__init__(rank, world_size, timeout=timeout)
        self._values = values
        self._meeting = Meeting(values, rank, world_size, name)
        self._lock = threading.Lock()
        self._published: OrderedDict[str, int] = OrderedDict()  # how many ranks have still to read it
        self._read: dict[int, deque[str]] = {}  # by the rank that published it, and is yet to be told
        self._garbage: list[str] = []

    async def broadcast(
        self, key: str, value: bytes | None = None, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> bytes:
        if self._rank == root and value is None:
            raise ValidationError(f"rank {root} broadcasts {key!r} without a value: pass value=")
        waiting = await self._met(key, timeout, watch, root)
        if self._rank != root or value is None:
            return await self._receive(waiting, "broadcast", key, root)
        if self._world_size == 1:
            return value
        await waiting.environment.step(self._publish, key, f"{_name(key)}/all", value)
        return value

    async def gather(
        self, key: str, value: bytes, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> list[bytes] | None:
        waiting = await self._met(key, timeout, watch, root)
        if self._rank != root:
            await waiting.environment.step(self._send, f"{_name(key)}/{self._rank}", root, value)
            return None
        collected = _Collected(self, key)
        reasons = await waiting.until(collected.look, collected.missing)
        received = {**collected.received, self._rank: value}
        if reasons is not None:
            raise too_late(
                "gather", key, collected.missing(), waited=waiting.waited, reasons=reasons, received=received
            )
        return [received[rank] for rank in range(self._world_size)]

    async def barrier(self, key: str, *, timeout: float, watch: Watch | None = None) -> None:
        waiting = await self._met(key, timeout, watch, 0)
        if self._world_size == 1:
            return
        reasons: Mapping[int, str] | None
        if self._rank == 0:
            collected = _Collected(self, key, is_barrier=True)
            reasons = await waiting.until(collected.look, collected.missing)
            missing: Sequence[int] = collected.missing() if reasons is not None else ()
            verdict = _Verdict(missing, waiting.waited, reasons or {})
            verdict = await waiting.environment.step(self._decide, key, verdict)
        else:
            verdict = await self._await_verdict(waiting, key)
        with self._lock:
            self._garbage.append(self._at(f"{_name(key)}/{self._rank}"))  # rank 0 has read it, or never will
        if verdict.missing:
            await self._part(waiting, key, verdict.missing)
            raise too_late("barrier", key, verdict.missing, waited=verdict.waited, reasons=verdict.reasons)

    async def _await_verdict(self, waiting: Waiting, key: str) -> _Verdict:
        verdict = _Awaited(self, f"{_name(key)}/verdict", sending=(f"{_name(key)}/{self._rank}", 0))
        reasons = await waiting.until(verdict.look, lambda: (0,), grace=waiting.grace)
        if reasons is None:
            self._note_read(0, verdict.name)
            return _Verdict.decode(verdict.value)
        return await waiting.environment.step(self._give_up, key, waiting.waited, reasons)

    async def _part(self, waiting: Waiting, key: str, missing: Sequence[int]) -> None:
        """After a failure rank 0 leaves last, if the others say good-bye soon: the store may end with its process."""
        names = {rank: f"{_name(key)}/{rank}/parting" for rank in range(1, self._world_size) if rank not in missing}
        if self._rank in names:
            await waiting.environment.step(self._send, names[self._rank], 0, b"")
        elif self._rank == 0:
            keys = [self._at(name) for name in names.values()]
            patience = Waiting(waiting.environment, waiting.grace, self._meeting.ended)

            def look(seconds: float, waited: float) -> bool:
                return len(self._values.collect(keys, seconds, waited)) == len(keys)

            await patience.until(look, lambda: [*names])
            with self._lock:
                self._garbage += keys

    async def _met(self, key: str, timeout: float, watch: Watch | None, root: int) -> Waiting:
        waiting = self._begin(key, timeout, watch, root)
        if not self._meeting.is_over:
            try:
                await self._meet(waiting, key)
            except CoordinationError:
                if self._rank == 0:  # the others look once in a slice, and the store may end with this process
                    await waiting.environment.sleep(2 * SLICE)
                raise
        waiting.also(self._meeting.ended)
        return waiting

    async def _meet(self, waiting: Waiting, key: str) -> None:
        reasons = await waiting.until(self._meeting.look, self._meeting.missing)
        if reasons is None:
            return
        what, missing = "first meeting of the job's processes, for", self._meeting.missing()
        error = too_late(what, key, missing, waited=waiting.waited, reasons=reasons)
        hint = await waiting.environment.step(self._meeting.give_up, str(error), missing)
        raise CoordinationTimeoutError(f"{error}{hint}", missing)

    async def _receive(self, waiting: Waiting, what: str, key: str, root: int) -> bytes:
        awaited = _Awaited(self, f"{_name(key)}/all")
        reasons = await waiting.until(awaited.look, lambda: (root,))
        if reasons is not None:
            raise too_late(what, key, (root,), waited=waiting.waited, reasons=reasons)
        self._note_read(root, awaited.name)
        return awaited.value

    # Below: in worker threads.

    def _at(self, name: str) -> str:
        return f"{self._meeting.run}/{name}"

    def _publish(self, key: str, name: str, value: bytes) -> None:
        if self._create(name, value) != value:
            raise CoordinationError(f"the key {key!r} was used before in this job: every call needs one of its own")

    def _create(self, name: str, value: bytes) -> bytes:
        """What all ranks find under the name from now on, until they have told this one that they read it."""
        found = self._values.create(self._at(name), b"=" + value)[1:]
        with self._lock:
            self._published.setdefault(name, self._world_size - 1)
            while len(self._published) > _KEPT:
                self._garbage.append(self._at(self._published.popitem(last=False)[0]))
            crowded = len(self._garbage) > _KEPT
        if crowded:
            self._tidy()
        return found

    def _send(self, name: str, to: int, value: bytes) -> None:
        """To one rank, with word of what of its own was read here."""
        with self._lock:
            read = json.dumps([*self._read.pop(to, ())]).encode()
            crowded = len(self._garbage) > _KEPT
        self._values.put(self._at(name), len(read).to_bytes(4, "big") + read + value)
        if crowded:
            self._tidy()

    def _unpack(self, name: str, data: bytes) -> bytes:
        """A message to this rank; what it says was read by everybody is deleted in the end, as is the message."""
        end = 4 + int.from_bytes(data[:4], "big")
        with self._lock:
            for read in json.loads(data[4:end]):
                if read in self._published:
                    self._published[read] -= 1
                    if not self._published[read]:
                        del self._published[read]
                        self._garbage.append(self._at(read))
        return data[end:]

    def _note_read(self, publisher: int, name: str) -> None:
        with self._lock:
            self._read.setdefault(publisher, deque(maxlen=_KEPT)).append(name)

    def _tidy(self) -> None:
        with self._lock:
            garbage, self._garbage = self._garbage, []
        for key in garbage:
            self._values.delete(key)

    def _decide(self, key: str, verdict: _Verdict) -> _Verdict:
        """The verdict on a barrier is the first that anybody publishes."""
        return _Verdict.decode(self._create(f"{_name(key)}/verdict", verdict.encode()))

    def _give_up(self, key: str, waited: float, reasons: Mapping[int, str]) -> _Verdict:
        """No verdict came: say ourselves who is missing; rank 0, if nobody else, since it fell silent."""
        names = {rank: self._at(f"{_name(key)}/{rank}") for rank in self._others}
        there = self._values.collect([*names.values()], 0.0, waited)
        missing = tuple(rank for rank, name in names.items() if name not in there)
        verdict = _Verdict(missing or (0,), waited, reasons).encode()
        # whether anybody has read it is told to rank 0, which deletes it, should it ever come
        return _Verdict.decode(self._values.create(self._at(f"{_name(key)}/verdict"), b"=" + verdict)[1:])


def _name(key: str) -> str:
    """The key without a slash, which parts the key of a call from the names below it, and folders in some stores."""
    return key.replace("%", "%25").replace("/", "%2F")


class _Awaited:
    """One published value that is waited for; before, perhaps, one's own message is sent."""

    def __init__(self, member: KeyValueCoordinator, name: str, *, sending: tuple[str, int] | None = None) -> None:
        self._member, self.name, self._sending = member, name, sending
        self.value = b""

    def look(self, seconds: float, waited: float) -> bool:
        member = self._member
        if self._sending is not None:
            (name, to), self._sending = self._sending, None
            member._send(name, to, b"")
        member._tidy()
        key = member._at(self.name)
        found = member._values.collect([key], seconds, waited).get(key)
        if found is not None:
            self.value = found[1:]
        return found is not None


class _Collected:
    """The messages of all other ranks to this one under a key."""

    def __init__(self, member: KeyValueCoordinator, key: str, *, is_barrier: bool = False) -> None:
        self._member = member
        self._names = {rank: f"{_name(key)}/{rank}" for rank in member._others}
        self._first = True
        self._is_barrier = is_barrier
        self._key = key
        self.received: dict[int, bytes] = {}

    def missing(self) -> tuple[int, ...]:
        return tuple(rank for rank in self._names if rank not in self.received)

    def look(self, seconds: float, waited: float) -> bool:
        member = self._member
        if not self._first:
            member._meeting.look_for_newcomers(waited)
        elif self._is_barrier:  # so that others, should we fall silent, do not take us for missing
            member._send(f"{_name(self._key)}/{member.rank}", member.rank, b"")
        self._first = False
        member._tidy()
        keys = {member._at(self._names[rank]): rank for rank in self.missing()}
        for key, data in member._values.collect([*keys], seconds, waited).items():
            rank = keys[key]
            self.received[rank] = member._unpack(self._names[rank], data)
            if not self._is_barrier:
                with member._lock:
                    member._garbage.append(key)
        return not self.missing()


class _Verdict:
    """How a barrier ended: which ranks were missing after how many seconds, and what was known of them."""

    def __init__(self, missing: Sequence[int], waited: float, reasons: Mapping[int, str]) -> None:
        self.missing, self.waited, self.reasons = tuple(missing), waited, dict(reasons)

    def encode(self) -> bytes:
        return json.dumps([self.missing, self.waited, [*self.reasons.items()]]).encode() if self.missing else b""

    @classmethod
    def decode(cls, data: bytes) -> _Verdict:
        missing, waited, reasons = json.loads(data) if data else ((), 0.0, ())
        return cls(missing, waited, dict(reasons))
