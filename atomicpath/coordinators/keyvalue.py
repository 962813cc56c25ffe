"""Broadcast, gather and barrier on a key-value store that the processes of a job share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from atomicpath.abc import Watch
from atomicpath.errors import CoordinationError, CoordinationTimeoutError, ValidationError

from .base import SLICE, BaseCoordinator, Deadline, too_late
from .key_value_store import KeyValues
from .rendezvous import Rendezvous
from .transport import KeyValueTransport

__all__ = ["KeyValueCoordinator", "KeyValues"]


class KeyValueCoordinator(BaseCoordinator):
    """A rank of a job whose processes share `values`.

    At their first call the ranks meet (`Rendezvous`), and all keys of the run stand below a name that no
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
        self._meeting = meeting = Rendezvous(values, rank, world_size, name)
        self._mailbox = KeyValueTransport(values, lambda: meeting.run, world_size - 1)

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
        await waiting.environment.step(self._mailbox.publish, key, f"{_name(key)}/all", value)
        return value

    async def gather(
        self, key: str, value: bytes, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> list[bytes] | None:
        waiting = await self._met(key, timeout, watch, root)
        if self._rank != root:
            await waiting.environment.step(self._mailbox.send, f"{_name(key)}/{self._rank}", root, value)
            return None
        collected = _Collected(self._mailbox, self._meeting, key, self._others)
        reasons = await waiting.until(collected.look, collected.missing)
        collected.discard()
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
            collected = _Collected(
                self._mailbox, self._meeting, key, self._others, sending=f"{_name(key)}/{self._rank}"
            )
            reasons = await waiting.until(collected.look, collected.missing)
            missing: Sequence[int] = collected.missing() if reasons is not None else ()
            verdict = _Verdict(missing, waiting.waited, reasons or {})
            verdict = await waiting.environment.step(self._decide, key, verdict)
        else:
            verdict = await self._await_verdict(waiting, key)
        self._mailbox.discard([f"{_name(key)}/{self._rank}"])  # rank 0 has read the value, or never will
        if verdict.missing:
            await self._part(waiting, key, verdict.missing)
            raise too_late("barrier", key, verdict.missing, waited=verdict.waited, reasons=verdict.reasons)

    async def _await_verdict(self, waiting: Deadline, key: str) -> _Verdict:
        verdict = _Awaited(self._mailbox, f"{_name(key)}/verdict", 0, sending=f"{_name(key)}/{self._rank}")
        reasons = await waiting.until(verdict.look, lambda: (0,), grace=waiting.grace)
        if reasons is None:
            return _Verdict.decode(verdict.value)
        return await waiting.environment.step(self._give_up, key, waiting.waited, reasons)

    async def _part(self, waiting: Deadline, key: str, missing: Sequence[int]) -> None:
        """Let rank 0 leave last after a failure, if the others say good-bye soon.

        The store may end with the process of rank 0.
        """
        names = {rank: f"{_name(key)}/{rank}/parting" for rank in range(1, self._world_size) if rank not in missing}
        if self._rank in names:
            await waiting.environment.step(self._mailbox.send, names[self._rank], 0, b"")
        elif self._rank == 0:
            messages = [*names.values()]
            patience = Deadline(waiting.environment, waiting.grace, self._meeting.ended)

            def look(seconds: float, waited: float) -> bool:
                return len(self._mailbox.receive(messages, seconds, waited)) == len(messages)

            await patience.until(look, lambda: [*names])
            self._mailbox.discard(messages)

    async def _met(self, key: str, timeout: float, watch: Watch | None, root: int) -> Deadline:
        waiting = self._begin(key, timeout, watch, root)
        if not self._meeting.is_over:
            try:
                await self._meet(waiting, key)
            except CoordinationError:
                if self._rank == 0:  # the others look once in a slice, and the store may end with rank 0
                    await waiting.environment.sleep(2 * SLICE)
                raise
        waiting.also(self._meeting.ended)
        return waiting

    async def _meet(self, waiting: Deadline, key: str) -> None:
        reasons = await waiting.until(self._meeting.look, self._meeting.missing)
        if reasons is None:
            return
        what, missing = "first meeting of the job's processes, for", self._meeting.missing()
        error = too_late(what, key, missing, waited=waiting.waited, reasons=reasons)
        hint = await waiting.environment.step(self._meeting.give_up, str(error), missing)
        raise CoordinationTimeoutError(f"{error}{hint}", missing)

    async def _receive(self, waiting: Deadline, what: str, key: str, root: int) -> bytes:
        awaited = _Awaited(self._mailbox, f"{_name(key)}/all", root)
        reasons = await waiting.until(awaited.look, lambda: (root,))
        if reasons is not None:
            raise too_late(what, key, (root,), waited=waiting.waited, reasons=reasons)
        return awaited.value

    # The methods below run in worker threads.

    def _decide(self, key: str, verdict: _Verdict) -> _Verdict:
        """Publish a verdict on a barrier and return the one that holds: the first that any rank publishes."""
        return _Verdict.decode(self._mailbox.create(f"{_name(key)}/verdict", verdict.encode(), keep=self._rank == 0))

    def _give_up(self, key: str, waited: float, reasons: Mapping[int, str]) -> _Verdict:
        """Decide, when no verdict came, which ranks are missing.

        If no other rank is missing, it is rank 0, since rank 0 fell silent.
        """
        names = {rank: f"{_name(key)}/{rank}" for rank in self._others}
        there = self._mailbox.seen([*names.values()], 0.0, waited)
        missing = tuple(rank for rank, name in names.items() if name not in there)
        return self._decide(key, _Verdict(missing or (0,), waited, reasons))


def _name(key: str) -> str:
    """Return the key with its slashes encoded.

    A slash separates the key of a call from the names below it, and separates folders in some stores.
    """
    return key.replace("%", "%25").replace("/", "%2F")


class _Awaited:
    """One published value that is waited for; before, perhaps, one's own message is sent."""

    def __init__(self, mailbox: KeyValueTransport, name: str, publisher: int, *, sending: str = "") -> None:
        self._mailbox, self._name, self._publisher, self._sending = mailbox, name, publisher, sending
        self.value = b""

    def look(self, seconds: float, waited: float) -> bool:
        if self._sending:
            name, self._sending = self._sending, ""
            self._mailbox.send(name, self._publisher, b"")
        self._mailbox.tidy()
        found = self._mailbox.read(self._name, self._publisher, seconds, waited)
        self.value = found or b""
        return found is not None


class _Collected:
    """The messages of all other ranks to this one under a key; before, perhaps, one's own is put beside them."""

    def __init__(
        self, mailbox: KeyValueTransport, meeting: Rendezvous, key: str, ranks: Sequence[int], *, sending: str = ""
    ) -> None:
        self._mailbox, self._meeting, self._sending = mailbox, meeting, sending
        self._names = {f"{_name(key)}/{rank}": rank for rank in ranks}
        self.received: dict[int, bytes] = {}

    def missing(self) -> tuple[int, ...]:
        return tuple(rank for rank in self._names.values() if rank not in self.received)

    def look(self, seconds: float, waited: float) -> bool:
        if self._sending:  # so that the others do not take this rank for missing if it falls silent later
            name, self._sending = self._sending, ""
            self._mailbox.send(name, 0, b"")
        self._mailbox.tidy()
        self._meeting.look_for_newcomers(waited)
        names = [name for name, rank in self._names.items() if rank not in self.received]
        for name, value in self._mailbox.receive(names, seconds, waited).items():
            self.received[self._names[name]] = value
        return not self.missing()

    def discard(self) -> None:
        """Discard the messages that were received, which are needed no more."""
        self._mailbox.discard([name for name, rank in self._names.items() if rank in self.received])


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
