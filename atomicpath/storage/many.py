"""Requests about many files of one directory, some at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import anyio

__all__ = ["together"]

_AT_ONCE = 16


async def together(items: Iterable[str], function: Callable[[str], Awaitable[object]]) -> None:
    """Do the same for many, some at once; the first failure ends it and is raised."""
    limit = anyio.CapacityLimiter(_AT_ONCE)
    failures: list[Exception] = []

    async def one(item: str) -> None:
        async with limit:
            try:
                await function(item)
            except Exception as error:  # noqa: BLE001 - raised below, instead of a group of which only the first matters
                failures.append(error)
                group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(one, item)
    if failures:
        raise failures[0]
