"""The commit record: an attempt's whole life in one JSON file, its values and their codec."""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias, TypeVar

from atomicpath.errors import IntegrityError, ValidationError

from .layout import COMMIT_SUCCESS_FILE, LEGACY_RECORD_FILE, RECORD_FILE, check_file_name

__all__ = [
    "LONGEST_LEASE",
    "SHORTEST_LEASE",
    "CommitRecord",
    "DecidedBy",
    "FileEntry",
    "JSONValue",
    "Lease",
    "NewerFormatError",
    "SnapshotBase",
    "State",
    "Writer",
    "check_metadata",
    "file_document",
    "file_entry",
    "fingerprint",
    "is_torn",
    "marker_of",
    "record_in_marker",
    "token_in_marker",
]

JSONValue: TypeAlias = "str | int | float | bool | list[JSONValue] | dict[str, JSONValue] | None"
T = TypeVar("T")

FORMAT = 1

SHORTEST_LEASE = 10.0
"""The least number of seconds for which others wait for a sign of life, whatever the record states."""

LONGEST_LEASE = 600.0
"""The greatest number of seconds for which others wait for a sign of life, whatever the record states."""


class NewerFormatError(IntegrityError):
    """The record was written by a newer version. This version cannot tell whether the directory is complete."""


class State(enum.StrEnum):
    """The states of an attempt."""

    WRITING = "writing"
    COMMITTED = "committed"
    DISCARDED = "discarded"
    ALIAS = "alias"
    """No attempt: another name for the directory `target`."""


