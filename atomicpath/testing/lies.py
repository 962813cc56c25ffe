"""Storages that lie, to show that the checks and the probes would notice: a check that nothing fails proves nothing.

    with serving(Lying(MemoryBackend(), IgnoresConditions)):
        ...  # memory:// now overwrites what must not exist

Each is an honest storage with one thing wrong. They are for tests of the kit, and of code that must notice.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import anyio

from atomicpath.abc import Content, DirectoryStorage, Entry, EntryKind, Put, StaleVersionError, Update
from atomicpath.guarantees import Guarantee

from .lying import FaultyStorage

__all__ = [
    "LIES",
    "ChecksThenWrites",
    "CopiesToRename",
    "ForgetsDeletes",
    "IgnoresConditions",
    "ListsLate",
    "LosesReplies",
    "MergesOnRename",
    "RacesParts",
    "RenamesOntoEmpty",
    "Reorders",
    "RepeatsVersions",
    "ShortensDownloads",
    "TearsWrites",
]


# Objects


class IgnoresConditions(FaultyStorage):
    """Overwrites what must not exist, swaps and deletes whatever the version (rclone's S3 server does)."""

    about = Guarantee.EXCLUSIVE_CREATE | Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str | None:
        return await self.inner.put(path, data, mode=Put.OVERWRITE, owner=owner)

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        await self.inner.delete(path)
        return await self.inner.upload(source, path, owner=owner, multipart=multipart)

    async def delete(self, path: str, *, version: str | None = None) -> None:
        await self.inner.delete(path)


class ChecksThenWrites(FaultyStorage):
    """Keeps conditions while nobody else writes: it looks first and writes later (moto under load does)."""

    about = Guarantee.EXCLUSIVE_CREATE | Guarantee.COMPARE_AND_SWAP

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str | None:
        found = await self.inner.stat(path)
        await _let_others_go_first()
        if mode is Put.CREATE and found is not None:
            raise FileExistsError(errno.EEXIST, "something is there", path)
        if isinstance(mode, Update) and (found is None or found.version != mode.version):
            raise StaleVersionError(errno.ESTALE, "it has another version", path)
        return await self.inner.put(path, data, mode=Put.OVERWRITE, owner=owner)


class RacesParts(FaultyStorage):
    """Lets several multi-part uploads of one name complete (SeaweedFS does, now and then)."""

    about = Guarantee.EXCLUSIVE_MULTIPART

    async def create_in_parts(self, path: str, data: bytes) -> None:
        found = await self.inner.kind(path)
        await _let_others_go_first()
        if found is not None:
            raise FileExistsError(errno.EEXIST, "something is there", path)
        await self.inner.put(path, data, mode=Put.OVERWRITE)


class RepeatsVersions(FaultyStorage):
    """Gives different contents of one length the same version."""

    about = Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE

    async def get(self, path: str) -> Content:
        content = await self.inner.get(path)
        return replace(content, version=str(len(content.data)))

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str | None:
        true = Update(await self._true(path, mode.version)) if isinstance(mode, Update) else mode
        await self.inner.put(path, data, mode=true, owner=owner)
        return str(len(data))

    async def delete(self, path: str, *, version: str | None = None) -> None:
        await self.inner.delete(path, version=await self._true(path, version) if version is not None else None)

    async def stat(self, path: str) -> Entry | None:
        found = await self.inner.stat(path)
        return found and _by_size(found)

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        return [_by_size(entry) for entry in await self.inner.list(path, recursive=recursive)]

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        return _by_size(await self.inner.upload(source, path, owner=owner, multipart=multipart))

    async def download(self, path: str, target: Path) -> Entry:
        return _by_size(await self.inner.download(path, target))

    async def _true(self, path: str, version: str) -> str:
        found = await self.inner.stat(path)
        if found is None or found.version is None or str(found.size) != version:
            raise StaleVersionError(errno.ESTALE, "it has another size", path)
        return found.version


class ListsLate(FaultyStorage):
    """Shows in each listing what the one before should have shown."""

    about = Guarantee.LIST_AFTER_WRITE

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        now = await self.inner.list(path, recursive=recursive)
        before = self.state.get(f"{path} {recursive}", [])
        self.state[f"{path} {recursive}"] = now
        return before if isinstance(before, list) else []


class TearsWrites(FaultyStorage):
    """Stores half of an object first."""

    about = Guarantee.ATOMIC_WRITE

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str | None:
        if isinstance(mode, Update):
            return await self.inner.put(path, data, mode=mode, owner=owner)
        await self.inner.put(path, data[: len(data) // 2], mode=mode, owner=owner)
        await _let_others_go_first()
        return await self.inner.put(path, data, mode=Put.PRIVATE if mode is Put.PRIVATE else Put.OVERWRITE, owner=owner)


class LosesReplies(FaultyStorage):
    """Says of every fifth object that it creates that it was there before (a client that retries by itself does)."""

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str | None:
        version = await self.inner.put(path, data, mode=mode, owner=owner)
        if mode is not Put.CREATE:
            return version
        count = self.state.get("count", 0)
        self.state["count"] = count = (count if isinstance(count, int) else 0) + 1
        if count % 5 == 0:
            raise FileExistsError(errno.EEXIST, "something is there", path)
        return version


class Reorders(FaultyStorage):
    """Acknowledges an overwrite at once and does it with the next one."""

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str | None:
        if mode is Put.CREATE or isinstance(mode, Update):
            return await self.inner.put(path, data, mode=mode, owner=owner)
        late = self.state.get("late")
        self.state["late"] = (path, data)
        if isinstance(late, tuple):
            await self.inner.put(*late, mode=Put.OVERWRITE)
        found = await self.inner.stat(path)
        return found.version if found else await self.inner.put(path, b"", mode=Put.OVERWRITE)


class ForgetsDeletes(FaultyStorage):
    """Acknowledges a delete and does nothing."""

    about = Guarantee.CONDITIONAL_DELETE

    async def delete(self, path: str, *, version: str | None = None) -> None:
        """Do nothing."""


class ShortensDownloads(FaultyStorage):
    """Ends a long download early, without an error."""

    async def download(self, path: str, target: Path) -> Entry:
        got = await self.inner.download(path, target)
        if got.size > 100:
            await self.environment.step(_shorten, target)
        return got


# Directories


class CopiesToRename(FaultyStorage):
    """Renames a directory file by file (what `fs.mv` does on an object store)."""

    about = Guarantee.ATOMIC_RENAME

    async def rename_directory(self, source: str, target: str) -> None:
        entries = await self.inner.list(source, recursive=True)
        if await self.inner.kind(source) is None:
            raise FileNotFoundError(errno.ENOENT, "nothing is there", source)
        await _made(self.directories, target)
        for entry in entries:
            parent = f"{target}/{entry.name}".rpartition("/")[0]
            if await self.inner.kind(parent) is None:
                await _made(self.directories, parent)
            data = (await self.inner.get(f"{source}/{entry.name}")).data
            await self.inner.put(f"{target}/{entry.name}", data, mode=Put.OVERWRITE)
            await _let_others_go_first()
        await self.directories.remove_tree(source)


class MergesOnRename(FaultyStorage):
    """Moves a directory's files into one that is there already (rclone's mounts do)."""

    about = Guarantee.RENAME_NOREPLACE

    async def rename_directory(self, source: str, target: str) -> None:
        try:
            await self.directories.rename_directory(source, target)
        except FileExistsError:
            for entry in await self.inner.list(source, recursive=True):
                data = (await self.inner.get(f"{source}/{entry.name}")).data
                await self.inner.put(f"{target}/{entry.name}", data, mode=Put.OVERWRITE)
            await self.directories.remove_tree(source)


class RenamesOntoEmpty(FaultyStorage):
    """Replaces an empty directory (what plain rename(2) does)."""

    about = Guarantee.RENAME_NOREPLACE

    async def rename_directory(self, source: str, target: str) -> None:
        if await self.inner.kind(target) is EntryKind.DIRECTORY and not await self.inner.list(target, recursive=False):
            await self.directories.remove_tree(target)
        await self.directories.rename_directory(source, target)


class ExchangesInSteps(FaultyStorage):
    """Has two directories swap names by three renames (the usual way to do without an exchange)."""

    about = Guarantee.RENAME_EXCHANGE

    async def exchange_directories(self, first: str, second: str) -> None:
        aside = f"{first}-aside"
        await self.directories.rename_directory(first, aside)
        await self.directories.rename_directory(second, first)
        await _let_others_go_first()
        await self.directories.rename_directory(aside, second)


LIES: tuple[type[FaultyStorage], ...] = (
    IgnoresConditions,
    ChecksThenWrites,
    RacesParts,
    RepeatsVersions,
    ListsLate,
    TearsWrites,
    LosesReplies,
    Reorders,
    ForgetsDeletes,
    ShortensDownloads,
    CopiesToRename,
    MergesOnRename,
    RenamesOntoEmpty,
    ExchangesInSteps,
)
"""All of them."""


async def _let_others_go_first() -> None:
    await anyio.sleep(0.002)  # not the environment's: it is the store that takes its time


async def _made(inner: DirectoryStorage, path: str) -> None:
    await inner.make_directory(path, mode=None, durable=False)


def _by_size(entry: Entry) -> Entry:
    return replace(entry, version=str(entry.size) if entry.kind is EntryKind.FILE else None)


def _shorten(target: Path) -> None:
    with target.open("r+b") as file:
        file.truncate(target.stat().st_size // 2)
