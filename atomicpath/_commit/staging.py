"""The local directory a block writes in when its target is an object store, and the upload from there."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from atomicpath._core import telemetry
from atomicpath._core.environment import Environment
from atomicpath._core.free_space import describe, is_full, stored_size
from atomicpath._core.layout import check_file_name, is_pending, is_reserved
from atomicpath._core.liveness import track_attempt, untrack_attempt
from atomicpath._core.tasks import map_concurrently
from atomicpath._core.tree_removal import identity, opened
from atomicpath._profile.location import PathLike
from atomicpath._strategies.manifest import expect_finished
from atomicpath.abc import TemporaryPath
from atomicpath.errors import AtomicPathError, ValidationError

from .meter import Meter, Progress
from .staging_leftovers import PREFIX, lock_new, remove_abandoned, remove_staged
from .staging_place import VARIABLE, named_place, private_place

__all__ = ["LocalFile", "Staging", "files_of", "upload"]

_LOG = logging.getLogger("atomicpath")
_FILES = "files"
_SHOWN = 1000  # characters of a path; the kernel takes no longer ones than 4096
_EFFECTIVE = os.access in os.supports_effective_ids


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to upload: its name in the commit, where it is, its size in bytes, and what of it is stored.

    `stamp` is not the same when it was changed or replaced since; `mode` are its permission bits.
    """

    name: str
    path: Path
    size: int
    stored: int
    stamp: tuple[int, ...] = ()
    mode: int = 0o644


class Staging:
    """A private directory on this host, locked for its life. What dead processes of this user left beside it goes."""

    def __init__(self, environment: Environment, staging_dir: PathLike | None) -> None:
        self._environment = environment
        self._named = named_place(staging_dir)
        self._token = environment.token()
        self._name = f"{PREFIX}{self._token}"
        self._place: Path | None = None
        self._made = False
        self._identity: tuple[int, int] | None = None

    async def create(self) -> Path:
        """Make the directory to write in, and return it.

        Raise ValidationError if there is no place for it.
        """
        try:
            return await self._environment.step(self._create)
        except OSError as error:
            place = self._place or self._named or "the system's temporary directory"
            reason = describe(self._environment, error, place, "") if is_full(error) else error.strerror or error
            raise ValidationError(
                f"cannot stage in {place}: {reason}. Pass staging_dir=, or set {VARIABLE} to, a directory with room for"
                " the files, or pass direct=True to write on the target itself"
            ) from error

    async def remove(self) -> None:
        """Delete it with all that is in it; nothing if `create` did not get as far as making it: it is another's.

        A failure is logged: it changes nothing of what became of the commit. What is left then is deleted by the next
        one that stages in the same place, whichever process it is in, since nobody holds it any more.
        """
        if not self._made:
            return
        self._made = False
        place = f"{self._place}/{self._name}"
        try:
            await self._environment.step(self._remove)
        except FileNotFoundError:
            _LOG.debug("%s was deleted by somebody else", place)
        except (OSError, AtomicPathError) as error:
            _LOG.warning(
                "the staging directory %s could not be deleted: %s. The next commit that stages there deletes it, or"
                " delete it by hand",
                place,
                error,
            )
        finally:
            untrack_attempt(self._token)  # releases its lock, too

    def _create(self) -> Path:
        call = self._environment.call
        place = self._place = private_place(self._environment, self._named)
        with opened(self._environment, str(place)) as parent:
            remove_abandoned(self._environment, parent, place)
            call(os.mkdir, self._name, 0o700, dir_fd=parent)
            self._made = True
            with opened(self._environment, self._name, parent=parent) as outer:
                self._identity = identity(call(os.fstat, outer))
                track_attempt(self._token, owner=self)  # before anybody can read the record
                track_attempt(self._token, lock_new(self._environment, outer, self._token).release)
                call(os.mkdir, _FILES, 0o700, dir_fd=outer)
        return place / self._name / _FILES

    def _remove(self) -> None:
        with opened(self._environment, str(self._place)) as parent:
            remove_staged(self._environment, parent, self._name, self._identity)


async def files_of(environment: Environment, directory: Path, *, source: bool = False) -> list[LocalFile]:
    """Return every file below a local directory, by name.

    Raise ValidationError for what cannot be committed.

    With `source`, the directory is the user's own. Then its files may be links to files. If it is itself a committed
    directory, its record and marker are left out, because they describe that commit and not this one.
    """
    return await environment.step(_files_of, environment, directory, source)


async def upload(
    temporary: TemporaryPath,
    files: list[LocalFile],
    progress: Progress | None,
    *,
    at_once: int,
    done: Collection[str] = (),
) -> None:
    """Publish local files as those of an attempt, `at_once` of them at a time, except those in `done`."""
    due = [file for file in files if file.name not in done]
    total, left = sum(file.size for file in files), sum(file.size for file in due)
    meter = Meter(progress, total, done=total - left)

    async def one(file: LocalFile) -> None:
        await temporary.add(file.name, file.path)
        telemetry.uploaded(file.size)
        meter.add(file.size)

    meter.tell()
    with telemetry.uploading(left):
        await map_concurrently(due, one, at_once=at_once)


def _files_of(environment: Environment, top: Path, source: bool) -> list[LocalFile]:
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
            raise _unreadable(top / prefix if prefix else top, "the directory", error) from error
    return sorted(found, key=lambda file: file.name)


def _local_file(environment: Environment, top: Path, name: str, source: bool) -> LocalFile:
    path = top / check_file_name(name)
    expect_finished(name, str(top))
    try:
        status = environment.call(os.stat, path, follow_symlinks=source)
    except OSError as error:
        if not environment.call(os.path.islink, path):
            raise _unreadable(path, "the file", error) from error
        target = environment.call(os.readlink, path)
        raise ValidationError(
            f"cannot commit {_shown(name)!r} ({path}): it is a link to {_shown(target)}, which cannot be followed"
            f" ({error.strerror}); nothing was committed. Repair the link, or delete it"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise ValidationError(
            f"cannot commit {_shown(name)!r} ({path}): it is {_kind(status.st_mode)}, not a file, which is all that can"
            " be committed; nothing was committed. Put a file in its place, or delete it"
        )
    if source and not environment.call(os.access, path, os.R_OK, effective_ids=_EFFECTIVE):
        raise ValidationError(
            f"cannot read {path}: this user may not; nothing was committed. Make it readable (chmod u+r), or delete it"
        )
    stamp = (status.st_ino, status.st_mtime_ns, *((status.st_ctime_ns,) if source else ()))
    return LocalFile(
        name=name,
        path=path,
        size=status.st_size,
        stored=stored_size(status),
        stamp=stamp,
        mode=stat.S_IMODE(status.st_mode),
    )


def _unreadable(path: Path, what: str, error: OSError) -> ValidationError:
    advice = {
        errno.EACCES: "Make it readable, with what is above it (chmod u+rx)",
        errno.EPERM: "Make it readable, with what is above it (chmod u+rx)",
        errno.ENAMETOOLONG: "Move it up, or shorten its path",
        errno.ENOENT: "It was deleted meanwhile: commit once nobody changes the directory any more",
    }.get(error.errno or 0, "Look at the file system it is on")
    return ValidationError(
        f"cannot read {what} {_shown(str(path))}: {error.strerror or error}; nothing was committed. {advice}"
    )


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a link to a directory"),  # a directory itself does not come here
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    )
    return next((text for test, text in kinds if test(mode)), "of an unknown kind")


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[: _SHOWN - 3]}..."
