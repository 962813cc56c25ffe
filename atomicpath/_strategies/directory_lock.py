"""Locks on final paths: a committed directory is replaced, added to or removed by one process at a time.

The lock is on a file in the house-keeping directory, which is deleted by whoever holds it. One who locked a file that
was deleted meanwhile finds that out (`LockingStorage.lock_file`) and locks the next one.
"""

from __future__ import annotations

import errno
import logging

from atomicpath._core.layout import lock_of
from atomicpath._core.record import SnapshotBase
from atomicpath._profile.abilities import lock_file
from atomicpath._profile.location import Location
from atomicpath.abc import EntryKind, FileLock, SnapshotType, Storage
from atomicpath.errors import AtomicPathError, ConflictError, GuaranteeError

from .attempt_files import in_housekeeping, tidy
from .conflicts import Standing, foreign, standing_at
from .copy_source import pending_in

__all__ = ["DirectoryLock", "KeptSnapshotError", "changed", "hold_committed", "hold_final"]

_LOG = logging.getLogger("atomicpath")
_LOOKS, _PAUSE = 50, 0.1  # seconds between them
_AGAIN = "Take from it what you need, discard it, and make it again"


class KeptSnapshotError(ConflictError):
    """A snapshot cannot be published, as its directory was replaced, or is held. Nothing was changed, all is kept."""


class DirectoryLock:
    """The lock on a final path. It excludes others only where the storage has locks."""

    def __init__(self, storage: Storage, lock: Location, hold: FileLock | None) -> None:
        self._storage = storage
        self._lock = lock
        self._hold = hold

    @property
    def excludes_others(self) -> bool:
        """Tell whether other processes really wait for this one."""
        return self._hold is not None

    async def release(self) -> None:
        """Delete the file and release it.

        A failure is logged; it changes nothing of what was done under the lock.
        """
        hold, self._hold = self._hold, None
        if hold is None:
            return
        try:
            try:
                await self._storage.delete(self._lock.path)
                await tidy(self._storage, self._lock)
            finally:
                hold.release()
        except (OSError, AtomicPathError) as error:
            _LOG.warning("%s could not be let go of: %s", self._lock, error)


async def hold_final(storage: Storage, final: Location) -> DirectoryLock:
    """Lock a final path, without waiting.

    Raise `BlockingIOError` if another process replaces or removes what is there.
    """
    lock = final.at(lock_of(final.path))
    if not storage.is_local:
        return DirectoryLock(storage, lock, None)
    hold, _ = await in_housekeeping(storage, lock, lambda: lock_file(storage, lock.path))
    return DirectoryLock(storage, lock, hold)


async def hold_committed(
    storage: Storage, final: Location, only: SnapshotBase | None
) -> tuple[DirectoryLock, Standing]:
    """Lock the path of a committed directory, so that no process of ours moves it; return which it is.

    Raise FileNotFoundError if nothing is there. Raise ConflictError if it is not committed, is not `only`, or if
    another holder does not release it in time.
    """
    kind = await storage.kind(final.path)
    if kind not in (EntryKind.DIRECTORY, None):
        raise changed(final) if only else foreign(final, kind)
    hold = await _held(storage, final, KeptSnapshotError if only else ConflictError)
    try:
        if await storage.kind(final.path) is None:
            raise FileNotFoundError(errno.ENOENT, "it has gone meanwhile", final.path)
        standing = await standing_at(storage, final)
        if not standing.committed:
            raise changed(final) if only else standing.conflict(final)
        if only is not None and standing.token != only.token:
            raise changed(final)
        in_place = only is not None and only.snapshot == SnapshotType.IN_PLACE.value
        if only is not None and in_place and await pending_in(storage, final) != only.pending:
            raise KeptSnapshotError(
                f"something was added to {final} since the snapshot was made, and would be lost: nothing was replaced,"
                f" and the snapshot is left as it is. {_AGAIN}"
            )
    except BaseException:
        await hold.release()
        raise
    return hold, standing


async def _held(storage: Storage, final: Location, busy: type[ConflictError]) -> DirectoryLock:
    for _ in range(_LOOKS):
        try:
            hold = await hold_final(storage, final)
        except BlockingIOError:
            await storage.environment.sleep(_PAUSE)
            continue
        if storage.is_local and not hold.excludes_others:
            raise GuaranteeError(
                f"{final} cannot be locked, for the file system there has no locks on files: nobody could tell"
                " whether it is being replaced or removed by another at the same moment. Commit under another name"
            )
        return hold
    raise busy(
        f"{final} is being replaced or removed by another process, which has not let go of it for"
        f" {_LOOKS * _PAUSE:.0f} s; it was left as it is. Wait for it, then try again",
        (await standing_at(storage, final)).record,
    )


def changed(final: Location) -> KeptSnapshotError:
    """Return the error for a final path that does not hold the expected directory."""
    return KeptSnapshotError(
        f"{final} is no longer the directory that the snapshot was made of: it was replaced or removed meanwhile. What"
        f" is there was left as it is, and so is the snapshot. {_AGAIN}"
    )
