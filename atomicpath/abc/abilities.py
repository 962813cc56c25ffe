"""The optional abilities of storages, one small class each. The core asks for them by `isinstance`.

A storage inherits from the classes of the abilities it has. Where it lacks one the core refuses what needs it, or does
without and says so: it never does the same by a weaker way.

| Ability | Used by |
|---|---|
| `LockingStorage` | every strategy on a disk, as the proof that a writer lives; replacing, removing and cleaning |
| `SyncingStorage` | `durable=True` |
| `SharedDirectoryStorage` | house-keeping directories that several users write in |
| `ReservingStorage` | `sweep`, after a process was killed within a rename |
| `ExchangingStorage` | `replace=True` in one step |
| `CopyingStorage` | snapshots |
| `IdentifyingStorage` | telling a committed directory from a copy of it |
| `MultipartStorage` | files too large for one request |
| `LinkingStorage` | aliases on a disk |
| `LearningStorage` | probes of a store whose versions have to be asked for in a way of its own |
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

from .storage import DirectoryStorage, Put, Storage

__all__ = [
    "CopyingStorage",
    "ExchangingStorage",
    "FileLock",
    "IdentifyingStorage",
    "LearningStorage",
    "LinkingStorage",
    "LockingStorage",
    "MultipartStorage",
    "OpenDirectory",
    "ReservingStorage",
    "SharedDirectoryStorage",
    "SyncingStorage",
]


class FileLock(abc.ABC):
    """A lock that proves life: the system withdraws it when this process dies."""

    @abc.abstractmethod
    def release(self) -> None:
        """Give the lock up; a second call does nothing."""


class OpenDirectory(abc.ABC):
    """An open directory, to be synced through its descriptor later, whatever happens to its name meanwhile."""

    @abc.abstractmethod
    async def sync(self) -> None:
        """Make the names in this directory durable.

        Raises:
            OSError: It is not known to have happened.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""


class LockingStorage(Storage):
    """Storage whose files can be locked, so that other processes see whether the one that locked them lives."""

    @abc.abstractmethod
    async def lock_file(self, path: str, *, existing: bool = False) -> FileLock | None:
        """Take an exclusive lock on a file without waiting for it. Create the file if it is missing.

        Once this returns, the name is that of the locked file. The file itself stays when the lock is released. Locks
        on files reach the other hosts of a network file system wherever anything does; locks on directories do not.

        Args:
            path: The file.
            existing: Create nothing.

        Returns:
            The lock; None where the file system has no locks.

        Raises:
            BlockingIOError: Another process holds it, and so is alive.
            FileNotFoundError: The directory is missing, or, with `existing`, the file.
        """

    async def lock_new_file(self, path: str, data: bytes) -> FileLock | None:
        """Create a small file that must not exist, with `data` in it, and lock it as `lock_file` does.

        Neither atomic nor durable by itself. Override it if both can be done so that nobody sees the one without the
        other.

        Returns:
            The lock; None, and the file there, where the file system has no locks.

        Raises:
            FileExistsError: Something is there.
        """
        await self.put(path, data, mode=Put.CREATE)
        return await self.lock_file(path, existing=True)


class SyncingStorage(Storage):
    """Storage that can make what was written survive a power cut (SYNC)."""

    @abc.abstractmethod
    async def sync_tree(self, path: str) -> None:
        """Make everything below `path`, and it, durable: files, then directories bottom-up. Any failure raises."""

    @abc.abstractmethod
    async def sync_directory(self, path: str) -> None:
        """Make the names in one directory durable. Any failure raises."""

    @abc.abstractmethod
    async def open_directory(self, path: str) -> OpenDirectory | None:
        """Open an existing directory, links followed, so that it can be synced by its descriptor later.

        Returns:
            The directory; None where the system cannot sync one by its descriptor.

        Raises:
            PermissionError: This process may not read it.
        """


