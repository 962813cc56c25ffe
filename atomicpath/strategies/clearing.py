"""Deleting what an attempt left at its final path, and nothing else."""

from __future__ import annotations

from atomicpath.abc import Entry, StaleVersionError, Storage
from atomicpath.errors import ConflictError
from atomicpath.layout import is_unfinished
from atomicpath.location import Location
from atomicpath.tasks import for_each

from .borders import inside_error
from .held import not_its_own
from .ownership import Ownership, Whose, outside
from .register import Register

__all__ = ["NotClearedError", "clear"]

_AT_ONCE = 16
_PASSES = 5
_BETWEEN_LOOKS = 256  # entries that are judged before the clock is looked at


class NotClearedError(ConflictError):
    """What is left after many passes may be an attempt's: the record has to stay with it."""


async def clear(
    storage: Storage, final: Location, register: Register, ownership: Ownership, *, conditional: bool
) -> None:
    """Delete every file below `final` that is ours; the record stays. The register must have been moved before.

    Files of others, and everything below another place, are not touched.

    Raises:
        ConflictError: Such files are there; it names them, other places first. All that is ours was deleted.
        NotClearedError: There is always something new.
        AbandonedError: The register is not ours any more.
    """
    for _ in range(_PASSES):
        everything = await storage.list(final.path, recursive=True)
        places = await ownership.places(everything)
        # a file that a local write has yet to give its name is nobody's content, as when the place is claimed
        listing = [entry for entry in outside(everything, places) if not is_unfinished(entry.name)]
        verdicts = await _judged(storage, register, listing, ownership)
        judged = list(zip(listing, verdicts, strict=True))
        ours = [entry for entry, whose in judged if whose is Whose.OURS]
        if not ours:
            if places:
                raise await inside_error(storage, final, places)
            if others := tuple(entry.name for entry, whose in judged if whose is Whose.FOREIGN):
                raise not_its_own(final, others)
            if not judged:
                return
            continue  # all of it has gone since it was listed
        await _delete(storage, final, register, ours, conditional=conditional)
    raise NotClearedError(
        f"{final} cannot be cleared: somebody keeps writing there. Stop it, or commit under another name"
    )


async def _judged(storage: Storage, register: Register, listing: list[Entry], ownership: Ownership) -> list[Whose]:
    """The verdict on each entry. However many there are, the lease is renewed meanwhile, so that nobody takes over."""
    environment = storage.environment
    verdicts: list[Whose] = []
    renewed = environment.monotonic()
    for start in range(0, len(listing), _BETWEEN_LOOKS):
        if environment.monotonic() - renewed > register.record.lease.patience / 3:
            await register.renew()
            renewed = environment.monotonic()
        verdicts += await for_each(listing[start : start + _BETWEEN_LOOKS], ownership.judge, at_once=_AT_ONCE)
    return verdicts


async def _delete(
    storage: Storage, final: Location, register: Register, entries: list[Entry], *, conditional: bool
) -> None:
    environment = storage.environment
    await register.renew()  # rule *confirm*: after the listing, before acting on it
    # On plain S3 equal bytes have equal versions, so a delete that sleeps past the lease could hit the
    # next attempt's object: deletes begin only well inside the lease that was just renewed.
    ends = environment.monotonic() + register.record.lease.patience / 4

    async def one(entry: Entry) -> None:
        if environment.monotonic() > ends:
            return  # the next pass renews and goes on
        try:
            # rule *conditional*: the very version that was listed
            await storage.delete(final.child(entry.name).path, version=entry.version if conditional else None)
        except StaleVersionError:
            return  # written again since it was listed: the next pass looks at it afresh

    await for_each(entries, one, at_once=_AT_ONCE)
