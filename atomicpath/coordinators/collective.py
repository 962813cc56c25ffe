"""One operation of all the processes of a job: each offers something, the primary decides, all learn the verdict.

A round is a `gather` and a `broadcast`. One failed process, or a silent one, makes the verdict a failure,
the same in all of them. Beside the engine's own means a process watches the others: one that has died on
this host is not waited for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import cast

from atomicpath._core.environment import cleaning_up, need_event_loop, shielded
from atomicpath._core.failures import Document, decoded, described, encoded, failure_of
from atomicpath._core.liveness import lives, this_process
from atomicpath._core.record import Writer
from atomicpath.abc import Environment
from atomicpath.errors import AtomicPathError, CoordinationError, CoordinationTimeoutError, OutcomeUnknownError

from .process_group import ProcessGroup

__all__ = ["CollectiveCall"]

_LOG = logging.getLogger("atomicpath")
_FAREWELL = 60.0  # seconds that the primary, which may be the engine's server, stays for the others to hear a verdict
_PATIENCE = 30.0  # seconds after which a message names the ranks that are waited for
_STAY = 10.0  # seconds that a failed rank stays to hear the verdict, while others may wait for that rank elsewhere
_LOOKS = 5.0  # seconds between looks at the storage


class CollectiveCall:
    """The processes of a job for one operation, begun in all of them in the same order, as any collective is."""

    def __init__(self, group: ProcessGroup, environment: Environment, what: str, *, failure_summary: str) -> None:
        """`failure_summary` says what follows when a rank has failed, such as "nothing was committed"."""
        self._group = group
        self._environment = environment
        self._key = "" if group.is_alone else group.key(what)
        self._what, self._undone = what, failure_summary
        self._writers: dict[int, Writer] = {}
        self._silent: tuple[int, ...] = ()  # the ranks that the primary has waited for in vain
        self._said: set[str] = set()  # the rounds in which this process has sent its message

    @property
    def rank(self) -> int:
        """Return this process's number."""
        return self._group.rank

    @property
    def is_primary(self) -> bool:
        """Tell whether this is the process that creates and finalizes."""
        return self._group.is_primary_rank

    @property
    def is_alone(self) -> bool:
        """Tell whether no other process takes part."""
        return self._group.is_alone

    async def run_on_primary(
        self,
        phase: str,
        offer: Document,
        decision: Callable[[Sequence[Document]], Awaitable[Document]],
        *,
        check_outcome: Callable[[], Awaitable[bool | None]] | None = None,
        then: Callable[[], Awaitable[Document]] | None = None,
    ) -> Document:
        """Return the primary's decision on the offers of all processes.

        `decision` runs in the primary alone and gets the offers in the order of the ranks. `then`, given by all
        processes or by none, makes a second offer of each, once every first offer has arrived; the fields of the second
        offer are added to those of the first.

        An error that the decision raises is raised in every process: an error of atomicpath as it is, any other as
        RankFailedError. RankFailedError is also raised if a process has called `fail`, and CoordinationTimeoutError if
        a process was not heard of in time. A process that receives no verdict asks `check_outcome` whether the decision
        was carried out.
        """
        if self.is_alone:
            return await decision([offer])
        need_event_loop()
        self._said.add(phase)
        if self.is_primary:
            return await self._lead(phase, offer, decision, then, commits=check_outcome is not None)
        # the primary may come late by one time-out, and then waits another one for the slowest rank
        seconds = 2 * self._group.timeout + 1
        ends = self._environment.monotonic() + seconds
        try:
            await self._offer(phase, {"offer": offer})
            verdict = await self._verdict(phase, seconds)
            if then is not None and "then" in verdict:
                await self._offer(_second(phase), await self._outcome(then))
                verdict = await self._verdict(_second(phase), seconds)
        except CoordinationError as error:
            return await self._without_verdict(error, check_outcome, ends)
        if "error" in verdict:
            raise decoded(cast("Document", verdict["error"]))
        return cast("Document", verdict["result"])

    async def fail(self, phase: str, error: BaseException) -> AtomicPathError | None:
        """Tell the others that this process has failed, so that the round can only fail; None if it has taken part.

        What this process is to raise: what the others are told, if that is decided soon, else that it has failed.
        """
        if self.is_alone or phase in self._said:
            return None
        self._said.add(phase)
        failure: AtomicPathError = failure_of({self.rank: described(error)}, self._undone)
        with cleaning_up(self._what, error):
            try:
                if self.is_primary:
                    await self._publish(phase, {"error": encoded(failure, self.rank, self._undone)})
                else:
                    await self._offer(phase, {"failure": described(error)})
                    if isinstance(error, Exception):  # a process that leaves at once may stop the engine of the others
                        verdict = await self._verdict(phase, min(_STAY, self._group.timeout))
                        failure = decoded(cast("Document", verdict["error"])) if "error" in verdict else failure
            except CoordinationError as lost:
                _LOG.warning("rank %d has failed, and cannot tell whether the others heard of it: %s", self.rank, lost)
        return failure

    def has_said(self, phase: str) -> bool:
        """Tell whether this process has taken part in the round, or failed in it."""
        return phase in self._said

    async def wait_for_acks(self, phase: str, *, stay: bool = True) -> bool:
        """Return True if every other process knows the round's verdict or has died.

        Such a process does nothing more in the round. The primary, which may be the engine's server, waits for the
        acknowledgements for a bounded time. The others return at once, unless the engine fails when one process leaves
        while another still waits: then they wait until the primary reports that all have the verdict. `stay` is False
        for a process that was interrupted and leaves at once.
        """
        if self.is_alone:
            return True
        known = await self._acknowledge(phase)
        if self._group.leave_together and (stay or self.is_primary):
            try:
                if self.is_primary:
                    await self._group.send(self._at(phase, "over"), b"")
                else:
                    await self._group.receive(self._at(phase, "over"), timeout=self._farewell, watch=self._gone)
            except CoordinationError as error:  # the verdict is known, and that is what counts
                _LOG.debug("rank %d leaves %s before all others have: %s", self.rank, self._what, error)
        return known

    @property
    def _farewell(self) -> float:
        return min(_FAREWELL, self._group.timeout)

    async def _acknowledge(self, phase: str) -> bool:
        try:
            await self._group.gather(self._at(phase, "heard"), b"", timeout=self._farewell, watch=self._lost)
        except CoordinationTimeoutError as error:
            _LOG.info("not every rank has heard of the end of %s: %s", self._what, error)
            return set(error.missing) <= self._gone(error.missing).keys()
        except CoordinationError as error:
            _LOG.info("not every rank has heard of the end of %s: %s", self._what, error)
            return False
        return True

    async def _lead(
        self,
        phase: str,
        offer: Document,
        decision: Callable[[Sequence[Document]], Awaitable[Document]],
        then: Callable[[], Awaitable[Document]] | None,
        *,
        commits: bool,
    ) -> Document:
        deciding = False
        try:
            offers = await self._collect(phase, {"offer": offer})
            if then is not None:
                await self._publish(phase, {"then": True})
                phase = _second(phase)
                more = await self._collect(phase, await self._outcome(then))
                offers = [first | second for first, second in zip(offers, more, strict=True)]
            deciding = True
            result = await decision(offers)
        except BaseException as error:
            told = error
            if commits and deciding and not isinstance(error, Exception):
                # a task's own cancel() breaks a shield; the request that was sent may have been carried out
                told = OutcomeUnknownError(
                    f"rank {self.rank} was interrupted while it carried out {self._what} ({described(error)}): look"
                    " with is_committed(...)"
                )
            await self._publish(phase, {"error": encoded(told, self.rank, self._undone)})
            raise
        await self._publish(phase, {"result": result})
        return result

    async def _outcome(self, then: Callable[[], Awaitable[Document]]) -> Document:
        """Return a second offer, or the failure to make one, which fails the round in every process."""
        try:
            return {"offer": await then()}
        except (OSError, AtomicPathError) as error:
            return {"failure": described(error)}

    async def _collect(self, phase: str, mine: Document) -> list[Document]:
        seconds = self._group.timeout
        try:
            values = await self._group.gather(
                self._at(phase, "offer"), self._signed(mine), timeout=seconds, watch=self._watch()
            )
        except CoordinationTimeoutError as error:
            self._silent = error.missing
            silent = dict.fromkeys(error.missing, f"not heard of in time: {error}")
            failures = _failures({rank: self._read(rank, value) for rank, value in error.received.items()})
            if failures:
                raise failure_of(failures | silent, self._undone) from error
            raise
        offers = {rank: self._read(rank, value) for rank, value in values.items()}
        failures = _failures(offers)
        if failures:
            raise failure_of(failures, self._undone)
        return [cast("Document", offer["offer"]) for offer in offers.values()]

    async def _offer(self, phase: str, mine: Document) -> None:
        await self._group.gather(
            self._at(phase, "offer"), self._signed(mine), timeout=self._group.timeout, watch=self._gone
        )

    async def _verdict(self, phase: str, seconds: float) -> Document:
        verdict = await self._group.receive(self._at(phase, "verdict"), timeout=seconds, watch=self._watch())
        return self._read(self._group.primary_rank, verdict)

    async def _without_verdict(
        self, error: CoordinationError, happened: Callable[[], Awaitable[bool | None]] | None, ends: float
    ) -> Document:
        """Look in the storage for the outcome, because the engine is gone, perhaps together with the primary.

        Return an empty document if the storage shows the commit. Repeat the look until then, or until the primary is
        dead or the time is up; then raise CoordinationTimeoutError.
        """
        if happened is None:
            raise error
        pause, lead = 0.0, self._group.primary_rank
        while True:
            await self._environment.sleep(pause)
            dead = bool(self._gone([lead]))  # asked before the look, so that the look shows all that the primary did
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
        seen = "shows no commit" if answer is False else "does not tell"
        outlook = "and is gone" if dead else "which may still commit"
        look = "" if dead and answer is False else ": look again with is_committed(...)"
        raise CoordinationTimeoutError(
            f"rank {self.rank} has no word of what became of {self._what} from rank {lead}, {outlook}. The storage"
            f" {seen}{look}. {error}",
            (lead,),
        ) from error

    async def _publish(self, phase: str, verdict: Document) -> None:
        """Send the verdict to the other ranks.

        The verdict stands even if it cannot be sent: without the engine the other ranks look at the storage.
        """
        with shielded():
            try:
                await self._group.send(self._at(phase, "verdict"), self._signed(verdict))
            except CoordinationError as lost:
                _LOG.warning("cannot tell the other ranks what became of %s: %s", self._what, lost)

    def _at(self, phase: str, part: str) -> str:
        return f"{self._key}/{phase}/{part}"

    def _signed(self, document: Document) -> bytes:
        return json.dumps(document | {"writer": this_process(self._environment).document()}).encode("ascii")

    def _read(self, rank: int, value: bytes) -> Document:
        document: Document = json.loads(value)
        self._writers[rank] = Writer.of(cast("Document", document["writer"]))
        return document

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


def _second(phase: str) -> str:
    return f"{phase}-then"


def _failures(words: Mapping[int, Document]) -> dict[int, str]:
    """Return what the ranks that have failed report, by rank."""
    return {rank: str(word["failure"]) for rank, word in words.items() if "failure" in word}
