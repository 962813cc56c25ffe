"""One commit by several ranks, here threads of one process: what goes wrong in one of them is known in all."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from upath import UPath

import atomicpath
from atomicpath import AtomicRenameTemporaryPath, Coordinator, SingleProcess, aio
from atomicpath._core import environment
from atomicpath._core.environment import Environment
from atomicpath.coordinators import KeyValueCoordinator
from atomicpath.errors import (
    AbandonedError,
    AlreadyCommittedError,
    CommitError,
    CoordinationError,
    CoordinationTimeoutError,
    OutcomeUnknownError,
    RankFailedError,
    ValidationError,
)
from atomicpath.testing import Place
from tests.coordination.threads import DictValues, in_threads, members

SIZE = 3
BOTH = pytest.mark.parametrize("place", ["local", "moto"], indirect=True)
Block = Callable[[Coordinator, Any], Awaitable[None]]


def commit(place: Place, job: Coordinator, name: str = "step_1", **options: Any) -> aio.Committing:
    url = f"{place.url}/{name}"
    return aio.commit(url, coordinator=job, storage_options=place.storage_options, **options)


async def write(job: Coordinator, path: Any) -> None:
    (path / f"rank-{job.rank}").write_text(str(job.rank))


def together(
    place: Place, block: Block = write, ranks: list[Coordinator] | None = None, loop: str = "asyncio", **options: Any
) -> list[Any]:
    """What each rank returned or raised."""

    async def main(job: Coordinator) -> str:
        async with commit(place, job, **options) as path:
            await block(job, path)
        return "committed"

    return in_threads(ranks or members(SIZE), main, loop)


def names(place: Place, directory: str = "step_1") -> list[str]:
    return sorted(set(place.read_all(directory)) - {"_commit_record.json", "commit_success.txt"})


def failing(rank: int, error: BaseException) -> Block:
    async def block(job: Coordinator, path: Any) -> None:
        await write(job, path)
        if job.rank == rank:
            raise error

    return block


def told(outcomes: list[Any]) -> set[type]:
    return {type(outcome) for outcome in outcomes}


@BOTH
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("direct", [False, True])
def test_all_ranks_write_one_directory(place: Place, loop: str, direct: bool) -> None:
    assert together(place, loop=loop, direct=direct, checksums=not direct) == ["committed"] * SIZE
    assert names(place) == [f"rank-{rank}" for rank in range(SIZE)]
    found = atomicpath.verify(f"{place.url}/step_1", storage_options=place.storage_options, checksums=not direct)
    assert found.ok, found


def test_ranks_that_write_one_file_are_told_so(moto_place: Place) -> None:
    async def block(job: Coordinator, path: Any) -> None:
        (path / "model.pt").write_text(str(job.rank))

    outcomes = together(moto_place, block)
    assert told(outcomes) == {RankFailedError}
    assert "'model.pt' was written by more than one rank" in str(outcomes[0])
    assert moto_place.read_all() == {}


@BOTH
@pytest.mark.parametrize("rank", [0, 2])
def test_rank_error_swallowed_and_commit_goes_on(place: Place, rank: int) -> None:
    """It does not: whoever fails, nobody commits, and everybody hears of it; the failing rank with its own cause."""
    error = RuntimeError("no space left")
    outcomes = together(place, failing(rank, error))
    assert told(outcomes) == {RankFailedError}
    assert [outcome.failures for outcome in outcomes] == [{rank: "RuntimeError: no space left"}] * SIZE
    assert outcomes[rank].__cause__ is error
    assert place.read_all() == {}


def test_an_interrupted_rank_leaves_at_once_and_the_others_hear_of_it(local_place: Place) -> None:
    outcomes = together(local_place, failing(1, KeyboardInterrupt()))
    assert isinstance(outcomes[1], KeyboardInterrupt)
    assert told([outcomes[0], outcomes[2]]) == {RankFailedError}
    assert outcomes[0].failures == {1: "KeyboardInterrupt"}
    assert local_place.read_all() == {}


@BOTH
def test_what_the_primary_meets_is_what_everybody_is_told(place: Place) -> None:
    assert together(place) == ["committed"] * SIZE
    outcomes = together(place)
    assert told(outcomes) == {AlreadyCommittedError}
    tokens = {outcome.record.token for outcome in outcomes}
    assert tokens == {atomicpath.read_record(f"{place.url}/step_1", storage_options=place.storage_options).token}


@pytest.mark.parametrize("what", ["url", "direct", "checksums", "temporary_path_class"])
def test_ranks_that_do_not_mean_the_same_are_told_what_differs(moto_place: Place, what: str) -> None:
    others = {"direct": True, "checksums": True, "temporary_path_class": atomicpath.CommitFileTemporaryPath}

    async def main(job: Coordinator) -> None:
        odd = job.rank == 1
        options: dict[str, Any] = {what: others[what]} if odd and what != "url" else {}
        async with commit(moto_place, job, "step_2" if odd and what == "url" else "step_1", **options):
            raise AssertionError("the block is not entered")

    outcomes = in_threads(members(SIZE), main)
    assert told(outcomes) == {ValidationError}
    assert f"do not pass the same {what}" in str(outcomes[0])
    assert "rank 1" in str(outcomes[0])
    assert moto_place.read_all() == {}


def test_a_rank_that_cannot_stage_fails_the_others_before_anything_is_begun(moto_place: Place, tmp_path: Path) -> None:
    async def main(job: Coordinator) -> None:
        staging = tmp_path / ("missing" if job.rank == 1 else "")
        async with commit(moto_place, job, staging_dir=staging):
            raise AssertionError("the block is not entered")

    outcomes = in_threads(members(SIZE), main)
    assert told(outcomes) == {RankFailedError}
    assert "staging_dir" in outcomes[0].failures[1]
    assert moto_place.read_all() == {}
    assert list(tmp_path.iterdir()) == []


class Elsewhere(Environment):
    """A host of its own: the attempt's directory, made on another one, is not there."""

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if any("atomicpath-tmp" in str(argument) for argument in args):
            raise FileNotFoundError(2, "No such file or directory", args[0])
        return function(*args, **kwargs)


