"""What a strategy tells a caller whose final path is taken: by whom, since when, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime

from atomicpath.abc import Storage
from atomicpath.errors import AlreadyCommittedError, CommitError, ConflictError
from atomicpath.layout import COMMIT_SUCCESS_FILE, RECORD_FILE
from atomicpath.location import Location
from atomicpath.record import CommitRecord, DecidedBy, State, token_in_marker

__all__ = ["already_committed", "foreign", "is_committed", "read_record", "taken", "when"]


async def read_record(storage: Storage, location: Location) -> CommitRecord | None:
    """The record at a final path, or None; IntegrityError if it is damaged."""
    try:
        content = await storage.read(location.child(RECORD_FILE).path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return CommitRecord.decode(content.data, where=str(location))


async def read_marker(storage: Storage, location: Location) -> bytes | None:
    """What the marker at a final path says, or None if there is none."""
    try:
        return (await storage.read(location.child(COMMIT_SUCCESS_FILE).path)).data
    except (FileNotFoundError, NotADirectoryError):
        return None


async def is_committed(storage: Storage, location: Location, record: CommitRecord) -> bool:
    """Whether the record stands for a committed directory; where the marker decided, it must name this record."""
    if record.state is not State.COMMITTED:
        return False
    if record.decided_by is DecidedBy.RECORD:
        return True
    marker = await read_marker(storage, location)
    return marker is not None and token_in_marker(marker) == record.token


async def taken(storage: Storage, location: Location) -> CommitError:
    """The error for a final path at which something is: read what it is, and say it."""
    record = await read_record(storage, location)
    if record is not None:
        return (
            already_committed(location, record)
            if await is_committed(storage, location, record)
            else held(location, record, "an attempt that has not committed")
        )
    marker = await read_marker(storage, location)
    if marker is not None and token_in_marker(marker) is None:
        return already_committed(location, None)
    return foreign(location, await storage.kind(location.path))


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
