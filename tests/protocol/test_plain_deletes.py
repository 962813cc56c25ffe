"""Where a delete cannot name a version: who may be taken over, what ends a cleaning, when the name is free again."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._core.layout import is_probe
from atomicpath._core.liveness import release
from atomicpath._core.record import CommitRecord, State
from atomicpath._strategies.commit_file import CommitFileTemporaryPath
from atomicpath.errors import AbandonedError, AccessError, ConflictError
from atomicpath.guarantees import Guarantee
from atomicpath_memory import MemoryStorage
from tests.protocol.worlds import ALL, MARKER, RECORD, Quick, attempt, decoded, files_below, trust, written

URL, ROOT, PLACE = "memory://run/step_1", "memory://run", "/run/step_1"
PLAIN = ALL & ~Guarantee.CONDITIONAL_DELETE
NOW = timedelta(0)
Memory = dict[str, Any]


@dataclass
class Deletes:
    """The deletes that were sent, by name, with the renewals of the record at that time; some have no answer."""

    memory: Memory
    quick: Quick
    silent: Callable[[str], bool] = lambda name: False
    asleep: float = 0.0
    refused: bool = False
    sent: list[tuple[str, int]] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.sent]

    def arrive(self) -> None:
        """Carry out what was sent and had no answer."""
        for path in self.late:
            self.memory.pop(path, None)
        self.late.clear()

    async def delete(self, storage: MemoryStorage, path: str, *, version: str | None = None) -> None:
        assert version is None, "a delete names no version where nobody looks at it"
        name = path.removeprefix(f"{PLACE}/")
        if self.refused or is_probe(name):  # which asks whether deleting is allowed at all
            assert path not in self.memory
            if self.refused:
                raise AccessError(f"{path}: 403, as the test asked")
            return
        record = files(self.memory).get(RECORD)
        self.sent.append((name, decoded(record).lease.renewals if record else -1))
        self.quick.now += self.asleep
        if self.silent(name):
            self.late.append(path)
            raise TimeoutError(errno.ETIMEDOUT, f"{path}: no answer, as the test asked")
        await _delete(storage, path)


_delete: Callable[[MemoryStorage, str], Awaitable[None]] = MemoryStorage.delete


@pytest.fixture
def deletes(memory: Memory, quick: Quick, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deletes]:
    made = Deletes(memory, quick)

    async def delete(storage: MemoryStorage, path: str, *, version: str | None = None) -> None:
        await made.delete(storage, path, version=version)

    monkeypatch.setattr(MemoryStorage, "delete", delete)
    trust(URL, None, PLAIN, refuted=Guarantee.CONDITIONAL_DELETE)
    with use(quick):
        yield made
    trust(URL, None, ALL)


def files(memory: Memory) -> dict[str, bytes]:
    return files_below(memory, PLACE)


def record(memory: Memory) -> CommitRecord:
    return decoded(files(memory)[RECORD])


def pass_by(memory: Memory, seconds: float) -> None:
    """Time passes for the store."""
    for file in memory.values():
        file.modified -= timedelta(seconds=seconds)


def new_attempt(quick: Quick) -> CommitFileTemporaryPath:
    return attempt(URL, environment=quick, guarantees=PLAIN)


async def left_behind(quick: Quick, tmp_path: Path) -> CommitFileTemporaryPath:
    """An attempt with one object that its process, this one, seems to have forgotten."""
    old = new_attempt(quick)
    await old.create()
    await old.add("data", written(tmp_path, "old", b"of the old"))
    release(old.token)
    return old


async def commit(new: CommitFileTemporaryPath, tmp_path: Path) -> None:
    await new.add("data", written(tmp_path, "new", b"of the new"))
    await new.finalize()
    assert (await aio.verify(URL)).ok


async def test_a_killed_writer_is_taken_over_and_the_name_is_never_free_meanwhile(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    old = await left_behind(quick, tmp_path)
    new = new_attempt(quick)
    await new.create()
    assert quick.slept == [], "it had deleted nothing, so there is nothing to wait for"
    assert deletes.names == ["data"]
    assert record(memory).took_over == (old.token,)
    await commit(new, tmp_path)


async def test_what_was_removed_is_gone_and_its_name_free_once_every_delete_was_answered(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    for _ in range(2):
        new = new_attempt(quick)
        await new.create()
        await commit(new, tmp_path)
        await aio.remove(URL)
        assert files(memory) == {}
        assert deletes.names[-3:] == [MARKER, "data", RECORD]
    assert quick.slept == []


async def test_an_attempt_that_gives_up_leaves_nothing(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    old = new_attempt(quick)
    await old.create()
    await old.add("data", written(tmp_path, "old", b"of the old"))
    await old.discard()
    assert files(memory) == {}
    memory_file = f"{PLACE}/theirs"
    storage = new_attempt(quick)._storage
    await storage.write(memory_file, b"foreign")
    with pytest.raises(ConflictError, match="theirs"):
        await new_attempt(quick).create()
    assert files(memory) == {"theirs": b"foreign"}


@pytest.mark.parametrize("silent", [MARKER, "data", RECORD])
async def test_a_delete_without_an_answer_ends_the_removal_and_the_record_stays_as_a_tombstone(
    silent: str, deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    first = new_attempt(quick)
    await first.create()
    await commit(first, tmp_path)
    deletes.silent = lambda name: name == silent
    with pytest.raises(TimeoutError) as caught:
        await aio.remove(URL)
    assert "sweep" in " ".join(caught.value.__notes__)
    assert deletes.names == [MARKER, "data", RECORD][: len(deletes.names)]
    assert deletes.names[-1] == silent, "it was the last, and was sent once"
    assert not await aio.is_committed(URL)
    assert record(memory).state is State.DISCARDED
    deletes.silent = lambda name: False
    before = files(memory)
    with pytest.raises(ConflictError, match=r"can be used again in \d+ s"):
        await new_attempt(quick).create()
    (kept,) = await aio.sweep(ROOT, older_than=NOW)
    assert (kept.found, kept.action, kept.done) == ("discarded", "keep", False)
    pass_by(memory, 74)
    assert (await aio.sweep(ROOT, older_than=NOW))[0].action == "keep"
    assert files(memory) == before
    deletes.arrive()
    pass_by(memory, 2)
    if silent != RECORD:
        (swept,) = await aio.sweep(ROOT, older_than=NOW)
        assert swept.done
    assert files(memory) == {}
    new = new_attempt(quick)
    await new.create()
    await commit(new, tmp_path)


async def test_a_tombstone_is_taken_over_in_place_after_a_lease_in_which_what_was_sent_arrives(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    first = new_attempt(quick)
    await first.create()
    await commit(first, tmp_path)
    deletes.silent = lambda name: name == "data"
    with pytest.raises(TimeoutError):
        await aio.remove(URL)
    deletes.silent = lambda name: False
    pass_by(memory, 76)

    async def arrive(now: float) -> None:
        assert RECORD in files(memory)
        deletes.arrive()

    quick.on_sleep = arrive
    new = new_attempt(quick)
    await new.create()
    assert sum(quick.slept) == pytest.approx(quick.lease)
    await commit(new, tmp_path)


async def test_a_killed_take_over_is_taken_over_after_a_lease_since_its_deletes_may_be_under_way(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    await left_behind(quick, tmp_path)
    second = new_attempt(quick)
    await second.create()
    release(second.token)
    third = new_attempt(quick)
    await third.create()
    assert sum(quick.slept) == pytest.approx(quick.lease)
    assert len(record(memory).took_over) == 2
    await commit(third, tmp_path)


async def test_a_writer_whose_delete_had_no_answer_deletes_nothing_more_and_reserves_the_name(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = await left_behind(quick, tmp_path)
    deletes.silent = lambda name: name == "data"
    new = new_attempt(quick)
    with pytest.raises(Exception, match="no answer"):
        await new.create()
    assert deletes.names == ["data"]
    assert record(memory).state is State.DISCARDED
    assert record(memory).took_over == (old.token,)
    assert any("could not be cleared" in message for message in caplog.messages)


async def test_a_cleaner_that_slept_renews_before_each_delete(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    old = new_attempt(quick)
    await old.create()
    for name in ("a", "b", "c"):
        await old.add(name, written(tmp_path, name, name.encode()))
    deletes.asleep = 1000.0  # suspended with the request under way
    await old.discard()
    assert files(memory) == {}
    renewals = [at for _, at in deletes.sent]
    assert deletes.names[-1] == RECORD
    assert sorted(deletes.names[:-1]) == ["a", "b", "c"]
    assert sorted(set(renewals)) == renewals, "each of them after a renewal of its own"


async def test_the_time_for_deletes_counts_from_a_move_that_was_answered(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who watches the record counts since it moved: a look that finds it unchanged shows nothing of that."""
    old = await left_behind(quick, tmp_path)
    register = old._register
    assert register is not None
    swap = MemoryStorage.swap

    async def silent(storage: MemoryStorage, path: str, data: bytes, *, version: str) -> str:
        await swap(storage, path, data, version=version)
        quick.now += quick.lease
        raise OSError(errno.EIO, "done, but not said so")

    quick.now += quick.lease
    with monkeypatch.context() as patched:
        patched.setattr(MemoryStorage, "swap", silent)
        await register.renew()
    assert not await register.delete(f"{PLACE}/data", version=None)
    await register.confirm()
    assert not await register.delete(f"{PLACE}/data", version=None)
    assert deletes.sent == []
    await register.renew()
    assert await register.delete(f"{PLACE}/data", version=None)


