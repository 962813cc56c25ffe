"""The protocol itself, in the code that runs: attempts interleaved at every request, with faults, and rules left out.

While the record says committed the data are that attempt's, and who was told "committed" is that attempt,
unless a remover has ended it since. Every request of every actor is one turn of a scheduler that a seed or
Hypothesis decides; any actor may stop for ever, any holder be held for dead, any reply be lost, and a
request that was given up may be carried out later. Each rule of the protocol is then left out, and the
search must find what goes wrong: else it would find nothing in the code either.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import fsspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomicpath._cleaning import finals, remove
from atomicpath._cleaning.finals import examine_final
from atomicpath._cleaning.results import Kept
from atomicpath._core.environment import use
from atomicpath._core.record import CommitRecord, State
from atomicpath._profile.location import locate
from atomicpath._strategies import takeover
from atomicpath._strategies.attempt_record import RecordRegister
from atomicpath.abc import Entry
from atomicpath.errors import AtomicPathError, NotCommittedError, OutcomeUnknownError
from atomicpath_memory import MemoryStorage
from tests.protocol.worlds import RECORD, Quick, attempt, decoded

P = ParamSpec("P")
T = TypeVar("T")

URL, PLACE = "memory://run/step_1", "/run/step_1"
_actor: ContextVar[int] = ContextVar("actor", default=-1)


class ViolationError(AssertionError):
    """What must never be was seen."""


class Asleep(BaseException):
    """Raised in an actor at the end of a run, at whichever request it sleeps."""


class Chooser:
    """Decides everything: how a run goes on follows from it alone."""

    def pick(self, options: int) -> int:
        raise NotImplementedError

    def fault(self) -> str:
        raise NotImplementedError

    def turn(self, actors: list[int]) -> int:
        return self.pick(len(actors))


class Listed(Chooser):
    """By a list of numbers, which Hypothesis shrinks; where it ends, the simplest choice."""

    def __init__(self, numbers: list[int]) -> None:
        self._numbers = iter(numbers)

    def pick(self, options: int) -> int:
        return next(self._numbers, 0) % options

    def fault(self) -> str:
        return {61: "refused", 62: "lost", 63: "late"}.get(next(self._numbers, 0) % 64, "")


class Seeded(Chooser):
    """By a seed: actors have priorities, which change at a few points, so that some sleep for long."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._order: dict[int, float] = {}
        self._faults = self._random.choice([0.0, 0.0, 0.03, 0.4])
        self._changes = self._random.choice([0.05, 0.1, 0.3, 1.0])

    def pick(self, options: int) -> int:
        return self._random.randrange(options)

    def fault(self) -> str:
        return self._random.choice(["refused", "lost", "late"]) if self._random.random() < self._faults else ""

    def turn(self, actors: list[int]) -> int:
        if self._random.random() < self._changes:
            self._order[self._random.choice(actors)] = self._random.random()
        return max(range(len(actors)), key=lambda n: self._order.setdefault(actors[n], self._random.random()))


class Scheduled(Quick):
    """One request at a time, whose turn the scheduler gives; what was sent and given up may come later."""

    def __init__(self, chooser: Chooser) -> None:
        super().__init__()
        self.chooser = chooser
        self.waiting: list[tuple[int, trio.Event]] = []
        self.late: list[Callable[[], object]] = []
        self.over = False
        self._tokens = iter(range(1, 1000))

    def end(self) -> None:
        self.over = True
        for _, turn in self.waiting:
            turn.set()

    def token(self) -> str:
        return f"{next(self._tokens):020x}"

    def monotonic(self) -> float:
        return 0.0  # the deadline of deletes is not what is searched here

    async def sleep(self, seconds: float) -> None:
        pass

    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        name = getattr(function, "__qualname__", "")
        if "MemoryStorage" not in name:
            return function(*args, **kwargs)
        turn = trio.Event()
        self.waiting.append((_actor.get(), turn))
        if not self.over:
            await turn.wait()
        if self.over:
            raise Asleep
        fault = self.chooser.fault()
        if fault == "late":
            self.late.append(lambda: function(*args, **kwargs))
        if fault in ("late", "refused"):
            raise OSError(errno.EIO, f"{fault}, as the test asked")
        result = function(*args, **kwargs)
        if fault == "lost":
            raise OSError(errno.EIO, "done, but not said so, as the test asked")
        return result


