"""Asking a storage for an optional ability, in one place: what needs one is refused without it, or is known to lack."""

from __future__ import annotations

from typing import TypeVar

from atomicpath.abc import (
    Declaration,
    DirectoryStorage,
    EntryKind,
    ExchangingStorage,
    FileLock,
    LockingStorage,
    Put,
    SharedDirectoryStorage,
    Storage,
    lacking,
)
from atomicpath.errors import ValidationError
from atomicpath.guarantees import NONE, Guarantee

__all__ = [
    "directories_at",
    "has_directories",
    "lock_file",
    "lock_new_file",
    "make_parents",
    "make_shared_directory",
    "need",
    "out_of_reach",
    "remove_empty",
]

A = TypeVar("A")

_OF_DIRECTORIES = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE | Guarantee.DIRECTORIES


def need(storage: Storage, ability: type[A], guarantee: Guarantee) -> A:
    """Return a storage as one with an ability.

    Raises:
        GuaranteeError: It does not have it, and so cannot keep the guarantee.
    """
    if isinstance(storage, ability):
        return storage
    raise lacking(storage, guarantee)


def out_of_reach(storage: Storage) -> Guarantee:
    """Return the guarantees about directories that a storage has no method for, whatever anybody asserts of it."""
    missing = NONE if isinstance(storage, DirectoryStorage) else _OF_DIRECTORIES
    return missing if isinstance(storage, ExchangingStorage) else missing | Guarantee.RENAME_EXCHANGE


def has_directories(storage: Storage, declaration: Declaration) -> bool:
    """Tell whether a parent has to be made before what is in it, and removed afterwards."""
    if not isinstance(storage, DirectoryStorage):
        return False
    return storage.is_local or bool(_OF_DIRECTORIES & (declaration.declared | declaration.observable))


async def directories_at(storage: Storage, path: str) -> DirectoryStorage | None:
    """Return a storage as one with directories, if its own declaration says so for `path`; else None."""
    if isinstance(storage, DirectoryStorage) and has_directories(storage, await storage.declare(path)):
        return storage
    return None


async def lock_file(storage: Storage, path: str, *, existing: bool = False) -> FileLock | None:
    """Lock a file as `LockingStorage.lock_file` does; return None if the storage or file system has no locks."""
    return await storage.lock_file(path, existing=existing) if isinstance(storage, LockingStorage) else None


async def lock_new_file(storage: Storage, path: str, data: bytes) -> FileLock | None:
    """Create a small file that must not exist, and lock it; return None where files cannot be locked."""
    if isinstance(storage, LockingStorage):
        return await storage.lock_new_file(path, data)
    await storage.put(path, data, mode=Put.CREATE)
    return None


async def make_parents(storage: Storage, path: str, *, durable: bool) -> None:
    """Make the missing directories above `path`, where a storage does not make them by itself."""
    if isinstance(storage, SharedDirectoryStorage):
        await storage.make_parents(path, durable=durable)


async def make_shared_directory(storage: DirectoryStorage, path: str) -> bool:
    """Make a directory, unless it exists, in which all may write who may write in its parent.

    Returns:
        True if this call made it.

    Raises:
        ValidationError: Something else than a directory is there.
    """
    if isinstance(storage, SharedDirectoryStorage):
        return await storage.make_shared_directory(path)
    try:
        await storage.make_directory(path, mode=None, durable=False)
    except FileExistsError:
        if (kind := await storage.kind(path)) not in (EntryKind.DIRECTORY, None):
            raise ValidationError(f"{path} is {kind}, where a directory is needed: move it away") from None
        return False
    return True


async def remove_empty(storage: Storage, path: str) -> None:
    """Remove a directory if it is empty and if that costs nothing.

    Elsewhere the directory stays, as one that is in use does.
    """
    if isinstance(storage, SharedDirectoryStorage):
        await storage.remove_empty(path)
