"""Each operation of the S3 storage is the conditional request that carries it, on two servers that share no code."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import pytest

import atomicpath_s3.multipart
import atomicpath_s3.storage
from atomicpath.abc import Entry, EntryKind, Put, StaleVersionError, Storage, Update
from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath.storage import Source
from tests.support.proxy import Proxy, Rule, hold, is_
from tests.support.servers.s3 import client
from tests.support.waiting import until

Truth = Callable[[], dict[str, bytes]]


@pytest.fixture(scope="session", params=["asyncio-moto_server", "trio-moto_server", "trio-seaweedfs"])
def world(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An event loop, and the endpoint of a server."""
    loop, _, server = request.param.partition("-")
    return loop, request.getfixturevalue(server)


@pytest.fixture
def anyio_backend(world: tuple[str, str]) -> str:
    return world[0]


@pytest.fixture(scope="session")
def server(world: tuple[str, str]) -> str:
    """In the place of the one that all other tests use."""
    return world[1]


@pytest.fixture(scope="session")
def raw(server: str) -> Iterator[Any]:
    """Again here: that of the whole session keeps to the server it was made for."""
    with client(server) as made:
        yield made


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    size = 5 * 2**20  # the least that a part but the last may have
    monkeypatch.setattr(atomicpath_s3.multipart, "PART", size)
    monkeypatch.setattr(atomicpath_s3.storage, "PART", size)
    return size


async def test_create_is_one_put_that_must_not_exist(s3: Storage, bucket: str, proxy: Proxy, truth: Truth) -> None:
    version = await s3.put(f"{bucket}/run/a", b"first", mode=Put.CREATE)
    assert [(r.method, r.conditions) for r in proxy.requests] == [("PUT", {"if-none-match": "*"})]
    assert truth() == {"run/a": b"first"}
    with pytest.raises(FileExistsError):
        await s3.put(f"{bucket}/run/a", b"second", mode=Put.CREATE)
    assert truth() == {"run/a": b"first"}
    assert (await s3.get(f"{bucket}/run/a")).version == version


async def test_of_eight_concurrent_creations_one_succeeds(s3: Storage, bucket: str, truth: Truth) -> None:
    won: list[int] = []

    async def create(number: int) -> None:
        try:
            await s3.put(f"{bucket}/run/a", b"%d" % number, mode=Put.CREATE)
        except FileExistsError:
            return
        won.append(number)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(create, number)
    assert truth() == {"run/a": b"%d" % won[0]}
    assert len(won) == 1


async def test_swap_names_the_version_it_replaces(s3: Storage, bucket: str, proxy: Proxy, truth: Truth) -> None:
    path = f"{bucket}/run/a"
    first = await s3.put(path, b"first", mode=Put.CREATE)
    assert first is not None
    second = await s3.put(path, b"second", mode=Update(first))
    assert proxy.requests[-1].conditions == {"if-match": first}
    assert '"' not in first  # RGW 16 takes it back only so
    assert (await s3.get(path)).version == second
    with pytest.raises(StaleVersionError):
        await s3.put(path, b"third", mode=Update(first))
    assert truth() == {"run/a": b"second"}


async def test_swap_of_nothing_is_stale(s3: Storage, bucket: str, truth: Truth) -> None:
    with pytest.raises(StaleVersionError):
        await s3.put(f"{bucket}/run/a", b"x", mode=Update("0" * 32))
    assert truth() == {}


async def test_write_overwrites(s3: Storage, bucket: str, truth: Truth) -> None:
    await s3.put(f"{bucket}/run/a", b"first", mode=Put.OVERWRITE)
    version = await s3.put(f"{bucket}/run/a", b"second", mode=Put.PRIVATE)
    assert truth() == {"run/a": b"second"}
    assert (await s3.get(f"{bucket}/run/a")).version == version


async def test_delete_names_the_version_that_was_seen(s3: Storage, bucket: str, proxy: Proxy, truth: Truth) -> None:
    path = f"{bucket}/run/a"
    first = await s3.put(path, b"first", mode=Put.OVERWRITE)
    second = await s3.put(path, b"second", mode=Put.OVERWRITE)
    with pytest.raises(StaleVersionError):
        await s3.delete(path, version=first)
    assert [r.conditions for r in proxy.requests if r.method == "DELETE"] == [{"if-match": first}]
    assert truth() == {"run/a": b"second"}
    await s3.delete(path, version=second)
    assert truth() == {}


