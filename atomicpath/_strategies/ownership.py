"""Deciding whose an object below a final path is, and so whether an attempt, or whoever ends it, may delete it.

Ours is what the manifest of the record names, or what carries an owner out of the record's own token and the tokens of
the attempts whose place it took. That an object has *an* owner proves nothing: a copy keeps the owner's metadata. What
lies below the directory of another place is that place's, whoever wrote it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from atomicpath._core.layout import (
    COMMIT_SUCCESS_FILE,
    HOUSEKEEPING,
    LEGACY_RECORD_FILE,
    RECORD_FILE,
    TMP_DIR_SUFFIX,
    is_pending,
)
from atomicpath._core.record import CommitRecord, token_in_marker
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.location import Location
from atomicpath.abc import Entry, Storage
from atomicpath.errors import IntegrityError

from .conflicts import read_marker
from .joint_manifest import is_of

__all__ = ["RECORDS", "Ownership", "Whose", "below", "chain_of", "outside", "places_in", "record_at"]

RECORDS = (RECORD_FILE, LEGACY_RECORD_FILE)
_AT_ONCE = 16


class Whose(enum.Enum):
    """The verdict on one object that was listed."""

    OURS = "ours"
    FOREIGN = "foreign"
    GONE = "gone"


def chain_of(record: CommitRecord) -> tuple[str, ...]:
    """Return the tokens whose objects the holder of a record may delete: its own, and those that it took over."""
    return (*record.took_over, record.token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What is ours below one final path.

    Args:
        tokens: The owners that count: those of a chain of take-overs.
        manifest: Names that are ours, each with the version it must have, or None for any.
        unowned: An object without an owner is ours, too: the user of a `direct` attempt wrote it.
    """

    storage: Storage
    final: Location
    tokens: tuple[str, ...]
    manifest: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    unowned: bool = False

    @classmethod
    def of(cls, storage: Storage, final: Location, record: CommitRecord, *, unowned: bool = False) -> Self:
        """Return what a record proves to be its holder's.

        A manifest that was committed names its files whatever they contain by now. One that a take-over brought along
        names them only as they were.
        """
        removed = record.committed is not None
        manifest = {file.name: None if removed else file.etag for file in record.files}
        if removed and record.marker not in (None, COMMIT_SUCCESS_FILE):
            manifest[str(record.marker)] = None
        return cls(storage=storage, final=final, tokens=chain_of(record), manifest=manifest, unowned=unowned)

    async def judge(self, entry: Entry) -> Whose:
        """Tell whose an object is that is not below another place."""
        if entry.name == COMMIT_SUCCESS_FILE:  # it may have been written twice, and then does not tell its owner
            marker = await read_marker(self.storage, self.final)
            if marker is None:
                return Whose.GONE
            return Whose.OURS if token_in_marker(marker) in self.tokens else Whose.FOREIGN
        if entry.name in self.manifest and self.manifest[entry.name] in (None, entry.version):
            return Whose.OURS
        found = await self.storage.stat(self.final.child(entry.name).path)
        if found is None:
            return Whose.GONE
        if found.owner is None:
            return Whose.OURS if self.unowned else Whose.FOREIGN
        return Whose.OURS if self.owns(found.owner) else Whose.FOREIGN

    def owns(self, owner: str | None) -> bool:
        """Tell whether an owner is one of those that count."""
        return any(is_of(token, owner) for token in self.tokens)

    async def places(self, listing: Iterable[Entry]) -> tuple[str, ...]:
        """Return the directories below the final path that are other places, as a listing of it shows them.

        A record that our manifest names, or that carries our owner, is a file of ours: somebody committed a copy of a
        directory that had been committed elsewhere.
        """
        found = places_in(entry.name for entry in listing)
        if self.storage.is_local:  # a look is one system call: no need of an event loop
            bordered = [await self._is_place(name) for name in found.values()]
        else:
            bordered = await map_concurrently(found.values(), self._is_place, at_once=_AT_ONCE) if found else []
        return tuple(place for place, is_place in zip(found, bordered, strict=True) if is_place)

    async def _is_place(self, name: str) -> bool:
        """Tell whether the file by which a place was seen makes it one, and another's.

        The former name of the record is one that a user's own file may have, too: only a record counts there.
        """
        if name in self.manifest:
            return False
        path = self.final.child(name)
        if not self.storage.is_local:  # where no file has an owner
            there = await self.storage.stat(path.path)
            if there is not None and self.owns(there.owner):
                return False
        return path.name != LEGACY_RECORD_FILE or await record_at(self.storage, path) is not None


def outside(listing: Sequence[Entry], places: tuple[str, ...]) -> list[Entry]:
    """Return what a listing shows that is not the record, and not below another place."""
    known = frozenset(places)
    return [entry for entry in listing if entry.name != RECORD_FILE and not below(entry.name, known)]


def places_in(names: Iterable[str]) -> dict[str, str]:
    """Return the directories that the names below a final path show to be other places; pure.

    Args:
        names: Paths of files at any depth, relative to the final path.

    Returns:
        The directory of each place, relative too, and the name by which it was seen; those that have a record come
        first. What was added to a committed directory (PENDING_PREFIX) belongs to it, and is no other place.
    """
    found: dict[str, str] = {}
    houses: dict[str, str] = {}
    for name in names:
        if is_pending(name):
            continue
        parts = name.split("/")
        house = next(
            (index for index, part in enumerate(parts[:-1]) if part == HOUSEKEEPING or TMP_DIR_SUFFIX in part), None
        )
        if house is not None:  # an attempt's directory, or what is kept of attempts
            houses.setdefault("/".join(parts[: house + 1]), name)
        elif len(parts) > 1 and parts[-1] in RECORDS:
            found["/".join(parts[:-1])] = name
    return found | houses


def below(name: str, places: Collection[str]) -> bool:
    """Tell whether a name is of something in one of the places."""
    parts = name.split("/")
    return bool(places) and any("/".join(parts[:end]) in places for end in range(1, len(parts) + 1))


async def record_at(storage: Storage, path: Location) -> CommitRecord | None:
    """Return the record in a file; None if nothing is there, or, under the former name, if it is none of ours."""
    try:
        content = await storage.get(path.path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return CommitRecord.decode(content.data, where=str(path.parent))
    except IntegrityError:
        if path.name == LEGACY_RECORD_FILE:
            return None
        raise
