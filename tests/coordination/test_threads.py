"""The coordinator over a key-value store, whose ranks are threads of this process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from atomicpath._core import environment
from atomicpath._core.record import Writer
from atomicpath.abc import Coordinator
from atomicpath.coordinators import KeyValueCoordinator, SingleProcess
from atomicpath.errors import CoordinationError, CoordinationTimeoutError, ValidationError
from tests.coordination.checks import CHECKS, Check
from tests.coordination.threads import DictValues, in_threads, members
from tests.support.waiting import PATIENCE

SIZE = 4


def succeed(outcomes: Sequence[object]) -> None:
    """Every rank returned."""
    failures = {rank: outcome for rank, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)}
    if failures:
        raise ExceptionGroup(f"ranks {[*failures]}", [Exception(rank, error) for rank, error in failures.items()])


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_over_a_dictionary(check: Check, loop: str) -> None:
    succeed(in_threads(members(SIZE), check, loop))


def test_the_store_does_not_grow() -> None:
    values = DictValues()

    async def work(job: Coordinator) -> None:
        for number in range(50):
            await job.broadcast(f"{number}-path", b"x" if job.rank == 0 else None, timeout=PATIENCE)
            await job.gather(f"{number}-written", b"x", timeout=PATIENCE)
            await job.barrier(f"{number}-committed", timeout=PATIENCE)

    ranks = members(SIZE, values)
    succeed(in_threads(ranks, work))
    left = {key for key in values.values if "49-" not in key}
    assert left == {f"atomicpath/{name}" for name in ("run", "runs", "positions", "sent/1", "sent/2", "sent/3")}


@pytest.mark.parametrize("used_before", [(0, 1, 2, 3), (0, 1), (0, 2, 3), (1, 2)])
def test_a_new_run_does_not_read_what_an_earlier_one_left(used_before: tuple[int, ...]) -> None:
    values = DictValues()

    async def earlier(job: Coordinator) -> bytes:
        return await job.broadcast("same key", b"old" if job.rank == 0 else None, timeout=0.5)

    async def work(job: Coordinator) -> bytes:
        return await job.broadcast("same key", b"new" if job.rank == 0 else None, timeout=PATIENCE)

    before = members(SIZE, values)
    in_threads([before[rank] for rank in used_before], earlier)
    for _ in range(2):
        assert in_threads(members(SIZE, values), work) == [b"new"] * SIZE


def test_a_rank_that_has_not_even_been_met_is_named() -> None:
    async def work(job: Coordinator) -> None:
        await job.broadcast("first", b"x" if job.rank == 0 else None, timeout=5 if job.rank == 0 else PATIENCE)

    for outcome in in_threads(members(SIZE)[:-1], work):
        assert isinstance(outcome, CoordinationTimeoutError)
        assert outcome.missing == (SIZE - 1,)


@pytest.mark.parametrize("size_of_two", [3, 5])
def test_sizes_that_differ_are_an_error_of_all_that_see_it(size_of_two: int) -> None:
    values = DictValues()
    ranks = [KeyValueCoordinator(values, rank, 4) for rank in (0, 1)]
    ranks.append(KeyValueCoordinator(values, 2, size_of_two))
    outcomes = in_threads(ranks, lambda job: job.barrier("first", timeout=PATIENCE))
    assert "rank 0 says world_size=4, rank 2 says world_size=" in str(outcomes[2])
    assert isinstance(outcomes[2], CoordinationError)
    assert str(outcomes[0]) == str(outcomes[1]) == str(outcomes[2])


def test_of_two_primaries_on_different_hosts_the_first_gives_way() -> None:
    values = DictValues()
    ranks = [KeyValueCoordinator(values, rank, 3) for rank in (0, 0, 1)]
    _move(ranks[1])

    async def work(job: Coordinator) -> None:
        await job.barrier("first", timeout=8)

    outcomes = in_threads(ranks, work)
    assert sum("two processes say that they are rank 0" in str(outcome) for outcome in outcomes[:2]) == 1
    assert all(isinstance(outcome, CoordinationError) for outcome in outcomes), "rank 2 never came"


def _move(rank: KeyValueCoordinator) -> None:
    """Have it say that it runs on another host."""
    rank._meeting.process = Writer(host="elsewhere", pid=1)


def test_a_second_process_of_a_rank_is_refused() -> None:
    values = DictValues()
    ranks = members(3, values)
    succeed(in_threads(ranks, lambda job: job.barrier("met", timeout=PATIENCE)))
    second = KeyValueCoordinator(values, 1, 3)
    _move(second)

    async def work(job: Coordinator) -> None:
        await job.barrier("next", timeout=10)

    outcomes = in_threads([ranks[0], second], work)
    assert "two processes say that they are rank 1" in str(outcomes[1])


@pytest.mark.parametrize(("rank", "size"), [(-1, 2), (2, 2), (0, 0), (0, -1)])
def test_a_rank_that_cannot_be_is_refused(rank: int, size: int) -> None:
    with pytest.raises(ValidationError):
        KeyValueCoordinator(DictValues(), rank, size)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_time_out_that_cannot_be_is_refused(timeout: float) -> None:
    with pytest.raises(ValidationError, match="timeout"):
        KeyValueCoordinator(DictValues(), 0, 2, timeout=timeout)


def test_a_single_process_waits_for_nothing_not_even_an_event_loop() -> None:
    job = SingleProcess()

    async def work() -> None:
        assert await job.broadcast("a", b"x", timeout=1) == b"x"
        assert await job.gather("b", b"y", timeout=1) == [b"y"]
        await job.barrier("c", timeout=1)

    with environment.without_event_loop(), pytest.raises(StopIteration):
        work().send(None)
    assert (job.rank, job.world_size) == (0, 1)
