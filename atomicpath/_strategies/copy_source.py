"""What an attempt is begun from: the committed directory it is a copy of, or is added to."""

from __future__ import annotations

from dataclasses import dataclass

from atomicpath._core.layout import is_pending, is_reserved, is_unfinished
from atomicpath._core.record import CommitRecord, SnapshotBase
from atomicpath._core.text import few
from atomicpath._profile.location import Location
from atomicpath.abc import CopyingStorage, EntryKind, SnapshotType, Storage
from atomicpath.errors import ConflictError, GuaranteeError, IntegrityError, NotCommittedError, ValidationError

from .conflicts import standing_at

__all__ = ["COPY", "SnapshotSource", "check_snapshot", "has_copies", "origin_at", "pending_in"]

COPY = "copy"
"""What a record calls a copy that becomes another directory; the other ways are those of `SnapshotType`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSource:
    """The committed directory at `source`, and how an attempt is begun from it; `mode` is the directory's own."""

    source: Location
    base: SnapshotBase
    record: CommitRecord
    mode: int | None

    async def copy(self, storage: Storage, target: Location) -> None:
        """Copy the content of the source into the directory of an attempt.

        If the attempt is to be added, nothing is copied.
        """
        if has_copies(self.base):
            await _copy_committed(storage, self.source, self.record, target)


async def origin_at(storage: Storage, source: Location, snapshot: SnapshotType | None) -> SnapshotSource:
    """Return the source from which an attempt may begin.

    Raise NotCommittedError if there is none. Raise ValidationError if the source has no record, because only the record
    identifies the source later.
    """
    kind = await storage.kind(source.path)
    if kind is not EntryKind.DIRECTORY:
        raise NotCommittedError(
            f"there is nothing to make a snapshot of: {source} is {kind or 'missing'}. Commit it first"
        )
    standing = await standing_at(storage, source)
    if not standing.committed:
        raise NotCommittedError(
            f"a snapshot is made of a committed directory only: {source} is not one. Wait until it is committed"
        ) from standing.conflict(source)
    if standing.record is None:
        raise ValidationError(
            f"{source} was committed by another tool and has no record, by which it would be known again: put(...) it"
            " under another name first"
        )
    how = COPY if snapshot is None else snapshot.value
    pending = await pending_in(storage, source) if snapshot is SnapshotType.IN_PLACE else ()
    base = SnapshotBase(token=standing.record.token, snapshot=how, pending=pending)
    there = await storage.stat(source.path) if has_copies(base) else None
    return SnapshotSource(source=source, base=base, record=standing.record, mode=there.mode if there else None)


def has_copies(base: SnapshotBase | None) -> bool:
    """Tell whether an attempt began with the files of another directory."""
    return base is not None and base.snapshot != SnapshotType.EMPTY.value


def check_snapshot(temporary: Location, base: SnapshotBase | None, snapshot: SnapshotType | None) -> None:
    """Raise ValidationError unless an attempt that another object created is of this type."""
    made = None if base is None or base.snapshot == COPY else base.snapshot
    if made != (snapshot.value if snapshot else None):
        what = f"snapshot_type={SnapshotType(made)}" if made else "no snapshot_type"
        raise ValidationError(f"{temporary} was created with {what}: pass the same to from_temporary(...)")


async def pending_in(storage: Storage, final: Location) -> tuple[str, ...]:
    """Return the names of the directories that were added to a committed directory."""
    return tuple(entry.name for entry in await storage.list(final.path, recursive=False) if is_pending(entry.name))


async def _copy_committed(storage: Storage, source: Location, record: CommitRecord, target: Location) -> None:
    """Copy the files of a committed directory, and what was added to it, into one that exists.

    Its record and marker are left out, because they are of that commit. Raise IntegrityError if its files are not those
    of the manifest, and ConflictError if it was replaced or removed meanwhile.
    """
    try:
        listing = await storage.list(source.path, recursive=True)
        sizes = {entry.name: entry.size for entry in listing}
        for entry in listing:
            if entry.kind is not EntryKind.FILE:
                raise ValidationError(
                    f"{entry.name!r} in {source} is {entry.kind}, which cannot be copied: put a file in its place"
                )
        if damaged := [file.name for file in record.files if sizes.get(file.name) != file.size]:
            raise IntegrityError(
                f"{source} is not as it was committed ({few(damaged)}): a"
                " copy would pass for whole. verify(...) says what is wrong; restore it"
            )
        names = [name for name in sizes if not (is_reserved(name) or is_unfinished(name))]
        if not isinstance(storage, CopyingStorage):
            raise GuaranteeError(
                f"{type(storage).__name__} cannot copy files where they are: download the directory with get(...) and"
                " commit it with put(...)"
            )
        await storage.copy_files(source.path, target.path, names)
    except (OSError, IntegrityError) as error:
        if await _is_still(storage, source, record):
            raise
        raise _changed(source) from error
    if not await _is_still(storage, source, record):
        raise _changed(source)


async def _is_still(storage: Storage, source: Location, record: CommitRecord) -> bool:
    standing = await standing_at(storage, source)
    return standing.committed and standing.token == record.token


def _changed(source: Location) -> ConflictError:
    return ConflictError(
        f"{source} was replaced or removed while it was being copied; the copy was deleted. Make the snapshot again"
    )
