"""The local directories whose files a commit copies: a block's staging directory, or the user's own for `put`."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from atomicpath._core.environment import Environment
from atomicpath._core.layout import is_pending, is_temporary
from atomicpath._core.text import few
from atomicpath._profile.location import locate
from atomicpath._strategies.conflicts import standing_at
from atomicpath._strategies.manifest import still_written
from atomicpath.abc import Entry, Storage
from atomicpath.errors import IntegrityError, ValidationError

from .completeness import damaged
from .staging import LocalFile, files_of

__all__ = ["Consumed", "Own", "Staged", "copy_directories", "say_what_is_dropped"]

_LOG = logging.getLogger("atomicpath")
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Staged:
    """The directory that a block has written in."""

    def __init__(self, environment: Environment, directory: Path) -> None:
        self._environment = environment
        self.directory = directory

    async def files(self) -> list[LocalFile]:
        """Return every file in the directory, by name.

        Raise ValidationError for what cannot be committed.
        """
        return await files_of(self._environment, self.directory)

    async def expect_unchanged(self, files: list[LocalFile]) -> None:
        """Raise ValidationError if the files are not those that were there before they were copied."""
        changed = _changed(files, await self.files())
        if changed:
            raise ValidationError(still_written(changed, str(self.directory)))


class Own:
    """The directory that a user passes to `put`. If it is itself a committed one, it has to be whole."""

    def __init__(self, environment: Environment, directory: Path, seen: Sequence[LocalFile] | None = None) -> None:
        """Take `seen`, the files as their user saw them; the user may not have changed them since."""
        self._environment = environment
        self.directory = directory
        self._expected = seen
        self._location = locate(directory)
        self._token: str | None = None

    async def files(self) -> list[LocalFile]:
        """Return every file in the directory, by name.

        Links to files are followed. What describes an earlier commit is left out.

        Raise IntegrityError for an attempt that was never committed, and for a committed directory that lacks files.
        """
        files = await self._files()
        if self._expected is not None and (changed := _changed(self._expected, files)):
            raise ValidationError(self._moving(changed))
        return files

    async def _files(self) -> list[LocalFile]:
        standing = await standing_at(self._location.open(), self._location)
        record, self._token = standing.record, standing.token
        if record is not None and not standing.committed:
            raise IntegrityError(
                f"{self.directory} holds an attempt that was never committed: publishing it would make it look complete"
            )
        files = await files_of(self._environment, self.directory, source=True)
        if record is None:
            return files
        files = [file for file in files if file.name not in (standing.record_file, record.marker)]
        if lacking := damaged(record, (Entry(name=file.name, size=file.size) for file in files)):
            if await self._token_now() != self._token:
                raise ValidationError(self._moving())
            raise IntegrityError(
                f"{self.directory} is not as it was committed: {few(lacking)}. A copy would pass for whole:"
                " verify(...) says what is wrong"
            )
        return files

    async def expect_unchanged(self, files: list[LocalFile]) -> None:
        """Raise ValidationError if the files are not those from before the copy, or are of another commit."""
        before = self._token
        now = await self._token_now()
        changed = _changed(files, await self.files() if now == before else [])
        if changed or before != await self._token_now():
            raise ValidationError(self._moving(changed))

    async def _token_now(self) -> str | None:
        return (await standing_at(self._location.open(), self._location)).token

    def _moving(self, name: str | None = None) -> str:
        return (
            f"{self.directory} was changed or replaced while it was copied{f' ({name!r})' if name else ''}: the copy"
            " would be of no one moment. Nothing was committed: wait for its writer, and put it again"
        )


class Consumed(Own):
    """A directory that is deleted once its files are committed, and not before. It must not be a committed one itself.

    To a disk a file is linked, not copied, where that is possible and nobody else has the file by another name: what is
    committed must not be changed through it.
    """

    def __init__(self, environment: Environment, directory: Path, seen: Sequence[LocalFile] | None = None) -> None:
        super().__init__(environment, directory, seen)
        self._found: dict[str, LocalFile] = {}

    async def files(self) -> list[LocalFile]:
        found = await super().files()
        if self._token is not None:
            raise ValidationError(
                f"{self.directory} is committed itself, and readers would see it fall apart: copy(...) it, then"
                " remove(...) it"
            )
        found = [replace(file, stamp=file.stamp[:2]) for file in found]  # not when a link was made to it
        self._found = {file.name: file for file in found}
        return found

    async def link_into(self, target: Path) -> set[str]:
        """Link the files into the directory of an attempt; return the names of those that are there now."""
        return await self._environment.step(_link_all, self._environment, list(self._found.values()), target)

    async def delete(self) -> None:
        """Delete the files that were committed, and the directories that are empty then.

        This never raises.
        """
        left = await self._environment.step(_delete_all, self._environment, self.directory, self._found)
        if left is not None:
            _LOG.warning("%s was committed, and something of it is left: %s", self.directory, left)


async def copy_directories(storage: Storage, source: Path, target: Path, *, top: bool) -> None:
    """Make the directories of a local tree in another where they are missing, and give them the modes of the first.

    As `cp -r` does, but a group that is inherited stays so. `top`: the tree's own directory, too. Called when the files
    are there, since a directory may be one that nobody can write in.
    """
    await storage.environment.step(_copy_directories, storage.environment, source, target, top)


def say_what_is_dropped(files: list[LocalFile], directory: Path, target: str) -> None:
    """Log, once for a commit to a store, what stores do not keep."""
    executable = sum(file.mode & 0o111 != 0 for file in files)
    with_files = {parent for file in files for parent in file.path.parents}
    empty = sum(
        not files_below and not below and Path(top) not in with_files for top, below, files_below in os.walk(directory)
    )
    if executable or empty:
        _LOG.info(
            "%s has no modes and no empty directories: of %d files that they can be executed, and %d empty directories,"
            " are not kept",
            target,
            executable,
            empty,
        )


def _changed(before: Sequence[LocalFile], after: Sequence[LocalFile]) -> str | None:
    """Return the first name that is not the same in both lists; None if all are the same."""
    one, other = ({file.name: file for file in files} for files in (before, after))
    return min((name for name in one.keys() | other.keys() if one.get(name) != other.get(name)), default=None)


def _link_all(environment: Environment, files: list[LocalFile], target: Path) -> set[str]:
    linked: set[str] = set()
    for file in files:
        status = environment.call(os.lstat, file.path)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            continue
        copy = target / file.name
        try:
            environment.call(os.makedirs, copy.parent, exist_ok=True)
            environment.call(os.link, file.path, copy)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            break  # another file system, or one without links: all are copied
        linked.add(file.name)
    return linked


def _delete_all(environment: Environment, top: Path, files: Mapping[str, LocalFile]) -> str | None:
    """Delete files that are as they were seen, then the directories that are empty.

    Return the first thing that stays, and why.
    """
    left: str | None = None
    for name, seen in files.items():
        try:
            status = environment.call(os.stat, seen.path)
            if (status.st_ino, status.st_mtime_ns) != seen.stamp or status.st_size != seen.size:
                left = left or f"{name} was changed since"
                continue
            environment.call(os.unlink, seen.path)
        except OSError as error:
            left = left or str(error)
    for directory, _, _ in os.walk(top, topdown=False):
        try:
            environment.call(os.rmdir, directory)
        except OSError as error:
            left = left or str(error)
    return left


def _copy_directories(environment: Environment, source: Path, target: Path, top: bool) -> None:
    found = [""] if top else []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with environment.call(os.scandir, source / prefix) as entries:
            below = [f"{prefix}{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in below:
            if not (is_pending(name) or is_temporary(name)):
                found.append(name)
                waiting.append(f"{name}/")
    for name in found:
        if name:
            environment.call(os.makedirs, target / name, exist_ok=True)
    for name in reversed(found):  # the deepest first
        mode = stat.S_IMODE(environment.call(os.stat, source / name).st_mode)
        there = stat.S_IMODE(environment.call(os.stat, target / name).st_mode)
        wanted = mode | (there & stat.S_ISGID) | (0 if name else 0o700)  # the record is still to be written in the top
        if wanted != there:
            environment.call(os.chmod, target / name, wanted)