@dataclass
class Run:
    """One schedule of several actors on one final path."""

    chooser: Chooser
    sources: Path
    writers: int = 3
    sweeps: bool = True
    removes: bool = True
    told: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.environment = Scheduled(self.chooser)
        self.memory: dict[str, Any] = fsspec.filesystem("memory").store

    async def main(self) -> None:
        self.memory.clear()
        actors: list[Callable[[], Awaitable[None]]] = [self.write] * self.writers
        actors += [self.sweep] * self.sweeps + [self.remove] * self.removes

        async def one(number: int, act: Callable[[], Awaitable[None]]) -> None:
            _actor.set(number)
            with suppress(Asleep):
                await act()

        async with trio.open_nursery() as nursery:
            for number, act in enumerate(actors):
                nursery.start_soon(one, number, act)
            try:
                await self.schedule()
            finally:
                self.environment.end()  # those that have not come to an end sleep for ever

    async def schedule(self) -> None:
        late, waiting = self.environment.late, self.environment.waiting
        for _ in range(600):
            await trio.testing.wait_all_tasks_blocked()
            self.check()
            if late and (not waiting or not self.chooser.pick(8)):
                with suppress(OSError):  # nobody hears of it any more
                    late.pop(self.chooser.pick(len(late)))()
            elif waiting:
                waiting.pop(self.chooser.turn([actor for actor, _ in waiting]))[1].set()
            else:
                return

    async def write(self) -> None:
        """A writer as `commit` makes it, in the steps that count; sometimes it gives up, and then once more."""
        writer = attempt(URL, environment=self.environment)
        token = writer.token
        data = self.sources / token
        data.write_bytes(token.encode())
        try:
            await writer.create()
            if not self.chooser.pick(4) and writer._register is not None:
                await writer._register.renew()
            await writer.add("data", data)
            if not self.chooser.pick(8):
                await writer.discard()
                self.told[token] = "discarded"
                return
            await writer.finalize()
        except OutcomeUnknownError:
            self.told[token] = "unknown"
        except (OSError, AtomicPathError) as error:
            self.told[token] = f"not committed: {error}"
            await writer.discard()
        else:
            self.told[token] = "committed"

    async def sweep(self) -> None:
        """A sweep of this one place, which comes at any time; to it, too, every holder may be dead."""
        with use(self.environment):
            location = locate(URL)
            storage = location.open()
        for _ in range(6):
            with suppress(OSError, AtomicPathError):
                finding = await examine_final(storage, location, 0.0, probe=False)
                if finding is not None and finding.act is not None:
                    with suppress(Kept):
                        self.log.append(f"{finding.swept.found}: {await finding.act() or 'done'}")
                    return

    async def remove(self) -> None:
        with use(self.environment):
            location = locate(URL)
        for _ in range(6):
            try:
                with use(self.environment):
                    await remove(location)
            except NotCommittedError:
                continue
            except (OSError, AtomicPathError):
                return
            self.log.append("removed")
            return

    def check(self) -> None:
        stored = self.memory.get(f"{PLACE}/{RECORD}")
        record = decoded(stored.getvalue()) if stored is not None else None
        committed = record.token if record is not None and record.state is State.COMMITTED else None
        if record is not None and record.state is State.DISCARDED and record.committed is not None:
            self.ended.add(record.token)  # by a remover: nobody else discards what has committed
        if committed:
            data = self.memory.get(f"{PLACE}/data")
            if data is None or data.getvalue() != committed.encode():
                raise ViolationError(f"{committed} is committed, with data {data and data.getvalue()!r}")
        for token, said in self.told.items():
            if said == "committed" and token != committed and token not in self.ended:
                raise ViolationError(f"{token} was told that it is committed, and the record says {committed}")
            if said.startswith(("not", "discarded")) and token == committed:
                raise ViolationError(f"{token} is committed, and was told: {said}")