async def test_delete_of_nothing_is_fine(s3: Storage, bucket: str) -> None:
    await s3.delete(f"{bucket}/run/a")
    await s3.delete(f"{bucket}/run/a", version="0" * 32)


async def test_read_tells_age_by_the_servers_clock(s3: Storage, bucket: str) -> None:
    await s3.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)
    content = await s3.get(f"{bucket}/run/a")
    assert content.data == b"x"
    assert content.age is not None
    assert content.age >= 0
    with pytest.raises(FileNotFoundError):
        await s3.get(f"{bucket}/run/b")


@pytest.mark.parametrize("name", ["with space", "ünïcödé-日本", "a+b", "50%", "a&b=c?d#e", "tilde~'()!*", 'q"<>'])
async def test_any_name_comes_back_as_it_was(s3: Storage, bucket: str, truth: Truth, tmp_path: Path, name: str) -> None:
    path = f"{bucket}/run/{name}"
    version = await s3.put(path, b"x", mode=Put.CREATE)
    assert truth() == {f"run/{name}": b"x"}
    assert await s3.list(f"{bucket}/run", recursive=True) == [Entry(name=name, size=1, version=version)]
    assert await s3.kind(path) == EntryKind.FILE
    assert (await s3.download(path, tmp_path / "copy")).size == 1
    await s3.delete(path, version=version)
    assert truth() == {}


async def test_an_impossible_name_sends_nothing(s3: Storage, bucket: str, proxy: Proxy) -> None:
    for name in ("run//a", "run/../a", "run/\udc80", "a" * 1025):
        with pytest.raises(ValidationError):
            await s3.put(f"{bucket}/{name}", b"x", mode=Put.CREATE)
    assert proxy.requests == []


