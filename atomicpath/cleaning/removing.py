"""Removing a committed directory: for readers in one step, whatever becomes of the process that removes it."""

from __future__ import annotations

import logging

from atomicpath.abc import Content, Entry, Storage
from atomicpath.environment import shielded
from atomicpath.errors import (
    AbandonedError,
    AtomicPathError,
    ConflictError,
    NotCommittedError,
    OutcomeUnknownError,
    ValidationError,
)
from atomicpath.guarantees import NONE, RENAMING, Guarantee, check
from atomicpath.inspect import load
from atomicpath.layout import RECORD_FILE
from atomicpath.location import Location
from atomicpath.probing import profile_of
from atomicpath.record import CommitRecord
from atomicpath.strategies.discarding import CleaningRegister, delete_below, delete_moved, hold_directory, move_away
from atomicpath.strategies.held import is_committed, read_record

__all__ = ["remove"]

_LOG = logging.getLogger("atomicpath")
_FENCE = Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE
_REFUSALS = (FileNotFoundError, PermissionError)


async def remove(location: Location, *, guarantees: Guarantee = NONE) -> None:
    """Remove the committed directory at a location, with all that is below it.

    By one rename to a name where nobody looks, where the location guarantees it; else by a swap of the record to
    `discarded`. Everything is deleted only afterwards. `sweep` ends a removal that was cut short.
    """
    record = (await load(location)).record
    if await location.open().kind(location.path) not in ("directory", None):
        raise ValidationError(
            f"{location} is a link to a committed directory, which is not removed through it: remove the link yourself,"
            " or pass its target"
        )
    if record is None:
        raise ValidationError(
            f"{location} was committed by another tool, which left no record: it is not atomicpath's to remove. Delete"
            " it with that tool, or by hand"
        )
    storage = location.open()
    profile = await profile_of(location, wanted=RENAMING | _FENCE | guarantees, asserted=guarantees)
    if not profile.missing(RENAMING):
        await _by_rename(storage, location, record)
        return
    check("remove", _FENCE, profile)
    await _by_record(storage, location, record)


async def _by_rename(storage: Storage, location: Location, record: CommitRecord) -> None:
    try:
        async with hold_directory(storage, location) as hold:
            await _expect_same(storage, location, record)
            with shielded():
                doomed = await _moved(storage, location)
                if not hold.excludes_others:  # nothing kept others from exchanging what is there since the look
                    await _put_back_unless_same(storage, location, doomed, record)
            await _delete(storage, location, doomed)
    except BlockingIOError as error:
        raise ConflictError(f"{location} is being removed or replaced by another process", record) from error
    except FileNotFoundError as error:
        if isinstance(error, AtomicPathError):
            raise
        raise NotCommittedError(f"{location} was removed by somebody else meanwhile") from error


async def _moved(storage: Storage, location: Location) -> Location:
    try:
        return await move_away(storage, location, location)
    except _REFUSALS:
        raise
    except OSError as error:
        if storage.is_local:
            raise
        raise OutcomeUnknownError(
            f"the store does not say whether {location} was moved away ({error}). Nothing was deleted: look again later"
            " with is_committed(...), or remove it again"
        ) from error


async def _expect_same(storage: Storage, location: Location, record: CommitRecord) -> None:
    there = await read_record(storage, location)
    if there is None or not await is_committed(storage, location, there):
        raise NotCommittedError(f"{location} was removed by somebody else meanwhile")
    if there.token != record.token:
        raise ConflictError(f"{location} was replaced meanwhile: remove it again if you mean the new one", there)


async def _put_back_unless_same(storage: Storage, location: Location, doomed: Location, record: CommitRecord) -> None:
    moved = await read_record(storage, doomed)
    if moved is not None and moved.token == record.token:
        return
    await storage.rename_directory(doomed.path, location.path)
    raise ConflictError(f"{location} was replaced meanwhile: remove it again if you mean the new one", moved)


async def _delete(storage: Storage, location: Location, doomed: Location) -> None:
    try:
        await delete_moved(storage, doomed, location)
    except (OSError, AtomicPathError) as error:
        error.add_note(f"{location} is removed for readers; {doomed} is left, which sweep(...) deletes")
        raise


async def _by_record(storage: Storage, location: Location, record: CommitRecord) -> None:
    try:
        seen = await storage.read(location.child(RECORD_FILE).path)
    except FileNotFoundError as error:
        raise NotCommittedError(f"{location} was removed by somebody else meanwhile") from error
    there = CommitRecord.decode(seen.data, where=str(location))
    if there.token != record.token or there.state is not record.state:
        raise await _moved_meanwhile(location)
    await _end(storage, location, seen, there)


async def _end(storage: Storage, location: Location, seen: Content, record: CommitRecord) -> None:
    register = CleaningRegister(storage, location, seen, record, conditional_delete=True)

    async def everything(entry: Entry) -> bool:  # noqa: ARG001 - the caller named the directory, with all that is in it
        return True

    try:
        await delete_below(storage, location, register, is_ours=everything, conditional=True, was_committed=True)
    except AbandonedError as moved:
        if not register.is_discarded:
            raise await _moved_meanwhile(location) from moved
        _LOG.info("%s was removed, and is being cleaned up by another process: %s", location, moved)
    except (OSError, AtomicPathError) as error:
        if register.is_discarded:
            error.add_note(f"{location} is removed for readers; what is left of it sweep(...) deletes")
        raise


async def _moved_meanwhile(location: Location) -> AtomicPathError:
    """Somebody else has moved the record since it was read."""
    try:
        found = await load(location)
    except NotCommittedError as error:
        return error
    return ConflictError(
        f"{location} was changed meanwhile: remove it again if you mean what is there now", found.record
    )
