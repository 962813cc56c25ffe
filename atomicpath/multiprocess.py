"""One operation of all the processes of a job: each offers something, the primary decides, all learn the verdict.

A round is a `gather` and a `broadcast`. One failed process, or a silent one, makes the verdict a failure,
the same in all of them. Beside the engine's own means a process watches the others: one that has died on
this host is not waited for.
"""

from __future__ import annotations

import itertools
import json
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, cast

from . import errors
from .abc import Coordinator, Environment
from .environment import need_event_loop, shielded
from .errors import (
    AlreadyCommittedError,
    AtomicPathError,
    ConflictError,
    CoordinationError,
    CoordinationTimeoutError,
    RankFailedError,
)
from .liveness import lives, this_process
from .record import CommitRecord, JSONValue, Writer

__all__ = ["Document", "Team"]

Document: TypeAlias = "dict[str, JSONValue]"

_LOG = logging.getLogger("atomicpath")
_FAREWELL = 30.0  # seconds the primary stays for the others to hear a verdict, since it may be the engine's server
_PATIENCE = 30.0  # seconds after which it is said who is waited for
_STAY = 10.0  # seconds that a rank which has failed stays to hear the verdict, while others may wait for it elsewhere
_LOOKS = 5.0  # seconds between looks at the storage
_PRIMARY = 0
_counts: weakref.WeakKeyDictionary[Coordinator, itertools.count[int]] = weakref.WeakKeyDictionary()


