"""What a strategy tells a caller whose final path is taken: by whom, since when, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from atomicpath.abc import Storage
from atomicpath.errors import AlreadyCommittedError, CommitError, ConflictError
from atomicpath.layout import COMMIT_SUCCESS_FILE, RECORD_FILE
from atomicpath.location import Location
from atomicpath.record import CommitRecord, DecidedBy, State, token_in_marker

__all__ = [
    "Standing",
    "already_committed",
    "foreign",
    "held",
    "is_committed",
    "read_marker",
    "read_record",
    "standing_at",
    "taken",
    "when",
]


async def read_record(storage: Storage, location: Location) -> CommitRecord | None:
    """The record at a final path, or None; IntegrityError if it is damaged."""
    try:
        content = await storage.read(location.child(RECORD_FILE).path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return CommitRecord.decode(content.data, where=str(location))


async def read_marker(storage: Storage, location: Location, name: str | None = COMMIT_SUCCESS_FILE) -> bytes | None:
    """Return what the marker of that name at a final path says, or None if there is none."""
    if name is None:
        return None
    try:
        return (await storage.read(location.child(name).path)).data
    except (FileNotFoundError, NotADirectoryError):
        return None


async def is_committed(storage: Storage, location: Location, record: CommitRecord) -> bool:
    """Whether the record stands for a committed directory; where the marker decided, it must name this record."""
    if record.state is not State.COMMITTED:
        return False
    if record.decided_by is DecidedBy.RECORD:
        return True
    marker = await read_marker(storage, location, record.marker)
    return marker is not None and token_in_marker(marker) == record.token


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is at a final path: whether it counts as committed, its record, and, without one, what else it is.

    `orphaned`: a marker of ours is there, and the record that it names is not.
    """

    committed: bool
    record: CommitRecord | None = None
    orphaned: bool = False
    kind: str | None = "directory"

    @property
    def token(self) -> str | None:
        """The token of the record, if there is one."""
        return self.record.token if self.record else None

    def conflict(self, location: Location) -> CommitError:
        """The error for a path that was to be free."""
        if self.committed:
            return already_committed(location, self.record)
        if self.record is not None:
            return held(location, self.record, "an attempt that has not committed")
        return foreign(location, self.kind)


async def standing_at(storage: Storage, location: Location) -> Standing:
    """What is at a path, by its record, and by the marker where that decides.

    The two are two reads. If they do not belong together the directory may have been replaced in between, so the
    record is read again, until it is the same twice.
    """
    record = await read_record(storage, location)
    while True:
        if record is not None and (record.state is not State.COMMITTED or record.decided_by is DecidedBy.RECORD):
            return Standing(committed=record.state is State.COMMITTED, record=record)
        marker = await read_marker(storage, location, record.marker if record else COMMIT_SUCCESS_FILE)
        named = None if marker is None else token_in_marker(marker)
        if record is None and named is None:
            kind = "directory" if marker is not None else await storage.kind(location.path)
            return Standing(committed=marker is not None, kind=kind)
        if record is not None and record.token == named:
            return Standing(committed=True, record=record)
        again = await read_record(storage, location)
        if (again and again.token) == (record and record.token):
            return Standing(committed=False, record=record, orphaned=record is None)
        record = again


async def taken(storage: Storage, location: Location) -> CommitError:
    """The error for a final path at which something is: read what it is, and say it."""
    return (await standing_at(storage, location)).conflict(location)


def already_committed(location: Location, record: CommitRecord | None) -> AlreadyCommittedError:
    """A complete directory is there."""
    by = f"by {record.writer} at {when(record.committed)}" if record else "by another tool, which left no record"
    return AlreadyCommittedError(
        f"{location} was already committed {by}; nothing of it was changed. Read it, or commit under another name",
        record,
    )


def held(location: Location, record: CommitRecord, what: str) -> ConflictError:
    """An attempt of ours that may not be taken over holds the path."""
    return ConflictError(
        f"{location} is held by {what} ({record.writer}, since {when(record.started)}). Wait for it, stop it, or"
        " commit under another name; if you know that nobody writes there any more, pass unsafe_takeover=True",
        record,
    )


def foreign(location: Location, kind: str | None, names: tuple[str, ...] = ()) -> ConflictError:
    """Something that no attempt of ours put there holds the path."""
    shown = f": {', '.join(names[:3])}{' …' if len(names) > 3 else ''}" if names else ""
    return ConflictError(
        f"{location} exists and was not written by atomicpath ({_described(kind)}{shown}). It was left as it is: move"
        " it away, or commit under another name"
    )


def when(nanoseconds: int | None) -> str:
    """A record's time for people: UTC, to the second."""
    if nanoseconds is None:
        return "an unrecorded time"
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return "an impossible time"


def _described(kind: str | None) -> str:
    if kind == "directory":
        return "a directory without a commit record"
    return kind if kind and kind.startswith("a ") else f"a {kind or 'name that has gone again'}"