@pytest.mark.parametrize("size", [0, 5, 5 * 2**20])
async def test_a_small_file_is_one_exclusive_put(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, tmp_path: Path, size: int, small_parts: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    path = f"{bucket}/run/a"
    entry = await s3.upload(source, path, owner="token", multipart=True)
    assert [(r.method, r.conditions) for r in proxy.requests] == [("PUT", {"if-none-match": "*"})]
    assert truth() == {"run/a": b"x" * size}
    assert (await s3.stat(path)).owner == "token"
    assert await s3.list(f"{bucket}/run", recursive=False) == [Entry(name="a", size=size, version=entry.version)]
    with pytest.raises(FileExistsError):
        await s3.upload(source, path, owner="another", multipart=True)
    assert (await s3.stat(path)).owner == "token"


async def test_a_large_file_is_completed_exclusively(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, raw: Any, tmp_path: Path, small_parts: int
) -> None:
    source = tmp_path / "source"
    data = b"".join(bytes([number]) * small_parts for number in range(3)) + b"end"
    source.write_bytes(data)
    path = f"{bucket}/run/a"
    entry = await s3.upload(source, path, owner="token", multipart=True)
    assert truth() == {"run/a": data}
    assert await s3.list(f"{bucket}/run", recursive=False) == [Entry(name="a", size=len(data), version=entry.version)]
    assert (await s3.stat(path)).owner == "token"
    completions = [request for request in proxy.requests if is_("POST", uploadId="")(request)]
    assert [request.conditions for request in completions] == [{"if-none-match": "*"}]

    source.write_bytes(b"other" + data)
    with pytest.raises(FileExistsError):
        await s3.upload(source, path, owner="another", multipart=True)
    assert truth() == {"run/a": data}
    assert (await s3.stat(path)).owner == "token"
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


async def test_without_exclusive_multipart_a_large_file_is_one_put(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, tmp_path: Path, small_parts: int
) -> None:
    source = tmp_path / "source"
    data = bytes(range(256)) * (small_parts // 128)
    source.write_bytes(data)
    await s3.upload(source, f"{bucket}/run/a", owner="token", multipart=False)
    assert [(r.method, r.conditions) for r in proxy.requests] == [("PUT", {"if-none-match": "*"})]
    assert truth() == {"run/a": data}


async def test_what_one_put_cannot_hold_needs_exclusive_multipart(
    s3: Storage, bucket: str, proxy: Proxy, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(5 * 2**30 + 1)
    with pytest.raises(GuaranteeError, match="EXCLUSIVE_MULTIPART"):
        await s3.upload(source, f"{bucket}/run/a", owner="token", multipart=False)
    assert proxy.requests == []


async def test_a_file_that_changes_while_it_is_uploaded_is_not_completed(
    s3: Storage,
    bucket: str,
    proxy: Proxy,
    truth: Truth,
    raw: Any,
    tmp_path: Path,
    small_parts: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("atomicpath.storage.parts._AT_ONCE", 2)  # else all of it was read before it changes
    source = tmp_path / "source"
    source.write_bytes(b"x" * small_parts * 6)

    def grow(request: object, send: Callable[[object], object]) -> object:
        with source.open("ab") as file:
            file.write(b"more")
        return send(request)

    proxy.rules.append(Rule(match=is_("PUT", partNumber=""), action=grow))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="changed while"):
        await s3.upload(source, f"{bucket}/run/a", owner="token", multipart=True)
    assert truth() == {}
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


def test_a_file_that_changes_while_it_is_read_is_not_believed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10)

    class Growing(Source):
        def check(self, file: BinaryIO) -> None:
            super().check(file)
            with source.open("ab") as writer:  # as soon as it was found unchanged
                writer.write(b"more")

    with pytest.raises(OSError, match="changed while"):
        Growing.look(source).read(0, 10)


async def test_download_creates_the_file_exclusively(s3: Storage, bucket: str, tmp_path: Path) -> None:
    path, target = f"{bucket}/run/a", tmp_path / "copy"
    data = bytes(range(256)) * 40_000  # more than one chunk
    version = await s3.put(path, data, mode=Put.OVERWRITE)
    assert await s3.download(path, target) == Entry(name="", size=len(data), version=version)
    assert target.read_bytes() == data
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        await s3.download(path, target)
    assert target.read_bytes() == b"mine"


async def test_a_download_of_nothing_leaves_nothing(s3: Storage, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await s3.download(f"{bucket}/run/a", tmp_path / "copy")
    assert os.listdir(tmp_path) == []


@pytest.mark.full
async def test_listing_page_boundary(s3: Storage, bucket: str, proxy: Proxy, raw: Any) -> None:
    names = [f"{number:04}" for number in range(1001)]
    for name in names:
        raw.put_object(Bucket=bucket, Key=f"run/{name}")
    assert [entry.name for entry in await s3.list(f"{bucket}/run", recursive=True)] == names
    assert len(proxy.requests) == 2
    assert [entry.name for entry in await s3.list(f"{bucket}/run", recursive=False)] == names
    assert [entry.name for entry in await s3.list(bucket, recursive=False)] == ["run"]


async def test_a_listing_keeps_to_the_directory(s3: Storage, bucket: str, raw: Any) -> None:
    for key in ("run/", "run/a", "run/sub/", "run/sub/b", "run/sub/deeper/c", "run-1/d", "runner"):
        raw.put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith("/") else b"x")
    found = await s3.list(f"{bucket}/run", recursive=False)
    assert [(entry.name, entry.kind, entry.size) for entry in found] == [
        ("a", EntryKind.FILE, 1),
        ("sub", EntryKind.DIRECTORY, 0),
    ]
    assert [entry.name for entry in await s3.list(f"{bucket}/run", recursive=True)] == ["a", "sub/b", "sub/deeper/c"]
    assert await s3.list(f"{bucket}/nothing", recursive=True) == []


async def test_kind_is_not_misled_by_siblings(s3: Storage, bucket: str, raw: Any) -> None:
    for key in ("run-1/a", "run.x", "run/a", "other!", "step-1"):
        raw.put_object(Bucket=bucket, Key=key)
    kinds = {name: await s3.kind(f"{bucket}/{name}") for name in ("run", "run/a", "run.x", "other", "step", "none")}
    expected = {
        "run": EntryKind.DIRECTORY,
        "run/a": EntryKind.FILE,
        "run.x": EntryKind.FILE,
        "other": None,
        "step": None,
        "none": None,
    }
    assert kinds == expected
    assert await s3.kind(bucket) == EntryKind.DIRECTORY


async def test_cancelling_an_upload_leaves_no_parts(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, raw: Any, tmp_path: Path, small_parts: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * small_parts * 3)
    seen, release = threading.Event(), threading.Event()
    proxy.rules.append(Rule(match=is_("PUT", partNumber="3"), action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: s3.upload(source, f"{bucket}/run/a", owner="token", multipart=True))
        await until(seen)
        assert len(raw.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1
        group.cancel_scope.cancel()
    release.set()
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)
    assert truth() == {}
