"""Leases and clocks: how long a silent holder is waited for, and what one that slept past its lease still sends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atomicpath import aio
from atomicpath._core.environment import Environment
from atomicpath._core.liveness import release
from atomicpath._core.record import LONGEST_LEASE, SHORTEST_LEASE, Lease
from atomicpath._strategies.commit_file import CommitFileTemporaryPath
from atomicpath.abc import Content
from atomicpath.errors import AbandonedError, AlreadyCommittedError, CommitError, ConflictError
from atomicpath.guarantees import Guarantee
from atomicpath_memory import MemoryStorage
from tests.protocol.worlds import ALL, MARKER, RECORD, Quick, attempt, decoded, files_below, written

URL = "memory://run/step_1"
Memory = dict[str, Any]


def files(memory: Memory) -> dict[str, bytes]:
    return files_below(memory, "/run/step_1")


async def begun(quick: Quick, tmp_path: Path) -> CommitFileTemporaryPath:
    """An attempt with one object."""
    old = attempt(URL, environment=quick)
    await old.create()
    await old.add("data", written(tmp_path, "old", b"of the old"))
    return old


async def elsewhere(old: CommitFileTemporaryPath, memory: Memory, **lease: float) -> None:
    """As if another host held it, with what its record says of its lease."""
    assert old._register is not None
    record = decoded(files(memory)[RECORD])
    writer = replace(record.writer, host="elsewhere", boot="another boot")
    changed = replace(record, writer=writer, lease=Lease(**lease) if lease else record.lease)  # type: ignore[arg-type]
    old._register.version = await old._storage.write(old._register.path, changed.encode())
    old._register.record = changed


@pytest.mark.parametrize(
    ("stated", "waited"), [(1e9, LONGEST_LEASE), (0.0, SHORTEST_LEASE), (1e-9, SHORTEST_LEASE), (60.0, 60.0)]
)
async def test_a_silent_holder_is_waited_for_as_long_as_it_states_within_bounds(
    stated: float, waited: float, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    old = await begun(quick, tmp_path)
    await elsewhere(old, memory, seconds=stated)
    new = attempt(URL, environment=quick)
    await new.create()
    assert sum(quick.slept) == pytest.approx(waited)
    await new.discard()


async def test_a_live_holder_that_states_no_lease_is_not_taken_over(
    memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    old = await begun(quick, tmp_path)
    await elsewhere(old, memory, seconds=0.0)

    async def renew(now: float) -> None:
        quick.on_sleep = None
        assert old._register is not None
        await old._register.renew()

    quick.on_sleep = renew
    with pytest.raises(ConflictError, match="renewed its lease"):
        await attempt(URL, environment=quick).create()
    await old.finalize()


@pytest.mark.parametrize("age", [90.0, 1e9])
async def test_an_age_by_clocks_that_may_be_wrong_does_not_shorten_the_wait(
    age: float, memory: Memory, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a `Date` header that is ahead."""
    read: Callable[[MemoryStorage, str], Awaitable[Content]] = MemoryStorage.read

    async def aged(storage: MemoryStorage, path: str) -> Content:
        return replace(await read(storage, path), age=age)

    monkeypatch.setattr(MemoryStorage, "read", aged)
    old = await begun(quick, tmp_path)
    await elsewhere(old, memory)
    new = attempt(URL, environment=quick)
    await new.create()
    assert sum(quick.slept) == pytest.approx(quick.lease)
    await new.discard()


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("committed", [False, True])
async def test_a_writer_that_slept_past_its_lease_adds_nothing_to_what_is_anothers(
    joined: bool, committed: bool, memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    old = await begun(quick, tmp_path)
    late = old
    if joined:
        late = attempt(URL, environment=quick)
        await late.join(1, old.token)
    release(old.token)
    quick.now += 61  # the host was suspended, and its lease renewed nowhere
    new = attempt(URL, environment=quick)
    await new.create()
    await new.add("data", written(tmp_path, "new", b"of the new"))
    if committed:
        await new.finalize()
    before = files(memory)
    with pytest.raises(AlreadyCommittedError if committed else AbandonedError):
        await late.add("late", written(tmp_path, "late", b"of the old"))
    assert files(memory) == before
    if not committed:
        await new.finalize()


async def test_a_writer_that_slept_and_was_left_alone_renews_and_goes_on(
    memory: Memory, quick: Quick, tmp_path: Path
) -> None:
    old = await begun(quick, tmp_path)
    quick.now += quick.lease * 0.4
    await old.add("more", written(tmp_path, "more", b"more"))
    assert decoded(files(memory)[RECORD]).lease.renewals == 0, "well inside the lease no request is spent on it"
    quick.now += quick.lease
    await old.add("most", written(tmp_path, "most", b"most"))
    assert decoded(files(memory)[RECORD]).lease.renewals == 1
    await old.finalize()
    assert (await aio.verify(URL)).ok


async def test_a_lease_that_cannot_be_renewed_is_a_commit_that_did_not_happen(
    memory: Memory, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(storage: MemoryStorage, path: str, data: bytes, *, version: str) -> str:
        raise OSError("the store does not answer")

    old = await begun(quick, tmp_path)
    quick.now += 61
    with monkeypatch.context() as patched:
        patched.setattr(MemoryStorage, "swap", silent)
        with pytest.raises(CommitError, match="lease could not be renewed") as caught:
            await old.add("more", written(tmp_path, "more", b"more"))
    assert type(caught.value) is CommitError, "the commit was not tried, so its outcome is known"
    assert "more" not in files(memory)
    await old.discard()


NO_SWAP = ALL & ~Guarantee.COMPARE_AND_SWAP
_OPERATIONS = {"looks": "read", "writes its record": "write", "writes its marker": "create"}


@pytest.mark.parametrize("claimed", [False, True], ids=["the name is free", "another has it"])
@pytest.mark.parametrize(
    "sleeps", ["before it looks", "once it looks", "once it writes its record", "as it writes its marker"]
)
async def test_a_writer_that_wakes_after_its_name_was_swept_cannot_commit(
    sleeps: str, claimed: bool, memory: Memory, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the marker decides, and its creation is no fence, since nothing is there any more that it could meet."""
    old = attempt(URL, environment=quick, guarantees=NO_SWAP)
    await old.create()
    await old.add("data", written(tmp_path, "old", b"of the old"))
    when, _, doing = sleeps.partition(" it ")
    others: list[CommitFileTemporaryPath] = []

    async def sleep() -> None:
        monkeypatch.undo()
        for name in list(memory):
            del memory[name]  # by a sweep, which ended
        quick.now += 1000
        if claimed:
            new = attempt(URL, environment=quick, guarantees=NO_SWAP)
            await new.create()
            await new.add("data", written(tmp_path, "new", b"of the new"))
            others.append(new)

    name = _OPERATIONS[doing]
    operation = getattr(MemoryStorage, name)

    async def interrupted(storage: MemoryStorage, path: str, *arguments: Any, **more: Any) -> Any:
        if path.endswith(MARKER if name == "create" else RECORD):
            if when != "once":
                await sleep()
            result = await operation(storage, path, *arguments, **more)
            if when == "once":
                await sleep()
            return result
        return await operation(storage, path, *arguments, **more)

    monkeypatch.setattr(MemoryStorage, name, interrupted)
    with pytest.raises(AbandonedError):
        await old.finalize()
    assert not await aio.is_committed(URL)
    assert MARKER not in files(memory)
    for new in others:
        await new.finalize()
        assert (await aio.verify(URL)).ok
        assert files(memory)["data"] == b"of the new"


async def test_a_cleaner_that_slept_past_its_deadline_deletes_nothing_before_it_has_renewed(
    memory: Memory, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await begun(quick, tmp_path)
    for name in ("a", "b", "c"):
        await old.add(name, written(tmp_path, name, name.encode()))
    deleted: list[tuple[str, float, int]] = []
    delete = MemoryStorage.delete

    async def slow(storage: MemoryStorage, path: str, *, version: str | None = None) -> None:
        if RECORD in files(memory):
            deleted.append((path, quick.now, decoded(files(memory)[RECORD]).lease.renewals))
        quick.now += 1000  # suspended with this request under way
        await delete(storage, path, version=version)

    monkeypatch.setattr(MemoryStorage, "delete", slow)
    assert old._register is not None
    await old.discard()
    assert files(memory) == {}
    data = [entry for entry in deleted if not entry[0].endswith(RECORD)]
    assert len(data) == 4
    assert len({renewals for _, _, renewals in data}) == 4, "each of them after a renewal of its own"


def test_deadlines_run_on_boot_time() -> None:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None:
        pytest.skip("this system has no CLOCK_BOOTTIME")
    before = time.clock_gettime(clock)
    now = Environment().monotonic()
    assert before <= now <= time.clock_gettime(clock)


@pytest.mark.parametrize("place", ["memory", "disk"])
async def test_a_record_tells_the_boot_time_of_its_commit(place: str, memory: Memory, tmp_path: Path) -> None:
    urls = [f"memory://run/step_{n}" if place == "memory" else str(tmp_path / f"step_{n}") for n in (1, 2)]
    told = [round(Environment().monotonic() * 1e9)]
    for url in urls:
        async with aio.commit(url) as path:
            (path / "x").write_bytes(b"1")
        clock = (await aio.read_record(url)).boot_clock
        assert clock is not None
        told.append(clock)
    told.append(round(Environment().monotonic() * 1e9))
    assert told == sorted(told)
