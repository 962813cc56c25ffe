"""The port of storage: what a backend can do at one file system or store, and what it may be asked to try."""

from __future__ import annotations

import abc
import enum
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from atomicpath._core.environment import Environment
from atomicpath.errors import AccessError, GuaranteeError
from atomicpath.guarantees import NONE, Guarantee

__all__ = [
    "Content",
    "Declaration",
    "DirectoryStorage",
    "Entry",
    "EntryKind",
    "NoBucketError",
    "Put",
    "StaleVersionError",
    "Storage",
    "Update",
    "lacking",
]


class EntryKind(enum.Enum):
    """What is at a path; the text is for people."""

    FILE = "a file"
    DIRECTORY = "a directory"
    LINK = "a symbolic link"
    MOUNT_POINT = "a mount point"
    """A directory that another file system is mounted at."""
    FIFO = "a FIFO"
    SOCKET = "a socket"
    DEVICE = "a device"
    OTHER = "a special file"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def of_mode(cls, mode: int) -> EntryKind:
        """Return the kind that the bits of a POSIX mode say."""
        return _BY_TYPE.get(stat.S_IFMT(mode), cls.OTHER)


_BY_TYPE = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.LINK,
    stat.S_IFSOCK: EntryKind.SOCKET,
    stat.S_IFIFO: EntryKind.FIFO,
    stat.S_IFBLK: EntryKind.DEVICE,
    stat.S_IFCHR: EntryKind.DEVICE,
}


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

    `version` changes whenever the content does; None where the storage has none. `owner` is what the
    object was created with, `age` is in seconds since it last changed, by the storage's own clock, `mode` are the
    permission bits: only `stat` tells these three, and only where the storage keeps them. `modified` is the time of the
    last change of the content, in nanoseconds by the storage's clock: only a local listing tells it.
    """

    name: str
    size: int = 0
    version: str | None = None
    kind: EntryKind = EntryKind.FILE
    owner: str | None = None
    age: float | None = field(default=None, compare=False)  # not compared: an age grows between two looks
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


class Put(enum.Enum):
    """What `Storage.put` may find at its path; see `Update` for the third way."""

    CREATE = "create"
    """Nothing may be there."""
    OVERWRITE = "overwrite"
    """Anything may be there, and is replaced at once: readers see the old content or the new."""
    PRIVATE = "private"
    """As `OVERWRITE`, where nobody else reads yet and the caller will sync: neither atomic nor durable by itself."""


@dataclass(frozen=True, slots=True)
class Update:
    """The mode of a `Storage.put` that overwrites one version only."""

    version: str


class Storage(abc.ABC):
    """Access to one file system or store. Paths are the backend's own strings, absolute, without a trailing "/".

    Errors, the same for every method:

    - `FileNotFoundError`: nothing is there, by the storage's own word (for writes and listings: the bucket or parent
      is missing); nothing was done.
    - `NoBucketError`: the bucket itself is missing, for `get` and `stat`.
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

    files_at_once: ClassVar[int] = 16
    """How many files are sent or fetched at once, at most."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    @abc.abstractmethod
    async def declare(self, path: str) -> Declaration:
        """Return what is known of the location of `path` without trying it. Cheap; `path` need not exist."""

    @abc.abstractmethod
    async def get(self, path: str) -> Content:
        """Return a small object, whole, with the version that these very bytes have.

        Raises:
            ValidationError: It is no file, or so large that it can be none of ours; it is never waited for.
        """

    @abc.abstractmethod
    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str | None:
        """Write a small object, in one request. Readers see what was there or all of the new (ATOMIC_WRITE).

        Args:
            path: Where to.
            data: Its content.
            mode: What may be there already: nothing (`Put.CREATE`), anything (`Put.OVERWRITE`), or one version only
                (`Update`). Of many concurrent callers that create one name (EXCLUSIVE_CREATE), or that update from one
                version (COMPARE_AND_SWAP), exactly one succeeds.
            owner: Kept with the object where the store can do that, see `Entry.owner`.

        Returns:
            The new version; None where the storage has none.

        Raises:
            FileExistsError: Something is there, and was not to be.
            StaleVersionError: The version there is another one, or nothing is there.
            GuaranteeError: The storage has no versions to update from.
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

        A reply shorter than announced is an `OSError`, never a short file. `StaleVersionError`: the file was changed
        meanwhile, where it is fetched by several requests; nothing is left of it.
        """

    @abc.abstractmethod
    async def stat(self, path: str) -> Entry | None:
        """Return what is at a path itself, with its `owner` and `age`; None if nothing is there.

        `name` is left empty. A storage may return None for a directory where directories do not exist by themselves.
        """

    @abc.abstractmethod
    async def delete(self, path: str, *, version: str | None = None) -> None:
        """Delete a file; with `version` only if it still has it (CONDITIONAL_DELETE). Nothing there is fine.

        It is sent once: what a client repeats by itself after a lost reply could hit what somebody else has put there
        since. Whoever asked decides whether to look, and ask, again.
        """

    @abc.abstractmethod
    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        """Return what is below `path`, sorted by name; empty if nothing is there. Never answer from a cache.

        Not recursive: its direct children, directories included. Recursive: every file at any depth,
        and whatever is neither file nor directory, a mount point below it included; links are never followed.
        """

    async def kind(self, path: str) -> EntryKind | None:
        """Tell what is at `path` itself; None if nothing. Links are not followed.

        On a store without directories, DIRECTORY says that something is below it. This follows from `stat` and `list`;
        override it to make one request of the two.
        """
        found = await self.stat(path)
        if found is not None:
            return found.kind
        return EntryKind.DIRECTORY if await self.list(path, recursive=False) else None


class DirectoryStorage(Storage):
    """Storage with directories that exist by themselves, and are renamed in one step: enough for the rename strategy.

    A storage whose places differ is one of these too. `declare` says what each place has (DIRECTORIES, ATOMIC_RENAME,
    RENAME_NOREPLACE), and a method that a place does not have raises GuaranteeError there.
    """

    async def kind(self, path: str) -> EntryKind | None:
        """Tell what is at `path` itself, as `stat` does, which tells of directories here."""
        found = await self.stat(path)
        return found.kind if found else None

    @abc.abstractmethod
    async def make_directory(self, path: str, *, mode: int | None, durable: bool) -> None:
        """Create a directory that must not exist, and the ancestors it needs. One of many concurrent callers succeeds.

        Args:
            path: Its path.
            mode: Its permission bits, set exactly, whatever the umask; None for those of any new directory.
            durable: Sync new ancestors into theirs, where the storage can sync.

        Raises:
            FileExistsError: Something is there.
            ValidationError: The storage has no modes, and one was asked for.
        """

    @abc.abstractmethod
    async def rename_directory(self, source: str, target: str) -> None:
        """Rename a directory in one step (ATOMIC_RENAME), never replacing, merging or copying (RENAME_NOREPLACE).

        Concurrent readers see it under the one name or under the other, always whole.

        Raises:
            FileExistsError: Something was at the target, an empty directory included; nothing happened.
            FileNotFoundError: Nothing was at the source; nothing happened.
        """

    @abc.abstractmethod
    async def remove_tree(self, path: str) -> None:
        """Delete a directory and everything below it; links are removed, not followed. Nothing there is fine.

        Raises:
            OSError: With EBUSY and the full path of the mount point: a file system is mounted at or below it, and
                nothing was deleted.
        """


def lacking(storage: Storage, guarantee: Guarantee) -> GuaranteeError:
    """Return the error of a storage that has no way to keep a guarantee, for a method to raise."""
    return GuaranteeError(
        f"{type(storage).__name__} does not implement {guarantee}: use a strategy that does not need it"
    )
