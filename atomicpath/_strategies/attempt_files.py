"""What an attempt of the rename strategy has in the house-keeping directory: its record, locked, beside its directory.

    begin   on disks: house-keeping directory made · record created and locked · exclusive mkdir of the directory, which
            stays empty
            on stores: exclusive mkdir, which makes the house-keeping directory too · record
    seal    on stores only: swap of the record, so that an attempt that was swept meanwhile cannot be published
    end     record deleted · lock released · house-keeping directory removed if it is empty

The lock is on a file, because locks on directories do not reach the other hosts of a network file system. It is held
until the attempt is over, and the system withdraws it when the process dies.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from atomicpath._core.layout import is_in_housekeeping, record_of
from atomicpath._core.liveness import track_attempt, untrack_attempt
from atomicpath._core.record import CommitRecord
from atomicpath._profile.abilities import directories_at, lock_new_file, make_shared_directory, need, remove_empty
from atomicpath._profile.location import Location
from atomicpath.abc import DirectoryStorage, FileLock, Put, Storage, Update
from atomicpath.errors import AtomicPathError, CommitError
from atomicpath.guarantees import Guarantee

__all__ = ["AttemptFiles", "delete_record", "end_lock", "in_housekeeping", "tidy"]

T = TypeVar("T")

_LOG = logging.getLogger("atomicpath")
_TRIES = 10


class AttemptFiles:
    """The directory of one attempt and the record beside it."""

    def __init__(self, storage: DirectoryStorage, directory: Location, token: str) -> None:
        self._storage = storage
        self._directory = directory
        self._record = directory.at(record_of(directory.path))
        self._token = token
        self._hold: FileLock | None = None
        self._version: str | None = None
        self.came_first = False
        """Whether no house-keeping directory was there, and so nothing that earlier attempts had left in it."""

    async def begin(self, record: CommitRecord, *, mode: int | None, known: Guarantee) -> None:
        """Create the record and the directory.

        Raise `FileExistsError` if another attempt has their names. Any other error leaves nothing to keep.
        """
        track_attempt(self._token, owner=self)
        if self._storage.is_local:
            await self._begin_locked(record, mode)
            return
        # The directory comes first: it makes the house-keeping directory too, and its name is then nobody else's.
        await self._storage.make_directory(self._directory.path, mode=mode, durable=False)
        if Guarantee.COMPARE_AND_SWAP in known:
            await self._create(record)
        else:
            await self._storage.put(self._record.path, record.encode(), mode=Put.PRIVATE)

    async def _begin_locked(self, record: CommitRecord, mode: int | None) -> None:
        storage = self._storage
        create = partial(lock_new_file, storage, self._record.path, record.encode())
        self._hold, self.came_first = await in_housekeeping(storage, self._directory, create)
        if self._hold is not None:
            track_attempt(self._token, self._hold.release)
        try:
            await storage.make_directory(self._directory.path, mode=mode, durable=False)
        except FileExistsError:
            await self.end()  # the directory is not ours, but the record is
            raise

    async def _create(self, record: CommitRecord) -> None:
        try:
            self._version = await self._storage.put(
                self._record.path, record.encode(), mode=Put.CREATE, owner=self._token
            )
        except FileExistsError as error:
            await self._expect_own_retry(record, error)

    async def adopt(self) -> CommitRecord | None:
        """Read the record of an attempt that another object or process began; None if there is none."""
        try:
            content = await self._storage.get(self._record.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._version = content.version
        return CommitRecord.decode(content.data, where=str(self._directory))

    async def seal(self, record: CommitRecord, known: Guarantee) -> None:
        """Fence off a sweep, where only a conditional write can do that.

        A store makes the directories that a write needs. So a writer whose directory was swept would make the directory
        again with its last write. A sweep swaps the record before it moves the directory, so either the writer or the
        sweep loses here. On a file system the rename itself tells, since no write makes a directory there.
        """
        if self._version is None or Guarantee.COMPARE_AND_SWAP not in known:
            return
        try:
            self._version = await self._storage.put(self._record.path, record.encode(), mode=Update(self._version))
        except OSError as error:
            await self._expect_own_retry(record, error)

    async def _expect_own_retry(self, record: CommitRecord, error: OSError) -> None:
        """Raise the error of a write of `record` unless the record is there.

        If it is there, the error was the answer to our own retry.
        """
        seen = await self._storage.get(self._record.path)
        if seen.data != record.encode():
            raise error
        self._version = seen.version

    async def end(self, *, keep_record: bool = False) -> None:
        """Delete the record and release it.

        What cannot be done is logged: it changes nothing of the outcome.
        """
        held, self._hold = self._hold, None
        await end_lock(self._storage, self._directory, held, keep_record=keep_record)
        untrack_attempt(self._token)


async def in_housekeeping(storage: Storage, path: Location, step: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
    """Do a step that needs the house-keeping directory of `path`, which is made if it is missing.

    Others remove it when it is empty, so it may go again between the two: then it is made again.

    Returns:
        What the step returns, and whether the directory was made for it.
    """
    failure = ""
    directories: DirectoryStorage | None
    if storage.is_local:
        directories = need(storage, DirectoryStorage, Guarantee.DIRECTORIES)
    else:
        directories = await directories_at(storage, path.path)
    for _ in range(_TRIES):
        made = directories is not None and await make_shared_directory(directories, path.parent.path)
        try:
            return await step(), made
        except FileNotFoundError as error:
            failure = str(error)
    raise CommitError(f"{path.parent} is removed again and again while something is written there: {failure}")


async def end_lock(storage: Storage, directory: Location, held: FileLock | None, *, keep_record: bool = False) -> None:
    """Delete the record beside an attempt's directory, then release the lock on it; failures are logged."""
    try:
        if not keep_record:
            await delete_record(storage, directory)
    finally:
        try:
            if held is not None:
                held.release()
        except OSError as error:
            _LOG.warning("the lock on %s is held until this process ends: %s", record_of(directory.path), error)


async def tidy(storage: Storage, path: Location) -> None:
    """Remove the house-keeping directory that `path` was in, if it is empty and that costs nothing."""
    if is_in_housekeeping(path.path):
        await remove_empty(storage, path.parent.path)


async def delete_record(storage: Storage, directory: Location) -> None:
    """Delete the record beside an attempt's directory, and the house-keeping directory if nothing else is in it."""
    record = record_of(directory.path)
    try:
        await storage.delete(record)
        await tidy(storage, directory)
    except (OSError, AtomicPathError) as error:
        _LOG.warning("%s is left over and could not be deleted, and sweep(...) will try again: %s", record, error)
