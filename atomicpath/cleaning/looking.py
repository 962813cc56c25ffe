"""A sweep's looks at what it has found: the record, whether it stays as it is, whether anybody holds the directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from atomicpath.abc import Content, Storage
from atomicpath.layout import RECORD_FILE
from atomicpath.location import Location
from atomicpath.strategies.discarding import hold_directory

from .findings import Kept

__all__ = ["expect_unchanged", "held_to_delete", "is_held", "seen_record"]


async def seen_record(storage: Storage, path: Location) -> Content | None:
    """The record in a directory, not decoded; None if there is none."""
    try:
        return await storage.read(path.child(RECORD_FILE).path)
    except (FileNotFoundError, NotADirectoryError):
        return None


async def expect_unchanged(storage: Storage, path: Location, seen: Content | None) -> None:
    """`Kept` unless the record is still the one that was judged."""
    now = await seen_record(storage, path)
    if (now and now.data) != (seen and seen.data):
        raise Kept("it has changed meanwhile")


@asynccontextmanager
async def held_to_delete(storage: Storage, path: Location) -> AsyncIterator[None]:
    """Hold a directory that is to be deleted, for the block; `Kept` if another process does, or if it has gone."""
    try:
        async with hold_directory(storage, path):
            yield
    except BlockingIOError:
        raise Kept("another process holds it") from None
    except FileNotFoundError:
        if await storage.kind(path.path) is not None:
            raise
        raise Kept("it has gone meanwhile") from None


async def is_held(storage: Storage, path: Location) -> bool:
    """Whether another holds a directory. Asked only of old ones: holding is what their makers do first."""
    try:
        async with hold_directory(storage, path):
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False  # gone meanwhile, as acting on it will find