class Team:
    """The processes of a job for one operation, begun in all of them in the same order, as any collective is."""

    def __init__(self, coordinator: Coordinator, environment: Environment, what: str) -> None:
        self._coordinator = coordinator
        self._environment = environment
        self._key = f"{what}/{next(_counts.setdefault(coordinator, itertools.count()))}"
        self._what = what
        self._writers: dict[int, Writer] = {}
        self._silent: tuple[int, ...] = ()  # those that the primary has waited for in vain
        self._said: set[str] = set()  # the rounds in which the others have this process's word

    @property
    def rank(self) -> int:
        """This process's number."""
        return self._coordinator.rank

    @property
    def is_primary(self) -> bool:
        """Whether this is the process that creates and finalizes."""
        return self.rank == _PRIMARY

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self._coordinator.world_size == 1

    async def decide(
        self,
        phase: str,
        offer: Document,
        decision: Callable[[Sequence[Document]], Awaitable[Document]],
        *,
        happened: Callable[[], Awaitable[bool | None]] | None = None,
    ) -> Document:
        """What the primary decides on the offers of all, by rank; `decision` runs there alone.

        What it raises is raised in every process: an error of ours as it is, any other as RankFailedError.
        RankFailedError if a process has called `fail`, CoordinationTimeoutError if one was not heard of in
        time. A process that hears of no verdict asks `happened` whether the decision was carried out.
        """
        if self.is_alone:
            return await decision([offer])
        need_event_loop()
        self._said.add(phase)
        if self.is_primary:
            return await self._lead(phase, offer, decision)
        # the primary itself may come late by one time-out, and then waits one for the slowest
        ends = self._environment.monotonic() + 2 * self._coordinator.timeout + 1
        try:
            await self._offer(phase, {"offer": offer})
            verdict = await self._verdict(phase, 2 * self._coordinator.timeout + 1)
        except CoordinationError as error:
            return await self._without_verdict(error, happened, ends)
        if "error" in verdict:
            raise _decoded(cast("Document", verdict["error"]))
        return cast("Document", verdict["result"])

    async def fail(self, phase: str, error: BaseException) -> AtomicPathError | None:
        """Tell the others that this process has failed, so that the round can only fail; None if it has taken part.

        What this process is to raise: what the others are told, if that is decided soon, else that it has failed.
        """
        if self.is_alone or phase in self._said:
            return None
        self._said.add(phase)
        failure: AtomicPathError = _failure({self.rank: _described(error)})
        with shielded():
            try:
                if self.is_primary:
                    await self._publish(phase, {"error": _encoded(failure)})
                else:
                    await self._offer(phase, {"failure": _described(error)})
                    if isinstance(error, Exception):  # one that leaves at once may take its engine from the others
                        verdict = await self._verdict(phase, min(_STAY, self._coordinator.timeout))
                        failure = _decoded(cast("Document", verdict["error"])) if "error" in verdict else failure
            except CoordinationError as lost:
                _LOG.warning("rank %d has failed, and cannot tell whether the others heard of it: %s", self.rank, lost)
        return failure

    def has_said(self, phase: str) -> bool:
        """Whether this process has taken part in the round, or failed in it."""
        return phase in self._said

    async def part(self, phase: str) -> bool:
        """After a round: whether every other process knows its verdict, or has died, and so does nothing any more.

        Others return at once; the primary, which may be the engine's server, waits for them a while.
        """
        if self.is_alone:
            return True
        seconds = min(_FAREWELL, self._coordinator.timeout)
        try:
            await self._coordinator.gather(self._at(phase, "heard"), b"", timeout=seconds, watch=self._lost)
        except CoordinationTimeoutError as error:
            _LOG.info("not every rank has heard of the end of %s: %s", self._what, error)
            return set(error.missing) <= self._gone(error.missing).keys()
        except CoordinationError as error:
            _LOG.info("not every rank has heard of the end of %s: %s", self._what, error)
            return False
        return True

    async def _lead(
        self, phase: str, offer: Document, decision: Callable[[Sequence[Document]], Awaitable[Document]]
    ) -> Document:
        try:
            result = await decision(await self._collect(phase, {"offer": offer}))
        except BaseException as error:
            with shielded():
                try:
                    await self._publish(phase, {"error": _encoded(error)})
                except CoordinationError as lost:
                    _LOG.warning("cannot tell the other ranks why %s failed: %s", self._what, lost)
            raise
        with shielded():  # it has happened: whoever can hear of it must
            await self._publish(phase, {"result": result})
        return result

    async def _collect(self, phase: str, mine: Document) -> list[Document]:
        seconds = self._coordinator.timeout
        try:
            values = await self._coordinator.gather(
                self._at(phase, "offer"), self._signed(mine), timeout=seconds, watch=self._watch()
            )
        except CoordinationTimeoutError as error:
            self._silent = error.missing
            silent = dict.fromkeys(error.missing, f"not heard of in time: {error}")
            failures = self._failures(error.received)
            if failures:
                raise _failure(failures | silent) from error
            raise
        offers = [self._read(rank, value) for rank, value in enumerate(values or ())]
        failures = self._failures(dict(enumerate(values or ())))
        if failures:
            raise _failure(failures)
        return [cast("Document", offer["offer"]) for offer in offers]

    async def _offer(self, phase: str, mine: Document) -> None:
        await self._coordinator.gather(
            self._at(phase, "offer"), self._signed(mine), timeout=self._coordinator.timeout, watch=self._gone
        )

    async def _verdict(self, phase: str, seconds: float) -> Document:
        verdict = await self._coordinator.broadcast(
            self._at(phase, "verdict"), None, timeout=seconds, watch=self._watch()
        )
        return self._read(_PRIMARY, verdict)

    async def _without_verdict(
        self, error: CoordinationError, happened: Callable[[], Awaitable[bool | None]] | None, ends: float
    ) -> Document:
        """Where the engine is gone, perhaps with the primary, the storage tells, if that one lives after a while."""
        if happened is None:
            raise error
        pause = 0.0
        while True:
            await self._environment.sleep(pause)
            dead = bool(self._gone([_PRIMARY]))  # before the look: what it has done is then to be seen
            try:
                answer = await happened()
            except (OSError, AtomicPathError) as second:
                _LOG.warning("rank %d cannot look at the storage, after losing its engine: %s", self.rank, second)
                answer = None
            if answer:
                _LOG.warning("rank %d lost its engine (%s), but the storage shows the commit", self.rank, error)
                return {}
            if dead or self._environment.monotonic() > ends:
                break
            pause = min(2 * pause or 0.1, _LOOKS)
        outlook = "and is gone" if dead else "which may still commit: look again with is_committed(...)"
        raise CoordinationTimeoutError(
            f"rank {self.rank} has no word of what became of {self._what} from rank {_PRIMARY}, {outlook}. The storage"
            f" shows no commit. {error}",
            (_PRIMARY,),
        ) from error

    async def _publish(self, phase: str, verdict: Document) -> None:
        await self._coordinator.broadcast(
            self._at(phase, "verdict"), self._signed(verdict), timeout=self._coordinator.timeout
        )

    def _at(self, phase: str, part: str) -> str:
        return f"{self._key}/{phase}/{part}"

    def _signed(self, document: Document) -> bytes:
        return json.dumps(document | {"writer": this_process(self._environment).document()}).encode("ascii")

    def _read(self, rank: int, value: bytes) -> Document:
        document: Document = json.loads(value)
        self._writers[rank] = Writer.of(cast("Document", document["writer"]))
        return document

    def _failures(self, values: Mapping[int, bytes]) -> dict[int, str]:
        read = {rank: self._read(rank, value) for rank, value in values.items()}
        return {rank: str(document["failure"]) for rank, document in read.items() if "failure" in document}

    def _watch(self) -> Callable[[Iterable[int]], Mapping[int, str]]:
        environment, said = self._environment, False
        begun = environment.monotonic()

        def watch(ranks: Iterable[int]) -> Mapping[int, str]:
            nonlocal said
            missing = list(ranks)
            if not said and environment.monotonic() > begun + _PATIENCE:
                said = True
                _LOG.warning(
                    "rank %d has waited %.0f s for rank %s in %s, which every rank of a job calls; if this one alone"
                    " is meant to, pass coordinator=atomicpath.SingleProcess()",
                    self.rank,
                    _PATIENCE,
                    ", ".join(map(str, missing)),
                    self._what,
                )
            return self._gone(missing)

        return watch

    def _gone(self, ranks: Iterable[int]) -> Mapping[int, str]:
        known = {rank: self._writers[rank] for rank in ranks if rank in self._writers}
        return {rank: f"{who} has died" for rank, who in known.items() if lives(self._environment, who) is False}

    def _lost(self, ranks: Iterable[int]) -> Mapping[int, str]:
        missing = list(ranks)
        waited_for = {rank: "it was waited for before" for rank in missing if rank in self._silent}
        return waited_for | dict(self._gone(missing))


