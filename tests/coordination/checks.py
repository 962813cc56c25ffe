"""What every coordinator must do: functions that each rank of a job runs at the same time, over any engine.

They wait for one another by messages alone. A call that hangs ends with the job's own time limit.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import anyio
import pytest

from atomicpath.abc import Coordinator
from atomicpath.errors import CoordinationTimeoutError, ValidationError

__all__ = ["CHECKS"]

LONG = 500.0  # more than any job may last
SHORT = 3.0  # runs out for those that wait for a silent rank; the others, who have just met, come sooner

Check = Callable[[Coordinator], Awaitable[None]]


async def a_broadcast_reaches_all(job: Coordinator) -> None:
    for root in (0, job.world_size - 1):
        for number, value in enumerate((b"token", b"", b"\x00\xff" * 100_000)):
            sent = value if job.rank == root else None
            assert await job.broadcast(f"broadcast-{root}-{number}", sent, root=root, timeout=LONG) == value


async def gather_is_ordered_by_rank(job: Coordinator) -> None:
    for root in (0, job.world_size - 1):
        for number, value in enumerate((f"I am {job.rank}".encode(), b"", bytes([job.rank]) * 100_000)):
            found = await job.gather(f"gather-{root}-{number}", value, root=root, timeout=LONG)
            length = (len("I am n"), 0, 100_000)[number]
            if job.rank != root:
                assert found is None
            else:
                assert found is not None
                assert [len(one) for one in found] == [length] * job.world_size
                assert found[job.rank] == value
                assert len(set(found)) == (job.world_size if length else 1)


async def a_barrier_holds_until_the_last(job: Coordinator) -> None:
    for number in range(3):
        if job.rank == job.world_size - 1 - number % job.world_size:
            await anyio.sleep(0.2)  # so that one that does not hold is seen
        begun = time.monotonic()  # one clock for all processes of this host
        await job.barrier(f"barrier-{number}", timeout=LONG)
        times = struct.pack("!dd", begun, time.monotonic())
        found = await job.gather(f"barrier-times-{number}", times, timeout=LONG)
        if found is not None:
            begins, ends = zip(*(struct.unpack("!dd", one) for one in found), strict=True)
            assert max(begins) <= min(ends)


async def a_silent_rank_is_named_by_all_and_finds_the_verdict_when_it_comes(job: Coordinator) -> None:
    last = job.world_size - 1
    await job.barrier("silent-before", timeout=LONG)
    if job.rank != last:
        with pytest.raises(CoordinationTimeoutError, match="barrier 'silent'") as caught:
            await job.barrier("silent", timeout=SHORT)
        assert caught.value.missing == (last,)
    await job.gather("silent-seen", b"", root=last, timeout=LONG)  # now all others have given up
    if job.rank == last:
        with pytest.raises(CoordinationTimeoutError) as caught:
            await job.barrier("silent", timeout=LONG)
        assert caught.value.missing == (last,)
    await job.barrier("silent-after", timeout=LONG)


async def what_did_come_is_in_the_error_of_a_gather(job: Coordinator) -> None:
    last = job.world_size - 1
    await job.barrier("part-before", timeout=LONG)
    if job.rank == 0:
        with pytest.raises(CoordinationTimeoutError, match="gather 'part'") as caught:
            await job.gather("part", b"0", timeout=SHORT)
        assert caught.value.missing == (last,)
        assert caught.value.received == {rank: str(rank).encode() for rank in range(last)}
    elif job.rank != last:
        await job.gather("part", str(job.rank).encode(), timeout=LONG)
    await job.broadcast("part-over", b"", timeout=LONG)
    if job.rank == last:
        assert await job.gather("part", b"late", timeout=LONG) is None
    await job.barrier("part-after", timeout=LONG)


async def a_broadcast_that_does_not_come_names_its_root(job: Coordinator) -> None:
    if job.rank != 0:
        with pytest.raises(CoordinationTimeoutError, match="broadcast 'mute'") as caught:
            await job.broadcast("mute", timeout=SHORT)
        assert caught.value.missing == (0,)
    await job.gather("mute-seen", b"", timeout=LONG)
    assert await job.broadcast("mute", b"late" if job.rank == 0 else None, timeout=LONG) == b"late"


async def nobody_waits_for_a_rank_that_watch_gives_up(job: Coordinator) -> None:
    last = job.world_size - 1

    def watch(ranks: Iterable[int]) -> Mapping[int, str]:
        return {rank: "its machine burned down" for rank in ranks if rank == last}

    if job.rank != last:
        with pytest.raises(CoordinationTimeoutError, match=f"rank {last}: its machine burned down") as caught:
            await job.barrier("burned", timeout=LONG, watch=watch)
        assert caught.value.missing == (last,)
    if job.rank == 0:
        with pytest.raises(CoordinationTimeoutError, match="burned down") as caught:
            await job.gather("burned-too", b"", timeout=LONG, watch=watch)
        assert last in caught.value.missing
    elif job.rank != last:
        await job.gather("burned-too", b"", timeout=LONG, watch=watch)
    await job.barrier("burned-after", timeout=LONG)


async def a_waiting_call_can_be_cancelled(job: Coordinator) -> None:
    last = job.world_size - 1
    if job.rank != last:
        with anyio.move_on_after(0.3) as scope:
            await job.barrier("cancelled", timeout=LONG)
        assert scope.cancelled_caught
        with anyio.move_on_after(0.3) as scope:
            await job.broadcast("cancelled-too", root=last, timeout=LONG)
        assert scope.cancelled_caught
    await job.gather("cancelled-seen", b"", root=last, timeout=LONG)
    sent = b"now" if job.rank == last else None
    assert await job.broadcast("cancelled-too", sent, root=last, timeout=LONG) == b"now"
    await job.barrier("cancelled-after", timeout=LONG)


async def calls_with_other_keys_do_not_disturb_one_another(job: Coordinator) -> None:
    """Each rank has three calls under way at once, begun in another order."""
    calls = [
        lambda: job.barrier("at-once-0", timeout=LONG),
        lambda: job.gather("at-once-1", b"", root=1, timeout=LONG),
        lambda: job.broadcast("at-once-2", b"x" if job.rank == 0 else None, timeout=LONG),
    ]
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(calls[(number + job.rank) % 3])


async def a_rank_may_run_ahead(job: Coordinator) -> None:
    for number in range(20):
        await job.broadcast(f"ahead-{number}", b"%d" % number if job.rank == 0 else None, timeout=LONG)
        found = await job.gather(f"ahead-back-{number}", b"%d" % number, timeout=LONG)
        assert found in (None, [b"%d" % number] * job.world_size)
    await job.barrier("ahead-after", timeout=LONG)


async def what_cannot_be_is_refused_at_once(job: Coordinator) -> None:
    for timeout in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValidationError, match="timeout"):
            await job.barrier("wrong", timeout=timeout)
    for root in (-1, job.world_size):
        with pytest.raises(ValidationError, match="root"):
            await job.broadcast("wrong", b"", root=root, timeout=LONG)
    if job.rank == 0:
        with pytest.raises(ValidationError, match="value="):
            await job.broadcast("wrong", timeout=LONG)


CHECKS: tuple[Check, ...] = (
    a_broadcast_reaches_all,
    gather_is_ordered_by_rank,
    a_barrier_holds_until_the_last,
    a_silent_rank_is_named_by_all_and_finds_the_verdict_when_it_comes,
    what_did_come_is_in_the_error_of_a_gather,
    a_broadcast_that_does_not_come_names_its_root,
    nobody_waits_for_a_rank_that_watch_gives_up,
    a_waiting_call_can_be_cancelled,
    calls_with_other_keys_do_not_disturb_one_another,
    a_rank_may_run_ahead,
    what_cannot_be_is_refused_at_once,
)
