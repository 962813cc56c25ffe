"""The commit record: an attempt's whole life in one JSON file, its values and their codec."""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias, TypeVar

from .errors import IntegrityError, ValidationError
from .layout import COMMIT_SUCCESS_FILE, LEGACY_RECORD_FILE, RECORD_FILE, check_file_name

__all__ = [
    "LONGEST_LEASE",
    "SHORTEST_LEASE",
    "Base",
    "CommitRecord",
    "DecidedBy",
    "FileEntry",
    "JSONValue",
    "Lease",
    "NewerFormatError",
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
"""Seconds that any holder is given for a sign of life, however little its record states."""

LONGEST_LEASE = 600.0
"""Seconds that a silent holder is waited for at most, however much its record states."""


class NewerFormatError(IntegrityError):
    """The record was written by a newer version, which alone knows whether it stands for a complete directory."""


class State(enum.StrEnum):
    """Where an attempt stands."""

    WRITING = "writing"
    COMMITTED = "committed"
    DISCARDED = "discarded"


class DecidedBy(enum.StrEnum):
    """Which object's conditional write is the commit."""

    RECORD = "record"
    MARKER = "marker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Which process holds an attempt; enough to tell on the same host whether it still lives.

    `boot`, `namespace` and `start` are empty or None where the system does not tell them.
    """

    host: str = ""
    pid: int = 0
    boot: str = ""
    namespace: str = ""
    start: int | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host or 'an unnamed host'}"

    def document(self) -> dict[str, JSONValue]:
        """As a JSON object."""
        return {
            "host": self.host,
            "pid": self.pid,
            "boot": self.boot,
            "namespace": self.namespace,
            "start": self.start,
        }

    @classmethod
    def of(cls, document: Mapping[str, JSONValue]) -> Writer:
        """The writer in a JSON object; TypeError if it is none."""
        return cls(
            host=_text(document.get("host", ""), "writer.host"),
            pid=_integer(document.get("pid", 0), "writer.pid"),
            boot=_text(document.get("boot", ""), "writer.boot"),
            namespace=_text(document.get("namespace", ""), "writer.namespace"),
            start=_optional(_integer, document.get("start"), "writer.start"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How long a silent holder keeps its claim, in seconds, and how often it has renewed it."""

    seconds: float = 60.0
    renewals: int = 0

    @property
    def patience(self) -> float:
        """For how many seconds others wait for a sign of the holder: what it states, within bounds."""
        return min(max(self.seconds, SHORTEST_LEASE), LONGEST_LEASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a committed directory: its name relative to it, size in bytes, and how to recognise its content."""

    name: str
    size: int
    etag: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_file_name(self.name)
        if self.size < 0:
            raise ValidationError(f"the size of {self.name!r} cannot be {self.size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The committed directory that an attempt was begun from: its token, and how.

    `snapshot` is "in_place" for a copy that is to replace it, "empty" for an addition to it, "copy" for a copy that
    becomes another directory. `pending` are the additions that an "in_place" copy has of it, by name.
    """

    token: str
    snapshot: str
    pending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """What `_commit_record.json` says.

    `took_over` are the tokens of the attempts whose place this one took, oldest first: together with `token` they are
    the owners whose files this attempt may delete. `final` is the name of the final directory, without its parent.
    `marker` is the name of the file that tells other tools that the directory is complete, or None.
    `boot_clock` is the writer's boot-time clock at the commit, in nanoseconds: it orders commits of one boot even if
    somebody set the wall clock.

    Times are nanoseconds since the epoch by the writer's clock, for people to read: no decision rests
    on them. `cleaner` is the token of the sweep or removal that discarded it. `place` is a fingerprint of
    the location that gave the `etag`s, which mean nothing anywhere else. `direct` says that the user wrote
    the files himself, so that they could not be made exclusive. `based_on` is there for a snapshot.
    `unknown` keeps the fields this version does not know.
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
    based_on: Base | None = None
    files: tuple[FileEntry, ...] = ()
    metadata: Mapping[str, JSONValue] = field(default_factory=dict, hash=False)
    unknown: Mapping[str, JSONValue] = field(default_factory=dict, hash=False)

    def moved_to(self, state: State, **changes: object) -> Self:
        """This record in another state."""
        return replace(self, state=state, **changes)  # type: ignore[arg-type]  # replace() checks the names

    def encode(self) -> bytes:
        """The bytes to store: JSON with a file a line, ASCII."""
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
        if self.based_on is not None:
            base = self.based_on
            document["based_on"] = {"token": base.token, "snapshot": base.snapshot, "pending": list(base.pending)}
        # A file a line. json's own `indent` leaves its fast encoder: 20 times slower on thousands of files.
        files = ",\n".join(json.dumps(file_document(entry)) for entry in self.files)
        return f'{json.dumps(document)[:-1]}, "files": [\n{files}\n]}}\n'.encode("ascii")

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> CommitRecord:
        """The record in `data`; IntegrityError, naming `where`, if it is damaged or from a newer format."""
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
            marker=_optional(_text, fields.get("marker", COMMIT_SUCCESS_FILE), "marker"),  # once it was always there
            direct=fields.get("direct") is True,
            lease=Lease(
                seconds=_seconds(lease.get("seconds", 60.0), "lease.seconds"),
                renewals=_integer(lease.get("renewals", 0), "lease.renewals"),
            ),
            writer=Writer.of(_mapping(fields.get("writer", {}), "writer")),
            cleaner=_text(fields.get("cleaner", ""), "cleaner"),
            place=_text(fields.get("place", ""), "place"),
            based_on=_optional(_base, fields.get("based_on"), "based_on"),
            files=entries,
            metadata=_mapping(fields.get("metadata", {}), "metadata"),
            unknown={key: value for key, value in fields.items() if key not in _KNOWN},
        )


_BEGINNING = b'{"format": '  # of what `encode` writes, unless unknown fields come first
_KNOWN = frozenset(CommitRecord.__slots__) - {"unknown"} | {"format"}


def is_torn(data: bytes) -> bool:
    """Whether this is what a power cut leaves of a record that was not synced: its beginning, or zeros in its place."""
    text = data.rstrip(b"\0")
    begins = text.startswith(_BEGINNING) or _BEGINNING.startswith(text)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return begins
    return False


def fingerprint(token: str, url: str) -> str:
    """A name for the place `url` that tells nothing about it: equal for equal places, for one token."""
    return hashlib.sha256(f"{token}\n{url}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


def marker_of(token: str) -> bytes:
    """What our marker file says: which record it belongs to."""
    return (json.dumps({"record": RECORD_FILE, "token": token}) + "\n").encode("ascii")


def token_in_marker(data: bytes) -> str | None:
    """The token a marker of ours names; None if another tool wrote it."""
    found = record_in_marker(data)
    return found[1] if found else None


def record_in_marker(data: bytes) -> tuple[str, str] | None:
    """The record file and the token that a marker of ours names; None if another tool wrote it."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("record") not in (RECORD_FILE, LEGACY_RECORD_FILE):
        return None
    return str(document["record"]), str(document.get("token", ""))


def check_metadata(metadata: Mapping[str, JSONValue] | None) -> dict[str, JSONValue]:
    """User metadata as it will be read back; ValidationError if JSON cannot hold it."""
    try:
        kept = json.loads(json.dumps(dict(metadata or {}), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"metadata must be a mapping that JSON can hold: {error}") from error
    return _mapping(kept, "metadata")


def file_document(entry: FileEntry) -> dict[str, JSONValue]:
    """A file's entry as a JSON object."""
    document: dict[str, JSONValue] = {"name": entry.name, "size": entry.size}
    if entry.etag is not None:
        document["etag"] = entry.etag
    if entry.sha256 is not None:
        document["sha256"] = entry.sha256
    return document


def file_entry(document: Mapping[str, JSONValue]) -> FileEntry:
    """The entry in a JSON object; KeyError, TypeError or ValueError if it is none."""
    return FileEntry(
        name=_text(document["name"], "a file's name"),
        size=_integer(document["size"], "a file's size"),
        etag=_optional(_text, document.get("etag"), "a file's etag"),
        sha256=_optional(_text, document.get("sha256"), "a file's sha256"),
    )


def _base(value: object, what: str) -> Base:
    document = _mapping(value, what)
    return Base(
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
    if not 0 <= seconds < math.inf:  # one that never ends would be waited for, and NaN ends at once
        raise ValueError(f"{what!r} cannot be {seconds}")
    return seconds


def _optional(check: Callable[[object, str], T], value: object, what: str) -> T | None:
    return None if value is None else check(value, what)


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
