"""Deleting what an attempt left at its final path, and nothing else."""

from __future__ import annotations

from atomicpath._core.layout import is_unfinished
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.location import Location
from atomicpath.abc import Entry, Storage
from atomicpath.errors import ConflictError

from .attempt_record import AttemptRecord
from .borders import inside_error
from .conflicts import not_its_own
from .ownership import Ownership, Whose, outside

__all__ = ["NotClearedError", "clear"]

_AT_ONCE = 16
_PASSES = 5
_PAUSE = 0.5  # seconds after a pass in which deletes failed; then twice as long each time
_BETWEEN_LOOKS = 256  # entries that are judged before the clock is looked at


class NotClearedError(ConflictError):
    """What is left after many passes may be an attempt's: the record has to stay with it."""


async def clear(storage: Storage, final: Location, register: AttemptRecord, ownership: Ownership) -> None:
    """Delete every file below `final` that is ours; the record stays. The register must have been moved before.

    Files of others, and everything below another place, are not touched.

    Raises:
        ConflictError: Such files are there; it names them, other places first. All that is ours was deleted.
        NotClearedError: There is always something new.
        AbandonedError: The register is not ours any more.
        OSError: The store refused a delete, or left one without an answer. Where deletes are conditional they are tried
            again, after another look; where they are not the first one ends it.
    """
    failure: OSError | None = None
    for again in range(_PASSES):
        if failure is not None:
            await storage.environment.sleep(_PAUSE * 2 ** (again - 1))
        everything = await storage.list(final.path, recursive=True)
        places = await ownership.places(everything)
        # an unfinished file of a local write is nobody's content, here as when the place is claimed
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
            continue  # all entries have gone since they were listed
        failure = await _delete(final, register, ours)
    if failure is not None:
        raise failure
    raise NotClearedError(
        f"{final} cannot be cleared: somebody keeps writing there. Stop it, or commit under another name"
    )


async def _judged(storage: Storage, register: AttemptRecord, listing: list[Entry], ownership: Ownership) -> list[Whose]:
    """Judge each entry of the listing.

    The lease is renewed meanwhile, however many entries there are, so that nobody takes over.
    """
    environment = storage.environment
    verdicts: list[Whose] = []
    renewed = environment.monotonic()
    for start in range(0, len(listing), _BETWEEN_LOOKS):
        if environment.monotonic() - renewed > register.record.lease.patience / 3:
            await register.renew()
            renewed = environment.monotonic()
        verdicts += await map_concurrently(listing[start : start + _BETWEEN_LOOKS], ownership.judge, at_once=_AT_ONCE)
    return verdicts


async def _delete(final: Location, register: AttemptRecord, entries: list[Entry]) -> OSError | None:
    """Delete what was listed; return the failure of one delete, if any.

    What cannot be told to have gone is left to the next pass.
    """
    await register.renew()  # rule *confirm*: after the listing, before acting on it
    failures: list[OSError] = []

    async def one(entry: Entry) -> None:
        try:
            await register.delete(final.child(entry.name).path, version=entry.version)
        except PermissionError:
            raise
        except OSError as error:
            if not register.is_conditional:
                raise
            failures.append(error)

    await map_concurrently(entries, one, at_once=_AT_ONCE)
    return failures[0] if failures else None
