"""Comparing what is stored in a committed directory with its manifest: names, sizes, versions, checksums."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from atomicpath._core.layout import LEGACY_RECORD_FILE, RECORD_FILE, is_pending, is_reserved, is_unfinished
from atomicpath._core.record import CommitRecord, FileEntry
from atomicpath._core.tasks import map_concurrently
from atomicpath._core.text import few
from atomicpath._profile.fingerprint import is_original
from atomicpath._profile.location import Location
from atomicpath._strategies.manifest import digest
from atomicpath.abc import Entry, EntryKind, Storage
from atomicpath.errors import IntegrityError, ValidationError

from .meter import Meter, Progress

__all__ = ["Commit", "Verification", "compare", "damaged", "is_rewritten", "is_whole"]

_FILES_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A complete directory.

    `record` is None if another tool committed it and left only its marker; and as the result of a commit in every rank
    of a job but the primary, which alone wrote it: `read_record(url)` reads it.

    `step` is `metadata["step"]` of its record if that is an integer, else what its name tells (`step_100`,
    `checkpoint-100`, `100`), else None; with `step=` what that tells.
    """

    path: UPath
    name: str
    record: CommitRecord | None
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How a committed directory compares with its manifest, by file name; `altered` includes the truncated."""

    missing: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if the directory is exactly what was committed."""
        return not (self.missing or self.altered or self.extra)

    def __str__(self) -> str:
        found = [(what, names) for what in ("missing", "altered", "extra") if (names := getattr(self, what))]
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in found) or "as committed"


async def compare(
    storage: Storage,
    location: Location,
    record: CommitRecord | None,
    *,
    checksums: bool,
    progress: Progress | None = None,
) -> Verification:
    """List the directory and compare it with its record.

    With `checksums`, read every file too, and call `progress` after each.
    """
    if record is None:
        raise IntegrityError(
            f"{location} was committed by another tool, without a manifest: there is nothing to compare"
        )
    if checksums and any(entry.sha256 is None for entry in record.files):
        raise ValidationError(
            f"{location} was committed without checksums: commit with checksums=True, or compare sizes"
        )
    listing = {entry.name: entry for entry in await storage.list(location.path, recursive=True)}
    wanted = {entry.name: entry for entry in record.files}
    original = await is_original(storage, location, record)
    altered = {name for name, entry in wanted.items() if name in listing and _differs(entry, listing[name], original)}
    if checksums:
        unread = [entry for name, entry in wanted.items() if name in listing and name not in altered]
        meter = Meter(progress, sum(entry.size for entry in unread))

        async def one(entry: FileEntry) -> str:
            found = await _sha256(storage, location.child(entry.name))
            meter.add(entry.size)
            return found

        hashes = await map_concurrently(unread, one, at_once=_FILES_AT_ONCE)
        altered |= {entry.name for entry, found in zip(unread, hashes, strict=True) if found != entry.sha256}
    ours = {name for name in listing if is_reserved(name) or is_unfinished(name) or is_pending(name)}
    if record.marker is not None:
        ours.add(record.marker)
    if RECORD_FILE not in listing:
        ours.add(LEGACY_RECORD_FILE)
    return Verification(
        missing=tuple(sorted(wanted.keys() - listing.keys())),
        altered=tuple(sorted(altered)),
        extra=tuple(sorted(listing.keys() - wanted.keys() - ours)),
    )


async def is_whole(storage: Storage, location: Location, record: CommitRecord) -> str:
    """Return why a directory with a committed record is not complete; "" if it is complete.

    The original directory is always complete, because its commit was one step. A copy may have been interrupted, so its
    names and sizes are compared.
    """
    if await is_original(storage, location, record):
        return ""
    found = damaged(record, await storage.list(location.path, recursive=True))
    if not found:
        return ""
    return (
        f"it is a copy of a committed directory, and not complete: {len(found)} of its {len(record.files)} files are"
        f" missing or have another size ({few(found)}). Copy it again, or delete it"
    )


def damaged(record: CommitRecord, listing: Iterable[Entry]) -> list[str]:
    """Return the files of a manifest that a listing does not show, or shows with another size."""
    sizes = {entry.name: entry.size for entry in listing if entry.kind is EntryKind.FILE}
    return [file.name for file in record.files if sizes.get(file.name) != file.size]


def is_rewritten(wanted: FileEntry, found: Entry, original: bool) -> bool:
    """Tell whether a file has another version than the committed one.

    Versions tell only in the original directory, where the storage gave them.
    """
    return original and None not in (wanted.etag, found.version) and wanted.etag != found.version


def _differs(wanted: FileEntry, found: Entry, original: bool) -> bool:
    return found.kind is not EntryKind.FILE or found.size != wanted.size or is_rewritten(wanted, found, original)


async def _sha256(storage: Storage, file: Location) -> str:
    environment = storage.environment
    if storage.is_local:
        return await environment.step(digest, environment, file.path)
    with tempfile.TemporaryDirectory(prefix="atomicpath-verify-") as directory:
        copy = Path(directory) / "file"
        await storage.download(file.path, copy)
        return await environment.step(digest, environment, copy)