def _failure(failures: Mapping[int, str]) -> RankFailedError:
    told = "; ".join(f"rank {rank}: {message}" for rank, message in sorted(failures.items()))
    return RankFailedError(f"nothing was committed, because not every rank of the job succeeded: {told}", failures)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _encoded(error: BaseException) -> Document:
    if not isinstance(error, AtomicPathError) or type(error).__name__ not in errors.__all__:
        error = _failure({_PRIMARY: _described(error)})
    record = getattr(error, "record", None)
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "record": record.encode().decode("ascii") if isinstance(record, CommitRecord) else None,
        "failures": {str(rank): text for rank, text in getattr(error, "failures", {}).items()},
        "missing": list(getattr(error, "missing", ())),
    }


def _decoded(document: Document) -> AtomicPathError:
    kind: type[AtomicPathError] = getattr(errors, str(document["kind"]))
    message = str(document["message"])
    if issubclass(kind, RankFailedError):
        failures = cast("dict[str, str]", document["failures"])
        return kind(message, {int(rank): text for rank, text in failures.items()})
    if issubclass(kind, CoordinationTimeoutError):
        return kind(message, tuple(cast("list[int]", document["missing"])))
    if issubclass(kind, AlreadyCommittedError | ConflictError) and document["record"] is not None:
        return kind(message, CommitRecord.decode(str(document["record"]).encode(), where="what another rank met"))
    return kind(message)
