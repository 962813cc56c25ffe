"""Downloading a committed directory, itself as one atomic act."""

from __future__ import annotations

import os
from pathlib import Path

from .commit import Writing
from .commit_options import CommitOptions
from .completeness import is_rewritten
from .coordinators import SingleProcess
from .environment import current
from .errors import AtomicPathError, IntegrityError, NotCommittedError, ValidationError
from .inspect import load
from .layout import COMMIT_SUCCESS_FILE, is_pending
from .location import Location
from .manifest import digest, entries_of
from .record import CommitRecord, FileEntry, fingerprint
from .tasks import for_each

__all__ = ["get"]

_FILES_AT_ONCE = 16
_TRIES = 5


async def get(location: Location, local_dir: str | os.PathLike[str], *, verify: bool) -> Path:
    """Copy the committed directory at `location` to `local_dir`, which must not exist, and commit it there.

    If it is replaced meanwhile, that copy is thrown away and a new one begun.
    """
    for _ in range(_TRIES):
        record = (await load(location)).record
        try:
            return await _get(location, record, local_dir, verify=verify)
        except (IntegrityError, ValidationError):  # the second by a listing with a record that was not there before
            if not await _is_replaced(location, record):
                raise
        except _ReplacedError:
            continue
    raise NotCommittedError(
        f"{location} was replaced {_TRIES} times while it was read, and no copy was of one directory: get it again, or"
        " stop whoever commits there"
    )


class _ReplacedError(Exception):
    pass


async def _is_replaced(location: Location, record: CommitRecord | None) -> bool:
    after = (await load(location)).record
    return (after and after.token) != (record and record.token)


async def _get(
    location: Location, record: CommitRecord | None, local_dir: str | os.PathLike[str], *, verify: bool
) -> Path:
    storage = location.open()
    if storage.is_local and Path(os.path.abspath(os.fspath(local_dir))).is_relative_to(location.path):
        raise ValidationError(f"{local_dir} is inside {location}, the directory to copy: use another place")
    if record is None:
        listing = [entry for entry in await storage.list(location.path, recursive=True) if not is_pending(entry.name)]
        entries = entries_of(listing, str(location), own=COMMIT_SUCCESS_FILE)
    else:
        entries = record.files
    same_place = record is not None and record.place == fingerprint(record.token, location.place)
    writing = Writing(
        Path(os.path.abspath(os.fspath(local_dir))),
        CommitOptions(
            metadata=record.metadata if record else None,
            checksums=any(entry.sha256 for entry in entries),
            coordinator=SingleProcess(),  # every process of a job may fetch for itself
        ),
    )
    target = Path(str(await writing.begin()))
    try:

        async def one(entry: FileEntry) -> None:
            copy = target / entry.name
            await storage.environment.step(_make_parent, copy)
            found = await storage.download(location.child(entry.name).path, copy)
            if not verify:
                return
            if found.size != entry.size:
                raise IntegrityError(f"{location}/{entry.name} has {found.size} bytes, {entry.size} were committed")
            if is_rewritten(entry, found, same_place):
                raise IntegrityError(f"{location}/{entry.name} has been written again since it was committed")
            if entry.sha256 and await storage.environment.step(digest, current(), copy) != entry.sha256:
                raise IntegrityError(f"{location}/{entry.name} does not have the checksum that was committed")

        await for_each(entries, one, at_once=_FILES_AT_ONCE)
        if await _is_replaced(location, record):
            raise _ReplacedError
    except BaseException as error:
        await writing.abandon(error)
        if isinstance(error, FileNotFoundError) and not isinstance(error, AtomicPathError):
            raise IntegrityError(f"{location} lacks a file of its manifest: {error}") from error
        raise
    await writing.finish()
    return Path(writing.location.path)


def _make_parent(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
