"""The only home of the names atomicpath reserves on storage, and of the rules for names there."""

from __future__ import annotations

import hashlib
import re

from atomicpath.errors import ValidationError

__all__ = [
    "ALIAS_SUFFIX",
    "COMMIT_SUCCESS_FILE",
    "DISCARDED_SUFFIX",
    "HOUSEKEEPING",
    "LEGACY_RECORD_FILE",
    "LOCK_SUFFIX",
    "METADATA_FILE",
    "PENDING_PREFIX",
    "PROBE_PREFIX",
    "RECORD_FILE",
    "RECORD_SUFFIX",
    "TMP_DIR_SUFFIX",
    "alias_of",
    "check_file_name",
    "check_marker",
    "discarded_of",
    "final_of",
    "housekeeping_of",
    "is_attempt_at",
    "is_discarded",
    "is_hidden",
    "is_in_housekeeping",
    "is_pending",
    "is_probe",
    "is_reserved",
    "is_temporary",
    "is_unfinished",
    "lock_of",
    "pending_of",
    "record_of",
    "temporary_of",
    "token_of",
]

HOUSEKEEPING = ".atomicpath"
"""The directory beside a final path that holds everything of ours that is not committed."""

TMP_DIR_SUFFIX = ".atomicpath-tmp-"
"""Between a final name and an attempt's token: the name of the rename strategy's temporary directory."""

RECORD_SUFFIX = ".json"
"""Added to an attempt's name: its record while it is being written. The file is locked as long as its writer lives."""

LOCK_SUFFIX = ".atomicpath-lock"
"""Added to a final name: the file that is locked while the committed directory is replaced or removed."""

ALIAS_SUFFIX = ".atomicpath-alias"
"""Added to a name: the note in the house-keeping directory of a store that an alias of that name may be in the root.

The alias itself is a record at its own name, so that it and a commit there exclude each other. By the notes one listing
tells which names to look at.
"""

DISCARDED_SUFFIX = ".discarded"
"""Added to a temporary name before it is deleted, so that a late writer's rename finds nothing."""

RECORD_FILE = "_commit_record.json"
"""The record: the attempt's whole life in one file, and the truth.

The name begins with "_" because readers of data sets (Arrow, Spark, Hive) skip such names.
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
_NAME_BYTES = 208  # of a final name in an attempt's: at most 255 with dot, suffix, token and ".discarded"
_HASH = 16  # hexadecimal digits
_SHORTENED = re.compile(rf"~[0-9a-f]{{{_HASH}}}\Z")


def housekeeping_of(final: str) -> str:
    """Return the path of the house-keeping directory beside `final`."""
    head, separator, _ = final.rpartition("/")
    return f"{head}{separator}{HOUSEKEEPING}"


def temporary_of(final: str, token: str, *, hidden: bool = False) -> str:
    """Return the path of the attempt `token` at `final`.

    Args:
        final: The final path.
        token: The attempt's token.
        hidden: Use a hidden sibling of `final`, for mounts that cannot rename out of the house-keeping directory.
    """
    return _kept(final, f"{TMP_DIR_SUFFIX}{token}", hidden)


def lock_of(final: str, *, hidden: bool = False) -> str:
    """Return the path of the file that is locked while the directory at `final` is replaced or removed."""
    return _kept(final, LOCK_SUFFIX, hidden)


def alias_of(final: str) -> str:
    """Return the path of the note that an alias may be at `final`."""
    return _kept(final, ALIAS_SUFFIX, hidden=False)


def discarded_of(final: str, token: str, *, hidden: bool = False) -> str:
    """Return the path to which a directory of `final` is moved before it is deleted."""
    return f"{temporary_of(final, token, hidden=hidden)}{DISCARDED_SUFFIX}"


def record_of(temporary: str) -> str:
    """Return the path of an attempt's record while it is being written: a file beside its directory."""
    return f"{temporary}{RECORD_SUFFIX}"


def is_hidden(temporary: str) -> bool:
    """Tell whether a temporary path is a hidden sibling of its final path."""
    return temporary.rpartition("/")[2].startswith(".") and not is_in_housekeeping(temporary)


def final_of(temporary: str) -> str:
    """Return the final path of a temporary one.

    It understands attempts in the house-keeping directory, hidden siblings, and plain siblings, which an older version
    made.

    Raises:
        ValidationError: (a ValueError) The name has no suffix, or it was shortened, so that only its record tells.
    """
    parent, name = _taken_apart(temporary)
    if not name:
        raise ValidationError(f"{temporary!r} is not a temporary path: its name has no {TMP_DIR_SUFFIX!r} in it")
    if _is_shortened(name):
        raise ValidationError(
            f"{temporary!r} stands for a final name that was too long to repeat: only the attempt's record tells it."
            " Begin from the final path instead: from_final(...)"
        )
    return f"{parent}/{name}" if parent or temporary.startswith("/") else name


def is_in_housekeeping(path: str) -> bool:
    """Tell whether a path is right below a house-keeping directory."""
    return path.rpartition("/")[0].rpartition("/")[2] == HOUSEKEEPING


