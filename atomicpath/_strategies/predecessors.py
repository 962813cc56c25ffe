"""Clearing what earlier attempts at the same final path have left on a disk, if their processes are provably gone."""

from __future__ import annotations

import logging

from atomicpath._core.layout import RECORD_SUFFIX, is_attempt_at, is_discarded, record_of
from atomicpath._core.liveness import proof_of_life
from atomicpath._core.record import CommitRecord, State
from atomicpath._profile.abilities import lock_file
from atomicpath._profile.location import Location
from atomicpath.abc import DirectoryStorage
from atomicpath.errors import AtomicPathError

from .attempt_files import delete_record
from .discard import delete_moved, take_away

__all__ = ["clear_dead"]

_LOG = logging.getLogger("atomicpath")


async def clear_dead(storage: DirectoryStorage, final: Location, own: Location) -> None:
    """Delete the attempts at `final` beside our `own` whose processes are provably gone.

    So a job that is killed again and again while it saves one step leaves one directory, not one for each time. What
    cannot be judged or deleted stays for `sweep`, and the log says so.
    """
    parent = own.parent
    for entry in await storage.list(parent.path, recursive=False):
        name = entry.name.removesuffix(RECORD_SUFFIX)
        if name == entry.name or name == own.name or not is_attempt_at(f"{parent.path}/{name}", final.name):
            continue
        try:
            await _clear_if_dead(storage, final, parent.child(name))
        except (OSError, AtomicPathError) as error:
            _LOG.info("%s is left for sweep(...): %s", parent.child(name), error)


async def _clear_if_dead(storage: DirectoryStorage, final: Location, attempt: Location) -> None:
    record = await _read(storage, attempt)
    if not _is_dead(storage, final, record):
        return
    # BlockingIOError: somebody is at work there after all; FileNotFoundError: its own process has just ended it
    lock = await lock_file(storage, record_of(attempt.path), existing=True)
    try:
        if await _read(storage, attempt) != record:
            return
        if await storage.kind(attempt.path) is not None:
            await delete_moved(storage, await take_away(storage, attempt, final), final)
        await delete_record(storage, attempt)
        _LOG.info("removed %s, which the attempt of %s had left", attempt, record.writer if record else "nobody")
    finally:
        if lock is not None:
            lock.release()


def _is_dead(storage: DirectoryStorage, final: Location, record: CommitRecord | None) -> bool:
    if record is None or record.final != final.name or record.state is not State.WRITING or record.based_on is not None:
        return False
    return proof_of_life(storage.environment, record) is False


async def _read(storage: DirectoryStorage, attempt: Location) -> CommitRecord | None:
    data = (await storage.get(record_of(attempt.path))).data
    return CommitRecord.decode(data, where=str(attempt)) if data and not is_discarded(attempt.name) else None
