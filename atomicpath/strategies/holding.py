"""Holding a committed directory while it is replaced or added to, so that nobody of ours moves it meanwhile."""

from __future__ import annotations

import logging

from atomicpath.abc import Hold, SnapshotType, Storage
from atomicpath.errors import ConflictError, GuaranteeError
from atomicpath.location import Location
from atomicpath.record import Base

from .copying import pending_in
from .held import Standing, foreign, standing_at

__all__ = ["KeptSnapshotError", "changed", "hold_committed", "let_go"]

_LOG = logging.getLogger("atomicpath")
_LOOKS, _PAUSE = 50, 0.1  # seconds between them
_AGAIN = "Take from it what you need, discard it, and make it again"


class KeptSnapshotError(ConflictError):
    """A snapshot cannot be published, as its directory was replaced, or is held. Nothing was changed, all is kept."""


async def hold_committed(storage: Storage, final: Location, only: Base | None) -> tuple[Hold | None, Standing]:
    """Hold the committed directory at the final path, so that nobody of ours moves it, and say which it is.

    FileNotFoundError if nothing is there. ConflictError if it is not committed, not `only`, or if another holder
    does not let go of it in time. None for a hold where the storage is not local and has none.
    """
    kind = await storage.kind(final.path)
    if kind not in ("directory", None):
        raise changed(final) if only else foreign(final, kind)
    hold = await _held(storage, final, KeptSnapshotError if only else ConflictError)
    try:
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
        let_go(hold)
        raise
    return hold, standing


async def _held(storage: Storage, final: Location, busy: type[ConflictError]) -> Hold | None:
    for _ in range(_LOOKS):
        try:
            hold = await storage.hold_directory(final.path)
        except BlockingIOError:
            await storage.environment.sleep(_PAUSE)
            continue
        if hold is None and storage.is_local:
            raise GuaranteeError(
                f"{final} cannot be held, for directories cannot be locked there: nobody could tell whether it is being"
                " replaced or removed by another at the same moment. Commit under another name"
            )
        return hold
    raise busy(
        f"{final} is being replaced or removed by another process, which has not let go of it for"
        f" {_LOOKS * _PAUSE:.0f} s; it was left as it is. Wait for it, then try again",
        (await standing_at(storage, final)).record,
    )


def let_go(hold: Hold | None) -> None:
    """Release it; that a descriptor cannot be closed, through which nothing was written, changes nothing."""
    try:
        if hold is not None:
            hold.release()
    except OSError as error:
        _LOG.warning("a directory that was held could not be let go of before this process ends: %s", error)


def changed(final: Location) -> KeptSnapshotError:
    """The error for a final path whose directory is not the one that was to be there."""
    return KeptSnapshotError(
        f"{final} is no longer the directory that the snapshot was made of: it was replaced or removed meanwhile. What"
        f" is there was left as it is, and so is the snapshot. {_AGAIN}"
    )
