"""Broadcast, gather and barrier for engines whose processes send one another messages."""

from __future__ import annotations

import abc
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from atomicpath._core.environment import current
from atomicpath.abc import Watch
from atomicpath.errors import CoordinationError, CoordinationTimeoutError, ValidationError

from .base import BaseCoordinator, Deadline, too_late

__all__ = ["MessageCoordinator", "Messages"]

_KEPT = 10_000  # messages that nobody asks for, because their call had given up before they came


class Messages(abc.ABC):
    """What the engine does: pass bytes from one rank to another, in order. Calls block, in a worker thread.

    An engine that is gone, was shut down or refuses is CoordinationError.
    """

    def ready(self, seconds: float, waited: float) -> bool:
        """Tell whether messages can be sent. Wait at most `seconds` until every process has come that far."""
        return True

    @abc.abstractmethod
    def send(self, to: int, data: bytes) -> None:
        """Hand the bytes over, without waiting until they are received."""

    @abc.abstractmethod
    def receive(self, seconds: float, waited: float) -> tuple[int, bytes] | None:
        """Return the next message and its sender, waiting at most `seconds`.

        Two threads never call this method at once.
        """


class MessageCoordinator(BaseCoordinator):
    """A rank of a job whose processes send messages; each names the call it belongs to.

    What comes for another call is kept for it. Rank 0 tells all others how a barrier ended, so a late one
    finds the verdict among its messages.
    """

    def __init__(self, messages: Messages, rank: int, world_size: int, *, timeout: float) -> None:
        super().__init__(rank, world_size, timeout=timeout)
        self._messages = messages
        self._arrived = threading.Condition()
        self._receiving = False
        self._inbox: OrderedDict[tuple[str, int], bytes] = OrderedDict()  # messages by call and sender

    async def broadcast(
        self, key: str, value: bytes | None = None, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> bytes:
        waiting = await self._open(key, timeout, watch, root)
        if self._rank == root:
            if value is None:
                raise ValidationError(f"rank {root} broadcasts {key!r} without a value: pass value=")
            await waiting.environment.step(self._send_all, f"broadcast {key}", value)
            return value
        expected = _Expected(self, f"broadcast {key}", (root,))
        reasons = await waiting.until(expected.look, expected.missing)
        if reasons is not None:
            raise too_late("broadcast", key, (root,), waited=waiting.waited, reasons=reasons)
        return expected.received[root]

    async def gather(
        self, key: str, value: bytes, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> list[bytes] | None:
        waiting = await self._open(key, timeout, watch, root)
        if self._rank != root:
            await waiting.environment.step(self._send, root, f"gather {key}", value)
            return None
        expected = _Expected(self, f"gather {key}", self._others)
        reasons = await waiting.until(expected.look, expected.missing)
        received = {**expected.received, self._rank: value}
        if reasons is not None:
            missing = expected.missing()
            raise too_late("gather", key, missing, waited=waiting.waited, reasons=reasons, received=received)
        return [received[rank] for rank in range(self._world_size)]

    async def barrier(self, key: str, *, timeout: float, watch: Watch | None = None) -> None:
        waiting = await self._open(key, timeout, watch)
        if self._rank == 0:
            expected = _Expected(self, f"barrier {key}", self._others)
            reasons = await waiting.until(expected.look, expected.missing)
            missing = expected.missing() if reasons is not None else ()
            known = {rank: why for rank, why in (reasons or {}).items() if rank in missing}
            verdict = json.dumps([missing, waiting.waited, [*known.items()]]).encode()
            await waiting.environment.step(self._send_all, f"verdict {key}", verdict, missing)
        else:
            expected = _Expected(self, f"verdict {key}", (0,), first=lambda: self._send(0, f"barrier {key}", b""))
            reasons = await waiting.until(expected.look, expected.missing, grace=waiting.grace)
            if reasons is not None:
                raise too_late("barrier", key, (0,), waited=waiting.waited, reasons=reasons)
            verdict = expected.received[0]
        missing, waited, known = json.loads(verdict)
        if missing:
            await self._part(waiting, key, missing)
            raise too_late("barrier", key, missing, waited=waited, reasons=dict(known))

    async def _open(self, key: str, timeout: float, watch: Watch | None, root: int = 0) -> Deadline:
        waiting = self._begin(key, timeout, watch, root)
        if await waiting.until(self._messages.ready, lambda: self._others) is not None:
            raise CoordinationTimeoutError(
                f"some process of the job did not come to its first call {key!r} in {waiting.waited:.1f} s, and the "
                "engine does not tell which: see the logs of all ranks"
            )
        return waiting

    async def _part(self, waiting: Deadline, key: str, missing: Sequence[int]) -> None:
        """Let rank 0 leave last after a failure, if the others say good-bye soon.

        The engine may end with the process of rank 0.
        """
        if self._rank != 0:
            await waiting.environment.step(self._send, 0, f"parting {key}", b"")
            return
        present = [rank for rank in self._others if rank not in missing]
        expected = _Expected(self, f"parting {key}", present)
        await Deadline(waiting.environment, waiting.grace, None).until(expected.look, expected.missing)

    # The methods below run in worker threads.

    def _send(self, to: int, call: str, value: bytes) -> None:
        name = call.encode()
        self._messages.send(to, len(name).to_bytes(4, "big") + name + value)

    def _send_all(self, call: str, value: bytes, missing: Iterable[int] = ()) -> None:
        """Send to all other ranks, even if one cannot be reached.

        A rank that cannot be reached is an error, unless it is one of the `missing`.
        """
        error: CoordinationError | None = None
        for rank in self._others:
            try:
                self._send(rank, call, value)
            except CoordinationError as raised:
                error = error if rank in missing else error or raised
        if error is not None:
            raise error

    def take(self, call: str, ranks: Iterable[int], seconds: float, waited: float) -> Mapping[int, bytes]:
        """Return the messages of this call, at least one unless the time is up.

        One of the waiting threads receives for all.
        """
        environment = current()
        deadline = environment.monotonic() + seconds
        looked = False
        with self._arrived:
            while True:
                found = {rank: self._inbox.pop((call, rank)) for rank in ranks if (call, rank) in self._inbox}
                left = deadline - environment.monotonic()
                if found or (left <= 0 and looked):
                    return found
                looked = True
                if self._receiving:
                    self._arrived.wait(max(left, 0.0))
                else:
                    self._receive(max(left, 0.0), waited)

    def _receive(self, seconds: float, waited: float) -> None:
        self._receiving = True
        self._arrived.release()
        message = None
        try:
            message = self._messages.receive(seconds, waited)
        finally:
            self._arrived.acquire()
            self._receiving = False
            self._arrived.notify_all()
        if message is not None:
            sender, data = message
            end = 4 + int.from_bytes(data[:4], "big")
            self._inbox[data[4:end].decode(), sender] = data[end:]
            while len(self._inbox) > _KEPT:
                self._inbox.popitem(last=False)


class _Expected:
    """The messages of some ranks to one call."""

    def __init__(
        self,
        member: MessageCoordinator,
        call: str,
        ranks: Sequence[int],
        *,
        first: Callable[[], None] | None = None,
    ) -> None:
        self._member, self._call, self._ranks, self._first = member, call, ranks, first
        self.received: dict[int, bytes] = {}

    def missing(self) -> tuple[int, ...]:
        return tuple(rank for rank in self._ranks if rank not in self.received)

    def look(self, seconds: float, waited: float) -> bool:
        environment = current()
        deadline = environment.monotonic() + seconds
        if self._first is not None:
            first, self._first = self._first, None
            first()
        while self.missing():
            left = max(0.0, deadline - environment.monotonic())
            found = self._member.take(self._call, self.missing(), left, waited)
            if not found:
                return False
            self.received.update(found)
        return True
