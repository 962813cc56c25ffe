"""Putting an attempt's directory in the place of a committed one by one exchange of their names.

    hold      the directory at the final path, whoever else replaces or removes waits or gives up
    look      again, under the lock: it is committed, and it is the one expected
    exchange  temporary ↔ final; there is no moment at which the final name is nobody's
    sync      of the directory that the final name is in
    remove    what now has the temporary name: rename to a discarded name · delete

A snapshot is put in the place of the one directory that it was made of, or added to it, under the same lock.
Where nothing is at the final path, or no longer, the directory is published by the rename that never replaces. After
a crash before the exchange nothing has happened; after it, the old directory lies under a temporary name, where it
counts for nothing and is swept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from atomicpath._core.record import CommitRecord, SnapshotBase
from atomicpath._core.text import few_of
from atomicpath._profile.abilities import need
from atomicpath._profile.location import Location
from atomicpath.abc import ExchangingStorage, SnapshotType
from atomicpath.errors import (
    AbandonedError,
    AtomicPathError,
    CommitError,
    ConflictError,
    GuaranteeError,
    OutcomeUnknownError,
)
from atomicpath.guarantees import Guarantee

from .borders import foreign_below, refuse_mounts
from .conflicts import Standing, standing_at
from .directory_lock import DirectoryLock, KeptSnapshotError, changed, hold_committed
from .discard import delete_moved
from .outcome import after_commit_point
from .publish import Publisher

__all__ = ["PublishPlan", "publish"]

_LOG = logging.getLogger("atomicpath")
_TRIES = 10
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacedDirectory:
    """The directory that made room: now under the attempt's temporary name, held, and nobody's any more."""

    publication: Publisher
    standing: Standing
    hold: DirectoryLock

    async def remove(self, *, is_durable: bool) -> None:
        """Delete the replaced directory, once the exchange `is_durable`.

        The commit is done, so an error is logged, and the directory is left for `sweep`.
        """
        storage, place = self.publication.storage, self.publication.temporary
        try:
            found = await standing_at(storage, place)
            if not found.committed or found.token != self.standing.token:
                _LOG.warning(
                    "%s made room for the commit of %s, but is not the directory that was replaced: somebody moved"
                    " directories there by hand. It was left as it is; look at it, and delete it yourself",
                    place,
                    self.publication.final,
                )
                return
            if found.record is not None and (names := await foreign_below(storage, place, found.record)):
                _LOG.warning(
                    "%s made room for the commit of %s, and at the last moment something came into it that is not its"
                    " own (%s). Nothing of it was deleted: take what you need from there, then delete it yourself",
                    place,
                    self.publication.final,
                    ", ".join(names[:_SHOWN]),
                )
                return
            await refuse_mounts(storage, place)
            await storage.rename_directory(place.path, self.publication.doomed)
            # Also with durable=False: what made room was durable, and may be half deleted under a discarded name only.
            doomed = place.at(self.publication.doomed)
            await delete_moved(storage, doomed, self.publication.final, is_durable=is_durable)
        except FileNotFoundError:
            _LOG.debug("%s had gone before it was deleted", place)
        except (OSError, AtomicPathError) as error:
            _LOG.warning(
                "%s was replaced, but what was there could not be deleted (%s): it counts for nothing under the name"
                " %s, and sweep(...) of its parent removes it",
                self.publication.final,
                error,
                place.name,
            )

    async def release(self) -> None:
        """Release the replaced directory, deleted or not."""
        await self.hold.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPlan:
    """How an attempt is to be published: on `base`, if it is a snapshot, of `outer` or into it; else there, alone.

    `replacing`: over whatever is committed. `durable`: synced before anything that made room is deleted.
    """

    outer: Location
    base: SnapshotBase | None
    replacing: bool
    durable: bool


async def publish(publication: Publisher, way: PublishPlan) -> None:
    """Commit. Once this has changed what readers see, raise nothing but OutcomeUnknownError.

    After a KeptSnapshotError the attempt is not over: its directory is as it was.
    """
    displaced: ReplacedDirectory | None = None
    if way.base is not None and way.base.snapshot == SnapshotType.IN_PLACE.value:
        displaced = await replace(publication, only=way.base)
    elif way.base is not None and way.base.snapshot == SnapshotType.EMPTY.value:
        await add(publication, way.outer, way.base)
    elif way.replacing:
        displaced = await replace(publication)
    else:
        await publication.rename()
    with after_commit_point(publication.final):
        try:
            if way.durable:
                await publication.sync()
            if displaced is not None:
                await displaced.remove(is_durable=way.durable)
        finally:
            if displaced is not None:
                await displaced.release()


async def add(publication: Publisher, outer: Location, only: SnapshotBase) -> None:
    """Put our directory into a committed one, which is locked meanwhile.

    It has to be the directory for which the attempt was begun. Where directories cannot be locked, `outer` is looked at
    again afterwards: raise OutcomeUnknownError if it has gone.
    """
    try:
        try:
            hold, _ = await hold_committed(publication.storage, outer, only)
        except FileNotFoundError:
            raise changed(outer) from None
    except KeptSnapshotError:
        raise
    except BaseException:
        await _discard(publication)
        raise
    try:
        await publication.rename()
        if not hold.excludes_others:
            standing = await standing_at(publication.storage, outer)
            if not (standing.committed and standing.token == only.token):
                raise OutcomeUnknownError(
                    f"{outer} was replaced or removed at the moment something was added to it: look at"
                    f" {publication.final}, and whether is_committed({str(outer)!r})"
                )
    finally:
        await hold.release()


async def replace(publication: Publisher, *, only: SnapshotBase | None = None) -> ReplacedDirectory | None:
    """Make the directory of the attempt the final one; return what it replaced, if anything.

    The caller removes and releases what was replaced.

    `only` is the one directory that may be replaced. Without it, whatever is committed there may be replaced. After any
    error but OutcomeUnknownError the attempt is discarded, and what was at the final path is as it was.
    """
    try:
        for _ in range(_TRIES):
            if only is None and await publication.storage.kind(publication.final.path) is None:
                if await publication.rename(give_way=True):
                    return None
                continue
            displaced = await _displace(publication, only)
            if displaced is not None:
                return displaced
        raise ConflictError(
            f"{publication.final} keeps coming and going: somebody else commits and removes it. Use another name"
        )
    except (OutcomeUnknownError, KeptSnapshotError):
        raise
    except BaseException:
        await _discard(publication)
        raise


async def _discard(publication: Publisher) -> None:
    """Delete our own directory if it still has its temporary name, and no other directory that has got that name."""
    try:
        if await publication.is_ours(publication.temporary):
            await publication.discard()
    except (OSError, AtomicPathError) as error:
        _LOG.warning("%s was given up but could not be looked at: %s", publication.temporary, error)


async def _displace(publication: Publisher, only: SnapshotBase | None) -> ReplacedDirectory | None:
    """Exchange the two directories; return None, with nothing done, if the final one has vanished."""
    try:
        hold, standing = await hold_committed(publication.storage, publication.final, only)
    except FileNotFoundError:
        if only is not None:
            raise changed(publication.final) from None
        return None
    try:
        if only is None and standing.record is not None:
            await _expect_own(publication, standing.record)
        if await _exchange(publication):
            return ReplacedDirectory(publication=publication, standing=standing, hold=hold)
    except BaseException:
        await hold.release()
        raise
    await hold.release()
    if only is not None:
        raise changed(publication.final)
    return None


async def _expect_own(publication: Publisher, record: CommitRecord) -> None:
    """Raise ConflictError if something is in the directory to be replaced that does not belong to it."""
    names = await foreign_below(publication.storage, publication.final, record)
    if names:
        raise ConflictError(
            f"{publication.final} was not replaced: what is in it is not all its own ({few_of(names)}). A"
            " name that ends in '/' is another place, committed or under way. Nothing was changed: move these away, or"
            " commit under another name",
            record,
        )


async def _exchange(publication: Publisher) -> bool:
    """Exchange the names of the temporary and the final directory, and return True.

    Return False, with nothing done, if there was no final directory.
    """
    storage, temporary, final = publication.storage, publication.temporary, publication.final
    try:
        exchanging = need(storage, ExchangingStorage, Guarantee.RENAME_EXCHANGE)
        await exchanging.exchange_directories(temporary.path, final.path)
    except GuaranteeError:
        raise
    except OSError as error:
        try:
            if await publication.arrived():
                return True
            source = await storage.kind(temporary.path)
            if source is not None and not await publication.is_ours(temporary):
                raise OutcomeUnknownError(
                    f"the exchange with {final} failed ({error}), and the directory of the attempt has neither name:"
                    f" nothing was cleaned up; look at {temporary.name} beside it, and again with is_committed(...)"
                ) from error
            there = await storage.kind(final.path)
        except OutcomeUnknownError:
            raise
        except (OSError, AtomicPathError) as second:
            raise publication.unknown("exchange", error, second) from error
        if source is None:
            raise AbandonedError(f"{final} was not replaced: {temporary.name} was swept meanwhile") from error
        if there is None:
            return False
        raise CommitError(f"{final} was not replaced: {error}; the attempt was discarded") from error
    return True
