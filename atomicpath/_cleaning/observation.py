"""A sweep's looks at what it has found: the record, whether it stays as it is, whether anybody holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from atomicpath._core.layout import LEGACY_RECORD_FILE, RECORD_FILE, record_of, temporary_of
from atomicpath._profile.abilities import lock_file
from atomicpath._profile.location import Location
from atomicpath._strategies.discard import lock_directory
from atomicpath.abc import Content, Storage

from .results import KeepError

__all__ = ["expect_unchanged", "final_held", "is_held", "lock_to_delete", "seen_record", "writers_lock"]


async def seen_record(storage: Storage, path: Location) -> Content | None:
    """Read the record in a directory, not decoded; None if there is none."""
    for name in (RECORD_FILE, LEGACY_RECORD_FILE):
        try:
            return await storage.get(path.child(name).path)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return None


async def expect_unchanged(storage: Storage, path: Location, seen: Content | None) -> None:
    """Raise `KeepError` unless the record in a directory is still the one that was judged."""
    now = await seen_record(storage, path)
    if (now and now.data) != (seen and seen.data):
        raise KeepError("it has changed meanwhile")


def writers_lock(final: Location, token: str) -> Location:
    """Return the place of the file that the writer of the attempt `token` in place at `final` has locked."""
    return final.at(record_of(temporary_of(final.path, token)))


@asynccontextmanager
async def final_held(storage: Storage, final: Location) -> AsyncIterator[None]:
    """Lock a final path whose directory is to be deleted, for the block; raise `KeepError` if another process has."""
    try:
        async with lock_directory(storage, final):
            yield
    except BlockingIOError:
        raise KeepError("another process holds it") from None


@asynccontextmanager
async def lock_to_delete(storage: Storage, lock: Location) -> AsyncIterator[None]:
    """Take the lock of an attempt that is to be deleted, for the block; raise `KeepError` if its writer has it."""
    held = None
    try:
        held = await lock_file(storage, lock.path, existing=True)
    except BlockingIOError:
        raise KeepError("another process holds it") from None
    except FileNotFoundError:
        pass  # nobody has a lock on what is not there
    try:
        yield
    finally:
        if held is not None:
            held.release()


async def is_held(storage: Storage, lock: Location) -> bool:
    """Tell whether another process has locked a file.

    A file that is missing is locked by nobody.
    """
    try:
        async with lock_to_delete(storage, lock):
            return False
    except KeepError:
        return True
