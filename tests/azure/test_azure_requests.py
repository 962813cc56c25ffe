"""Each operation of the Azure storage is the conditional request that carries it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from azure.storage.blob import ContainerClient

import atomicpath_azure.blocks
import atomicpath_azure.storage
from atomicpath.abc import Entry, EntryKind, Put, StaleVersionError, Storage, Update
from atomicpath.errors import GuaranteeError, ValidationError
from tests.support.proxy import Proxy, Request, Rule, hold, is_
from tests.support.waiting import PATIENCE, until

Truth = Callable[[], dict[str, bytes]]
BLOCK = 2**20 + 1


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomicpath_azure.blocks, "BLOCK", BLOCK)
    monkeypatch.setattr(atomicpath_azure.storage, "BLOCK", BLOCK)


def sent(proxy: Proxy) -> list[tuple[str, dict[str, str]]]:
    return [(request.method, request.conditions) for request in proxy.requests]


def lists_blocks(request: Request) -> bool:
    return request.method == "PUT" and request.query.get("comp") == "blocklist"


async def test_create_is_one_put_that_must_not_exist(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth
) -> None:
    version = await azure.put(f"{bucket}/run/a", b"first", mode=Put.CREATE, owner="token")
    assert sent(az_proxy) == [("PUT", {"if-none-match": "*"})]
    with pytest.raises(FileExistsError):
        await azure.put(f"{bucket}/run/a", b"second", mode=Put.CREATE)
    assert truth() == {"run/a": b"first"}
    assert (await azure.get(f"{bucket}/run/a")).version == version
    assert await azure.stat(f"{bucket}/run/a") == Entry(name="", size=5, version=version, owner="token")
    assert await azure.stat(f"{bucket}/run/b") is None


async def test_of_eight_concurrent_creations_one_succeeds(azure: Storage, bucket: str, truth: Truth) -> None:
    won: list[int] = []

    async def create(number: int) -> None:
        try:
            await azure.put(f"{bucket}/run/a", b"%d" % number, mode=Put.CREATE)
        except FileExistsError:
            return
        won.append(number)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(create, number)
    assert truth() == {"run/a": b"%d" % won[0]}
    assert len(won) == 1


async def test_swap_names_the_version_it_replaces(azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth) -> None:
    path = f"{bucket}/run/a"
    first = await azure.put(path, b"first", mode=Put.CREATE)
    assert first is not None
    second = await azure.put(path, b"second", mode=Update(first))
    assert az_proxy.requests[-1].conditions == {"if-match": f'"{first}"'}
    assert (await azure.get(path)).version == second
    with pytest.raises(StaleVersionError):
        await azure.put(path, b"third", mode=Update(first))
    with pytest.raises(StaleVersionError):
        await azure.put(f"{bucket}/run/nothing", b"x", mode=Update(first))
    assert truth() == {"run/a": b"second"}


async def test_equal_bytes_have_different_versions(azure: Storage, bucket: str) -> None:
    path = f"{bucket}/run/a"
    assert await azure.put(path, b"same", mode=Put.OVERWRITE) != await azure.put(path, b"same", mode=Put.PRIVATE)


async def test_delete_names_the_version_that_was_seen(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth
) -> None:
    path = f"{bucket}/run/a"
    first = await azure.put(path, b"first", mode=Put.OVERWRITE)
    second = await azure.put(path, b"second", mode=Put.OVERWRITE)
    with pytest.raises(StaleVersionError):
        await azure.delete(path, version=first)
    assert az_proxy.requests[-2].conditions == {"if-match": f'"{first}"'}
    assert truth() == {"run/a": b"second"}
    await azure.delete(path, version=second)
    assert truth() == {}
    await azure.delete(path)
    await azure.delete(path, version=second)


async def test_read_tells_age_by_the_servers_clock(azure: Storage, bucket: str) -> None:
    await azure.put(f"{bucket}/run/empty", b"", mode=Put.CREATE)
    content = await azure.get(f"{bucket}/run/empty")
    assert content.data == b""
    assert content.age is not None
    assert content.age >= 0
    with pytest.raises(FileNotFoundError):
        await azure.get(f"{bucket}/run/b")


@pytest.mark.parametrize("name", ["with space", "ünïcödé-日本", "a+b", "50%", "a%20b", "a&b=c?d#e", "tilde~'()!*"])
async def test_any_name_comes_back_as_it_was(
    azure: Storage, bucket: str, truth: Truth, tmp_path: Path, name: str
) -> None:
    path = f"{bucket}/run/{name}"
    version = await azure.put(path, b"x", mode=Put.CREATE)
    assert truth() == {f"run/{name}": b"x"}
    assert await azure.list(f"{bucket}/run", recursive=True) == [Entry(name=name, size=1, version=version)]
    assert await azure.list(f"{bucket}/run", recursive=False) == [Entry(name=name, size=1, version=version)]
    assert await azure.kind(path) == EntryKind.FILE
    assert (await azure.download(path, tmp_path / "copy")).size == 1
    await azure.delete(path, version=version)
    assert truth() == {}


async def test_an_impossible_name_sends_nothing(azure: Storage, bucket: str, az_proxy: Proxy) -> None:
    for name in ("run//a", "run/../a", "run/\udc80", "a" * 1025, "run/a.", "run./a", "run\\a", "run/a?sv=1&sig=x"):
        with pytest.raises(ValidationError):
            await azure.put(f"{bucket}/{name}", b"x", mode=Put.CREATE)
    assert az_proxy.requests == []


@pytest.mark.parametrize("size", [0, BLOCK])
async def test_a_small_file_is_one_exclusive_put(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, tmp_path: Path, size: int, small_blocks: None
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    path = f"{bucket}/run/a"
    entry = await azure.upload(source, path, owner="token", multipart=True)
    assert sent(az_proxy) == [("PUT", {"if-none-match": "*"})]
    assert truth() == {"run/a": b"x" * size}
    assert await azure.list(f"{bucket}/run", recursive=False) == [Entry(name="a", size=size, version=entry.version)]
    with pytest.raises(FileExistsError):
        await azure.upload(source, path, owner="another", multipart=True)
    found = await azure.stat(path)
    assert found is not None
    assert found.owner == "token"


async def test_a_large_file_is_completed_exclusively(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, tmp_path: Path, small_blocks: None
) -> None:
    source = tmp_path / "source"
    data = b"".join(bytes([number]) * BLOCK for number in range(3)) + b"end"
    source.write_bytes(data)
    path = f"{bucket}/run/a"
    entry = await azure.upload(source, path, owner="token", multipart=True)
    assert truth() == {"run/a": data}
    assert await azure.stat(path) == Entry(name="", size=len(data), version=entry.version, owner="token")
    assert [request.conditions for request in az_proxy.requests if lists_blocks(request)] == [{"if-none-match": "*"}]
    source.write_bytes(b"other" + data)
    with pytest.raises(FileExistsError):
        await azure.upload(source, path, owner="another", multipart=True)
    assert truth() == {"run/a": data}


async def test_two_uploads_of_one_name_never_mix_their_blocks(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, tmp_path: Path, small_blocks: None
) -> None:
    """Uncommitted blocks belong to the name: with identifiers of their number alone, the last staged would win."""
    first_staged, both_staged, first_done = threading.Event(), threading.Event(), threading.Event()

    def complete_first(request: Request, send: Callable[[Request], object]) -> object:
        first_staged.set()
        both_staged.wait(PATIENCE)
        reply = send(request)
        first_done.set()
        return reply

    def complete_second(request: Request, send: Callable[[Request], object]) -> object:
        both_staged.set()
        first_done.wait(PATIENCE)
        return send(request)

    for action in (complete_first, complete_second):
        az_proxy.rules.append(Rule(match=lists_blocks, action=action))  # type: ignore[arg-type]

    def source(letter: bytes) -> Path:
        path = tmp_path / letter.decode()
        path.write_bytes(letter * (BLOCK * 2 + 1))
        return path

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: azure.upload(source(b"a"), f"{bucket}/run/a", owner="first", multipart=True))
        await until(first_staged)
        with pytest.raises(FileExistsError):
            await azure.upload(source(b"b"), f"{bucket}/run/a", owner="second", multipart=True)
    assert truth() == {"run/a": b"a" * (BLOCK * 2 + 1)}


async def test_without_exclusive_multipart_a_large_file_is_refused(
    azure: Storage, bucket: str, az_proxy: Proxy, tmp_path: Path, small_blocks: None
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * (BLOCK + 1))
    with pytest.raises(GuaranteeError, match="EXCLUSIVE_MULTIPART"):
        await azure.upload(source, f"{bucket}/run/a", owner="token", multipart=False)
    assert az_proxy.requests == []


async def test_a_probe_can_race_the_completion(azure: Storage, bucket: str, truth: Truth) -> None:
    await azure.create_in_parts(f"{bucket}/run/a", b"first")
    with pytest.raises(FileExistsError):
        await azure.create_in_parts(f"{bucket}/run/a", b"second")
    assert truth() == {"run/a": b"first"}


async def test_a_file_that_changes_while_it_is_uploaded_is_not_completed(
    azure: Storage,
    bucket: str,
    az_proxy: Proxy,
    truth: Truth,
    tmp_path: Path,
    small_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("atomicpath.storage.parts._AT_ONCE", 2)  # else all of it was read before it changes
    source = tmp_path / "source"
    source.write_bytes(b"x" * BLOCK * 6)

    def grow(request: object, send: Callable[[object], object]) -> object:
        with source.open("ab") as file:
            file.write(b"more")
        return send(request)

    az_proxy.rules.append(Rule(match=is_("PUT", comp="block"), action=grow))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="changed while"):
        await azure.upload(source, f"{bucket}/run/a", owner="token", multipart=True)
    assert truth() == {}


async def test_cancelling_an_upload_leaves_nothing_to_be_seen(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, tmp_path: Path, small_blocks: None
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * BLOCK * 3)
    seen, release = threading.Event(), threading.Event()
    az_proxy.rules.append(Rule(match=is_("PUT", comp="block"), action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: azure.upload(source, f"{bucket}/run/a", owner="token", multipart=True))
        await until(seen)
        group.cancel_scope.cancel()
    release.set()
    assert truth() == {}
    assert az_proxy.count(lists_blocks) == 0
    assert await azure.list(f"{bucket}/run", recursive=True) == []
    await azure.upload(source, f"{bucket}/run/a", owner="token", multipart=True)  # the blocks are in nobody's way
    assert truth() == {"run/a": b"x" * BLOCK * 3}


async def test_download_creates_the_file_exclusively(
    azure: Storage, bucket: str, az_proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = f"{bucket}/run/a", tmp_path / "copy"
    data = bytes(range(256)) * 70_000  # more than one window
    version = await azure.put(path, data, mode=Put.OVERWRITE)
    az_proxy.requests.clear()
    assert await azure.download(path, target) == Entry(name="", size=len(data), version=version)
    assert target.read_bytes() == data
    assert sent(az_proxy) == [("GET", {})] + [("GET", {"if-match": f'"{version}"'})] * 4
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        await azure.download(path, target)
    assert target.read_bytes() == b"mine"
    with pytest.raises(FileNotFoundError):
        await azure.download(f"{bucket}/run/b", tmp_path / "other")
    await azure.put(path, b"", mode=Put.OVERWRITE)
    assert (await azure.download(path, tmp_path / "empty")).size == 0
    assert sorted(os.listdir(tmp_path)) == ["copy", "empty"]


async def test_a_file_that_changes_while_it_is_read_is_not_mixed(
    azure: Storage, container: ContainerClient, bucket: str, az_proxy: Proxy, tmp_path: Path
) -> None:
    path = f"{bucket}/run/a"
    await azure.put(path, b"x" * (17 * 2**20), mode=Put.OVERWRITE)

    def change(request: Request, send: Callable[[Request], object]) -> object:
        container.upload_blob("run/a", b"y" * (17 * 2**20), overwrite=True)
        return send(request)

    second = is_("GET")
    az_proxy.rules.append(
        Rule(match=lambda request: second(request) and "if-match" in request.headers, action=change)  # type: ignore[arg-type]
    )
    with pytest.raises(StaleVersionError):
        await azure.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


async def test_listings_follow_every_page(
    azure: Storage, bucket: str, az_proxy: Proxy, container: ContainerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomicpath_azure.storage, "_PAGE", 2)
    for name in ("a", "b", "d/1", "d/2", "d/3", "e", "f/1"):
        container.upload_blob(f"run/{name}", name.encode())
    found = await azure.list(f"{bucket}/run", recursive=True)
    assert [entry.name for entry in found] == ["a", "b", "d/1", "d/2", "d/3", "e", "f/1"]
    assert len(az_proxy.requests) == 4
    az_proxy.requests.clear()
    found = await azure.list(f"{bucket}/run", recursive=False)
    assert [(entry.name, entry.kind) for entry in found] == [
        *[
            ("a", EntryKind.FILE),
            ("b", EntryKind.FILE),
            ("d", EntryKind.DIRECTORY),
            ("e", EntryKind.FILE),
            ("f", EntryKind.DIRECTORY),
        ]
    ]
    assert len(az_proxy.requests) == 3
    assert [entry.name for entry in await azure.list(bucket, recursive=False)] == ["run"]


async def test_a_listing_keeps_to_the_directory(azure: Storage, bucket: str, container: ContainerClient) -> None:
    """Some tools put an empty blob for a directory, by its name with "/" or marked in its metadata."""
    for key in ("run/", "run/a", "run/sub/", "run/sub/b", "run/sub/deeper/c", "run-1/d", "runner"):
        container.upload_blob(key, b"" if key.endswith("/") else b"x")
    for key in ("run/sub", "run/empty", "run"):
        container.upload_blob(key, b"", metadata={"hdi_isfolder": "true"})
    found = await azure.list(f"{bucket}/run", recursive=False)
    assert [(entry.name, entry.kind) for entry in found] == [
        *[("a", EntryKind.FILE), ("empty", EntryKind.DIRECTORY), ("sub", EntryKind.DIRECTORY)]
    ]
    assert [entry.name for entry in await azure.list(f"{bucket}/run", recursive=True)] == ["a", "sub/b", "sub/deeper/c"]
    assert await azure.list(f"{bucket}/nothing", recursive=True) == []
    assert await azure.kind(f"{bucket}/run") == EntryKind.DIRECTORY
    assert await azure.kind(f"{bucket}/run/empty") is None
    stub = await azure.stat(f"{bucket}/run/empty")
    assert stub is not None
    assert stub.kind == EntryKind.DIRECTORY


async def test_kind_is_not_misled_by_siblings(azure: Storage, bucket: str, container: ContainerClient) -> None:
    for key in ("run-1/a", "run.x", "run/a", "other!", "step-1"):
        container.upload_blob(key, b"")
    kinds = {name: await azure.kind(f"{bucket}/{name}") for name in ("run", "run/a", "run.x", "other", "step", "none")}
    expected = {
        "run": EntryKind.DIRECTORY,
        "run/a": EntryKind.FILE,
        "run.x": EntryKind.FILE,
        "other": None,
        "step": None,
        "none": None,
    }
    assert kinds == expected
    assert await azure.kind(bucket) == EntryKind.DIRECTORY


async def test_what_needs_directories_says_so_where_there_are_none(
    azure: Storage, bucket: str, az_proxy: Proxy
) -> None:
    path = f"{bucket}/run"
    for operation in (
        lambda: azure.make_directory(path, mode=None, durable=True),
        lambda: azure.rename_directory(path, f"{path}-2"),
        lambda: azure.remove_tree(path),
    ):
        with pytest.raises(GuaranteeError, match="does not tell whether it has a hierarchical"):
            await operation()
    assert az_proxy.requests == []