async def test_who_may_not_delete_removes_nothing(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    first = new_attempt(quick)
    await first.create()
    await commit(first, tmp_path)
    before = files(memory)
    deletes.refused = True
    with pytest.raises(AccessError, match="nothing was changed.*403"):
        await aio.remove(URL)
    assert files(memory) == before
    assert await aio.is_committed(URL)


async def test_what_is_assumed_is_explained(deletes: Deletes) -> None:
    words = " ".join(str(await aio.explain(URL)).split())
    assert "each is sent once, early in a lease that was just renewed" in words
    trust(URL, None, ALL)
    assert "sent once" not in str(await aio.explain(URL))


async def test_of_two_that_clean_at_a_time_the_first_stops(
    deletes: Deletes, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    """A writer gives up and sleeps, a sweep goes on with what it left, and the writer wakes up."""
    old = await left_behind(quick, tmp_path)
    register = old._register
    assert register is not None
    await register.discard()
    pass_by(memory, 76)
    quick.now += 76
    deletes.silent = lambda name: True
    (swept,) = await aio.sweep(ROOT, older_than=NOW)
    assert isinstance(swept.error, TimeoutError)
    deletes.silent = lambda name: False
    for move in (register.renew, register.free):
        with pytest.raises(AbandonedError):
            await move()
    assert record(memory).cleaner
