"""What is in memory of files on their way is limited by bytes, whoever sends or fetches them."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from atomicpath.storage import memory_for
from atomicpath.storage.budget import _BYTES, _REQUESTS, CONNECTIONS


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def held_at_once(sizes: list[int]) -> tuple[int, int]:
    """The most bytes and the most holders that there were at once."""
    now: list[int] = []
    most = [0, 0]

    async def one(size: int) -> None:
        async with memory_for(size):
            now.append(size)
            most[:] = max(most[0], sum(now)), max(most[1], len(now))
            await anyio.lowlevel.checkpoint()
            now.remove(size)

    async with anyio.create_task_group() as group:
        for size in sizes:
            group.start_soon(one, size)
    return most[0], most[1]


async def test_large_bodies_are_limited_by_their_bytes() -> None:
    assert await held_at_once([_BYTES // 4] * 20) == (_BYTES, 4)


async def test_small_bodies_are_limited_by_their_number_below_that_of_connections() -> None:
    assert await held_at_once([1] * 200) == (_REQUESTS, _REQUESTS)
    assert _REQUESTS < CONNECTIONS


async def test_a_body_above_the_limit_goes_alone() -> None:
    assert await held_at_once([2 * _BYTES, 1, 2 * _BYTES]) == (2 * _BYTES, 1)


async def test_a_large_body_is_not_overtaken_by_small_ones() -> None:
    order: list[str] = []

    async def one(name: str, size: int) -> None:
        async with memory_for(size):
            order.append(name)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group, memory_for(1):
        group.start_soon(one, "large", _BYTES)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(one, "small", 1)
        await anyio.wait_all_tasks_blocked()
        assert order == []
    assert order == ["large", "small"]


async def test_whoever_is_cancelled_while_waiting_or_holding_gives_everything_back() -> None:
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(hold_for_ever)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    with anyio.fail_after(10):
        assert await held_at_once([_BYTES]) == (_BYTES, 1)


async def hold_for_ever() -> None:
    async with memory_for(_BYTES):
        await anyio.sleep_forever()
