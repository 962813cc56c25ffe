"""Removing a committed directory: for readers in one step, whatever becomes of the process that removes it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from atomicpath._commit.aliases import remove_alias
from atomicpath._commit.readers import find, load
from atomicpath._core.environment import cleaning_up, shielded
from atomicpath._core.layout import PROBE_PREFIX, RECORD_FILE
from atomicpath._core.record import CommitRecord
from atomicpath._core.text import few_of
from atomicpath._profile.abilities import need
from atomicpath._profile.location import Location
from atomicpath._profile.probing import profile_of
from atomicpath._strategies.aliases import expect_no_alias_to
from atomicpath._strategies.borders import foreign_below
from atomicpath._strategies.cleanup import NotClearedError
from atomicpath._strategies.conflicts import is_committed, read_record
from atomicpath._strategies.discard import CleaningAttemptRecord, delete_below, delete_moved, lock_directory, move_away
from atomicpath._strategies.fences import NEEDED, WANTED, Fence
from atomicpath._strategies.ownership import Ownership
from atomicpath.abc import DirectoryStorage, EntryKind, Storage
from atomicpath.errors import (
    AbandonedError,
    AccessError,
    AtomicPathError,
    ConflictError,
    IntegrityError,
    NotCommittedError,
    OutcomeUnknownError,
    ValidationError,
)
from atomicpath.guarantees import NONE, RENAMING, Guarantee, check

__all__ = ["remove"]

_LOG = logging.getLogger("atomicpath")
_REFUSALS = (FileNotFoundError, PermissionError)


async def remove(
    location: Location, *, guarantees: Guarantee = NONE, on_removed: Callable[[], object] = lambda: None
) -> None:
    """Remove the committed directory at a location, with all that is below it.

    By one rename to a name where nobody looks, where the location guarantees it; else by a swap of the record to
    `discarded`. Everything is deleted only afterwards. `sweep` ends a removal that was cut short. What neither its
    manifest nor an owner of its attempt names is never deleted.

    Args:
        location: The committed directory.
        guarantees: What the caller knows of the location.
        on_removed: Called once this removal, and no other, has hidden the directory from readers. An error may follow.

    Raises:
        ConflictError: Another place, a live attempt or somebody's files are in it. Nothing was changed, or what was
            not its own stays, as the message says.
    """
    try:
        place, commit = await find(location)
    except (NotCommittedError, IntegrityError):  # as of an alias that leads nowhere
        if await remove_alias(location, guarantees=guarantees):
            return
        raise
    storage = location.open()
    await expect_no_alias_to(storage, location)
    if place.path != location.path:
        await remove_alias(location, guarantees=guarantees)
        return
    record = commit.record
    if await storage.kind(location.path) not in (EntryKind.DIRECTORY, None):
        raise ValidationError(
            f"{location} is a link to a committed directory, which is not removed through it: remove the link yourself,"
            " or pass its target"
        )
    if record is None:
        raise ValidationError(
            f"{location} was committed by another tool, which left no record: it is not atomicpath's to remove. Delete"
            " it with that tool, or by hand"
        )
    profile = await profile_of(location, wanted=RENAMING | WANTED | guarantees, asserted=guarantees)
    if not profile.missing(RENAMING):
        await _by_rename(need(storage, DirectoryStorage, Guarantee.ATOMIC_RENAME), location, record, on_removed)
        return
    check("remove", NEEDED, profile)
    # a probe of them has deleted there; a declaration, or the caller's word, says nothing of what these credentials may
    may_delete = Guarantee.CONDITIONAL_DELETE in profile.observed
    await _by_record(storage, location, record, Fence.of(profile.effective), may_delete, on_removed)


async def _by_rename(
    storage: DirectoryStorage, location: Location, record: CommitRecord, on_removed: Callable[[], object]
) -> None:
    try:
        async with lock_directory(storage, location) as hold:
            await _expect_same(storage, location, record)
            await _expect_own(storage, location, record)
            with shielded():
                doomed = await _moved(storage, location)
                try:  # this look decides: nobody can reach the directory by its name any more
                    if not hold.excludes_others:  # others could exchange what is there since the look
                        await _expect_same_moved(storage, location, doomed, record)
                    await _expect_own(storage, location, record, doomed)
                    await expect_no_alias_to(storage, location)  # made since the look, while its target was still there
                except BaseException as error:
                    if not await _put_back(storage, location, doomed, error):
                        on_removed()
                    raise
            on_removed()
            await _delete(storage, location, doomed)
    except BlockingIOError as error:
        raise ConflictError(f"{location} is being removed or replaced by another process", record) from error
    except FileNotFoundError as error:
        if isinstance(error, AtomicPathError):
            raise
        raise NotCommittedError(f"{location} was removed by somebody else meanwhile") from error


async def _moved(storage: DirectoryStorage, location: Location) -> Location:
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


async def _expect_same_moved(
    storage: DirectoryStorage, location: Location, doomed: Location, record: CommitRecord
) -> None:
    moved = await read_record(storage, doomed)
    if moved is None or moved.token != record.token:
        raise ConflictError(f"{location} was replaced meanwhile: remove it again if you mean the new one", moved)


async def _expect_own(
    storage: Storage, location: Location, record: CommitRecord, moved: Location | None = None
) -> None:
    """Raise ConflictError if anything is there that does not belong to the directory.

    The directory may have been `moved`.
    """
    if names := await foreign_below(storage, moved or location, record):
        raise ConflictError(
            f"{location} was not removed: what is in it is not all its own ({few_of(names)}). A name that ends in '/'"
            " is another place, committed or under way. Nothing was changed: move or delete these yourself, then"
            " remove it again",
            record,
        )


async def _put_back(storage: DirectoryStorage, location: Location, doomed: Location, error: BaseException) -> bool:
    """Undo the move of what is not the directory to remove, or cannot be seen to be it.

    Return False if that fails.
    """
    try:
        await storage.rename_directory(doomed.path, location.path)
    except (OSError, AtomicPathError) as failure:
        error.add_note(
            f"{location} is removed for readers, and cannot be put back ({failure}): {doomed} has all of it, which"
            " sweep(...) deletes in time. Take from there what is not its own"
        )
        return False
    return True


async def _delete(storage: DirectoryStorage, location: Location, doomed: Location) -> None:
    try:
        await delete_moved(storage, doomed, location)
    except (OSError, AtomicPathError) as error:
        error.add_note(f"{location} is removed for readers; {doomed} is left, which sweep(...) deletes")
        raise


async def _by_record(
    storage: Storage,
    location: Location,
    record: CommitRecord,
    fence: Fence,
    may_delete: bool,
    on_removed: Callable[[], object],
) -> None:
    try:
        seen = await storage.get(location.child(RECORD_FILE).path)
    except FileNotFoundError as error:
        raise NotCommittedError(f"{location} was removed by somebody else meanwhile") from error
    there = CommitRecord.decode(seen.data, where=str(location))
    if there.token != record.token or there.state is not record.state:
        raise await _moved_meanwhile(location)
    await _expect_own(storage, location, there)
    if not may_delete:
        await _expect_permission(storage, location, version=seen.version if fence.conditional else None)
    register = CleaningAttemptRecord(storage, location, seen, there, conditional_delete=fence.conditional)
    try:
        await _end(storage, location, register, there)
    finally:
        if register.is_discarded:
            on_removed()


async def _expect_permission(storage: Storage, location: Location, *, version: str | None) -> None:
    """Raise AccessError if these credentials may not delete.

    A probe of conditional deletes fails with that error as well.

    The function deletes something that is not there, before readers are told that the directory has gone. It names a
    `version` where the later deletes will: then a versioned bucket keeps no delete marker of it.
    """
    try:
        await storage.delete(location.child(f"{PROBE_PREFIX}{storage.environment.token()}").path, version=version)
    except AccessError as error:
        raise AccessError(f"{location} was not removed, and nothing was changed: {error}") from error
    except OSError as error:
        error.add_note(f"{location} was not removed, and nothing was changed")
        raise


async def _end(storage: Storage, location: Location, register: CleaningAttemptRecord, record: CommitRecord) -> None:
    ownership = Ownership.of(storage, location, record)
    try:
        await delete_below(
            storage,
            location,
            register,
            ownership=ownership,
            was_committed=True,
            confirm=partial(_expect_unaliased, storage, location, register, record),
        )
    except AbandonedError as moved:
        if not register.is_discarded:
            raise await _moved_meanwhile(location) from moved
        _LOG.info("%s was removed, and is being cleaned up by another process: %s", location, moved)
    except NotClearedError as error:
        error.add_note(f"{location} is removed for readers; what is left of it sweep(...) deletes")
        raise
    except ConflictError as foreign:
        if not register.is_discarded:
            raise  # it was taken back: nothing was deleted
        with shielded():
            await register.withdraw()  # all that was its own is deleted
        foreign.add_note(f"{location} is removed; what came in at the last moment and is not its own stays")
        raise
    except (OSError, AtomicPathError) as error:
        if register.is_discarded:
            error.add_note(f"{location} is removed for readers; what is left of it sweep(...) deletes")
        raise


async def _expect_unaliased(
    storage: Storage, location: Location, register: CleaningAttemptRecord, record: CommitRecord
) -> None:
    """Take the removal back if an alias was made while its target was still there, or if that cannot be seen."""
    try:
        await expect_no_alias_to(storage, location)
    except BaseException as error:
        with cleaning_up(location, error):
            await register.restore(record)
        raise


async def _moved_meanwhile(location: Location) -> AtomicPathError:
    """Return the error for a record that somebody else has moved since it was read."""
    try:
        found = await load(location)
    except NotCommittedError as error:
        return error
    return ConflictError(
        f"{location} was changed meanwhile: remove it again if you mean what is there now", found.record
    )
