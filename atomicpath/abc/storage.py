"""The port of storage: what a backend can do at one file system or store, and what it may be asked to try."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from atomicpath._core.environment import Environment
from atomicpath.errors import AccessError, GuaranteeError, ValidationError
from atomicpath.guarantees import NONE, Guarantee

__all__ = [
    "MOUNT_POINT",
    "Content",
    "Declaration",
    "Entry",
    "FileLock",
    "NoBucketError",
    "OpenDirectory",
    "StaleVersionError",
    "Storage",
]

MOUNT_POINT = "a mount point"
"""The `Entry.kind` of what something is mounted at."""


class NoBucketError(AccessError):
    """Not even the bucket or container is there, so that nothing is known of a name in it.

    What `Storage.read` and `Storage.stat` raise: to a reader a bucket that is missing is no answer, since the wrong
    store or a wrong name would give it too.
    """


class StaleVersionError(OSError):
    """A conditional write or delete was refused: the object does not have the version it named (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A small object as read: its bytes, its version, and its age in seconds.

    The age is by the clock that gave the object its time, the storage's own; None where that cannot be read.
    """

    data: bytes
    version: str | None
    age: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a listing, relative to the directory listed, "/" between its parts; `size` in bytes.

    `kind` is "file", "directory", or in plain words what else it is ("a symbolic link").
    `version` changes whenever the content does; None where the storage has none. `owner` is what the
    object was created with, `age` is in seconds since it last changed, by the storage's own clock, `mode` are the
    permission bits: only `stat` tells these three, and only where the storage keeps them. `modified` is the time of the
    last change of the content, in nanoseconds by the storage's clock: only a local listing tells it.
    """

    name: str
    size: int = 0
    version: str | None = None
    kind: str = "file"
    owner: str | None = None
    age: float | None = field(default=None, compare=False)  # it grows while two are compared
    mode: int | None = None
    modified: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What a storage says of one location, before any probe.

    `declared`: documented for this very kind of location. `observable`: probes may find it to hold.
    `refutable`: probes may find that it does not hold, but their success would prove nothing (the
    kernel itself answers EEXIST, and one host cannot see another). `evidence` in words for people.
    `impossible`: this storage has no way to keep it, so that it counts as refuted, untried, whoever asserts it.
    `is_tried_if_asserted`: nobody vouches for anything here, so that only what the caller asserts is tried.
    `renames_between_directories`: True where a directory that can be renamed within one parent can be renamed into
    another one as well, in one step; False where it cannot; None where that is not known, and is tried.
    """

    declared: Guarantee = NONE
    observable: Guarantee = NONE
    refutable: Guarantee = NONE
    impossible: Guarantee = NONE
    is_tried_if_asserted: bool = False
    evidence: Mapping[Guarantee, str] = field(default_factory=dict[Guarantee, str])
    renames_between_directories: bool | None = True


class FileLock(abc.ABC):
    """A lock that proves life: the system withdraws it when this process dies."""

    @abc.abstractmethod
    def release(self) -> None:
        """Give it up; a second call does nothing."""


class OpenDirectory(abc.ABC):
    """An open directory, to be synced through its descriptor later, whatever happens to its name meanwhile."""

    @abc.abstractmethod
    async def sync(self) -> None:
        """Make the names in this directory durable. An `OSError` says that this is not known to have happened."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""


class Storage(abc.ABC):
    """Access to one file system or store. Paths are the backend's own strings, absolute, without a trailing "/".

    Errors, the same for every method:

    - `FileNotFoundError`: nothing is there, by the storage's own word (for writes and listings: the bucket or parent
      is missing); nothing was done.
    - `NoBucketError`: the bucket itself is missing, for `read` and `stat`.
    - `FileExistsError`: something is there. After a retry inside a client it may be what this very call
      wrote, so callers read it back before they believe that they lost.
    - `StaleVersionError`: the version named is not the one there; the same caution applies.
    - `PermissionError`: the storage refused; nothing was done.
    - `ValidationError`: the name cannot exist here; nothing was sent.
    - any other `OSError`: *unknown*; the operation may have happened, or may yet happen.

    Every method can be cancelled at every await; a cancelled write counts as unknown. Methods are safe
    to call concurrently. Every system call or request goes through `environment`.
    """

    is_local: ClassVar[bool] = False
    """Whether a process on this host can open the files by their path."""

    may_retain: ClassVar[bool] = False
    """Whether a policy of the place may forbid to overwrite what was created, whoever asks (retention, object lock)."""

    largest_single: ClassVar[int] = 1 << 62
    """The size in bytes above which `upload` would rather use several parts."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    @abc.abstractmethod
    async def declare(self, path: str) -> Declaration:
        """What is known of the location of `path` without trying it. Cheap; `path` need not exist."""

    async def learn(self, path: str) -> bool:
        """Find out how this place is to be asked, where places differ, and keep that for the life of the process.

        Called before a probe of COMPARE_AND_SWAP or CONDITIONAL_DELETE. `path` is a free name in the place; True says
        that something may be there now, which the caller deletes. After an error nothing is known, and it is called
        again before the next probe.
        """
        return False

    # files and objects

    @abc.abstractmethod
    async def read(self, path: str) -> Content:
        """A small object, whole, with the version that these very bytes have.

        `ValidationError`: it is no file, or so large that it can be none of ours; it is never waited for.
        """

    @abc.abstractmethod
    async def create(self, path: str, data: bytes, *, owner: str = "") -> str | None:
        """Create a small object that must not exist, in one request; its version.

        Under EXCLUSIVE_CREATE exactly one of many concurrent callers succeeds. `owner` is kept with
        the object where the store can do that, see `Entry.owner`.
        """

    async def swap(self, path: str, data: bytes, *, version: str) -> str:
        """Overwrite an object that still has `version` (COMPARE_AND_SWAP); the new version."""
        raise GuaranteeError(_lacks(self, Guarantee.COMPARE_AND_SWAP))

    @abc.abstractmethod
    async def write(self, path: str, data: bytes, *, private: bool = False) -> str | None:
        """Create or overwrite a small object; readers see the old or the new (ATOMIC_WRITE). Its version.

        `private`: nobody else reads it yet and the caller will sync: neither atomic nor durable by itself.
        """

    @abc.abstractmethod
    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        """Create a file that must not exist from a local one, in bounded memory.

        `multipart` says that EXCLUSIVE_MULTIPART may be relied on; without it a file too large for one
        request raises `GuaranteeError`. A failed or cancelled upload leaves no part behind.
        """

    @abc.abstractmethod
    async def download(self, path: str, target: Path) -> Entry:
        """Copy a file to a local one, which must not exist; its true size and version, `name` left empty.

        A reply shorter than announced is an `OSError`, never a short file.
        """

    async def create_in_parts(self, path: str, data: bytes) -> None:
        """`create` by a multi-part upload, whatever the size, so that a probe can race its completion."""
        raise GuaranteeError(_lacks(self, Guarantee.EXCLUSIVE_MULTIPART))

    @abc.abstractmethod
    async def stat(self, path: str) -> Entry | None:
        """What is at a path itself, with its `owner` and `age`, `name` left empty; None if nothing is there.

        Of directories it may say nothing where they do not exist by themselves.
        """

    @abc.abstractmethod
    async def delete(self, path: str, *, version: str | None = None) -> None:
        """Delete a file; with `version` only if it still has it (CONDITIONAL_DELETE). Nothing there is fine.

        It is sent once: what a client repeats by itself after a lost reply could hit what somebody else has put there
        since. Whoever asked decides whether to look, and ask, again.
        """

    async def copy_files(self, source: str, target: str, names: Sequence[str]) -> None:
        """Copy files of one directory into another that exists, without their bytes passing through here.

        `names` are relative to both; what is at one in the target already is `FileExistsError`. Modes are kept, of
        the directories between too. Not durable by itself; what an error leaves is the caller's to delete.
        """
        raise GuaranteeError(
            f"{type(self).__name__} cannot copy files where they are: download the directory with get(...) and commit"
            " it with put(...)"
        )

    @abc.abstractmethod
    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        """What is below `path`, sorted by name; empty if nothing is there. Never from a cache.

        Not recursive: its direct children, directories included. Recursive: every file at any depth,
        and whatever is neither file nor directory, a mount point below it included; links are never followed.
        """

    @abc.abstractmethod
    async def kind(self, path: str) -> str | None:
        """What is at `path` itself, in the words of `Entry.kind`; None if nothing. Links are not followed.

        On a store without directories, "directory" says that something is below it.
        """

    async def link_target(self, path: str) -> str | None:
        """What the link at `path` says, unresolved; None if none is there, or where the storage has no links."""
        return None

    async def set_link(self, path: str, target: str) -> None:
        """Have a link at `path` say `target`, in one step and durably: a new one, or one that is there already.

        `FileExistsError`: something that is no link is there, and stays. Only a local storage is asked.
        """
        raise GuaranteeError(f"{type(self).__name__} has no links")

    async def identity(self, path: str) -> str | None:
        """What tells the directory at `path`, links followed, from every copy of it, and stays when it is renamed.

        A text without meaning elsewhere; "" where this place has nothing that a copy, or a directory made later with
        the same number, could not have. None where a path is all that a directory is, as on object stores.
        """
        return None

    # directories, where the storage has them (DIRECTORIES); syncing is asked of local storages only

    async def make_directory(self, path: str, *, mode: int | None, durable: bool) -> None:
        """Create a directory that must not exist, and the ancestors it needs.

        `mode` is set exactly, whatever the umask. With `durable`, new ancestors are synced into theirs.
        """
        raise GuaranteeError(_lacks(self, Guarantee.DIRECTORIES))

    async def make_parents(self, path: str, *, durable: bool) -> None:  # noqa: B027 - a store has none to make
        """Make the directories above `path` that are missing, where directories have to be made.

        With `durable` the name of each of them is durable afterwards, also of those that an earlier caller made and did
        not sync.
        """

    async def make_shared_directory(self, path: str) -> None:
        """Make a directory, unless it exists, in which everybody may write who may write in its parent.

        It gets its parent's mode and group, where the storage has them. `FileNotFoundError` if the parent is missing.
        `ValidationError` if something else than a directory is there, or a directory of somebody who could not have
        made it for everybody: what is written there could be exchanged.
        """
        try:
            await self.make_directory(path, mode=None, durable=False)
        except FileExistsError:
            if (kind := await self.kind(path)) not in ("directory", None):
                raise ValidationError(f"{path} is {kind}, where a directory is needed: move it away") from None

    async def remove_empty(self, path: str) -> None:  # noqa: B027 - on a store it costs a request
        """Remove a directory if it is empty and if that costs nothing; else do nothing."""

    async def rename_directory(self, source: str, target: str) -> None:
        """Rename a directory in one step, never replacing, merging or copying anything.

        `FileExistsError`: something was at the target, an empty directory included; nothing happened.
        """
        raise GuaranteeError(_lacks(self, Guarantee.ATOMIC_RENAME))

    async def exchange_directories(self, first: str, second: str) -> None:
        """Have two directories swap names in one step (RENAME_EXCHANGE); there is no moment at which one has no name.

        `FileNotFoundError`: one of the two is missing; nothing happened.
        """
        raise GuaranteeError(_lacks(self, Guarantee.RENAME_EXCHANGE))

    async def lock_file(self, path: str, *, existing: bool = False) -> FileLock | None:
        """Create a file if it is missing, and take an exclusive lock on it without waiting for one.

        With `existing` nothing is created, and `FileNotFoundError` says that no such file is there.

        None where the storage has no locks. `BlockingIOError`: another process holds it, which is therefore alive.
        Once it returns, the name is that of the locked file; `FileNotFoundError` if the directory it is in has gone.
        Locks on files reach the other hosts of a network file system wherever anything does; locks on directories
        do not. The file itself stays when the lock is released.
        """
        return None

    async def open_directory(self, path: str) -> OpenDirectory | None:
        """Open an existing directory, links followed, so that it can be synced by its descriptor later.

        None where directories cannot be synced. `PermissionError` if this process may not read it.
        """
        return None

    async def sync_tree(self, path: str) -> None:
        """Make everything below `path`, and it, durable: files, then directories bottom-up. Any failure raises."""
        raise GuaranteeError(_lacks(self, Guarantee.SYNC))

    async def sync_directory(self, path: str) -> None:
        """Make the names in one directory durable."""
        raise GuaranteeError(_lacks(self, Guarantee.SYNC))

    async def remove_tree(self, path: str) -> None:
        """Delete a directory and everything below it; links are removed, not followed.

        An `OSError` with EBUSY and the full path of the mount point: a file system is mounted at or below it, and
        nothing was deleted.
        """
        raise GuaranteeError(_lacks(self, Guarantee.DIRECTORIES))

    async def remove_interrupted(self, path: str, *, older_than: float, dry_run: bool) -> float | None:
        """Remove the empty directory that a `rename_directory` leaves at its target when its process dies.

        Its age in seconds, by the storage's own clock, 0 if that cannot be read; None if there is none: where a rename
        is one step it leaves nothing behind. One younger than `older_than`, in seconds, stays, and so does one of
        unknown age; with `dry_run` any does. A directory that is not empty at the moment of its removal stays too, and
        is none.
        """
        return None


def _lacks(storage: Storage, guarantee: Guarantee) -> str:
    return f"{type(storage).__name__} does not implement {guarantee}: use a strategy that does not need it"
