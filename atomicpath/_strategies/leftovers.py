"""Attempts that have begun and not committed, wherever this or an older layout keeps them, and their records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from atomicpath._core.layout import (
    HOUSEKEEPING,
    LEGACY_RECORD_FILE,
    RECORD_FILE,
    RECORD_SUFFIX,
    TMP_DIR_SUFFIX,
    final_of,
    record_of,
)
from atomicpath._core.record import CommitRecord
from atomicpath._profile.location import Location
from atomicpath.abc import Content, Entry, EntryKind, Storage
from atomicpath.errors import ValidationError

__all__ = ["Leftover", "attempts_in", "housekeeping_entries", "record_in", "seen_in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An attempt's directory, its record beside it, or both: `has_directory` and `has_record` say which are there."""

    path: Location
    has_directory: bool
    has_record: bool

    @property
    def record(self) -> Location:
        """The location of the record of this leftover."""
        return self.path.at(record_of(self.path.path))

    def final(self, record: CommitRecord | None) -> Location:
        """Return the final path that was meant.

        If the name was shortened, only the record tells the final path.
        """
        try:
            final = self.path.at(final_of(self.path.path))
        except ValidationError:
            above = self.path.parent
            above = above.parent if above.name == HOUSEKEEPING else above
            return above.child(record.final if record and record.final else self.path.name)
        return final.parent.child(record.final) if record and record.final else final


async def housekeeping_entries(storage: Storage, root: Location, listing: Iterable[Entry]) -> list[Entry]:
    """Return what is in the house-keeping directory of a root that has just been listed."""
    if not any(entry.name == HOUSEKEEPING and entry.kind is EntryKind.DIRECTORY for entry in listing):
        return []
    return await storage.list(root.child(HOUSEKEEPING).path, recursive=False)


def attempts_in(directory: Location, listing: Iterable[Entry]) -> list[Leftover]:
    """Return the attempts among what is in a directory, each once, by name. Pure."""
    directories = {
        entry.name for entry in listing if entry.kind is EntryKind.DIRECTORY and TMP_DIR_SUFFIX in entry.name[1:]
    }
    records = {
        entry.name.removesuffix(RECORD_SUFFIX)
        for entry in listing
        if entry.kind is EntryKind.FILE and entry.name.endswith(RECORD_SUFFIX) and TMP_DIR_SUFFIX in entry.name[1:]
    }
    return [
        Leftover(path=directory.child(name), has_directory=name in directories, has_record=name in records)
        for name in sorted(directories | records)
    ]


async def seen_in(storage: Storage, leftover: Leftover) -> Content | None:
    """Read the record of an attempt, not decoded.

    It is beside the attempt's directory, else in it, else in it under its older name.
    """
    places = [leftover.record] if leftover.has_record else []
    if leftover.has_directory:
        places += [leftover.path.child(name) for name in (RECORD_FILE, LEGACY_RECORD_FILE)]
    for place in places:
        try:
            return await storage.get(place.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return None


async def record_in(storage: Storage, leftover: Leftover) -> CommitRecord | None:
    """Read and decode the record of the leftover; return None if nothing was written yet.

    Raise IntegrityError if it is damaged.
    """
    seen = await seen_in(storage, leftover)
    return CommitRecord.decode(seen.data, where=str(leftover.path)) if seen is not None and seen.data else None
