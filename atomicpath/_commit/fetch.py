"""Copying a committed directory, to this host or to another store, itself as one atomic act."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from atomicpath._core.environment import Environment, current, shielded
from atomicpath._core.free_space import is_full, stored_size
from atomicpath._core.layout import COMMIT_SUCCESS_FILE, is_pending
from atomicpath._core.record import CommitRecord, FileEntry
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.abilities import need
from atomicpath._profile.fingerprint import is_original
from atomicpath._profile.location import Location, PathLike, locate
from atomicpath._strategies.atomic_rename import AtomicRenameTemporaryPath
from atomicpath._strategies.manifest import digest, entries_of
from atomicpath.abc import CopyingStorage, Entry, StaleVersionError, Storage
from atomicpath.coordinators import SingleProcess
from atomicpath.errors import AtomicPathError, CommitError, IntegrityError, NotCommittedError, ValidationError
from atomicpath.guarantees import Guarantee
from atomicpath.storage.budget import Budget

from .completeness import is_rewritten
from .meter import Meter, Progress
from .options import CommitOptions
from .readers import find, load
from .session import CommitSession, expect_room_at
from .sources import copy_directories
from .staging import Staging

__all__ = ["copy", "get"]

_TRIES = 5
_PATIENCE = 30.0  # seconds for which a directory that is replaced again and again is read again
_LOCAL_SPACE = 1 << 30  # bytes in transit from one store to another at once, or one larger file


async def get(location: Location, local_dir: Path, *, verify: bool, progress: Progress | bool | None = None) -> Path:
    """Copy the committed directory at `location` to `local_dir`, which must not exist, and commit it there."""
    # every process of a job may fetch for itself
    options = CommitOptions(coordinator=SingleProcess(), progress=progress)
    session = await copy(location, local_dir, options, verify=verify)
    return Path(session.location.path)


async def copy(location: Location, url: PathLike, options: CommitOptions, *, verify: bool = True) -> CommitSession:
    """Commit a copy of the committed directory at `location`, and return the session that did it.

    If the directory is replaced meanwhile, that copy is thrown away and a new one is begun. An alias is followed.
    """
    environment = location.open().environment
    ends = environment.monotonic() + _PATIENCE
    tries = 0
    while tries < _TRIES or environment.monotonic() < ends:
        tries += 1
        place, commit = await find(location)
        try:
            return await _copy(_Source.of(place, commit.record, verify=verify), url, options)
        except (IntegrityError, ValidationError, NotCommittedError):  # the second by a listing with a new record
            if not await _is_replaced(location, commit.record):
                raise
        except _ReplacedError:
            continue
    raise CommitError(
        f"{location} is replaced faster than it can be copied: {tries} copies in {_PATIENCE:.0f} s were of no one"
        f" directory, and {locate(url, options.storage_options)} was not committed. Try again, or pause whoever commits"
        " there"
    )


class _ReplacedError(Exception):
    pass


async def _is_replaced(location: Location, record: CommitRecord | None) -> bool:
    after = (await load(location)).record
    return (after and after.token) != (record and record.token)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A committed directory to copy: where it is, and its record, where there is one. `verify`: against that."""

    place: Location
    storage: Storage
    record: CommitRecord | None
    verify: bool

    @classmethod
    def of(cls, place: Location, record: CommitRecord | None, *, verify: bool) -> Self:
        return cls(place=place, storage=place.open(), record=record, verify=verify)

    async def entries(self) -> Sequence[FileEntry]:
        """Return the files of the manifest.

        For a directory that another tool committed, return the files that are there.
        """
        if self.record is not None:
            return self.record.files
        listing = await self.storage.list(self.place.path, recursive=True)
        own = [entry for entry in listing if not is_pending(entry.name)]
        return entries_of(own, str(self.place), own=COMMIT_SUCCESS_FILE)

    async def is_original(self) -> bool:
        """Tell whether the versions in the manifest are of this place."""
        return self.record is not None and await is_original(self.storage, self.place, self.record)

    async def download(self, entry: FileEntry, copy: Path, *, original: bool) -> None:
        """Download one file; raise IntegrityError if it is not what was committed."""
        try:
            found = await self.storage.download(self.place.child(entry.name).path, copy)
        except StaleVersionError as error:
            raise IntegrityError(f"{self.place}/{entry.name} was written again while it was fetched") from error
        await self.expect(entry, found, copy, original=original)

    async def expect(self, entry: FileEntry, found: Entry, copy: Path, *, original: bool) -> None:
        """Raise IntegrityError unless a file that was `found` at the source, and is at `copy`, is as committed."""
        if not self.verify:
            return
        name = f"{self.place}/{entry.name}"
        if found.size != entry.size:
            raise IntegrityError(f"{name} has {found.size} bytes, {entry.size} were committed")
        if is_rewritten(entry, found, original):
            raise IntegrityError(f"{name} has been written again since it was committed")
        if entry.sha256 and await self.storage.environment.step(digest, current(), copy) != entry.sha256:
            raise IntegrityError(f"{name} does not have the checksum that was committed")


