"""From a listing to the manifest of a record: which files count, and their checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from .abc import Entry
from .environment import Environment
from .errors import ValidationError
from .layout import is_unfinished
from .record import FileEntry

__all__ = ["digest", "entries_of"]

_CHUNK = 1 << 20


def entries_of(listing: Iterable[Entry], where: str, *, own: str) -> tuple[FileEntry, ...]:
    """The files to record, without `own`, which is there for another reason.

    ValidationError for what is not a file, and for one by the name of another of our own.
    """
    files = []
    for entry in listing:
        if is_unfinished(entry.name):
            continue
        if entry.kind != "file":
            raise ValidationError(
                f"{entry.name!r} in {where} is {entry.kind}, which cannot be committed: what it points to or carries"
                " is not part of the directory. Put a file in its place"
            )
        if entry.name != own:
            files.append(FileEntry(name=entry.name, size=entry.size, etag=entry.version))
    return tuple(files)


def digest(environment: Environment, path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a local file, in hexadecimal."""
    state = hashlib.sha256()
    with environment.call(open, path, "rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()
