"""From a listing to the manifest of a record: which files count, and their checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from .abc import Entry
from .environment import Environment
from .errors import ValidationError
from .layout import TMP_DIR_SUFFIX, is_reserved
from .record import FileEntry

__all__ = ["digest", "entries_of"]

_CHUNK = 1 << 20


def entries_of(listing: Iterable[Entry], where: str) -> tuple[FileEntry, ...]:
    """The files to record; our own are left out, and what is not a file is refused with ValidationError."""
    files = []
    for entry in listing:
        if entry.name.startswith(TMP_DIR_SUFFIX):
            continue  # a backend's own unfinished file, of a rival who tries to claim the record
        if entry.kind != "file":
            raise ValidationError(
                f"{entry.name!r} in {where} is {entry.kind}, which cannot be committed: what it points to or carries"
                " is not part of the directory. Put a file in its place"
            )
        if not is_reserved(entry.name):
            files.append(FileEntry(name=entry.name, size=entry.size, etag=entry.version))
    return tuple(files)


def digest(environment: Environment, path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a local file, in hexadecimal."""
    state = hashlib.sha256()
    with environment.call(open, path, "rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()
