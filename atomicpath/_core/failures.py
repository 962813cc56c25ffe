"""How the failure of one process of a job is told to the others, so that all raise the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, cast

from atomicpath import errors
from atomicpath.errors import (
    AlreadyCommittedError,
    AtomicPathError,
    ConflictError,
    CoordinationTimeoutError,
    RankFailedError,
    StorageError,
)

from .record import CommitRecord, JSONValue

__all__ = ["Document", "decoded", "described", "encoded", "failure_of"]

Document: TypeAlias = "dict[str, JSONValue]"


def failure_of(failures: Mapping[int, str], undone: str) -> RankFailedError:
    """Return the error that every rank raises if some ranks have failed.

    `undone` says what did not happen.
    """
    told = "; ".join(f"rank {rank}: {message}" for rank, message in sorted(failures.items()))
    return RankFailedError(f"{undone}, because not every rank of the job succeeded: {told}", failures)


def described(error: BaseException) -> str:
    """Describe an error for another process, even if a user's error fails when its text is asked for."""
    try:
        text = str(error)
    except Exception as second:  # noqa: BLE001 - what failed is told all the same
        text = f"its text cannot be had ({type(second).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def encoded(error: BaseException, rank: int, undone: str) -> Document:
    """Encode an error for other ranks.

    An error of ours stays as it is. Any other error, and an error of a storage that rank `rank` met, becomes the
    failure of `rank`.
    """
    ours = isinstance(error, AtomicPathError) and type(error).__name__ in errors.__all__
    if not ours or isinstance(error, StorageError):
        error = failure_of({rank: described(error)}, undone)
    record = getattr(error, "record", None)
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "record": record.encode().decode("ascii") if isinstance(record, CommitRecord) else None,
        "failures": {str(rank): text for rank, text in getattr(error, "failures", {}).items()},
        "missing": list(getattr(error, "missing", ())),
    }


def decoded(document: Document) -> AtomicPathError:
    """Return the error that was passed to `encoded`, to be raised here."""
    kind: type[AtomicPathError] = getattr(errors, str(document["kind"]))
    message = str(document["message"])
    if issubclass(kind, RankFailedError):
        failures = cast("dict[str, str]", document["failures"])
        return kind(message, {int(rank): text for rank, text in failures.items()})
    if issubclass(kind, CoordinationTimeoutError):
        return kind(message, tuple(cast("list[int]", document["missing"])))
    if issubclass(kind, AlreadyCommittedError | ConflictError) and document["record"] is not None:
        return kind(message, CommitRecord.decode(str(document["record"]).encode(), where="what another rank met"))
    return kind(message)
