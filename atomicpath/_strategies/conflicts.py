"""What a strategy tells a caller whose final path is taken: by whom, since when, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from atomicpath._core.layout import COMMIT_SUCCESS_FILE, LEGACY_RECORD_FILE, RECORD_FILE
from atomicpath._core.record import CommitRecord, DecidedBy, State, record_in_marker, token_in_marker
from atomicpath._core.text import few
from atomicpath._profile.location import Location
from atomicpath.abc import EntryKind, Storage
from atomicpath.errors import AlreadyCommittedError, CommitError, ConflictError

__all__ = [
    "Standing",
    "aliased",
    "already_committed",
    "conflict_error",
    "foreign",
    "is_committed",
    "not_its_own",
    "read_marker",
    "read_record",
    "standing_at",
    "taken",
    "unsettled",
    "when",
]

_LOOKS = 5  # looks, while a replacement at this very moment could explain what is seen


async def read_record(storage: Storage, location: Location, name: str = RECORD_FILE) -> CommitRecord | None:
    """Read the record at a final path; return None if there is no record.

    Raise IntegrityError if the record is damaged.
    """
    try:
        content = await storage.get(location.child(name).path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return CommitRecord.decode(content.data, where=str(location))


async def read_marker(storage: Storage, location: Location, name: str | None = COMMIT_SUCCESS_FILE) -> bytes | None:
    """Return what the marker of that name at a final path says, or None if there is none."""
    if name is None:
        return None
    try:
        return (await storage.get(location.child(name).path)).data
    except (FileNotFoundError, NotADirectoryError):
        return None


async def is_committed(storage: Storage, location: Location, record: CommitRecord) -> bool:
    """Tell whether the record stands for a committed directory.

    If the marker decides the commit, the marker must name this record.
    """
    if record.state is not State.COMMITTED:
        return False
    if record.decided_by is DecidedBy.RECORD:
        return True
    marker = await read_marker(storage, location, record.marker)
    return marker is not None and token_in_marker(marker) == record.token


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is at a final path: whether it counts as committed, its record, and, without one, what else it is.

    `orphaned`: a marker of ours is there, and the record that it names is not. `record_file` is the name that the
    record has there, which was another in an earlier version.
    """

    committed: bool
    record: CommitRecord | None = None
    record_file: str = RECORD_FILE
    orphaned: bool = False
    kind: EntryKind | None = EntryKind.DIRECTORY

    @property
    def token(self) -> str | None:
        """The token of the record, or None if there is no record."""
        return self.record.token if self.record else None

    def conflict(self, location: Location) -> CommitError:
        """Return the error for a path that should have been free."""
        if self.committed:
            return already_committed(location, self.record)
        if self.record is not None and self.record.state is State.ALIAS:
            return aliased(location, self.record.target)
        if self.record is not None:
            return conflict_error(location, self.record, "an attempt that has not committed")
        return foreign(location, self.kind)


async def standing_at(storage: Storage, location: Location) -> Standing:
    """Tell what is at a path: by its record, and by the marker where that decides.

    Record and marker are two reads, between which the directory may be replaced. So an answer that a replacement could
    explain is believed only after further looks. A path that always holds a committed directory is never said to be
    without one.
    """
    before: Standing | None = None
    for _ in range(_LOOKS):
        standing, sure = await _look(storage, location)
        empty = standing.record is None and not standing.orphaned
        if sure or (standing == before and not empty):
            return standing
        before = standing
    return standing