class SharedDirectoryStorage(DirectoryStorage):
    """Storage whose directories have owners and modes, and do not come into being by themselves.

    Elsewhere `make_directory` makes the ancestors too, and whoever may write in a place may write in all its
    directories.
    """

    @abc.abstractmethod
    async def make_parents(self, path: str, *, durable: bool) -> None:
        """Make the directories above `path` that are missing. Concurrent callers may make the same ones.

        Args:
            path: A path below them.
            durable: Make the name of each durable, also of those that an earlier caller made and did not sync.
        """

    @abc.abstractmethod
    async def make_shared_directory(self, path: str) -> bool:
        """Make a directory, unless it exists, in which everybody may write who may write in its parent.

        It gets its parent's mode and group.

        Returns:
            True if this call made it.

        Raises:
            FileNotFoundError: The parent is missing.
            ValidationError: Something else than a directory is there, or a directory of somebody who could not have
                made it for everybody: what is written there could be exchanged.
        """

    @abc.abstractmethod
    async def remove_empty(self, path: str) -> None:
        """Remove a directory if it is empty; else do nothing. Nothing there is fine."""


class LinkingStorage(Storage):
    """Storage with symbolic links that are exchanged in one step."""

    @abc.abstractmethod
    async def link_target(self, path: str) -> str | None:
        """Return what the link at `path` says, unresolved; None if none is there."""

    @abc.abstractmethod
    async def set_link(self, path: str, target: str) -> None:
        """Make a link at `path` say `target`, in one step and durably: a new link, or one that is there already.

        Concurrent readers see what it said before, or this.

        Raises:
            FileExistsError: Something that is no link is there, and stays.
        """


class ReservingStorage(DirectoryStorage):
    """Storage whose `rename_directory` may first make an empty directory at the target, to reserve the name."""

    @abc.abstractmethod
    async def remove_interrupted(self, path: str, *, older_than: float, dry_run: bool) -> float | None:
        """Remove the empty directory that a `rename_directory` leaves at its target when its process dies.

        Args:
            path: The target.
            older_than: The age in seconds under which it stays. One of unknown age stays too.
            dry_run: Remove nothing.

        Returns:
            Its age in seconds, by the storage's own clock; 0 if that cannot be read. None if there is none, or if it
            is not empty at the moment of its removal.
        """


class ExchangingStorage(DirectoryStorage):
    """Storage that can have two directories swap names (RENAME_EXCHANGE)."""

    @abc.abstractmethod
    async def exchange_directories(self, first: str, second: str) -> None:
        """Swap the names of two directories in one step; there is no moment at which one has no name.

        Raises:
            FileNotFoundError: One of the two is missing; nothing happened.
        """


class CopyingStorage(Storage):
    """Storage that can copy files without their bytes passing through this process."""

    @abc.abstractmethod
    async def copy_files(self, source: str, target: str, names: Sequence[str]) -> None:
        """Copy files of one directory into another that exists.

        Modes are kept, of the directories between too. Not durable by itself; what an error leaves is the caller's to
        delete.

        Args:
            source: The directory with the files.
            target: The other one.
            names: The files, relative to both.

        Raises:
            FileExistsError: Something is at one of the names in the target.
        """


class IdentifyingStorage(Storage):
    """Storage that can tell a directory from every copy of it, whatever its path. Elsewhere a path is all it is."""

    @abc.abstractmethod
    async def identity(self, path: str) -> str:
        """Return what tells the directory at `path`, links followed, from every copy, and stays when it is renamed.

        A text without meaning elsewhere; "" where this place has nothing that a copy, or a directory made later with
        the same number, could not have.
        """


class MultipartStorage(Storage):
    """Storage that sends large files in several parts, which become visible when they are completed."""

    largest_single: ClassVar[int]
    """The size in bytes above which `upload` would rather use several parts."""

    @abc.abstractmethod
    async def create_in_parts(self, path: str, data: bytes) -> None:
        """Create a small object that must not exist by a multi-part upload, so that a probe can race its completion.

        Raises:
            FileExistsError: Something is there (EXCLUSIVE_MULTIPART).
        """


class LearningStorage(Storage):
    """Storage whose stores differ in how they are to be asked, which only a try tells."""

    @abc.abstractmethod
    async def learn(self, path: str) -> bool:
        """Find out how this place is to be asked, and keep that for the life of the process.

        Called before a probe of COMPARE_AND_SWAP or CONDITIONAL_DELETE. After an error nothing is known, and it is
        called again before the next probe.

        Args:
            path: A free name in the place.

        Returns:
            True if something may be there now, which the caller deletes.
        """