def test_a_rank_whose_disk_is_not_the_one_shared_is_found_out(local_place: Place) -> None:
    async def main(job: Coordinator) -> None:
        with environment.use(Elsewhere() if job.rank == 2 else Environment()):
            async with commit(local_place, job) as path:
                await write(job, path)

    outcomes = in_threads(members(SIZE), main)
    assert told(outcomes) == {RankFailedError}
    assert "shared file system" in outcomes[0].failures[2]
    assert local_place.read_all() == {}


def test_a_put_that_one_rank_cannot_do_fails_the_others(moto_place: Place, tmp_path: Path) -> None:
    async def main(job: Coordinator, broken: int) -> str:
        source = tmp_path / str(job.rank)
        if job.rank != broken:
            source.mkdir(exist_ok=True)
            (source / f"rank-{job.rank}").write_text("x")
        url = f"{moto_place.url}/step_1"
        await aio.put(source, url, coordinator=job, storage_options=moto_place.storage_options)
        return "committed"

    outcomes = in_threads(members(SIZE), lambda job: main(job, 1))
    assert told(outcomes) == {RankFailedError}
    assert "is not a directory" in outcomes[0].failures[1]
    assert moto_place.read_all() == {}
    assert in_threads(members(SIZE), lambda job: main(job, SIZE)) == ["committed"] * SIZE
    assert names(moto_place) == [f"rank-{rank}" for rank in range(SIZE)]