async def _copy(source: _Source, url: PathLike, options: CommitOptions) -> CommitSession:
    entries = await source.entries()
    record = source.record
    given = replace(
        options,
        metadata=record.metadata if record and options.metadata is None else options.metadata,
        checksums=options.checksums or any(entry.sha256 for entry in entries),
        allow_empty=True,
        allow_unfinished=True,
        copied_from=record.token if record else "",
    )
    target = given.final(url)
    in_store = await _copies_by_itself(source, target, entries, given)
    session = CommitSession(url, replace(given, direct=in_store))
    is_local = target.open().is_local
    try:
        if is_local:
            await _expect_room(source, target, entries)
        path = await session.begin(source=not (is_local or in_store))
        if session.is_primary and not session.is_kept:
            done = Meter(given.callback(), sum(entry.size for entry in entries))
            if is_local:
                await _to_disk(source, Path(str(path)), entries, done)
            elif in_store:
                await _in_store(source, locate(path), entries)
            else:
                await _to_store(source, session, entries, done, given.staging_dir)
            if await _is_replaced(source.place, record):
                raise _ReplacedError
    except BaseException as error:
        await session.abandon(error)
        if isinstance(error, FileNotFoundError) and not isinstance(error, AtomicPathError):
            raise IntegrityError(f"{source.place} lacks a file of its manifest: {error}") from error
        if isinstance(error, OSError) and is_full(error):
            raise session.failed(error) from error
        raise
    await session.finish()
    return session


async def _copies_by_itself(
    source: _Source, target: Location, entries: Sequence[FileEntry], options: CommitOptions
) -> bool:
    """Tell whether one store has both directories and copies files itself, into a directory to rename.

    By the commit-file strategy, files are created under an attempt's own name, which such a copy cannot do. Checksums
    are verified by reading.
    """
    one = source.place
    same = (type(one.backend), one.storage_options) == (type(target.backend), target.storage_options)
    if source.storage.is_local or not same or any(entry.sha256 for entry in entries) or options.checksums:
        return False
    if not isinstance(source.storage, CopyingStorage):
        return False
    strategy, _ = await options.strategy(target, is_local=False)
    return issubclass(strategy, AtomicRenameTemporaryPath)


async def _expect_room(source: _Source, target: Location, entries: Sequence[FileEntry]) -> None:
    storage, place = source.storage, source.place
    if storage.is_local and Path(target.path).is_relative_to(place.path):
        raise ValidationError(f"{target} is inside {place}, the directory to copy: use another place")
    needed = sum(entry.size for entry in entries)
    if storage.is_local:
        needed = await storage.environment.step(_stored, storage.environment, place, entries)
    await expect_room_at(target, needed)


async def _to_disk(source: _Source, target: Path, entries: Sequence[FileEntry], done: Meter) -> None:
    storage, original = source.storage, await source.is_original()
    await storage.environment.step(_make_parents, target, entries)

    async def one(entry: FileEntry) -> None:
        copy = target / entry.name
        await source.download(entry, copy, original=original)
        done.add(entry.size)

    await map_concurrently(entries, one, at_once=storage.files_at_once)
    if storage.is_local:
        await copy_directories(storage, Path(source.place.path), target, top=True)


async def _in_store(source: _Source, target: Location, entries: Sequence[FileEntry]) -> None:
    storage = need(source.storage, CopyingStorage, Guarantee.ATOMIC_RENAME)
    await storage.copy_files(source.place.path, target.path, [entry.name for entry in entries])
    sizes = {entry.name: entry.size for entry in await storage.list(target.path, recursive=True)}
    for entry in entries:
        if source.verify and sizes.get(entry.name) != entry.size:
            found = sizes.get(entry.name, "no")
            raise IntegrityError(f"{source.place}/{entry.name} has {found} bytes, {entry.size} were committed")


async def _to_store(
    source: _Source, session: CommitSession, entries: Sequence[FileEntry], done: Meter, staging_dir: PathLike | None
) -> None:
    """Copy file by file through this host.

    Files that are already on this host are not copied to its disk first.
    """
    storage, original = source.storage, await source.is_original()
    environment = storage.environment
    staging, space = Staging(environment, staging_dir), Budget(_LOCAL_SPACE, storage.files_at_once)

    async def from_disk(entry: FileEntry) -> None:
        path = source.place.child(entry.name).path
        found = await storage.stat(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        await source.expect(entry, found, Path(path), original=original)
        await session.add(entry.name, Path(path))
        done.add(entry.size)

    async def streamed(numbered: tuple[int, FileEntry]) -> None:
        number, entry = numbered
        async with space.hold(entry.size):
            copy = staged / str(number)
            await source.download(entry, copy, original=original)
            await session.add(entry.name, copy)
            await environment.step(os.unlink, copy)
        done.add(entry.size)

    if storage.is_local:
        await map_concurrently(entries, from_disk, at_once=storage.files_at_once)
        return
    try:
        staged = await staging.create()
        await map_concurrently(list(enumerate(entries)), streamed, at_once=storage.files_at_once)
    finally:
        with shielded():
            await staging.remove()


def _stored(environment: Environment, location: Location, entries: Sequence[FileEntry]) -> int:
    """Return the number of bytes that the files of a local directory take on its disk.

    Files with holes take less than their sizes say.
    """
    total = 0
    for entry in entries:
        with suppress(OSError):  # the copy reports a missing file
            total += stored_size(environment.call(os.lstat, f"{location.path}/{entry.name}"))
    return total


def _make_parents(target: Path, entries: Sequence[FileEntry]) -> None:
    for parent in {(target / entry.name).parent for entry in entries}:
        parent.mkdir(parents=True, exist_ok=True)
