"""What may go wrong in one rank of a job, and what every rank that lives then sees: the table of the docs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import atomicpath
from atomicpath import SingleProcess
from atomicpath._core import environment
from atomicpath._core.environment import Environment
from atomicpath.testing import Place
from tests.many.jobs import Job, Outcome, content_of

__all__ = [
    "ENGINES",
    "FAULTS",
    "TIMEOUT",
    "Fault",
    "Seen",
    "check",
    "check_absent",
    "check_committed",
    "expected",
    "expected_once_committed",
    "in_words",
    "run",
    "words",
]

ENGINES = ("torch", "torch default", "gloo", "jax", "mpi")
TIMEOUT = 15.0  # seconds: long for a rank that is only slow because the machine is busy
_GLOO = 5.0
_AT_ONCE = 5.0  # seconds; a lease, which a new attempt would wait for, is 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One rank's, in one job; or, if `steps`, in many jobs, in which it is killed at one step after another."""

    rank: int
    what: Mapping[str, Any]
    timeout: float = 60.0
    steps: bool = False


def _killed(rank: int, at: str) -> Fault:
    return Fault(rank=rank, what={"kind": "kill", "at": at})


FAULTS = {
    "rank 1 raises": Fault(rank=1, what={"kind": "raise", "at": "during"}),
    "rank 0 raises": Fault(rank=0, what={"kind": "raise", "at": "during"}),
    "rank 2 killed before its write": _killed(2, "before"),
    "rank 2 killed during its write": _killed(2, "during"),
    "rank 2 killed after its write": _killed(2, "after"),
    "rank 1 stalls past the time-out": Fault(rank=1, what={"kind": "stall", "at": "during"}, timeout=TIMEOUT),
    "rank 0 killed in its block": _killed(0, "during"),
    "rank 0 killed at each of its steps": Fault(rank=0, what={}, steps=True),
}


def expected(engine: str, fault: str) -> tuple[str, ...]:
    """What the ranks that live may see, each one of these, in the words of `words`."""
    if engine == "mpi" and "killed" in fault:
        victim = FAULTS[fault].rank
        return ("ended by mpirun", f"CoordinationTimeoutError ({victim})", *_before(victim, "CoordinationError"))
    if engine == "jax" and "rank 0 killed" in fault:
        return ("ended by SIGABRT",)
    if "raises" in fault:
        return (f"RankFailedError ({FAULTS[fault].rank})",)
    named = f"CoordinationTimeoutError ({FAULTS[fault].rank})"
    return (named, *_before(FAULTS[fault].rank, "CoordinationError"))


def _before(victim: int, error: str) -> tuple[str, ...]:
    """Who has not heard yet where to write knows the engine's end, and no process of rank 0."""
    return (error,) if victim == 0 else ()


def expected_once_committed(engine: str, fault: str) -> tuple[str, ...]:
    """The same where the storage shows the commit; nothing where no such fault lets it happen."""
    if not FAULTS[fault].steps:
        return ()
    ends = {"jax": ("ended by SIGABRT",), "mpi": ("ended by mpirun",)}
    return ("committed", *ends.get(engine, ()))


def in_words(engine: str, fault: str) -> str:
    """The same for people: the column of the table."""

    def said(allowed: tuple[str, ...]) -> str:
        return " or ".join(re.sub(r"\w*Error|committed", r"`\g<0>`", one) for one in allowed)

    once = expected_once_committed(engine, fault)
    return said(expected(engine, fault)) + (f"; once it is there: {said(once)}" if once else "")


