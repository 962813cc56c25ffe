"""A local file sent in parts, several at once, in bounded memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from atomicpath._core.environment import Environment

from .budget import memory_for
from .source import Source

__all__ = ["send_parts"]

T = TypeVar("T")

_AT_ONCE = 16


async def send_parts(
    environment: Environment, source: Source, send: Callable[[int, bytes], Awaitable[T]], *, least: int, most: int
) -> list[T]:
    """Send each part of a file with `send`, numbered from zero, and return the results in order.

    The file must not be empty.

    Parts have `least` bytes, or more where there would be more than `most` of them; the last may be smaller.
    The first failure cancels the others and is raised itself.
    """
    size = max(least, -(-source.size // most))
    count = -(-source.size // size)
    numbers = iter(range(count))
    sent: dict[int, T] = {}
    failures: list[Exception] = []

    async def send_one(number: int) -> None:  # a function, so that the bytes are freed when it ends
        offset = number * size
        length = min(size, source.size - offset)
        async with memory_for(length):
            data = await environment.step(source.read, offset, length)
            sent[number] = await send(number, data)

    async def send_some() -> None:
        try:
            for number in numbers:
                await send_one(number)
        except Exception as error:  # noqa: BLE001 - raised below, instead of a group of which only the first matters
            failures.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(min(_AT_ONCE, count)):
            group.start_soon(send_some)
    if failures:
        raise failures[0]
    return [sent[number] for number in range(count)]
