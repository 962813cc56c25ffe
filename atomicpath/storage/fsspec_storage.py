"""The storage port on the methods that every fsspec class has, for `FsspecBackend`.

Nothing is relied on that fsspec does not promise (fsspec 2026.9.0, spec.py and asyn.py). `mv` copies and deletes, and
so is never called. `mkdir` may do nothing. The modules of looks and of transfers say what is not promised of those.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from atomicpath.abc import Declaration, DirectoryStorage, EntryKind, IdentifyingStorage, lacking
from atomicpath.errors import ValidationError
from atomicpath.guarantees import NONE, Guarantee

from .fsspec_transfer import TransferringStorage
from .fsspec_walk import is_over, look, scan

__all__ = ["DirectoryMethodStorage", "MethodStorage"]

_ADAPTED = {
    Guarantee.DIRECTORIES: ("mkdir", "fsspec's mkdir may make nothing, or take what is there for made"),
    Guarantee.ATOMIC_RENAME: ("rename", "fsspec's mv copies"),
    Guarantee.RENAME_NOREPLACE: ("rename", "fsspec's mv overwrites, or moves into what is there"),
}
_NEVER = {
    Guarantee.COMPARE_AND_SWAP: "fsspec has no write that names a version",
    Guarantee.CONDITIONAL_DELETE: "fsspec has no delete that names a version",
    Guarantee.RENAME_EXCHANGE: "fsspec has no exchange",
    Guarantee.SYNC: "fsspec syncs nothing",
}


class MethodStorage(TransferringStorage, IdentifyingStorage):
    """What an `FsspecBackend` opens. Nothing has a version, an owner or an age here."""

    async def declare(self, path: str) -> Declaration:  # noqa: ARG002 - the same everywhere
        backend, name = self.backend, self.filesystem_class.__name__
        impossible = self._impossible()
        declared = backend.declared.keys() - impossible.keys()
        return Declaration(
            declared=_all(declared),
            observable=backend.observable & ~_all(impossible),
            refutable=_all(set(Guarantee) - impossible.keys()) & ~backend.observable,
            impossible=_all(impossible),
            evidence={
                Guarantee.EXCLUSIVE_CREATE: f"it would have to be kept by {self.small} of {name}",
                Guarantee.EXCLUSIVE_MULTIPART: f"it would have to be kept by {self.large} of {name}",
                **backend.declared,
                **impossible,
            },
            renames_between_directories=backend.renames_between_directories,
            is_tried_if_asserted=not (backend.declared or backend.observable),
        )

    async def kind(self, path: str) -> EntryKind | None:
        found = await self.stat(path)
        if found is None or found.kind is not EntryKind.DIRECTORY:
            return found.kind if found else None
        return EntryKind.DIRECTORY if await self.list(path, recursive=True) else None

    async def delete(self, path: str, *, version: str | None = None) -> None:
        if version is not None:
            raise lacking(self, Guarantee.CONDITIONAL_DELETE)

        def delete(filesystem: Any, native: str) -> None:
            info = look(filesystem, native)
            if info is None:
                return
            if info.get("type") != "directory":
                filesystem.rm_file(native)
            elif self.has_directories:  # some classes would delete everything in the directory
                raise IsADirectoryError(errno.EISDIR, "it is a directory", native)
            elif not scan(filesystem, native):  # the directory was made for files written in it
                filesystem.rmdir(native)

        with suppress(FileNotFoundError):
            await self.ask("rm_file", delete, path, writes=True)

    async def identity(self, path: str) -> str:  # noqa: ARG002 - the same everywhere
        return ""  # the place depends on options that may be secret: nothing derived from them is published

    async def make_ancestors(self, path: str) -> None:
        def make(filesystem: Any, native: str) -> None:
            filesystem.makedirs(native, exist_ok=True)

        await self.ask("makedirs", make, path.rpartition("/")[0], writes=True)

    def _impossible(self) -> Mapping[Guarantee, str]:
        """Return the guarantees, with reasons, that no class of fsspec can keep by its own methods.

        A guarantee that this backend has an adapter for is left out.
        """
        found = dict(_NEVER)
        for guarantee, (adapter, reason) in _ADAPTED.items():
            if not self.backend.has(adapter):
                found[guarantee] = (
                    f"{reason}: it takes a plug-in with a {adapter} of its own, docs/writing-a-backend.md"
                )
        overwriting = {Guarantee.EXCLUSIVE_CREATE: self.small, Guarantee.EXCLUSIVE_MULTIPART: self.large}
        for guarantee, by in overwriting.items():
            if by in ("pipe_file", "put_file"):
                found[guarantee] = f"{by} of {self.filesystem_class.__name__} overwrites what is there"
        return found


class DirectoryMethodStorage(DirectoryStorage, MethodStorage):
    """What a backend with a `mkdir` of its own opens: directories exist by themselves there."""

    has_directories = True

    async def make_directory(self, path: str, *, mode: int | None, durable: bool) -> None:  # noqa: ARG002 - fsspec syncs nothing
        if mode is not None:
            raise ValidationError(
                f"path_permission_mode cannot be honoured at {self.url(path)}: fsspec sets no modes. Leave it out"
            )
        try:
            await self._mkdir(path)
        except FileNotFoundError:
            await self.make_ancestors(path)
            await self._mkdir(path)

    async def _mkdir(self, path: str) -> None:
        try:
            await self.ask("mkdir", self.backend.mkdir, path, writes=True)
        except OSError as error:
            if is_over(error) and await self.kind(path) is not None:
                raise self.taken(path) from error
            raise

    async def make_ancestors(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if await self.kind(parent) is None:
            if "/" in parent:
                await self.make_ancestors(parent)
            with suppress(FileExistsError):
                await self._mkdir(parent)

    async def rename_directory(self, source: str, target: str) -> None:
        if not self.backend.has("rename"):
            raise lacking(self, Guarantee.ATOMIC_RENAME)
        try:
            await self.ask("rename", self.backend.rename, source, target, writes=True)
        except OSError as error:
            if is_over(error) and await self.kind(source) is not None and await self.kind(target) is not None:
                raise self.taken(target) from error
            raise

    async def remove_tree(self, path: str) -> None:
        directories = [path]
        for directory in directories:  # the list grows during the loop: parents stay before their children
            for entry in await self.children(directory):
                if entry.kind is EntryKind.DIRECTORY:
                    directories.append(f"{directory}/{entry.name}")
                else:
                    await self.delete(f"{directory}/{entry.name}")
        for directory in reversed(directories):
            with suppress(FileNotFoundError):
                await self.ask("rmdir", lambda filesystem, native: filesystem.rmdir(native), directory, writes=True)


def _all(guarantees: Any) -> Guarantee:
    found = NONE
    for guarantee in guarantees:
        found |= guarantee
    return found