def is_attempt_at(temporary: str, final_name: str) -> bool:
    """Tell whether the name of a temporary path is that of an attempt at `final_name` (or of one of equal hash)."""
    return _taken_apart(temporary)[1] == _shortened(final_name)


def token_of(temporary: str) -> str:
    """Return the token in the name of an attempt's directory or record.

    The token of a discarded directory need not be that of its record.
    """
    tail = temporary.rpartition("/")[2].removesuffix(RECORD_SUFFIX)
    return tail.partition(TMP_DIR_SUFFIX)[2].removesuffix(DISCARDED_SUFFIX)


def is_discarded(name: str) -> bool:
    """Tell whether a temporary name says that what is below it belongs to nobody any more."""
    return TMP_DIR_SUFFIX in name and name.endswith(DISCARDED_SUFFIX)


def _kept(final: str, suffix: str, hidden: bool) -> str:
    head, separator, name = final.rpartition("/")
    place = "." if hidden else f"{HOUSEKEEPING}/"
    return f"{head}{separator}{place}{_shortened(name)}{suffix}"


def _shortened(name: str) -> str:
    """Return a name that leaves room for a suffix.

    A long name is cut, and ends in a hash of the whole name.
    """
    data = name.encode("utf-8", "surrogateescape")
    if len(data) <= _NAME_BYTES:
        return name
    kept = data[: _NAME_BYTES - _HASH - 1].decode("utf-8", "ignore")
    return f"{kept}~{hashlib.sha256(data).hexdigest()[:_HASH]}"


def _is_shortened(name: str) -> bool:
    size = len(name.encode("utf-8", "surrogateescape"))
    return _NAME_BYTES - 3 <= size <= _NAME_BYTES and _SHORTENED.search(name) is not None  # a character has 4 bytes


def _taken_apart(temporary: str) -> tuple[str, str]:
    """Return the parent and the name of a temporary path's final one.

    The name is empty if the path is no temporary one.
    """
    head, tail = temporary.rpartition("/")[::2]
    name, suffix, _ = tail.partition(TMP_DIR_SUFFIX)
    if not suffix:
        return head, ""
    above, _, last = head.rpartition("/")
    return (above, name) if last == HOUSEKEEPING else (head, name.removeprefix("."))


def is_probe(name: str) -> bool:
    """Tell whether `name` was made by a probe, or is an unfinished file of a local write, such as a probe's."""
    return name.startswith((PROBE_PREFIX, TMP_DIR_SUFFIX))


def pending_of(final: str, token: str) -> str:
    """Return the path at which the attempt `token` adds its directory to the committed one at `final`."""
    return f"{final}/{PENDING_PREFIX}{token}"


def is_pending(name: str) -> bool:
    """Tell whether `name` is a directory that was added to a committed one, or a file of it.

    `name` is relative to the committed directory.
    """
    return name.startswith(PENDING_PREFIX)


def is_temporary(path: str) -> bool:
    """Tell whether any component of `path` is an attempt's or a probe's.

    Nothing below such a component is ever committed.
    """
    return HOUSEKEEPING in path and any(  # all of them begin with it
        part == HOUSEKEEPING or TMP_DIR_SUFFIX in part or part.startswith(PROBE_PREFIX) for part in path.split("/")
    )


def is_reserved(name: str) -> bool:
    """Tell whether `name`, relative to a committed directory, is one that atomicpath itself writes there."""
    return name in (RECORD_FILE, COMMIT_SUCCESS_FILE)


def is_unfinished(name: str) -> bool:
    """Tell whether `name`, relative to a committed directory, is an unfinished file of a local write.

    Such a file does not have its own name yet. A process that was killed leaves it behind, and a process that is at
    work may have one there. It is never content.
    """
    return name.rpartition("/")[2].startswith(TMP_DIR_SUFFIX)


def check_marker(name: str) -> str:
    """Return `name`, if a marker file may have it.

    Raises:
        ValidationError: It is not the name of a file right in the directory, or atomicpath needs it for something else.
    """
    if "/" in name:
        raise ValidationError(f"marker={name!r} must be the name of a file right in the directory, without '/'")
    if name in (LEGACY_RECORD_FILE, METADATA_FILE):
        raise ValidationError(f"marker={name!r} is the name of another file of ours: use a name such as '_SUCCESS'")
    return name if name == COMMIT_SUCCESS_FILE else check_file_name(name)


def check_file_name(name: str) -> str:
    """Return `name` if a file in a committed directory may have it; else raise ValidationError.

    The name is relative, has "/" between its parts, stays inside the directory, is no longer than an object store's
    key, and is not one of our own.
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
    elif HOUSEKEEPING in name.split("/"):
        reason = f"{HOUSEKEEPING!r} holds attempts that have not committed: finish or discard them first"
    elif is_unfinished(name):
        reason = f"names that begin with {TMP_DIR_SUFFIX!r} are of files that atomicpath has not finished"
    elif len(name.encode("utf-8", "surrogateescape")) > _OBJECT_KEY_BYTES:
        reason = f"it is longer than {_OBJECT_KEY_BYTES} bytes"
    if reason:
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise ValidationError(f"{shown!r} cannot be the name of a file in a committed directory: {reason}")
    return name
