"""How a storage is made to lie: an honest one under another name, of which a lie changes one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from atomicpath.abc import Backend, Content, Declaration, Entry, Environment, FileLock, OpenDirectory, Storage
from atomicpath.guarantees import NONE, Guarantee

__all__ = ["FaultyStorage", "Lying"]


class FaultyStorage(Storage):
    """The honest storage `inner` under another name; each lie changes one thing."""

    about: Guarantee = NONE
    """The guarantees that do not hold because of it."""

    def __init__(self, inner: Storage, state: dict[str, object]) -> None:
        super().__init__(inner.environment)
        self.inner = inner
        self.state = state  # of the backend: a storage is opened many times
        self.largest_single = inner.largest_single  # type: ignore[misc]  # each is the inner one's
        self.is_local = inner.is_local  # type: ignore[misc]

    async def declare(self, path: str) -> Declaration:
        return await self.inner.declare(path)

    async def learn(self, path: str) -> bool:
        return await self.inner.learn(path)

    async def read(self, path: str) -> Content:
        return await self.inner.read(path)

    async def create(self, path: str, data: bytes, *, owner: str = "") -> str | None:
        return await self.inner.create(path, data, owner=owner)

    async def swap(self, path: str, data: bytes, *, version: str) -> str:
        return await self.inner.swap(path, data, version=version)

    async def write(self, path: str, data: bytes, *, private: bool = False) -> str | None:
        return await self.inner.write(path, data, private=private)

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        return await self.inner.upload(source, path, owner=owner, multipart=multipart)

    async def download(self, path: str, target: Path) -> Entry:
        return await self.inner.download(path, target)

    async def create_in_parts(self, path: str, data: bytes) -> None:
        await self.inner.create_in_parts(path, data)

    async def stat(self, path: str) -> Entry | None:
        return await self.inner.stat(path)

    async def delete(self, path: str, *, version: str | None = None) -> None:
        await self.inner.delete(path, version=version)

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        return await self.inner.list(path, recursive=recursive)

    async def kind(self, path: str) -> str | None:
        return await self.inner.kind(path)

    async def link_target(self, path: str) -> str | None:
        return await self.inner.link_target(path)

    async def set_link(self, path: str, target: str) -> None:
        await self.inner.set_link(path, target)

    async def make_directory(self, path: str, *, mode: int | None, durable: bool) -> None:
        await self.inner.make_directory(path, mode=mode, durable=durable)

    async def rename_directory(self, source: str, target: str) -> None:
        await self.inner.rename_directory(source, target)

    async def exchange_directories(self, first: str, second: str) -> None:
        await self.inner.exchange_directories(first, second)

    async def make_parents(self, path: str, *, durable: bool) -> None:
        await self.inner.make_parents(path, durable=durable)

    async def make_shared_directory(self, path: str) -> None:
        await self.inner.make_shared_directory(path)

    async def remove_empty(self, path: str) -> None:
        await self.inner.remove_empty(path)

    async def lock_file(self, path: str, *, existing: bool = False) -> FileLock | None:
        return await self.inner.lock_file(path, existing=existing)

    async def open_directory(self, path: str) -> OpenDirectory | None:
        return await self.inner.open_directory(path)

    async def copy_files(self, source: str, target: str, names: Sequence[str]) -> None:
        await self.inner.copy_files(source, target, names)

    async def sync_tree(self, path: str) -> None:
        await self.inner.sync_tree(path)

    async def sync_directory(self, path: str) -> None:
        await self.inner.sync_directory(path)

    async def remove_tree(self, path: str) -> None:
        await self.inner.remove_tree(path)

    async def remove_interrupted(self, path: str, *, older_than: float, dry_run: bool) -> float | None:
        return await self.inner.remove_interrupted(path, older_than=older_than, dry_run=dry_run)


class Lying(Backend):
    """A backend whose storages tell one lie.

    It claims what the honest one claims. With `admits` it declares nothing of what the lie is about and
    leaves it to the probes: an endpoint that nobody has documented.
    """

    def __init__(self, inner: Backend, lie: type[FaultyStorage], *, admits: bool = False) -> None:
        self.protocols = inner.protocols  # type: ignore[misc]  # those of this one
        self._inner, self._lie, self._admits = inner, lie, admits
        self._state: dict[str, object] = {}

    def parse_url(self, url: str) -> str:
        return self._inner.parse_url(url)

    def url(self, path: str) -> str:
        return self._inner.url(path)

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:
        return self._inner.identity(path, storage_options)

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> Storage:
        storage = self._lie(self._inner.open(storage_options, environment), self._state)
        return _Admitting(storage, self._state) if self._admits else storage


class _Admitting(FaultyStorage):
    async def declare(self, path: str) -> Declaration:
        told = await self.inner.declare(path)
        about = told.declared & self.inner.about if isinstance(self.inner, FaultyStorage) else NONE
        return replace(told, declared=told.declared & ~about, observable=told.observable | about)