@BOTH
def test_late_joiner_at_barrier(place: Place) -> None:
    """A rank that sleeps through a commit hears that it failed, and takes part in the next one like the others."""
    values = DictValues()
    ranks: list[Coordinator] = [KeyValueCoordinator(values, rank, SIZE, timeout=5.0) for rank in range(SIZE)]
    failed = threading.Event()

    async def main(job: Coordinator) -> list[str]:
        seen = []
        for name in ("step_1", "step_2"):
            try:
                async with commit(place, job, name) as path:
                    await write(job, path)
                    if job.rank == 1 and name == "step_1":
                        await anyio.to_thread.run_sync(failed.wait)
            except CoordinationTimeoutError as error:
                assert error.missing == (1,)
                seen.append("time-out")
                if job.rank == 0:
                    failed.set()
            else:
                seen.append("committed")
        return seen

    assert in_threads(ranks, main) == [["time-out", "committed"]] * SIZE
    assert names(place, "step_2") == [f"rank-{rank}" for rank in range(SIZE)]
    assert names(place, "step_1") == []
    assert together(place, name="step_1") == ["committed"] * SIZE, "nothing is in the way of the next attempt"


def test_a_rank_whose_arguments_are_refused_takes_part_in_the_next_commit_like_the_others(local_place: Place) -> None:
    ranks: list[Coordinator] = [
        KeyValueCoordinator(values, rank, SIZE, timeout=5.0) for values in [DictValues()] for rank in range(SIZE)
    ]

    async def main(job: Coordinator) -> list[type]:
        seen: list[type] = []
        for name, loss in (("step_1", float("nan")), ("step_2", 0.5)):
            try:
                async with commit(local_place, job, name, metadata={"loss": loss if job.rank == 1 else 1.0}) as path:
                    await write(job, path)
            except (ValidationError, CoordinationTimeoutError) as error:
                seen.append(type(error))
        return seen

    late = [CoordinationTimeoutError]
    assert in_threads(ranks, main) == [late, [ValidationError], late]
    assert names(local_place, "step_2") == [f"rank-{rank}" for rank in range(SIZE)]


async def test_a_rank_does_not_join_the_attempt_that_took_over_from_its_own(memory_place: Place) -> None:
    final = UPath(f"{memory_place.url}/step_1")
    lost, there = (atomicpath.CommitFileTemporaryPath.from_final(final) for _ in range(2))
    await there.create()
    late = atomicpath.CommitFileTemporaryPath.from_temporary(lost.get())
    with pytest.raises(AbandonedError, match="taken over"):
        await late.join(1, lost.token)
    await late.join(1, there.token)
    await there.discard()


def test_two_primaries(local_place: Place) -> None:
    values = DictValues()
    ranks: list[Coordinator] = [KeyValueCoordinator(values, rank, SIZE, timeout=5.0) for rank in (0, 0, 1, 2)]
    outcomes = together(local_place, ranks=ranks)
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert errors
    assert all(isinstance(error, CoordinationError) for error in errors), errors
    committed = outcomes.count("committed")
    assert committed in (0, SIZE), "no rank believes another outcome than its primary"
    assert len(atomicpath.committed(local_place.url)) == (1 if committed else 0)


def test_ranks_that_disagree_on_the_size_of_the_world(local_place: Place) -> None:
    values = DictValues()
    ranks: list[Coordinator] = [KeyValueCoordinator(values, rank, 2 + rank, timeout=5.0) for rank in range(2)]
    outcomes = together(local_place, ranks=ranks)
    assert all(isinstance(outcome, CoordinationError) for outcome in outcomes), outcomes
    assert "world_size" in str(outcomes[0])
    assert local_place.read_all() == {}


class Unsure(AtomicRenameTemporaryPath):
    async def finalize(self) -> None:
        raise OutcomeUnknownError("nobody knows")


class Broken(AtomicRenameTemporaryPath):
    async def finalize(self) -> None:
        raise RuntimeError("a bug in a user's strategy")


class Own(AtomicRenameTemporaryPath):
    """A user's strategy that is fine."""


@pytest.mark.parametrize(
    ("strategy", "outcome"), [(Own, str), (Unsure, OutcomeUnknownError), (Broken, (RuntimeError, RankFailedError))]
)
def test_a_strategy_of_the_users_own_serves_all_ranks(local_place: Place, strategy: Any, outcome: Any) -> None:
    outcomes = together(local_place, temporary_path_class=strategy)
    assert all(isinstance(one, outcome) for one in outcomes), outcomes
    assert len(local_place.read_all()) == {Own: SIZE + 1, Unsure: SIZE + 1, Broken: 0}[strategy]


