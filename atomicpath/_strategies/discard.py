"""Ending what another wrote: its record moved to discarded before anything is deleted, or its directory moved away."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from atomicpath._core.environment import cleaning_up
from atomicpath._core.layout import COMMIT_SUCCESS_FILE, RECORD_FILE, discarded_of
from atomicpath._core.liveness import this_process, track_attempt, untrack_attempt
from atomicpath._core.record import CommitRecord, Lease, State, token_in_marker
from atomicpath._profile.abilities import make_shared_directory, need
from atomicpath._profile.location import Location
from atomicpath._profile.probing import are_beside
from atomicpath.abc import Content, DirectoryStorage, EntryKind, StaleVersionError, Storage, SyncingStorage
from atomicpath.errors import (
    AbandonedError,
    AccessError,
    AtomicPathError,
    ConflictError,
    GuaranteeError,
    OutcomeUnknownError,
)
from atomicpath.guarantees import Guarantee

from .attempt_files import tidy
from .attempt_record import AttemptRecord, SwappedAttemptRecord
from .borders import inside_error, listed, refuse_mounts
from .cleanup import clear
from .conflicts import read_marker
from .directory_lock import DirectoryLock, hold_final
from .ownership import Ownership

__all__ = [
    "CleaningAttemptRecord",
    "delete_below",
    "delete_moved",
    "delete_own_tree",
    "lock_directory",
    "move_away",
    "nested_in",
    "take_away",
]

_LOG = logging.getLogger("atomicpath")

_TRIES = 5


class CleaningAttemptRecord(SwappedAttemptRecord):
    """The record of somebody else's attempt, or of a committed directory, on its way to `discarded` by this process.

    It is moved from the very version that was judged, or not at all: a holder that has renewed it since lives.
    Once discarded it carries this cleaner's own token, so that no two cleaners take each other's move for theirs.
    """

    def __init__(
        self, storage: Storage, final: Location, seen: Content, record: CommitRecord, *, conditional_delete: bool
    ) -> None:
        super().__init__(storage, final, record, conditional_delete=conditional_delete)
        self.version = seen.version
        self.held = True
        self.cleaner = storage.environment.token()

    @property
    def is_discarded(self) -> bool:
        """True if this cleaner has moved the record to `discarded`.

        Then nobody owns what is below the path, and it may be deleted.
        """
        return self.record.cleaner == self.cleaner

    async def restore(self, record: CommitRecord) -> None:
        """Undo the move of the record, while nothing was deleted.

        Raise AbandonedError if somebody has moved the record since.
        """
        await self._move(record)

    def _discarded(self) -> CommitRecord:
        environment = self._storage.environment
        lease = Lease(seconds=environment.lease, renewals=self.record.lease.renewals + 1)
        writer = this_process(environment)
        return self.record.moved_to(State.DISCARDED, lease=lease, writer=writer, cleaner=self.cleaner)

    def _is_still_ours(self, seen: Content, renewals: int, version: str | None) -> bool:
        if not self.is_discarded:
            return seen.version == version  # rule *swap*: only from what was judged
        return self._decoded(seen).cleaner == self.cleaner and super()._is_still_ours(seen, renewals, version)

    def _lost(self, seen: Content | None) -> AbandonedError:
        now = f"{self._decoded(seen).state.value} by {self._decoded(seen).writer}" if seen else "gone"
        return AbandonedError(f"{self._final} was left alone: its record has moved meanwhile, and is {now}")

    def _refused(self, error: AccessError) -> AtomicPathError:
        return AccessError(f"{self._final} was left as it is: {error}")

    def _unknown(self, target: State, failure: Exception | None) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"the store does not say whether the record of {self._final} became {target.value!r} ({failure}). Nothing"
            " more was deleted: look again later with is_committed(...); sweep(...) finishes what was begun"
        )


async def delete_below(
    storage: Storage,
    final: Location,
    register: AttemptRecord,
    *,
    ownership: Ownership,
    was_committed: bool,
    confirm: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Move the register to discarded, then delete what is below `final` and is ours, and the record last.

    `confirm` is called between the two: nothing is deleted if it raises.

    Raise AbandonedError if the register was not ours, or is not any more. Raise ConflictError if files that are not
    ours stay: then the record stays too, for the caller to `withdraw`. OutcomeUnknownError is raised as by every move.
    Meanwhile other processes see an attempt of this process under way.
    """
    # tracked by the cleaner's own token: a second cleaner here that comes too late must not untrack this one
    token = register.cleaner if isinstance(register, CleaningAttemptRecord) else register.record.token
    track_attempt(token)
    try:
        with cleaning_up(final):
            await register.discard()  # rule *register*: moved before anything is deleted
            if confirm is not None:
                await confirm()
        if was_committed:
            await _unmark(storage, final, register, ownership)
        await clear(storage, final, register, ownership)
        try:
            await register.withdraw()
        except StaleVersionError as error:
            raise AbandonedError(f"{final} has been taken over meanwhile, and is left to its new holder") from error
    finally:
        untrack_attempt(token)


async def _unmark(storage: Storage, final: Location, register: AttemptRecord, ownership: Ownership) -> None:
    """Delete the marker before all else.

    Scripts that look only for the marker must not see a directory that is half deleted.
    """
    path = final.child(COMMIT_SUCCESS_FILE).path
    found = await storage.stat(path)
    marker = await read_marker(storage, final) if found else None
    if found is None or marker is None or token_in_marker(marker) not in ownership.tokens:
        return
    await register.confirm_to_delete()  # rule *confirm*: after the look, before acting on it
    await register.delete(path, version=found.version)  # if it was written again, `clear` looks at it again


