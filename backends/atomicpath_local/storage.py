"""The storage port on local file systems: one step of system calls for each method."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from atomicpath.abc import (
    Content,
    CopyingStorage,
    Declaration,
    Entry,
    EntryKind,
    Environment,
    ExchangingStorage,
    FileLock,
    IdentifyingStorage,
    LinkingStorage,
    LockingStorage,
    OpenDirectory,
    Put,
    ReservingStorage,
    SharedDirectoryStorage,
    SyncingStorage,
    Update,
    lacking,
)
from atomicpath.errors import AccessError, AtomicPathError, ValidationError
from atomicpath.guarantees import Guarantee

from . import ancestors, copies, directories, files, links, locks, lookup, mounts, rename, shared, trees
from .identity import identity
from .system import System, name

__all__ = ["LocalStorage"]

P = ParamSpec("P")
T = TypeVar("T")

_STALE_PAUSES = (0.0, 0.1, 0.3, 0.8, 1.6)  # seconds; clients remember names for one second unless told otherwise


class LocalStorage(
    SharedDirectoryStorage,
    ReservingStorage,
    ExchangingStorage,
    CopyingStorage,
    LinkingStorage,
    LockingStorage,
    SyncingStorage,
    IdentifyingStorage,
):
    """Local disks and mounts. Nothing has a version here: file systems have no conditional writes."""

    is_local = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._system = System(environment)

    async def declare(self, path: str) -> Declaration:
        return mounts.declaration_of(await self._looking_step(lookup.mount_of, path))

    async def get(self, path: str) -> Content:
        return await self._looking_step(files.read, path)

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> None:  # noqa: ARG002  no file keeps one
        if isinstance(mode, Update):
            raise lacking(self, Guarantee.COMPARE_AND_SWAP)
        if mode is Put.CREATE:
            await self._making_step(files.create, path, data)
        else:
            await self._step(files.write_private if mode is Put.PRIVATE else files.write, path, data)

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:  # noqa: ARG002  no file keeps one, none is sent in parts
        return await self._step(files.upload, path, source)

    async def download(self, path: str, target: Path) -> Entry:
        return await self._step(files.download, path, target)

    async def copy_files(self, source: str, target: str, names: Sequence[str]) -> None:
        await self._step(copies.copy_files, source, target, names)

    async def delete(self, path: str, *, version: str | None = None) -> None:
        if version is not None:
            raise lacking(self, Guarantee.CONDITIONAL_DELETE)
        await self._step(files.delete, path)

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        return await self._looking_step(trees.entries, path, recursive)

    async def stat(self, path: str) -> Entry | None:
        return await self._looking_step(files.look, path)

    async def kind(self, path: str) -> EntryKind | None:
        found = await self._looking_step(files.entry, path)
        return found.kind if found else None

    async def link_target(self, path: str) -> str | None:
        return await self._looking_step(links.link_target, path)

    async def set_link(self, path: str, target: str) -> None:
        await self._step(links.set_link, path, target)

    async def identity(self, path: str) -> str:
        return await self._looking_step(identity, path)

    async def make_directory(self, path: str, *, mode: int | None, durable: bool) -> None:
        await self._making_step(directories.make_directory, path, mode, durable)

    async def make_parents(self, path: str, *, durable: bool) -> None:
        await self._step(directories.make_parents, path, durable)

    async def make_shared_directory(self, path: str) -> bool:
        return await self._making_step(shared.make_shared_directory, path)

    async def remove_empty(self, path: str) -> None:
        with suppress(FileNotFoundError):
            await self._making_step(shared.remove_empty, path)

    async def rename_directory(self, source: str, target: str) -> None:
        await self._step(rename.rename_directory, source, target)

    async def exchange_directories(self, first: str, second: str) -> None:
        await self._step(rename.exchange_directories, first, second)

    async def lock_file(self, path: str, *, existing: bool = False) -> FileLock | None:
        return await self._making_step(locks.lock_file, path, existing=existing)

    async def lock_new_file(self, path: str, data: bytes) -> FileLock | None:
        return await self._making_step(locks.lock_new_file, path, data)

    async def open_directory(self, path: str) -> OpenDirectory | None:
        return await self._step(directories.open_directory, path)

    async def sync_tree(self, path: str) -> None:
        await self._step(trees.sync_tree, path)

    async def sync_directory(self, path: str) -> None:
        await self._step(ancestors.sync_directory, path)

    async def remove_tree(self, path: str) -> None:
        await self._step(trees.remove_tree, path)

    async def remove_interrupted(self, path: str, *, older_than: float, dry_run: bool) -> float | None:
        return await self._step(rename.remove_interrupted, path, older_than, dry_run)

    async def _looking_step(
        self, function: Callable[Concatenate[System, str, P], T], path: str, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a step that changes nothing; repeat it where another host has just put something else in that place.

        A network file system then answers ESTALE until what this host remembers of the name has run out.
        """
        for pause in _STALE_PAUSES:
            try:
                return await self._step(function, path, *args, **kwargs)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
            await self.environment.sleep(pause)
        return await self._step(function, path, *args, **kwargs)

    async def _making_step(
        self, function: Callable[Concatenate[System, str, P], T], path: str, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a step that changes one name in a directory which another host may have removed at that moment.

        A network file system then answers ESTALE where a disk answers ENOENT; either way nothing was done. Of a step
        that looks, ESTALE says nothing about what is there: it may be that of the whole mount.
        """
        try:
            return await self._step(function, path, *args, **kwargs)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            raise FileNotFoundError(errno.ENOENT, "its directory was removed on another host", path) from error

    def _step(
        self, function: Callable[Concatenate[System, str, P], T], path: str, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        return self.environment.step(_with_usable_names, function, self._system, path, args, kwargs)


def _with_usable_names(
    function: Callable[..., T], system: System, path: str, args: Sequence[object], kwargs: Mapping[str, object]
) -> T:
    try:
        return function(system, path, *args, **kwargs)
    except OSError as error:
        name(error, path)
        refused = _refusal(error, path)
        if refused is None:
            raise
        raise refused from error


def _refusal(error: OSError, path: str) -> AtomicPathError | None:
    """Return our error for one that says that a name cannot be used, or not by this user.

    Return None for any other error.
    """
    if isinstance(error, NotADirectoryError):
        return ValidationError(
            f"{_shown(path)}: part of this path is a file, not a directory: choose another one, or move the file"
        )
    if isinstance(error, PermissionError):
        refused = AccessError(
            f"{_shown(str(error.filename or path))}: {error.strerror}: check the permissions there and the user this"
            " process runs as"
        )
        refused.errno = error.errno
        return refused
    if error.errno == errno.ENAMETOOLONG:
        return ValidationError(
            f"{_shown(path)}: a name in it or below it is longer than the file system allows (commonly 255 bytes "
            "a name and 4095 a path): shorten it, or nest less deeply"
        )
    return None


def _shown(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:197]}..."