class DecidedBy(enum.StrEnum):
    """The object whose conditional write is the commit."""

    RECORD = "record"
    MARKER = "marker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """The process that holds an attempt, with what tells on the same host whether it still lives.

    Attributes:
        host: The host's name.
        pid: The process id.
        boot: The boot id of the host; empty if the system does not tell it.
        namespace: The pid namespace; empty if the system does not tell it.
        start: The start time of the process, in the system's own unit; None if the system does not tell it.
    """

    host: str = ""
    pid: int = 0
    boot: str = ""
    namespace: str = ""
    start: int | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host or 'an unnamed host'}"

    def document(self) -> dict[str, JSONValue]:
        """Return the writer as a JSON object."""
        return {
            "host": self.host,
            "pid": self.pid,
            "boot": self.boot,
            "namespace": self.namespace,
            "start": self.start,
        }

    @classmethod
    def of(cls, document: Mapping[str, JSONValue]) -> Writer:
        """Return the writer in a JSON object. Raise TypeError if the object is none."""
        return cls(
            host=_text(document.get("host", ""), "writer.host"),
            pid=_integer(document.get("pid", 0), "writer.pid"),
            boot=_text(document.get("boot", ""), "writer.boot"),
            namespace=_text(document.get("namespace", ""), "writer.namespace"),
            start=_optional(_integer, document.get("start"), "writer.start"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The time, in seconds, for which a silent attempt keeps its name, and the number of its renewals."""

    seconds: float = 60.0
    renewals: int = 0

    @property
    def patience(self) -> float:
        """The number of seconds for which others wait for a sign of life: `seconds`, within bounds."""
        return min(max(self.seconds, SHORTEST_LEASE), LONGEST_LEASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file in the manifest of a committed directory.

    Attributes:
        name: The path relative to the directory, with `/` between its parts.
        size: The size in bytes.
        etag: The version that the storage gave; None if the storage has none.
        sha256: The checksum, if the commit was asked for checksums.
    """

    name: str
    size: int
    etag: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_file_name(self.name)
        if self.size < 0:
            raise ValidationError(f"the size of {self.name!r} cannot be {self.size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotBase:
    """The committed directory that a snapshot was made from.

    Attributes:
        token: The token of the directory.
        snapshot: "in_place" for a copy that replaces it, "empty" for an addition, "copy" for a new directory.
        pending: The names of the additions that an "in_place" copy contains.
    """

    token: str
    snapshot: str
    pending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """The content of `_commit_record.json`.

    Times are nanoseconds since the epoch by the writer's clock. They are for people; no decision depends on them.

    Attributes:
        state: The state of the attempt.
        token: The random name of the attempt.
        strategy: The name of the strategy.
        started: The time at which the attempt began.
        committed: The time of the commit, or None.
        took_over: The tokens of the attempts that this one took over, oldest first. Together with `token` they are
            the owners whose files this attempt may delete.
        final: The name of the final directory, without its parent.
        boot_clock: The writer's boot-time clock at the commit, in nanoseconds. It orders the commits of one boot even
            if somebody sets the wall clock.
        decided_by: The object whose conditional write is the commit.
        marker: The name of the marker, or None.
        direct: True if the user wrote the files on the storage, so that they could not be created exclusively.
        lease: The lease of the attempt.
        writer: The process that holds the attempt.
        cleaner: The token of the sweep or removal that discarded the attempt.
        place: A fingerprint of the location that gave the `etag`s, which mean nothing anywhere else.
        based_on: The directory that a snapshot was made from, or None.
        target: The name, in the same root, that an alias leads to.
        copied_from: The token of the committed directory, on any storage, that this is a copy of; else empty.
        files: The manifest.
        metadata: The user's metadata.
        unknown: The fields that this version does not know.
    """

    state: State
    token: str
    strategy: str
    started: int
    committed: int | None = None
    took_over: tuple[str, ...] = ()
    final: str = ""
    boot_clock: int | None = None
    decided_by: DecidedBy = DecidedBy.RECORD
    marker: str | None = None
    direct: bool = False
    lease: Lease = field(default_factory=Lease)
    writer: Writer = field(default_factory=Writer)
    cleaner: str = ""
    place: str = ""
    based_on: SnapshotBase | None = None
    target: str = ""
    copied_from: str = ""
    files: tuple[FileEntry, ...] = ()
    metadata: Mapping[str, JSONValue] = field(default_factory=dict, hash=False)
    unknown: Mapping[str, JSONValue] = field(default_factory=dict, hash=False)

    def moved_to(self, state: State, **changes: object) -> Self:
        """Return this record in another state, with other changes."""
        return replace(self, state=state, **changes)  # type: ignore[arg-type]  # replace() checks the names

    def encode(self) -> bytes:
        """Return the bytes to store: JSON in ASCII, with one file on each line."""
        document: dict[str, object] = dict(self.unknown)
        document |= {
            "format": FORMAT,
            "state": self.state.value,
            "token": self.token,
            "took_over": list(self.took_over),
            "final": self.final,
            "strategy": self.strategy,
            "decided_by": self.decided_by.value,
            "marker": self.marker,
            "direct": self.direct,
            "started": self.started,
            "committed": self.committed,
            "boot_clock": self.boot_clock,
            "lease": {"seconds": self.lease.seconds, "renewals": self.lease.renewals},
            "writer": self.writer.document(),
            "place": self.place,
            "metadata": dict(self.metadata),
        }
        if self.cleaner:
            document["cleaner"] = self.cleaner
        if self.target:
            document["target"] = self.target
        if self.copied_from:
            document["copied_from"] = self.copied_from
        if self.based_on is not None:
            base = self.based_on
            document["based_on"] = {"token": base.token, "snapshot": base.snapshot, "pending": list(base.pending)}
        # A file a line. json's own `indent` leaves its fast encoder: 20 times slower on thousands of files.
        files = ",\n".join(json.dumps(file_document(entry)) for entry in self.files)
        return f'{json.dumps(document)[:-1]}, "files": [\n{files}\n]}}\n'.encode("ascii")

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> CommitRecord:
        """Return the record in `data`. Raise IntegrityError, naming `where`, if it is damaged or of a newer format."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(
                f"the commit record of {where} is not readable JSON ({len(data)} bytes): it is truncated or was"
                " overwritten; restore it, or remove the directory"
            ) from error
        if isinstance(document, dict) and type(document.get("format")) is int and document["format"] > FORMAT:
            raise NewerFormatError(
                f"the commit record of {where} cannot be used: it was written by a newer atomicpath (format"
                f" {document['format']}, this one reads up to {FORMAT}): pip install -U atomicpath"
            )
        try:
            return cls._from_document(document)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise IntegrityError(f"the commit record of {where} cannot be used: {_reason(error)}") from error

    @classmethod
    def _from_document(cls, document: object) -> CommitRecord:
        fields = _mapping(document, "the record")
        _integer(fields["format"], "format")
        lease = _mapping(fields.get("lease", {}), "lease")
        files = fields.get("files", [])
        if not isinstance(files, list):
            raise TypeError("'files' is not a list")
        entries = tuple(file_entry(_mapping(entry, "a file")) for entry in files)
        if len({entry.name for entry in entries}) != len(entries):
            raise ValueError("a file is listed twice")
        return cls(
            state=State(_text(fields["state"], "state")),
            token=_text(fields["token"], "token"),
            strategy=_text(fields["strategy"], "strategy"),
            started=_integer(fields["started"], "started"),
            committed=_optional(_integer, fields.get("committed"), "committed"),
            took_over=_texts(fields.get("took_over", []), "took_over"),
            final=_text(fields.get("final", ""), "final"),
            boot_clock=_optional(_integer, fields.get("boot_clock"), "boot_clock"),
            decided_by=DecidedBy(_text(fields.get("decided_by", "record"), "decided_by")),
            marker=_optional(_text, fields.get("marker", COMMIT_SUCCESS_FILE), "marker"),  # earlier always written
            direct=fields.get("direct") is True,
            lease=Lease(
                seconds=_seconds(lease.get("seconds", 60.0), "lease.seconds"),
                renewals=_integer(lease.get("renewals", 0), "lease.renewals"),
            ),
            writer=Writer.of(_mapping(fields.get("writer", {}), "writer")),
            cleaner=_text(fields.get("cleaner", ""), "cleaner"),
            place=_text(fields.get("place", ""), "place"),
            based_on=_optional(_base, fields.get("based_on"), "based_on"),
            target=_text(fields.get("target", ""), "target"),
            copied_from=_text(fields.get("copied_from", ""), "copied_from"),
            files=entries,
            metadata=_mapping(fields.get("metadata", {}), "metadata"),
            unknown={key: value for key, value in fields.items() if key not in _KNOWN},
        )