async def delete_own_tree(storage: DirectoryStorage, directory: Location) -> str:
    """Delete a directory on a disk that an attempt has made, with everything below it that is not another place.

    It is moved away in one step, if no other place is in it, and looked at again before anything is deleted. Else what
    is not below another place is deleted piece by piece, the record last.

    Returns:
        What stays, and why; "" if nothing does.
    """
    try:
        doomed = await take_away(storage, directory, directory)
    except ConflictError as error:
        _LOG.debug("%s", error)
    else:
        await delete_moved(storage, doomed, directory)
        return ""
    places = await nested_in(storage, directory)
    await _delete_around(storage, directory, places)
    await storage.delete(directory.child(RECORD_FILE).path)
    return str(await inside_error(storage, directory, places)) if places else f"{directory}, which is empty"


async def _delete_around(storage: DirectoryStorage, directory: Location, places: tuple[str, ...]) -> None:
    """Delete what is in a directory on a disk, but for its record, other places, and the directories these are in."""
    for entry in await storage.list(directory.path, recursive=False):
        child = directory.child(entry.name)
        if entry.name == RECORD_FILE or entry.name in places:
            continue
        if entry.kind is not EntryKind.DIRECTORY:
            await storage.delete(child.path)
        elif inner := tuple(below_it for place in places if (below_it := _within(place, entry.name))):
            await _delete_around(storage, child, inner)
        else:
            await storage.remove_tree(child.path)


def _within(place: str, name: str) -> str:
    """Return a place as it is named below the child `name`; "" if it is not there."""
    return place.removeprefix(f"{name}/") if place.startswith(f"{name}/") else ""


async def nested_in(storage: Storage, directory: Location, record: CommitRecord | None = None) -> tuple[str, ...]:
    """Return the other places below a directory on a disk, but for what the manifest of its own `record` names."""
    own = Ownership.of(storage, directory, record) if record else Ownership(storage=storage, final=directory, tokens=())
    return await own.places(await listed(storage, directory))


async def take_away(
    storage: DirectoryStorage, directory: Location, final: Location, record: CommitRecord | None = None
) -> Location:
    """Move away a directory that is to be deleted, as `move_away` does, if nothing in it has to stay.

    The directory is looked at before the move, and again when nobody can reach it by its name any more. If something
    has to stay, it gets its name back.

    It is looked at before, and again when nobody can reach it by its name any more; then it gets its name back.

    Raises:
        ConflictError: Another place is in it.
        OSError: With EBUSY, something is mounted in it; or it cannot be moved.
    """
    await refuse_mounts(storage, directory)
    if places := await nested_in(storage, directory, record):
        raise await inside_error(storage, directory, places)
    doomed = await move_away(storage, directory, final)
    if places := await nested_in(storage, doomed, record):
        await storage.rename_directory(doomed.path, directory.path)
        raise await inside_error(storage, directory, places)
    return doomed


@asynccontextmanager
async def lock_directory(storage: Storage, final: Location) -> AsyncIterator[DirectoryLock]:
    """Lock a final path for the block, where the storage has locks.

    Raise BlockingIOError if another process holds the lock.
    """
    held = await hold_final(storage, final)
    try:
        yield held
    finally:
        await held.release()


async def move_away(storage: DirectoryStorage, directory: Location, final: Location) -> Location:
    """Rename a directory to a discarded name of `final`'s, where nobody looks for it; return that name.

    Raise `FileNotFoundError` if the directory had gone. Of any other `OSError`, only a local one says that the
    directory stays where it is.
    """
    failure: OSError | None = None
    for _ in range(_TRIES):
        doomed = final.at(discarded_of(final.path, storage.environment.token(), hidden=are_beside(final)))
        try:
            await make_shared_directory(storage, doomed.parent.path)
            await storage.rename_directory(directory.path, doomed.path)
        except FileExistsError as error:
            failure = error
            continue  # the name is random, but tokens are not to be trusted
        except FileNotFoundError as error:
            if await storage.kind(directory.path) is None:
                if await storage.kind(doomed.path) is None:
                    raise
                return doomed  # the answer to our own retry
            failure = error  # somebody removed the house-keeping directory, which was empty
            continue
        except OSError:
            # nobody else uses this name, so something that is there is this directory
            if await storage.kind(doomed.path) is None:
                raise
        return doomed
    raise failure or FileNotFoundError(directory.path)


async def delete_moved(
    storage: DirectoryStorage, doomed: Location, final: Location, *, is_durable: bool = False
) -> None:
    """Delete a directory that was moved away from `final`, by any process, once the move is durable.

    Otherwise a power cut might undo the move, and leave a committed name with half of its files. `is_durable` says that
    the caller has synced the parent since.
    """
    if storage.is_local and not is_durable:
        try:
            await need(storage, SyncingStorage, Guarantee.SYNC).sync_directory(final.parent.path)
        except GuaranteeError as error:
            _LOG.debug("%s: %s", doomed, error)  # where nothing can be synced, nothing was promised
    await storage.remove_tree(doomed.path)
    await tidy(storage, doomed)