async def _look(storage: Storage, location: Location) -> tuple[Standing, bool]:
    """Look once at a path; return what is there, and whether that is certain.

    It is certain if no replacement of the directory during the look can have caused it.
    """
    record = await read_record(storage, location)
    if record is not None and (record.state is not State.COMMITTED or record.decided_by is DecidedBy.RECORD):
        return Standing(committed=record.state is State.COMMITTED, record=record), True
    marker = await read_marker(storage, location, record.marker if record else COMMIT_SUCCESS_FILE)
    if marker is None and record is None:
        kind = await storage.kind(location.path)
        if kind is EntryKind.DIRECTORY and not storage.is_local:
            # nothing is replaced there, but the record may have been created between the two reads
            return Standing(committed=False), await read_record(storage, location) is None
        return Standing(committed=False, kind=kind), kind is not EntryKind.DIRECTORY
    file, named = (record_in_marker(marker) if marker is not None else None) or (None, None)
    if marker is not None and record is None and named is None:
        return Standing(committed=True), True  # another tool's
    if record is None and file == LEGACY_RECORD_FILE:
        legacy = await read_record(storage, location, file)
        if legacy is not None and (legacy.state, legacy.token) == (State.COMMITTED, named):
            return Standing(committed=True, record=legacy, record_file=file), True
    belongs = record is not None and record.token == named
    return Standing(committed=belongs, record=record, orphaned=record is None), belongs


async def taken(storage: Storage, location: Location) -> CommitError:
    """Read what is at a final path, and return the error that says it."""
    return (await standing_at(storage, location)).conflict(location)


def already_committed(location: Location, record: CommitRecord | None) -> AlreadyCommittedError:
    """Return the error for a final path at which there is a complete directory."""
    by = f"by {record.writer} at {when(record.committed)}" if record else "by another tool, which left no record"
    return AlreadyCommittedError(
        f"{location} was already committed {by}; nothing of it was changed. Read it, or commit under another name",
        record,
    )


def aliased(location: Location, target: str) -> ConflictError:
    """Return the error for a final path that is the name of an alias."""
    return ConflictError(
        f"{location} is an alias for {target!r}, and nothing is written through it. Commit under another name, then"
        f" move it with alias(...); or remove({location.name!r}) first, which leaves its target alone"
    )


def conflict_error(location: Location, record: CommitRecord, what: str) -> ConflictError:
    """Return the error for a path that is held by an attempt of atomicpath that may not be taken over."""
    return ConflictError(
        f"{location} is held by {what} ({record.writer}, since {when(record.started)}). Wait for it, stop it, or"
        " commit under another name; if you know that nobody writes there any more, pass unsafe_takeover=True",
        record,
    )


def unsettled(location: Location, record: CommitRecord, seconds: float) -> ConflictError:
    """Return the error for a path that is held by a tombstone.

    A delete that the cleaner of the tombstone has sent may still be carried out.
    """
    return ConflictError(
        f"{location} was given up or removed a moment ago ({record.writer}), and this store cannot tell what is deleted"
        f" there late from what comes next. The name can be used again in {seconds:.0f} s; sweep(...) frees it then as"
        " well. Wait, or commit under another name",
        record,
    )


def foreign(location: Location, kind: EntryKind | None, names: tuple[str, ...] = ()) -> ConflictError:
    """Return the error for a path that is held by something that no attempt of ours put there."""
    shown = f": {few(names)}" if names else ""
    return ConflictError(
        f"{location} exists and was not written by atomicpath ({_described(kind)}{shown}). It was left as it is: move"
        " it away, or commit under another name"
    )


def not_its_own(location: Location, names: tuple[str, ...]) -> ConflictError:
    """Return the error for files that neither the manifest nor an owner of the take-over chain names."""
    return ConflictError(
        f"{location} has files in it that are not the attempt's own: {few(names)}. They were left as they are:"
        " somebody else wrote or copied them there, or an earlier attempt came late. Move or delete them yourself, or"
        " commit under another name"
    )


def when(nanoseconds: int | None) -> str:
    """Format a time of a record for people: UTC, to the second."""
    if nanoseconds is None:
        return "an unrecorded time"
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return "an impossible time"


def _described(kind: EntryKind | None) -> str:
    if kind is EntryKind.DIRECTORY:
        return "a directory without a commit record"
    return str(kind) if kind else "a name that has gone again"