_BEGINNING = b'{"format": '  # of what `encode` writes, unless unknown fields come first
_KNOWN = frozenset(CommitRecord.__slots__) - {"unknown"} | {"format"}


def is_torn(data: bytes) -> bool:
    """Tell whether `data` is what a power cut leaves of a record that was not synced: its beginning, or zeros."""
    text = data.rstrip(b"\0")
    begins = text.startswith(_BEGINNING) or _BEGINNING.startswith(text)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return begins
    return False


def fingerprint(token: str, url: str) -> str:
    """Return a name for the place `url` that does not reveal it: equal for equal places, for one token."""
    return hashlib.sha256(f"{token}\n{url}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


def marker_of(token: str) -> bytes:
    """Return the content of our marker, which names the record that it belongs to."""
    return (json.dumps({"record": RECORD_FILE, "token": token}) + "\n").encode("ascii")


def token_in_marker(data: bytes) -> str | None:
    """Return the token that a marker of ours names; None if another tool wrote the marker."""
    found = record_in_marker(data)
    return found[1] if found else None


def record_in_marker(data: bytes) -> tuple[str, str] | None:
    """Return the record file and the token that a marker of ours names; None if another tool wrote the marker."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("record") not in (RECORD_FILE, LEGACY_RECORD_FILE):
        return None
    return str(document["record"]), str(document.get("token", ""))


def check_metadata(metadata: Mapping[str, JSONValue] | None) -> dict[str, JSONValue]:
    """Return user metadata as it will be read back. Raise ValidationError if JSON cannot hold it."""
    if not metadata:
        return {}
    try:
        kept = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"metadata must be a mapping that JSON can hold: {error}") from error
    return _mapping(kept, "metadata")


def file_document(entry: FileEntry) -> dict[str, JSONValue]:
    """Return a file's entry as a JSON object."""
    document: dict[str, JSONValue] = {"name": entry.name, "size": entry.size}
    if entry.etag is not None:
        document["etag"] = entry.etag
    if entry.sha256 is not None:
        document["sha256"] = entry.sha256
    return document


def file_entry(document: Mapping[str, JSONValue]) -> FileEntry:
    """Return the entry in a JSON object. Raise KeyError, TypeError or ValueError if the object is none."""
    return FileEntry(
        name=_text(document["name"], "a file's name"),
        size=_integer(document["size"], "a file's size"),
        etag=_optional(_text, document.get("etag"), "a file's etag"),
        sha256=_optional(_text, document.get("sha256"), "a file's sha256"),
    )


def _base(value: object, what: str) -> SnapshotBase:
    document = _mapping(value, what)
    return SnapshotBase(
        token=_text(document["token"], f"{what}.token"),
        snapshot=_text(document["snapshot"], f"{what}.snapshot"),
        pending=_texts(document.get("pending", []), f"{what}.pending"),
    )


def _mapping(value: object, what: str) -> dict[str, JSONValue]:
    if not isinstance(value, dict):
        raise TypeError(f"{what} is not a JSON object")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what!r} is not a string")
    return value


def _texts(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{what!r} is not a list")
    return tuple(_text(item, what) for item in value)


def _number(value: object, what: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what!r} is not a number")
    return value


def _integer(value: object, what: str) -> int:
    number = _number(value, what)
    if not isinstance(number, int):
        raise TypeError(f"{what!r} is not an integer")
    return number


def _seconds(value: object, what: str) -> float:
    seconds = float(_number(value, what))
    if not 0 <= seconds < math.inf:  # a lease of infinity would be waited for, and one of NaN ends at once
        raise ValueError(f"{what!r} cannot be {seconds}")
    return seconds


def _optional(check: Callable[[object, str], T], value: object, what: str) -> T | None:
    return None if value is None else check(value, what)


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