def words(outcome: Outcome) -> str:
    """Class, and which ranks it named."""
    named = sorted(outcome.failures) or outcome.missing
    return outcome.outcome + (f" ({', '.join(map(str, named))})" if named else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One job's end: what the ranks said, when the last but the failed one left, and whether it is committed."""

    outcomes: Mapping[int, Outcome]
    seconds: float
    committed: bool


def check(engine: str, fault: str, seen: Sequence[Seen]) -> None:
    """Every rank that lived saw what it should; the failed one, if it lives, what the others saw."""
    for one in seen:
        rank = FAULTS[fault].rank
        if FAULTS[fault].steps and rank in one.outcomes:
            allowed: tuple[str, ...] = ("committed",)  # it had no such step, and was not killed
        else:
            allowed = (expected_once_committed if one.committed else expected)(engine, fault)
        for outcome in one.outcomes.values():
            assert words(outcome) in allowed, f"{fault}: {outcome}, and not {allowed}"


def run(job: Job, fault: str, *, every: int = 1) -> Sequence[Seen]:
    """Run it, in one job or in many; look at the storage after each, and commit the same name again."""
    how = FAULTS[fault]
    if not how.steps:
        return [_run(job, "step_1", how, how.what)]
    seen = []
    for at in itertools.count(0, every):
        # gloo's ranks cannot tell that rank 0 has ended before they have heard of it once: they wait for the time-out
        patience = replace(how, timeout=_GLOO) if job.engine == "gloo" else how
        seen.append(_run(job, f"step_{at}", patience, {"calls": at}))
        _remove(job.place, f"step_{at}")
        if how.rank in seen[-1].outcomes:
            break  # it had no such step, and lived
    ends = [one.committed for one in seen]
    # how many calls come before a step is not the same in each job, so the order of the ends is not asked for
    assert (ends[0], ends[-1]) == (False, True)
    return seen


def _run(job: Job, name: str, how: Fault, what: Mapping[str, Any]) -> Seen:
    outcomes = job.run(name, timeout=how.timeout, fault={"rank": how.rank, **what})
    committed = atomicpath.is_committed(f"{job.place.url}/{name}", storage_options=job.place.storage_options)
    if committed:
        # killed between the record and the marker it has committed, and `sweep` adds the marker
        atomicpath.sweep(job.place.url, older_than=timedelta(0), storage_options=job.place.storage_options)
        check_committed(job.place, name, job.size)
    else:
        check_absent(job.place, name, job.size)
    lived = how.steps and how.rank in outcomes
    seconds = [outcome.seconds for rank, outcome in outcomes.items() if rank != how.rank and not lived]
    return Seen(outcomes=outcomes, seconds=max(seconds, default=0.0), committed=committed)


def check_committed(place: Place, name: str, size: int) -> None:
    """Every rank's file, one record and its marker, and nothing else."""
    stored = place.read_all(name)
    assert set(stored) - set(content_of(size)) - {"commit_success.txt"} == {"_commit_record.json"}
    assert {file: stored[file] for file in content_of(size)} == content_of(size)
    url = f"{place.url}/{name}"
    assert atomicpath.verify(url, storage_options=place.storage_options).ok
    record = atomicpath.read_record(url, storage_options=place.storage_options)
    assert [entry.name for entry in record.files] == sorted(content_of(size))


class _Impatient(Environment):
    async def sleep(self, seconds: float) -> None:
        assert seconds < _AT_ONCE, "a job that was restarted waits for the dead one's lease"
        await super().sleep(seconds)


def check_absent(place: Place, name: str, size: int) -> None:
    """Nobody sees anything of it, and the restarted job, here one process, commits the same name at once."""
    url, options = f"{place.url}/{name}", place.storage_options
    assert not atomicpath.is_committed(url, storage_options=options)
    assert atomicpath.latest(place.url, storage_options=options) is None
    with (
        environment.use(_Impatient()),
        atomicpath.commit(url, storage_options=options, coordinator=SingleProcess()) as path,
    ):
        for file, data in content_of(size).items():
            (path / file).write_bytes(data)
    check_committed(place, name, size)


def _remove(place: Place, name: str) -> None:
    for file in place.read_all(name):
        place.delete(f"{name}/{file}")
    if place.url.startswith("/"):
        Path(place.url, name).rmdir()
