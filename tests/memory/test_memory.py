"""The memory storage is a small object store with every condition, in which fsspec sees the same files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from atomicpath.abc import Entry, EntryKind, Environment, Put, StaleVersionError, Update
from atomicpath.errors import ValidationError
from atomicpath.guarantees import Guarantee
from atomicpath_memory import MemoryBackend, MemoryStorage


@pytest.fixture
def memory() -> MemoryStorage:
    return MemoryBackend().open({}, Environment())


@pytest.fixture
def root() -> Iterator[str]:
    root = f"/{uuid.uuid4().hex}"
    yield root
    for name in [name for name in MemoryFileSystem.store if name.startswith(root)]:
        del MemoryFileSystem.store[name]


def stored(path: str) -> bytes:
    data: bytes = MemoryFileSystem.store[path].getvalue()
    return data


async def test_what_is_created_is_seen_through_fsspec(memory: MemoryStorage, root: str) -> None:
    await memory.put(f"{root}/a", b"x", mode=Put.CREATE)
    assert UPath(MemoryBackend().url(f"{root}/a")).read_bytes() == b"x"
    UPath(MemoryBackend().url(f"{root}/b")).write_bytes(b"yy")
    assert (await memory.get(f"{root}/b")).data == b"yy"
    assert [(entry.name, entry.size) for entry in await memory.list(root, recursive=True)] == [("a", 1), ("b", 2)]


async def test_of_eight_concurrent_creations_one_succeeds(memory: MemoryStorage, root: str) -> None:
    won: list[int] = []

    async def create(number: int) -> None:
        try:
            await memory.put(f"{root}/a", b"%d" % number, mode=Put.CREATE)
        except FileExistsError:
            return
        won.append(number)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(create, number)
    assert len(won) == 1
    assert stored(f"{root}/a") == b"%d" % won[0]


async def test_versions_are_unique_even_of_equal_bytes(memory: MemoryStorage, root: str) -> None:
    path = f"{root}/a"
    versions = [await memory.put(path, b"x", mode=Put.CREATE), await memory.put(path, b"x", mode=Put.OVERWRITE)]
    versions.append(await memory.put(path, b"x", mode=Update(versions[-1])))
    assert len(set(versions)) == 3
    assert (await memory.get(path)).version == versions[-1]


async def test_a_users_change_in_place_changes_the_version(memory: MemoryStorage, root: str) -> None:
    version = await memory.put(f"{root}/a", b"x", mode=Put.CREATE)
    with UPath(MemoryBackend().url(f"{root}/a")).open("ab") as file:
        file.write(b"y")
    with pytest.raises(StaleVersionError):
        await memory.delete(f"{root}/a", version=version)
    assert stored(f"{root}/a") == b"xy"


async def test_swap_and_delete_refuse_another_version(memory: MemoryStorage, root: str) -> None:
    path = f"{root}/a"
    with pytest.raises(StaleVersionError):
        await memory.put(path, b"x", mode=Update("1-x"))
    first = await memory.put(path, b"first", mode=Put.CREATE)
    second = await memory.put(path, b"second", mode=Update(first))
    with pytest.raises(StaleVersionError):
        await memory.put(path, b"third", mode=Update(first))
    with pytest.raises(StaleVersionError):
        await memory.delete(path, version=first)
    assert stored(path) == b"second"
    await memory.delete(path, version=second)
    assert path not in MemoryFileSystem.store
    await memory.delete(path, version=second)
    await memory.delete(path)


async def test_an_owner_stays_through_a_swap(memory: MemoryStorage, root: str) -> None:
    version = await memory.put(f"{root}/a", b"x", mode=Put.CREATE, owner="token")
    await memory.put(f"{root}/a", b"y", mode=Update(version))
    assert (await memory.stat(f"{root}/a")).owner == "token"
    await memory.put(f"{root}/a", b"z", mode=Put.OVERWRITE)
    assert (await memory.stat(f"{root}/a")).owner is None
    assert await memory.stat(f"{root}/b") is None


async def test_files_come_and_go_whole(memory: MemoryStorage, root: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    await anyio.Path(source).write_bytes(b"data")
    entry = await memory.upload(source, f"{root}/a", owner="token", multipart=True)
    with pytest.raises(FileExistsError):
        await memory.upload(source, f"{root}/a", owner="another", multipart=True)
    assert (await memory.stat(f"{root}/a")).owner == "token"
    assert await memory.download(f"{root}/a", target) == entry == Entry(name="", size=4, version=entry.version)
    assert await anyio.Path(target).read_bytes() == b"data"
    with pytest.raises(FileExistsError):
        await memory.download(f"{root}/a", target)
    with pytest.raises(FileNotFoundError):
        await memory.download(f"{root}/b", tmp_path / "none")
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


async def test_a_listing_keeps_to_the_directory(memory: MemoryStorage, root: str) -> None:
    for name in ("run/b", "run/sub/a", "run/sub/deeper/c", "run-1/d", "runner"):
        await memory.put(f"{root}/{name}", b"x", mode=Put.CREATE)
    children = await memory.list(f"{root}/run", recursive=False)
    assert [(entry.name, entry.kind) for entry in children] == [("b", EntryKind.FILE), ("sub", EntryKind.DIRECTORY)]
    assert [entry.name for entry in await memory.list(f"{root}/run", recursive=True)] == ["b", "sub/a", "sub/deeper/c"]
    assert await memory.list(f"{root}/none", recursive=True) == []
    assert root[1:] in [entry.name for entry in await memory.list("/", recursive=False)]
    kinds = [await memory.kind(f"{root}/{name}") for name in ("run", "run/b", "ru")]
    assert kinds == [EntryKind.DIRECTORY, EntryKind.FILE, None]


async def test_it_declares_every_condition_and_no_rename(memory: MemoryStorage) -> None:
    declaration = await memory.declare("/a")
    assert Guarantee.COMPARE_AND_SWAP in declaration.declared
    assert not declaration.declared & (Guarantee.ATOMIC_RENAME | Guarantee.DIRECTORIES | Guarantee.SYNC)
    assert set(declaration.evidence) == set(declaration.declared)


def test_a_forked_child_is_not_stuck_on_the_lock(memory: MemoryStorage, root: str) -> None:
    anyio.run(partial(memory.put, mode=Put.CREATE), f"{root}/a", b"x")
    child = os.fork()
    if child == 0:
        try:
            anyio.run(partial(memory.put, mode=Put.CREATE), f"{root}/b", b"x")
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert f"{root}/b" not in MemoryFileSystem.store


@pytest.mark.parametrize("url", ["memory://a/b", "memory:///a/b", "memory://a/b/"])
def test_a_path_is_fsspecs(url: str) -> None:
    backend = MemoryBackend()
    assert backend.parse_url(url) == UPath(url.rstrip("/")).path == "/a/b"
    assert backend.parse_url(backend.url("/a/b")) == "/a/b"


@pytest.mark.parametrize("url", ["memory://", "memory://a//b", "memory://a/../b", "memory://./a"])
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        MemoryBackend().parse_url(url)
