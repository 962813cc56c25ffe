"""The local directory a block writes in when its target is an object store, and the upload from there."""

from __future__ import annotations

import itertools
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from . import telemetry
from .abc import TemporaryPath
from .environment import Environment
from .errors import AtomicPathError, IntegrityError, ValidationError
from .layout import RECORD_FILE, check_file_name, is_pending, is_reserved
from .liveness import hold, proof_of_life, release, this_process
from .record import CommitRecord, State
from .tasks import for_each

__all__ = ["Progress", "Staging", "files_of", "upload"]

Progress: TypeAlias = Callable[[int, int], object]
"""Called with the bytes transferred so far and the bytes in all, after each file; in another thread than the caller's."""

_LOG = logging.getLogger("atomicpath")
_PREFIX = "atomicpath-staging-"
_FILES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to upload: its name in the commit, where it is, and its size in bytes."""

    name: str
    path: Path
    size: int


class Staging:
    """A private directory on this host. What processes that are provably gone left beside it is removed."""

    def __init__(self, environment: Environment, within: str | os.PathLike[str] | None) -> None:
        self._environment = environment
        self._within = Path(within or tempfile.gettempdir()).absolute()
        self._token = environment.token()
        self._outer = self._within / f"{_PREFIX}{self._token}"
        self._made = False

    async def create(self) -> Path:
        """The directory to write in. ValidationError if there is no place for it."""
        try:
            return await self._environment.step(self._create)
        except OSError as error:
            raise ValidationError(
                f"cannot stage in {self._within}: {error.strerror or error}. Pass staging_dir= a directory with"
                " room for the files, or direct=True to write on the target itself"
            ) from error

    async def remove(self) -> None:
        """Delete it with all that is in it; nothing if `create` did not get as far as making it: it is another's."""
        if not self._made:
            return
        release(self._token)
        await self._environment.step(_remove, self._environment, self._outer)

    def _create(self) -> Path:
        call = self._environment.call
        for name in call(os.listdir, self._within):
            if name.startswith(_PREFIX):
                self._remove_if_abandoned(self._within / name)
        record = CommitRecord(
            state=State.WRITING,
            token=self._token,
            strategy="staging",
            started=self._environment.wall_ns(),
            writer=this_process(self._environment),
        )
        call(os.mkdir, self._outer, 0o700)
        self._made = True
        hold(self._token, owner=self)
        call((self._outer / RECORD_FILE).write_bytes, record.encode())
        files = self._outer / "files"
        call(os.mkdir, files)
        return files

    def _remove_if_abandoned(self, other: Path) -> None:
        try:
            data = self._environment.call((other / RECORD_FILE).read_bytes)
            record = CommitRecord.decode(data, where=str(other))
        except (OSError, AtomicPathError):
            return  # unreadable or just being made: not provably abandoned, so it stays
        if proof_of_life(self._environment, record) is False:
            _LOG.info("removing %s, which %s left behind", other, record.writer)
            _remove(self._environment, other)


async def files_of(environment: Environment, directory: Path, *, source: bool = False) -> list[LocalFile]:
    """Every file below a local directory, by name; ValidationError for what cannot be committed.

    `source`: the directory is the user's own. Then its files may be links to files, and if it is itself
    a committed directory its record and marker, which describe that commit and not this, are left out.
    """
    return await environment.step(_files_of, environment, directory, source)


async def upload(temporary: TemporaryPath, files: list[LocalFile], progress: Progress | None) -> None:
    """Publish local files as those of an attempt, many at once, in bounded memory."""
    total, done = sum(file.size for file in files), 0

    async def one(file: LocalFile) -> None:
        nonlocal done
        await temporary.add(file.name, file.path)
        done += file.size
        telemetry.uploaded(file.size)
        if progress is not None:
            progress(done, total)

    if progress is not None:
        progress(0, total)
    with telemetry.uploading(total):
        await for_each(files, one, at_once=_FILES_AT_ONCE)


def _files_of(environment: Environment, top: Path, source: bool) -> list[LocalFile]:
    if source:
        _refuse_unfinished(environment, top)
    found: list[LocalFile] = []
    pending = [""]
    while pending:  # iterative: a tree may be deeper than Python's stack
        prefix = pending.pop()
        try:
            with environment.call(os.scandir, top / prefix if prefix else top) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if source and is_pending(name):
                        continue  # what was added to a committed directory is no part of it
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{name}/")
                    elif not (source and is_reserved(name)):
                        found.append(_local_file(environment, top, name, source))
        except OSError as error:
            raise ValidationError(
                f"cannot read {_shown(prefix) or 'the directory'!r} in {top}: {error.strerror or error}; nothing was"
                " committed. Make it readable, or shorten its path"
            ) from error
    return sorted(found, key=lambda file: file.name)


def _local_file(environment: Environment, top: Path, name: str, follow: bool) -> LocalFile:
    path = top / check_file_name(name)
    status = environment.call(os.stat, path, follow_symlinks=follow)
    if not stat.S_ISREG(status.st_mode):
        raise ValidationError(
            f"{_shown(name)!r} in {top} is not a file, which is all that can be committed: put a file in its place"
        )
    return LocalFile(name=name, path=path, size=status.st_size)


def _refuse_unfinished(environment: Environment, top: Path) -> None:
    try:
        data = environment.call((top / RECORD_FILE).read_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return
    if CommitRecord.decode(data, where=str(top)).state is not State.COMMITTED:
        raise IntegrityError(
            f"{top} holds an attempt that was never committed: publishing it would make it look complete"
        )


def _remove(environment: Environment, directory: Path) -> None:
    try:
        environment.call(_remove_tree, directory)
    except FileNotFoundError:
        return  # another process of ours was quicker
    except OSError as error:
        _LOG.warning("could not remove %s: %s", directory, error)


def _remove_tree(top: Path) -> None:
    """At any depth: what is below is moved up first, since neither Python's stack nor a path's length is unbounded."""
    numbers = itertools.count()
    pending = [top]
    while pending:
        directory = pending.pop()
        with os.scandir(directory) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(top / f"{_PREFIX}{next(numbers)}")
                    os.rename(entry.path, pending[-1])
                else:
                    os.unlink(entry.path)
        if directory != top:
            os.rmdir(directory)
    os.rmdir(top)


def _shown(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."
