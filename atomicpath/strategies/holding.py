"""Holding a committed directory while it is replaced or added to, so that nobody of ours moves it meanwhile."""

from __future__ import annotations

from atomicpath.abc import Hold, SnapshotType, Storage
from atomicpath.errors import ConflictError, GuaranteeError
from atomicpath.location import Location
from atomicpath.record import Base

from .copying import pending_in
from .held import Standing, foreign, standing_at

__all__ = ["StaleSnapshotError", "changed", "hold_committed"]

_LOOKS, _PAUSE = 50, 0.1  # seconds between them
_AGAIN = "Take from it what you need, discard it, and make it again"


class StaleSnapshotError(ConflictError):
    """The directory that a snapshot was made of is not there any more. Nothing was changed, the snapshot is kept."""


async def hold_committed(storage: Storage, final: Location, only: Base | None) -> tuple[Hold | None, Standing]:
    """Hold the committed directory at the final path, so that nobody of ours moves it, and say which it is.

    FileNotFoundError if nothing is there. ConflictError if it is not committed, not `only`, or if another holder
    does not let go of it in time. None for a hold where the storage is not local and has none.
    """
    kind = await storage.kind(final.path)
    if kind not in ("directory", None):
        raise foreign(final, kind)
    hold = await _held(storage, final)
    try:
        standing = await standing_at(storage, final)
        if not standing.committed:
            raise standing.conflict(final)
        if only is not None and standing.token != only.token:
            raise changed(final)
        in_place = only is not None and only.snapshot == SnapshotType.IN_PLACE.value
        if only is not None and in_place and await pending_in(storage, final) != only.pending:
            raise StaleSnapshotError(
                f"something was added to {final} since the snapshot was made, and would be lost: nothing was replaced,"
                f" and the snapshot is left as it is. {_AGAIN}"
            )
    except BaseException:
        if hold is not None:
            hold.release()
        raise
    return hold, standing


async def _held(storage: Storage, final: Location) -> Hold | None:
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
    raise ConflictError(
        f"{final} is being replaced or removed by another process, which has not let go of it for"
        f" {_LOOKS * _PAUSE:.0f} s; it was left as it is. Wait for it, then try again",
        (await standing_at(storage, final)).record,
    )


def changed(final: Location) -> StaleSnapshotError:
    """The error for a final path whose directory is not the one that was to be there."""
    return StaleSnapshotError(
        f"{final} is no longer the directory that the snapshot was made of: it was replaced or removed meanwhile. What"
        f" is there was left as it is, and so is the snapshot. {_AGAIN}"
    )
