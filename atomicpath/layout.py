"""The only home of the names atomicpath reserves on storage, and of the rules for names there."""

from __future__ import annotations

from .errors import ValidationError

__all__ = [
    "COMMIT_SUCCESS_FILE",
    "DISCARDED_SUFFIX",
    "LEGACY_RECORD_FILE",
    "METADATA_FILE",
    "PENDING_PREFIX",
    "PROBE_PREFIX",
    "RECORD_FILE",
    "TMP_DIR_SUFFIX",
    "check_file_name",
    "discarded_of",
    "final_of",
    "is_discarded",
    "is_pending",
    "is_probe",
    "is_reserved",
    "is_temporary",
    "is_unfinished",
    "pending_of",
    "temporary_of",
    "token_of",
]

TMP_DIR_SUFFIX = ".atomicpath-tmp-"
"""Between a final path and an attempt's token: the name of the rename strategy's temporary directory."""

DISCARDED_SUFFIX = ".discarded"
"""Added to a temporary name before it is deleted, so that a late writer's rename finds nothing."""

RECORD_FILE = "_commit_record.json"
"""The record: the attempt's whole life in one file, and the truth.

The name begins with "_" because readers of data sets (Arrow, Spark, Hive, polars) skip such names.
"""

LEGACY_RECORD_FILE = "commit_record.json"
"""The record's name before format 1 was final. Readers and `sweep` still find it; nothing writes it."""

COMMIT_SUCCESS_FILE = "commit_success.txt"
"""The marker the field knows; it exists only in a committed directory."""

METADATA_FILE = "_CHECKPOINT_METADATA"
"""Where a metadata store writes `StepMetadata`."""

PROBE_PREFIX = ".atomicpath-probe-"
"""Start of every name a probe creates, beside the target."""

PENDING_PREFIX = ".atomicpath-pending-"
"""Start of the name, in a committed directory, of one that was added to it: committed itself, and no part of it."""

_OBJECT_KEY_BYTES = 1024  # the longest key of S3, GCS and Azure


def temporary_of(final: str, token: str) -> str:
    """The temporary sibling of `final` for the attempt `token`."""
    return f"{final}{TMP_DIR_SUFFIX}{token}"


def final_of(temporary: str) -> str:
    """The final path of a temporary one; ValidationError (a ValueError) for a name without the suffix."""
    head, tail = temporary.rpartition("/")[::2]
    name, suffix, _ = tail.partition(TMP_DIR_SUFFIX)
    if not (suffix and name):
        raise ValidationError(f"{temporary!r} is not a temporary path: its name has no {TMP_DIR_SUFFIX!r} in it")
    return f"{head}/{name}" if head or temporary.startswith("/") else name


def token_of(temporary: str) -> str:
    """The token in the name of an attempt's temporary directory; of a discarded one it need not be the record's."""
    return temporary.rpartition("/")[2].partition(TMP_DIR_SUFFIX)[2].removesuffix(DISCARDED_SUFFIX)


def discarded_of(final: str, token: str) -> str:
    """A discarded temporary name for `final`, no longer than an attempt's, so that it fits where those did."""
    return f"{final}{TMP_DIR_SUFFIX}{token[: -len(DISCARDED_SUFFIX)]}{DISCARDED_SUFFIX}"


def is_discarded(name: str) -> bool:
    """Whether a temporary name says that what is below it is nobody's any more."""
    return TMP_DIR_SUFFIX in name and name.endswith(DISCARDED_SUFFIX)


def is_probe(name: str) -> bool:
    """Whether `name` is of what a probe made, or of a file that a local write, such as a probe's, has not finished."""
    return name.startswith((PROBE_PREFIX, TMP_DIR_SUFFIX))


def pending_of(final: str, token: str) -> str:
    """Where the attempt `token` adds its directory to the committed one at `final`."""
    return f"{final}/{PENDING_PREFIX}{token}"


def is_pending(name: str) -> bool:
    """Whether `name`, relative to a committed directory, is of one that was added to it, or of a file of that."""
    return name.startswith(PENDING_PREFIX)


def is_temporary(path: str) -> bool:
    """Whether any component of `path` is an attempt's or a probe's: nothing below one is ever committed."""
    return any(TMP_DIR_SUFFIX in part or part.startswith(PROBE_PREFIX) for part in path.split("/"))


def is_reserved(name: str) -> bool:
    """Whether `name`, relative to a committed directory, is one that atomicpath itself writes there."""
    return name in (RECORD_FILE, COMMIT_SUCCESS_FILE)


def is_unfinished(name: str) -> bool:
    """Whether `name`, relative to a committed directory, is of a file that a local write has yet to give its name.

    A process killed in between leaves it behind, and one that is at work may have one there: never content.
    """
    return name.rpartition("/")[2].startswith(TMP_DIR_SUFFIX)


def check_file_name(name: str) -> str:
    """`name`, if it may be that of a file in a committed directory; else ValidationError.

    It is relative, has "/" between its parts, stays inside the directory, is no longer than an object
    store's key, and is not one of our own.
    """
    reason = None
    if not name:
        reason = "it is empty"
    elif name.startswith("/") or "\\" in name:
        reason = "it must be relative, with '/' between its parts"
    elif any(part in ("", ".", "..") for part in name.split("/")):
        reason = "it has an empty part, '.' or '..' in it"
    elif "\0" in name:
        reason = "it has a NUL in it"
    elif is_reserved(name):
        reason = "atomicpath writes a file of that name itself"
    elif is_pending(name):
        reason = f"names that begin with {PENDING_PREFIX!r} are of directories that were added to it, not part of it"
    elif is_unfinished(name):
        reason = f"names that begin with {TMP_DIR_SUFFIX!r} are of files that atomicpath has not finished"
    elif len(name.encode("utf-8", "surrogateescape")) > _OBJECT_KEY_BYTES:
        reason = f"it is longer than {_OBJECT_KEY_BYTES} bytes"
    if reason:
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise ValidationError(f"{shown!r} cannot be the name of a file in a committed directory: {reason}")
    return name