def run(chooser: Chooser, sources: Path, **more: Any) -> Run:
    made = Run(chooser, sources, **more)
    trio._core._run._r.seed(0)  # else trio itself shuffles what may run
    try:
        trio.run(made.main)
    except BaseExceptionGroup as group:
        violations = group.subgroup(ViolationError)
        if violations is not None:
            raise _first(violations) from None
        raise
    return made


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@pytest.fixture(autouse=True)
def _any_holder_may_be_held_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Always, which is the worst: politeness is no part of safety."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(takeover, "proof_of_life", lambda environment, record: False)
    monkeypatch.setattr(finals, "proof_of_life", lambda environment, record: False)
    monkeypatch.setattr(RecordRegister, "keep_alive", lambda self: None)  # a thread would be outside the schedule
    monkeypatch.setattr("atomicpath._strategies.commit_file._LOG.disabled", True)
    monkeypatch.setattr("atomicpath._strategies.takeover._LOG.disabled", True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


SCHEDULES = 400
"""Of each search. What a rule is needed for is found in far fewer, see below."""


def test_no_schedule_of_attempts_sweeper_and_remover_breaks_the_promise(sources: Path) -> None:
    told: list[str] = []
    cleaned: list[str] = []
    for seed in range(SCHEDULES):
        done = run(Seeded(seed), sources, writers=2 + seed % 3)
        told += done.told.values()
        cleaned += done.log
    # the search goes where it matters: all outcomes come about, and not seldom
    assert sum(said == "committed" for said in told) > SCHEDULES / 3
    assert sum(said.startswith("not committed") for said in told) > SCHEDULES / 3
    assert "discarded" in told
    assert sum(line == "removed" for line in cleaned) > SCHEDULES / 10
    assert sum(line == "attempt: done" for line in cleaned) > SCHEDULES / 20
    assert sum(line == "discarded: done" for line in cleaned) > SCHEDULES / 40


@settings(max_examples=150, deadline=None, derandomize=True)
@given(numbers=st.lists(st.integers(0, 63), max_size=250), writers=st.integers(1, 4))
def test_no_schedule_that_hypothesis_thinks_of_breaks_the_promise(
    numbers: list[int], writers: int, sources: Path
) -> None:
    run(Listed(numbers), sources, writers=writers)


# the rules, each left out


async def _overwrite(self: RecordRegister, target: CommitRecord) -> None:
    self.version = await self._storage.write(self.path, target.encode())
    self.record = target


def without_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer commits by an unconditional write."""
    monkeypatch.setattr(RecordRegister, "commit", _overwrite)


def without_exclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data objects are overwritten."""

    async def upload(self: MemoryStorage, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        data = source.read_bytes()
        return Entry(name="", size=len(data), version=await self.write(path, data))

    monkeypatch.setattr(MemoryStorage, "upload", upload)


def without_conditional(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delete of data hits whatever is there."""
    delete = MemoryStorage.delete

    async def anything(self: MemoryStorage, path: str, *, version: str | None = None) -> None:
        await delete(self, path, version=version if path.endswith(RECORD) else None)

    monkeypatch.setattr(MemoryStorage, "delete", anything)


def without_confirm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was listed is deleted without another look at the register."""

    async def believe(self: RecordRegister) -> None:
        pass

    monkeypatch.setattr(RecordRegister, "renew", believe)
    monkeypatch.setattr(RecordRegister, "confirm", believe)


def without_register(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cleaner deletes without having moved the record, and confirms only that it is still there."""

    async def stay(self: RecordRegister) -> None:
        pass

    monkeypatch.setattr(RecordRegister, "discard", stay)
    monkeypatch.setattr(RecordRegister, "renew", RecordRegister.confirm)


RULES = {
    "swap": without_swap,
    "exclusive": without_exclusive,
    "conditional": without_conditional,
    "confirm": without_confirm,
    "register": without_register,
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_needed_and_the_search_sees_it(rule: str, monkeypatch: pytest.MonkeyPatch, sources: Path) -> None:
    RULES[rule](monkeypatch)
    for seed in range(SCHEDULES):
        try:
            run(Seeded(seed), sources, writers=2 + seed % 3)
        except ViolationError:
            return
    pytest.fail(f"{SCHEDULES} schedules without the rule {rule!r}, and nothing went wrong")
