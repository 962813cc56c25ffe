"""Conditional operations on fsspec's in-process file system, made indivisible by one lock."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

import fsspec
from fsspec.implementations.memory import MemoryFile

from atomicpath.abc import (
    Content,
    Declaration,
    Entry,
    EntryKind,
    Environment,
    MultipartStorage,
    Put,
    StaleVersionError,
    Update,
)
from atomicpath.guarantees import Guarantee

__all__ = ["MemoryStorage", "open_memory"]

T = TypeVar("T")

_DECLARED = (
    Guarantee.ATOMIC_WRITE
    | Guarantee.LIST_AFTER_WRITE
    | Guarantee.EXCLUSIVE_CREATE
    | Guarantee.EXCLUSIVE_MULTIPART
    | Guarantee.COMPARE_AND_SWAP
    | Guarantee.CONDITIONAL_DELETE
)

_lock = threading.RLock()  # reentrant: a signal handler may run in the thread that holds the lock
if hasattr(os, "register_at_fork"):  # else a child forked while another thread held the lock would wait for ever
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class _File(Protocol):
    modified: datetime

    def getvalue(self) -> bytes: ...
    @property
    def size(self) -> int: ...


class _Filesystem(Protocol):
    store: dict[str, _File]


@dataclass(frozen=True, slots=True)
class _Mark:
    serial: int
    owner: str | None


_marks: WeakKeyDictionary[_File, _Mark] = WeakKeyDictionary()
_serials = itertools.count(1)


def open_memory(options: Mapping[str, object]) -> _Filesystem:
    """Return a storage on fsspec's own cached instance: `UPath("memory://…")` sees the same files."""
    filesystem: _Filesystem = fsspec.filesystem("memory", **options)
    return filesystem


class MemoryStorage(MultipartStorage):
    """Flat like an object store: a directory is what has something below it, fsspec's empty ones are not seen.

    Our own operations are indivisible among themselves. Users' writes through fsspec are seen but not
    excluded: fsspec checks, then writes.
    """

    largest_single = 1 << 62  # bytes: parts are for probes and checks only

    def __init__(self, filesystem: _Filesystem, environment: Environment) -> None:
        super().__init__(environment)
        self._filesystem = filesystem

    async def declare(self, path: str) -> Declaration:  # noqa: ARG002 - the port's
        return Declaration(declared=_DECLARED, evidence=dict.fromkeys(_DECLARED, "this process's memory"))

    async def get(self, path: str) -> Content:
        def look() -> Content:
            file = self._file(path)
            data = file.getvalue()
            return Content(data=data, version=_version(file, data), age=_age(file))

        return await self._locked(look)

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str:
        def store() -> str:
            if mode is Put.CREATE:
                return self._create(path, data, owner)
            kept = self._check(path, mode.version) if isinstance(mode, Update) else None
            return self._put(path, data, owner or kept)

        return await self._locked(store)

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:  # noqa: ARG002 - the port's
        def store() -> Entry:
            data = source.read_bytes()
            with _lock:
                return Entry(name="", size=len(data), version=self._create(path, data, owner))

        return await self.environment.step(store)

    async def download(self, path: str, target: Path) -> Entry:
        content = await self.get(path)
        await self.environment.step(_write_new, target, content.data)
        return Entry(name="", size=len(content.data), version=content.version)

    async def create_in_parts(self, path: str, data: bytes) -> None:
        await self.put(path, data, mode=Put.CREATE)

    async def stat(self, path: str) -> Entry | None:
        def look() -> Entry | None:
            if path not in self._filesystem.store:
                return None
            file = self._file(path)
            return Entry(name="", size=file.size, version=_version(file), owner=_mark(file).owner, age=_age(file))

        return await self._locked(look)

    async def delete(self, path: str, *, version: str | None = None) -> None:
        def remove() -> None:
            if path not in self._filesystem.store:
                return
            if version is not None:
                self._check(path, version)
            self._filesystem.store.pop(path, None)

        await self._locked(remove)

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        def look() -> list[Entry]:
            found: dict[str, Entry] = {}
            for name, file in self._below(path):
                child, deeper, _ = name.partition("/")
                if deeper and not recursive:
                    found[child] = Entry(name=child, kind=EntryKind.DIRECTORY)
                elif recursive or child not in found:  # a directory of that name hides the file, as in fsspec
                    found[name] = Entry(name=name, size=file.size, version=_version(file))
            return [found[name] for name in sorted(found)]

        return await self._locked(look)

    async def _locked(self, function: Callable[[], T]) -> T:
        def step() -> T:
            with _lock:
                return self.environment.call(function)

        return await self.environment.step(step)

    # the methods below are called with the lock held

    def _file(self, path: str) -> _File:
        try:
            return self._filesystem.store[path]
        except KeyError:
            raise FileNotFoundError(f"nothing is at memory:/{path}") from None

    def _below(self, path: str) -> Sequence[tuple[str, _File]]:
        prefix = f"{path.rstrip('/')}/"
        # a snapshot, since users write to the same store without our lock
        files = tuple(self._filesystem.store.items())
        return [(name[len(prefix) :], file) for name, file in files if name.startswith(prefix)]

    def _create(self, path: str, data: bytes, owner: str) -> str:
        file = self._new(path, data, owner or None)
        if self._filesystem.store.setdefault(path, file) is not file:
            raise FileExistsError(f"something is at memory:/{path}")
        return _version(file, data)

    def _put(self, path: str, data: bytes, owner: str | None) -> str:
        file = self._filesystem.store[path] = self._new(path, data, owner)
        return _version(file, data)

    def _new(self, path: str, data: bytes, owner: str | None) -> _File:
        file: _File = MemoryFile(self._filesystem, path, data)
        _marks[file] = _Mark(next(_serials), owner)
        return file

    def _check(self, path: str, version: str) -> str | None:
        file = self._filesystem.store.get(path)
        if file is None or _version(file) != version:
            raise StaleVersionError(f"memory:/{path} does not have the version {version} any more")
        return _mark(file).owner


def _age(file: _File) -> float:
    return max((datetime.now(UTC) - file.modified).total_seconds(), 0.0)


def _mark(file: _File) -> _Mark:
    return _marks.setdefault(file, _Mark(next(_serials), None))


def _version(file: _File, data: bytes | None = None) -> str:
    # The serial tells equal bytes written twice apart; the digest, a file that a user appends to in place.
    content = file.getvalue() if data is None else data
    return f"{_mark(file).serial}-{hashlib.sha256(content).hexdigest()[:16]}"


def _write_new(target: Path, data: bytes) -> None:
    with target.open("xb") as file:
        try:
            file.write(data)
            file.flush()
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise
