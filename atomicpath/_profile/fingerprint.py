"""Telling a committed directory from a copy of it: the fingerprint of the place that its record was written for."""

from __future__ import annotations

from atomicpath._core.record import CommitRecord, fingerprint
from atomicpath.abc import IdentifyingStorage, Storage

from .location import Location

__all__ = ["is_original", "place_of"]


async def place_of(storage: Storage, directory: Location, final: Location, token: str) -> str:
    """Return the fingerprint to record for a directory that is to be committed at `final`.

    If the storage can tell a directory from every copy of it, the fingerprint is made of that identity, which a rename
    keeps. If it cannot, the fingerprint is empty, so that every reader compares names and sizes. On a store the
    identity is the final path there.
    """
    return _fingerprint(token, await _identity(storage, directory, final))


async def is_original(storage: Storage, location: Location, record: CommitRecord) -> bool:
    """Tell whether a directory is the very one that was committed.

    Then nothing can be missing but what was deleted since, and only then do the recorded versions of files mean
    anything.
    """
    if not record.place:
        return False
    return record.place == _fingerprint(record.token, await _identity(storage, location, location))


async def _identity(storage: Storage, directory: Location, final: Location) -> str:
    return await storage.identity(directory.path) if isinstance(storage, IdentifyingStorage) else final.identity


def _fingerprint(token: str, place: str) -> str:
    return fingerprint(token, place) if place else ""