def test_a_rank_without_a_verdict_reads_the_record(local_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = KeyValueCoordinator.broadcast

    async def lost(self: Any, key: str, value: bytes | None = None, **options: Any) -> bytes:
        if key.endswith("finish-then/verdict"):
            if value is None:
                raise CoordinationError("the engine is gone")
            return value
        return await publish(self, key, value, **options)

    monkeypatch.setattr(KeyValueCoordinator, "broadcast", lost)
    assert together(local_place) == ["committed"] * SIZE
    values = DictValues()
    ranks: list[Coordinator] = [KeyValueCoordinator(values, rank, SIZE, timeout=3.0) for rank in range(SIZE)]
    outcomes = together(local_place, ranks=ranks, temporary_path_class=Unsure, name="step_2")
    assert isinstance(outcomes[0], OutcomeUnknownError)
    assert told(outcomes[1:]) == {CoordinationTimeoutError}
    assert [error.missing for error in outcomes[1:]] == [(0,), (0,)]


def test_what_a_coordinator_of_the_users_own_raises_does_not_undo_a_commit(
    local_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, collect = KeyValueCoordinator.broadcast, KeyValueCoordinator.gather

    async def broadcast(self: Any, key: str, value: bytes | None = None, **options: Any) -> bytes:
        if key.endswith("finish-then/verdict"):
            raise RuntimeError("an engine of its own kind has gone")
        return await publish(self, key, value, **options)

    async def gather(self: Any, key: str, value: bytes, **options: Any) -> Any:
        if key.endswith("finish/heard"):
            raise OSError("so has its network")
        return await collect(self, key, value, **options)

    monkeypatch.setattr(KeyValueCoordinator, "broadcast", broadcast)
    monkeypatch.setattr(KeyValueCoordinator, "gather", gather)
    assert together(local_place) == ["committed"] * SIZE


class Interrupted(AtomicRenameTemporaryPath):
    """What a task's own `cancel()` does, which no shield keeps out: it comes when the commit has happened."""

    async def finalize(self) -> None:
        await super().finalize()
        raise KeyboardInterrupt


def test_ranks_are_not_told_that_nothing_was_committed_by_a_primary_that_was_interrupted_in_it(
    local_place: Place,
) -> None:
    outcomes = together(local_place, temporary_path_class=Interrupted)
    assert isinstance(outcomes[0], KeyboardInterrupt)
    assert told(outcomes[1:]) == {OutcomeUnknownError}
    assert "rank 0 was interrupted" in str(outcomes[1])
    assert atomicpath.is_committed(f"{local_place.url}/step_1")


def test_a_primary_cancelled_while_it_waits_for_the_others_gives_its_attempt_up(
    moto_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the attempt would be held, and its lease renewed, for as long as the process lives."""
    collect = KeyValueCoordinator.gather
    waits, cancelled = threading.Event(), list[str]()

    async def gather(self: Any, key: str, value: bytes, **options: Any) -> Any:
        if key.endswith("finish/heard") and self.rank == 0:
            waits.set()
            await anyio.sleep_forever()
        return await collect(self, key, value, **options)

    async def main(job: Coordinator) -> None:
        async def cancel() -> None:
            await anyio.to_thread.run_sync(waits.wait)
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            if job.rank == 0:
                group.start_soon(cancel)
            async with commit(moto_place, job) as path:
                await failing(1, KeyboardInterrupt())(job, path)
        cancelled.append(threading.current_thread().name)

    monkeypatch.setattr(KeyValueCoordinator, "gather", gather)
    in_threads(members(2), main)
    assert cancelled
    monkeypatch.undo()
    assert names(moto_place) == []
    assert together(moto_place) == ["committed"] * SIZE, "nobody holds the attempt"


class Connected(KeyValueCoordinator):
    """An engine that does not bear that a rank leaves while another one waits, as gloo."""

    @property
    def leave_together(self) -> bool:
        return True


@pytest.mark.parametrize("fails", [None, 1])
def test_nobody_leaves_before_all_have_heard_where_the_engine_does_not_bear_it(
    fails: int | None, local_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    listen = KeyValueCoordinator.broadcast

    last = "finish-then/verdict" if fails is None else "finish/verdict"  # a failure ends it before the second look

    async def late(self: Any, key: str, value: bytes | None = None, **options: Any) -> bytes:
        verdict = key.endswith(last) and self.rank == 2
        if verdict:
            await anyio.sleep(0.5)  # so that ranks that do not wait have left by then
        said = await listen(self, key, value, **options)
        order.extend(["heard"] if verdict else [])
        return said

    async def main(job: Coordinator) -> None:
        try:
            async with commit(local_place, job) as path:
                await (write if fails is None else failing(fails, RuntimeError()))(job, path)
        finally:
            order.append("left")

    monkeypatch.setattr(KeyValueCoordinator, "broadcast", late)
    values = DictValues()
    outcomes = in_threads([Connected(values, rank, SIZE) for rank in range(SIZE)], main)
    assert told(outcomes) == {type(None) if fails is None else RankFailedError}
    assert order == ["heard", *["left"] * SIZE]


def test_an_interrupted_rank_does_not_wait_for_the_others_even_there(local_place: Place) -> None:
    values, left = DictValues(), threading.Event()

    async def main(job: Coordinator) -> None:
        try:
            async with commit(local_place, job) as path:
                if job.rank == 1:
                    await failing(1, KeyboardInterrupt())(job, path)
                await anyio.to_thread.run_sync(left.wait)
        finally:
            left.set()

    outcomes = in_threads([Connected(values, rank, SIZE) for rank in range(SIZE)], main)
    assert isinstance(outcomes[1], KeyboardInterrupt)
    assert told([outcomes[0], outcomes[2]]) == {RankFailedError}


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def test_an_error_without_words_is_told_all_the_same(local_place: Place) -> None:
    outcomes = together(local_place, failing(1, Mute()))
    assert told(outcomes) == {RankFailedError}
    assert "Mute" in outcomes[0].failures[1]


def test_a_download_is_each_ranks_own_affair(local_place: Place, tmp_path: Path) -> None:
    assert together(local_place) == ["committed"] * SIZE
    values = members(SIZE)

    async def main(job: Coordinator) -> Path:
        return await aio.get(f"{local_place.url}/step_1", tmp_path / f"copy-{job.rank}")

    assert in_threads(values, main) == [tmp_path / f"copy-{rank}" for rank in range(SIZE)]


def test_a_commit_by_hand_of_an_engine_that_is_none_is_refused(local_place: Place) -> None:
    with pytest.raises(ValidationError, match="Coordinator"):
        atomicpath.commit(f"{local_place.url}/step_1", coordinator="torch")  # type: ignore[arg-type]


def test_the_blocking_face_serves_ranks_too(local_place: Place) -> None:
    async def main(job: Coordinator) -> str:
        def work() -> str:
            with atomicpath.commit(f"{local_place.url}/step_1", coordinator=job) as path:
                (Path(path) / f"rank-{job.rank}").write_text("x")
            return "committed"

        return await anyio.to_thread.run_sync(work)

    assert in_threads(members(SIZE), main) == ["committed"] * SIZE
    assert names(local_place) == [f"rank-{rank}" for rank in range(SIZE)]


def test_a_single_process_is_a_job_of_one(local_place: Place) -> None:
    with atomicpath.commit(f"{local_place.url}/step_1", coordinator=SingleProcess()) as path:
        (Path(path) / "file").write_text("x")
    with pytest.raises(RuntimeError, match="own"), atomicpath.commit(f"{local_place.url}/step_2"):
        raise RuntimeError("my own")
    with pytest.raises(CommitError):
        atomicpath.commit(f"{local_place.url}/step_1", coordinator=SingleProcess()).__enter__()
