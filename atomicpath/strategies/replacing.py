"""Putting an attempt's directory in the place of a committed one by one exchange of their names.

    hold      the directory at the final path, whoever else replaces or removes waits or gives up
    look      again, under the lock: it is committed, and it is the one expected
    exchange  temporary ↔ final; there is no moment at which the final name is nobody's
    sync      of the directory they are in
    remove    what now has the temporary name: rename to a discarded name · delete

Where nothing is at the final path, or no longer, the directory is published by the rename that never replaces. After
a crash before the exchange nothing has happened; after it, the old directory lies under a temporary name, where it
counts for nothing and is swept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from atomicpath.abc import Hold
from atomicpath.errors import (
    AbandonedError,
    AtomicPathError,
    CommitError,
    ConflictError,
    GuaranteeError,
    OutcomeUnknownError,
)
from atomicpath.location import Location

from .held import Standing, foreign, read_record, standing_at
from .publishing import Publication

__all__ = ["Displaced", "hold_committed", "replace"]

_LOG = logging.getLogger("atomicpath")
_TRIES = 10
_LOOKS, _PAUSE = 50, 0.1  # seconds between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Displaced:
    """The directory that made room: now under the attempt's temporary name, held, and nobody's any more."""

    publication: Publication
    standing: Standing
    hold: Hold

    async def remove(self) -> None:
        """Delete it. The commit is done: what cannot be deleted is logged, and left for `sweep`."""
        storage, place = self.publication.storage, self.publication.temporary
        try:
            record = await read_record(storage, place)
            if (record and record.token) != self.standing.token:
                _LOG.warning(
                    "%s made room for the commit of %s, but is not the directory that was replaced: somebody moved"
                    " directories there by hand. It was left as it is; look at it, and delete it yourself",
                    place,
                    self.publication.final,
                )
                return
            await storage.rename_directory(place.path, self.publication.doomed)
            await storage.remove_tree(self.publication.doomed)
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

    def release(self) -> None:
        """Let go of it, deleted or not."""
        self.hold.release()


async def replace(publication: Publication, *, only: str | None = None) -> Displaced | None:
    """Returns once our directory is the final one; what it replaced, if anything, is to be removed and released.

    `only`: the token of the one directory that may be replaced; without it whatever is committed there. After
    any error but OutcomeUnknownError the attempt is discarded and what was at the final path is as it was.
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
    except OutcomeUnknownError:
        raise
    except BaseException:
        await _discard(publication)
        raise


async def _discard(publication: Publication) -> None:
    """Delete our own directory if it still has its temporary name, and nothing else that has got it."""
    try:
        if await publication.is_ours(publication.temporary):
            await publication.discard()
    except (OSError, AtomicPathError) as error:
        _LOG.warning("%s was given up but could not be looked at: %s", publication.temporary, error)


async def _displace(publication: Publication, only: str | None) -> Displaced | None:
    """Exchange the two; None, with nothing done, if the final directory has vanished."""
    try:
        hold, standing = await hold_committed(publication, only)
    except FileNotFoundError:
        if only is not None:
            raise _changed(publication.final) from None
        return None
    try:
        if await _exchange(publication):
            return Displaced(publication=publication, standing=standing, hold=hold)
    except BaseException:
        hold.release()
        raise
    hold.release()
    if only is not None:
        raise _changed(publication.final)
    return None


async def hold_committed(publication: Publication, only: str | None) -> tuple[Hold, Standing]:
    """Hold the committed directory at the final path, so that nobody of ours moves it, and say which it is.

    FileNotFoundError if nothing is there. ConflictError if it is not committed, not `only`, or if another holder
    does not let go of it in time.
    """
    storage, final = publication.storage, publication.final
    kind = await storage.kind(final.path)
    if kind not in ("directory", None):
        raise foreign(final, kind)
    hold = await _held(publication)
    try:
        standing = await standing_at(storage, final)
        if not standing.committed:
            raise standing.conflict(final)
        if only is not None and standing.token != only:
            raise _changed(final)
    except BaseException:
        hold.release()
        raise
    return hold, standing


async def _held(publication: Publication) -> Hold:
    storage, final = publication.storage, publication.final
    for _ in range(_LOOKS):
        try:
            hold = await storage.hold_directory(final.path)
        except BlockingIOError:
            await storage.environment.sleep(_PAUSE)
            continue
        if hold is None:
            raise GuaranteeError(
                f"{final} cannot be held, for directories cannot be locked there: nobody could tell whether it is being"
                " replaced or removed by another at the same moment. Commit under another name"
            )
        return hold
    record = (await standing_at(storage, final)).record
    raise ConflictError(
        f"{final} is being replaced or removed by another process, which has not let go of it for"
        f" {_LOOKS * _PAUSE:.0f} s; it was left as it is. Wait for it, then try again",
        record,
    )


async def _exchange(publication: Publication) -> bool:
    """Whether the two have swapped names; False, with nothing done, if the final one was not there."""
    storage, temporary, final = publication.storage, publication.temporary, publication.final
    try:
        await storage.exchange_directories(temporary.path, final.path)
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


def _changed(final: Location) -> ConflictError:
    return ConflictError(
        f"{final} is no longer the directory that the snapshot was made of: it was replaced or removed meanwhile. What"
        " is there was left as it is. Make the snapshot again"
    )
