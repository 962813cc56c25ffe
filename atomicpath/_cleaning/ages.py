"""How old what a sweep finds is, always by the storage's own clock."""

from __future__ import annotations

from collections.abc import Sequence

from atomicpath._core.tasks import for_each
from atomicpath._profile.location import Location
from atomicpath.abc import Content, Entry, Storage

__all__ = ["age_of_attempt", "older", "youngest"]

_LOOKS_AT_ONCE = 16
_GRANULARITY = 2.0  # seconds: stores round both of the times that an age is the difference of


async def youngest(storage: Storage, path: Location) -> float | None:
    """Seconds since anything at or below a path changed; None if that is not told of all of it."""
    looks = await _looks(storage, path, await storage.list(path.path, recursive=True))
    ages = [look.age if look else 0.0 for look in looks]  # gone meanwhile: somebody is at work
    itself = await storage.stat(path.path)
    if itself is not None and (itself.kind != "directory" or itself.age is not None):
        ages.append(itself.age)
    known = [age for age in ages if age is not None]
    return min(known) if known and len(known) == len(ages) else None


async def age_of_attempt(storage: Storage, path: Location, seen: Content | None, *, discarded: bool) -> float | None:
    """By the record or, where those have a clock, the directory, whichever changed last; without a record by all of it.

    Of a `discarded` directory by the record alone: those who delete it, again and again, change the directory.
    """
    if seen is None or not seen.data:
        return await youngest(storage, path)
    itself = None if discarded else await storage.stat(path.path)
    ages = [age for age in (seen.age, itself.age if itself else None) if age is not None]
    return min(ages, default=None)


async def older(storage: Storage, path: Location, listing: Sequence[Entry], than: float | None) -> list[str] | None:
    """Which of the files below a path are no attempt's and changed before something did, `than` seconds ago.

    None if that cannot be told.
    """
    began = storage.environment.monotonic()
    looks = await _looks(storage, path, listing)
    unowned = {entry.name: look.age for entry, look in zip(listing, looks, strict=True) if look and not look.owner}
    if unowned and (than is None or None in unowned.values()):
        return None
    ended = (than or 0.0) + storage.environment.monotonic() - began + _GRANULARITY
    return [name for name, age in unowned.items() if age is not None and age > ended]


async def _looks(storage: Storage, path: Location, listing: Sequence[Entry]) -> list[Entry | None]:
    return await for_each(listing, lambda entry: storage.stat(path.child(entry.name).path), at_once=_LOOKS_AT_ONCE)
