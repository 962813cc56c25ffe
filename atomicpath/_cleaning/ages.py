"""How old what a sweep finds is, always by the storage's own clock."""

from __future__ import annotations

from collections.abc import Sequence

from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.location import Location
from atomicpath.abc import Content, Entry, EntryKind, Storage

__all__ = ["age_of_attempt", "older", "youngest"]

_LOOKS_AT_ONCE = 16
_GRANULARITY = 2.0  # seconds: stores round both of the times that an age is the difference of


async def youngest(storage: Storage, path: Location) -> float | None:
    """Return the seconds since anything at or below a path changed.

    Return None if the storage does not tell the age of all of it.
    """
    looks = await _looks(storage, path, await storage.list(path.path, recursive=True))
    ages = [look.age if look else 0.0 for look in looks]  # the file has gone meanwhile: somebody is at work
    itself = await storage.stat(path.path)
    if itself is not None and (itself.kind is not EntryKind.DIRECTORY or itself.age is not None):
        ages.append(itself.age)
    known = [age for age in ages if age is not None]
    return min(known) if known and len(known) == len(ages) else None


async def age_of_attempt(storage: Storage, path: Location, seen: Content | None, *, discarded: bool) -> float | None:
    """Return the age of an attempt.

    It is the age of the record or of the directory, where directories have a clock, whichever changed last. Without a
    record it is the age of what changed last at or below the path.

    For a `discarded` directory it is the age of the record alone: cleaners delete the directory again and again, and so
    change it.
    """
    if seen is None or not seen.data:
        return await youngest(storage, path)
    itself = None if discarded else await storage.stat(path.path)
    ages = [age for age in (seen.age, itself.age if itself else None) if age is not None]
    return min(ages, default=None)


async def older(storage: Storage, path: Location, listing: Sequence[Entry], than: float | None) -> list[str] | None:
    """Return the files below a path that belong to no attempt and changed before something else did.

    The other change was `than` seconds ago. Return None if the order cannot be told.
    """
    began = storage.environment.monotonic()
    looks = await _looks(storage, path, listing)
    unowned = {entry.name: look.age for entry, look in zip(listing, looks, strict=True) if look and not look.owner}
    if unowned and (than is None or None in unowned.values()):
        return None
    ended = (than or 0.0) + storage.environment.monotonic() - began + _GRANULARITY
    return [name for name, age in unowned.items() if age is not None and age > ended]


async def _looks(storage: Storage, path: Location, listing: Sequence[Entry]) -> list[Entry | None]:
    return await map_concurrently(
        listing, lambda entry: storage.stat(path.child(entry.name).path), at_once=_LOOKS_AT_ONCE
    )
