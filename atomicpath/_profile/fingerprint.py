"""Telling a committed directory from a copy of it: the fingerprint of the place that its record was written for."""

from __future__ import annotations

from atomicpath._core.record import CommitRecord, fingerprint
from atomicpath.abc import Storage

from .location import Location

__all__ = ["is_original", "place_of"]


async def place_of(storage: Storage, directory: Location, final: Location, token: str) -> str:
    """The fingerprint to record for a directory that is to be committed at `final`.

    Where the storage can tell a directory from every copy of it, that identity, which a rename keeps; where it cannot,
    nothing, so that every reader compares names and sizes. On a store the place is the final path there.
    """
    identity = await storage.identity(directory.path)
    return _fingerprint(token, final.place if identity is None else identity)


async def is_original(storage: Storage, location: Location, record: CommitRecord) -> bool:
    """Whether a directory is the very one that was committed: then nothing can be missing but what was deleted since.

    Only there do the recorded versions of files mean anything.
    """
    if not record.place:
        return False
    identity = await storage.identity(location.path)
    return record.place == _fingerprint(record.token, location.place if identity is None else identity)


def _fingerprint(token: str, place: str) -> str:
    return fingerprint(token, place) if place else ""
