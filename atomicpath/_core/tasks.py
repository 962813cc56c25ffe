"""Several coroutines at once, with one plain exception instead of a group."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

from .environment import need_event_loop

__all__ = ["map_concurrently", "run_both"]

T = TypeVar("T")
R = TypeVar("R")


async def map_concurrently(items: Iterable[T], function: Callable[[T], Awaitable[R]], *, at_once: int) -> list[R]:
    """Return `function` of each item, in order, with at most `at_once` calls under way.

    The first failure cancels the others and is raised itself, once they have ended.
    """
    work = list(items)
    if len(work) == 1:
        return [await function(work[0])]
    need_event_loop()
    results: dict[int, R] = {}
    limiter = anyio.Semaphore(at_once)

    async def one(index: int, item: T) -> None:
        try:
            results[index] = await function(item)
        finally:
            limiter.release()

    try:
        async with anyio.create_task_group() as group:
            for index, item in enumerate(work):
                await limiter.acquire()
                group.start_soon(one, index, item)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return [results[index] for index in range(len(work))]


async def run_both(first: Callable[[], Awaitable[T]], second: Callable[[], Awaitable[R]]) -> tuple[T, R]:
    """Run two coroutines at once; fail as `map_concurrently` does."""
    left: list[T] = []
    right: list[R] = []

    async def one() -> None:
        left.append(await first())

    async def other() -> None:
        right.append(await second())

    await map_concurrently((one, other), lambda function: function(), at_once=2)
    return left[0], right[0]


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first failure that is not merely the cancellation it caused.

    A failure that is not meant to be caught goes before the others.
    """
    flat: list[BaseException] = []
    pending: list[BaseException] = [failures]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending[:0] = error.exceptions
        else:
            flat.append(error)
    return next((error for error in flat if not isinstance(error, Exception)), flat[0])
