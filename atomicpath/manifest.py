"""From a listing to the manifest of a record: which files count, and their checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

from .abc import Entry, Storage
from .environment import Environment
from .errors import ValidationError
from .layout import RECORD_FILE, is_unfinished
from .record import FileEntry

__all__ = ["digest", "entries_of", "manifest_of"]

_CHUNK = 1 << 20


def entries_of(
    listing: Iterable[Entry], where: str, *, reserved: Sequence[str | None] = (RECORD_FILE,), own: str | None = None
) -> tuple[FileEntry, ...]:
    """Return the files to record, without `own`, which is there for another reason.

    Raises:
        ValidationError: Something is not a file, or has a `reserved` name or another of our own.
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
        if entry.name in reserved and entry.name != own:
            raise ValidationError(
                f"{entry.name!r} in {where} has a name that atomicpath writes itself: give your own file another name"
            )
        if entry.name != own:
            files.append(FileEntry(name=entry.name, size=entry.size, etag=entry.version))
    return tuple(files)


async def manifest_of(
    storage: Storage,
    directory: str,
    listing: Iterable[Entry],
    *,
    reserved: Sequence[str | None] = (RECORD_FILE,),
    own: str | None = None,
    checksums: bool,
) -> tuple[FileEntry, ...]:
    """Return the manifest of a directory that has just been listed; it is read once more for `checksums`."""
    files = entries_of(listing, directory, reserved=reserved, own=own)
    if not checksums:
        return files
    if not storage.is_local:
        raise ValidationError("checksums need the files at hand: use staging (direct=False), or leave checksums out")
    environment = storage.environment
    hashes = [await environment.step(digest, environment, f"{directory}/{file.name}") for file in files]
    return tuple(replace(file, sha256=found) for file, found in zip(files, hashes, strict=True))


def digest(environment: Environment, path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a local file, in hexadecimal."""
    state = hashlib.sha256()
    with environment.call(open, path, "rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()
