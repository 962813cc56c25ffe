"""Downloading a committed directory, itself as one atomic act."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from atomicpath._core.environment import Environment, current
from atomicpath._core.free_space import is_full, stored_size
from atomicpath._core.layout import COMMIT_SUCCESS_FILE, is_pending
from atomicpath._core.record import CommitRecord, FileEntry
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.fingerprint import is_original
from atomicpath._profile.location import Location, locate
from atomicpath._strategies.manifest import digest, entries_of
from atomicpath.coordinators import SingleProcess
from atomicpath.errors import AtomicPathError, CommitError, IntegrityError, NotCommittedError, ValidationError

from .completeness import is_rewritten
from .options import CommitOptions
from .readers import find, load
from .session import CommitSession, expect_room_at
from .sources import copy_directories

__all__ = ["get"]

_FILES_AT_ONCE = 16
_TRIES = 5
_PATIENCE = 30.0  # seconds that a directory which is replaced again and again is read again


async def get(location: Location, local_dir: Path, *, verify: bool) -> Path:
    """Copy the committed directory at `location` to `local_dir`, which must not exist, and commit it there.

    If it is replaced meanwhile, that copy is thrown away and a new one begun.
    """
    environment = location.open().environment
    ends = environment.monotonic() + _PATIENCE
    tries = 0
    while tries < _TRIES or environment.monotonic() < ends:
        tries += 1
        place, commit = await find(location)
        record = commit.record
        try:
            return await _get(place, record, local_dir, verify=verify)
        except (IntegrityError, ValidationError, NotCommittedError):  # the second by a listing with a new record
            if not await _is_replaced(location, record):
                raise
        except _ReplacedError:
            continue
    raise CommitError(
        f"{location} is replaced faster than it can be copied: {tries} copies in {_PATIENCE:.0f} s were of no one"
        f" directory, and {local_dir} was not committed. Get it again, or pause whoever commits there"
    )


class _ReplacedError(Exception):
    pass


async def _is_replaced(location: Location, record: CommitRecord | None) -> bool:
    after = (await load(location)).record
    return (after and after.token) != (record and record.token)


async def _get(location: Location, record: CommitRecord | None, local_dir: Path, *, verify: bool) -> Path:
    storage = location.open()
    if storage.is_local and local_dir.is_relative_to(location.path):
        raise ValidationError(f"{local_dir} is inside {location}, the directory to copy: use another place")
    if record is None:
        listing = [entry for entry in await storage.list(location.path, recursive=True) if not is_pending(entry.name)]
        entries = entries_of(listing, str(location), own=COMMIT_SUCCESS_FILE)
    else:
        entries = record.files
    await expect_room_at(
        locate(local_dir),
        await storage.environment.step(_stored, storage.environment, location, entries)
        if storage.is_local
        else sum(entry.size for entry in entries),
    )
    writing = CommitSession(
        local_dir,
        CommitOptions(
            metadata=record.metadata if record else None,
            checksums=any(entry.sha256 for entry in entries),
            coordinator=SingleProcess(),  # every process of a job may fetch for itself
            allow_empty=True,
            allow_unfinished=True,
        ),
    )
    target = Path(str(await writing.begin()))
    try:
        original = record is not None and await is_original(storage, location, record)

        async def one(entry: FileEntry) -> None:
            copy = target / entry.name
            await storage.environment.step(_make_parent, copy)
            found = await storage.download(location.child(entry.name).path, copy)
            if not verify:
                return
            if found.size != entry.size:
                raise IntegrityError(f"{location}/{entry.name} has {found.size} bytes, {entry.size} were committed")
            if is_rewritten(entry, found, original):
                raise IntegrityError(f"{location}/{entry.name} has been written again since it was committed")
            if entry.sha256 and await storage.environment.step(digest, current(), copy) != entry.sha256:
                raise IntegrityError(f"{location}/{entry.name} does not have the checksum that was committed")

        await map_concurrently(entries, one, at_once=_FILES_AT_ONCE)
        if storage.is_local:
            await copy_directories(storage, Path(location.path), target, top=True)
        if await _is_replaced(location, record):
            raise _ReplacedError
    except BaseException as error:
        await writing.abandon(error)
        if isinstance(error, FileNotFoundError) and not isinstance(error, AtomicPathError):
            raise IntegrityError(f"{location} lacks a file of its manifest: {error}") from error
        if isinstance(error, OSError) and is_full(error):
            raise writing.failed(error) from error
        raise
    await writing.finish()
    return Path(writing.location.path)


def _stored(environment: Environment, location: Location, entries: Sequence[FileEntry]) -> int:
    """What the files of a local directory take on its disk: those with holes take less than their sizes say."""
    total = 0
    for entry in entries:
        with suppress(OSError):  # a missing file is for the copy to report
            total += stored_size(environment.call(os.lstat, f"{location.path}/{entry.name}"))
    return total


def _make_parent(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
