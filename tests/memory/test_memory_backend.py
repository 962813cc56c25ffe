"""The memory backend: URLs, versions, and that its operations are indivisible among themselves."""

from __future__ import annotations

import threading
import uuid
from functools import partial
from pathlib import Path

import anyio
import fsspec
import pytest

import atomicpath
from atomicpath.abc import EntryKind, Environment, Put, StaleVersionError, Storage, Update
from atomicpath.errors import ValidationError
from atomicpath.guarantees import Guarantee
from atomicpath_memory import MemoryBackend


@pytest.fixture
def storage() -> Storage:
    return MemoryBackend().open({}, Environment())


@pytest.fixture
def top() -> str:
    return f"/{uuid.uuid4().hex}"


@pytest.mark.parametrize("url", ["memory://", "memory:///", "memory://a//b", "memory://a/../b", "memory://./a"])
def test_a_url_that_names_no_one_place_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="memory://run/step_100"):
        MemoryBackend().parse_url(url)


@pytest.mark.parametrize(("url", "path"), [("memory://a/b", "/a/b"), ("memory:///a/b/", "/a/b")])
def test_a_path_is_that_of_fsspec_and_comes_back_from_its_url(url: str, path: str) -> None:
    backend = MemoryBackend()
    assert backend.parse_url(url) == path
    assert backend.parse_url(backend.url(path)) == path


def test_of_many_threads_that_create_one_name_one_succeeds(storage: Storage, top: str) -> None:
    won: list[bytes] = []
    ready = threading.Barrier(8)

    def create(number: int) -> None:
        ready.wait()
        try:
            anyio.run(partial(storage.put, mode=Put.CREATE), f"{top}/a", b"%d" % number)
        except FileExistsError:
            return
        won.append(b"%d" % number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert fsspec.filesystem("memory").cat_file(f"{top}/a") == won[0]


async def test_equal_bytes_written_again_have_another_version(storage: Storage, top: str) -> None:
    first = await storage.put(f"{top}/a", b"x", mode=Put.OVERWRITE)
    second = await storage.put(f"{top}/a", b"x", mode=Put.OVERWRITE)
    assert first is not None
    assert first != second
    with pytest.raises(StaleVersionError):
        await storage.delete(f"{top}/a", version=first)
    with pytest.raises(StaleVersionError):
        await storage.put(f"{top}/a", b"y", mode=Update(first))
    assert (await storage.get(f"{top}/a")).data == b"x"


async def test_what_a_user_appends_in_place_changes_the_version(storage: Storage, top: str) -> None:
    await storage.put(f"{top}/a", b"x", mode=Put.CREATE)
    version = (await storage.get(f"{top}/a")).version
    with fsspec.filesystem("memory").open(f"{top}/a", "ab") as file:
        file.write(b"y")
    assert (await storage.get(f"{top}/a")).version != version


async def test_the_owner_stays_through_a_swap_and_goes_with_an_overwrite(storage: Storage, top: str) -> None:
    version = await storage.put(f"{top}/a", b"x", mode=Put.CREATE, owner="me")
    assert version is not None
    await storage.put(f"{top}/a", b"y", mode=Update(version))
    found = await storage.stat(f"{top}/a")
    assert found is not None
    assert found.owner == "me"
    await storage.put(f"{top}/a", b"z", mode=Put.OVERWRITE)
    found = await storage.stat(f"{top}/a")
    assert found is not None
    assert found.owner is None


async def test_a_download_never_overwrites(storage: Storage, top: str, tmp_path: Path) -> None:
    await storage.put(f"{top}/a", b"x", mode=Put.CREATE)
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        await storage.download(f"{top}/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"mine"


async def test_a_directory_is_what_has_something_below_it(storage: Storage, top: str) -> None:
    await storage.put(f"{top}/run/a/b", b"x", mode=Put.CREATE)
    await storage.put(f"{top}/run-1", b"x", mode=Put.CREATE)
    assert await storage.kind(f"{top}/run") == EntryKind.DIRECTORY
    assert await storage.kind(f"{top}/ru") is None
    assert [(entry.name, entry.kind) for entry in await storage.list(f"{top}/run", recursive=False)] == [
        ("a", EntryKind.DIRECTORY)
    ]
    assert [entry.name for entry in await storage.list(f"{top}/run", recursive=True)] == ["a/b"]


def test_a_rename_that_the_storage_has_no_method_for_cannot_be_asserted() -> None:
    asserted = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE
    explanation = atomicpath.explain("memory://asserted/step_1", guarantees=asserted)
    assert explanation.profile.refuted & asserted == asserted
    assert "MemoryStorage has no way to do it" in str(explanation)
    assert "Commits here use CommitFileTemporaryPath" in str(explanation)
