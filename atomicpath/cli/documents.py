"""The JSON form of what the library returns; docs/command-line.md has the schema, and a test compares."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomicpath import Commit, CommitRecord, Explanation, Retained, SweepResult, UnfinishedCommit, Verification

__all__ = [
    "Document",
    "attempt",
    "commit",
    "explanation",
    "moment",
    "record_of",
    "retained",
    "shown",
    "size",
    "swept",
    "time_of",
    "verification",
]

Document = dict[str, Any]


def commit(found: Commit) -> Document:
    """Return a committed directory as an object."""
    return {"url": str(found.path), "name": found.name, "step": found.step} | _summary(found.record)


def record_of(url: str, record: CommitRecord | None) -> Document:
    """Return all that the record of a committed directory says as an object."""
    files = None
    if record is not None:
        files = [{"name": one.name, "size": one.size, "etag": one.etag, "sha256": one.sha256} for one in record.files]
    return {
        "url": url,
        **_summary(record),
        "started": time_of(record.started) if record else None,
        "token": record.token if record else None,
        "marker": record.marker if record else None,
        "files": files,
    }


def attempt(found: UnfinishedCommit) -> Document:
    """Return an unfinished attempt as an object."""
    record = found.record
    return {
        "url": str(found.path),
        "final": str(found.final),
        "state": str(record.state) if record else None,
        "started": time_of(record.started) if record else None,
        "writer": str(record.writer) if record else None,
        "alive": found.alive,
    }


def explanation(found: Explanation) -> Document:
    """Return what holds at a location as an object."""
    from atomicpath import Guarantee

    profile = found.profile
    statuses = ("refuted", "observed", "declared", "asserted")
    return {
        "location": profile.location,
        "strategy": found.strategy.__name__ if found.strategy else None,
        "reason": found.reason,
        "guarantees": [
            {
                "name": str(one),
                "status": next((status for status in statuses if one & getattr(profile, status)), "unknown"),
                "evidence": profile.evidence.get(one, ""),
            }
            for one in Guarantee
        ],
    }


def verification(url: str, found: Verification, *, checksums: bool) -> Document:
    """Return how a directory compares with its manifest as an object."""
    return {
        "url": url,
        "ok": found.ok,
        "checksums": checksums,
        "missing": list(found.missing),
        "altered": list(found.altered),
        "extra": list(found.extra),
    }


def swept(found: SweepResult) -> Document:
    """Return what a sweep has found as an object."""
    return {
        "url": str(found.path),
        "found": str(found.found),
        "action": str(found.action),
        "done": found.done,
        "reason": found.reason,
        "writer": str(found.writer) if found.writer else None,
        "age_seconds": found.age,
        "error": str(found.error) if found.error else None,
    }


def retained(found: Retained, *, dry_run: bool) -> Document:
    """Return what retention has decided of a directory as an object."""
    return {
        "url": str(found.commit.path),
        "name": found.commit.name,
        "step": found.commit.step,
        "action": "keep" if found.kept else "remove",
        "done": not found.kept and not dry_run,
        "reason": found.reason,
    }


def time_of(nanoseconds: int | None) -> str | None:
    """Return nanoseconds since the epoch as text: UTC, in ISO 8601, with microseconds."""
    if nanoseconds is None:
        return None
    try:
        whole = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC)
    except (OverflowError, ValueError, OSError):  # a record may say anything
        return None
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 1_000_000_000 // 1000:06}Z"


def moment(time: str | None) -> str | None:
    """Return the time of a document for people: to the second."""
    return None if time is None else f"{time[:10]} {time[11:19]}Z"


def size(count: float | None) -> str | None:
    """Return a number of bytes for people."""
    from rich.filesize import decimal

    return None if count is None else decimal(int(count))


def shown(document: Document) -> tuple[str, int | None, str | None, int | None, str | None, str | None]:
    """Return a committed directory as a row: name, step, time, files, size, writer."""
    return (
        document["name"],
        document["step"],
        moment(document["committed"]),
        document["file_count"],
        size(document["bytes"]),
        document["writer"],
    )


def _summary(record: CommitRecord | None) -> Document:
    return {
        "committed": time_of(record.committed) if record else None,
        "file_count": len(record.files) if record else None,
        "bytes": sum(file.size for file in record.files) if record else None,
        "strategy": record.strategy if record else None,
        "writer": str(record.writer) if record else None,
        "metadata": dict(record.metadata) if record else {},
    }
