"""Each operation of the storage is the conditional request that carries it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from atomicpath.abc import Entry, EntryKind, Put, StaleVersionError, Update
from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath.guarantees import Guarantee
from tests.gcs.stores import Store, both_loops, conditions, uploads
from tests.support.proxy import Request, Rule, hold, is_
from tests.support.waiting import PATIENCE, until

both = pytest.mark.parametrize("store", ["flat", "fake-gcs-server"], indirect=True)
everywhere = pytest.mark.parametrize("store", ["flat", "folders", "fake-gcs-server"], indirect=True)


@both
async def test_create_is_one_multipart_upload_that_must_not_exist(store: Store) -> None:
    gcs, path = store.storage, store.path("run/a")
    version = await gcs.put(path, b"first", mode=Put.CREATE, owner="token")
    assert conditions(store.proxy.requests) == [("POST", "0")]
    assert store.proxy.requests[0].query["uploadType"] == "multipart"
    assert b'"cacheControl": "no-store"' in store.proxy.requests[0].body
    assert store.truth() == {"run/a": b"first"}
    with pytest.raises(FileExistsError):
        await gcs.put(path, b"second", mode=Put.CREATE)
    assert store.truth() == {"run/a": b"first"}
    content = await gcs.get(path)
    assert (content.data, content.version) == (b"first", version)
    assert content.age is not None
    assert 0 <= content.age < PATIENCE
    assert await gcs.stat(path) == Entry(name="", size=5, version=version, owner="token")


@both_loops
@both
async def test_of_eight_concurrent_creations_one_succeeds(store: Store) -> None:
    won: list[int] = []

    async def create(number: int) -> None:
        try:
            await store.storage.put(store.path("run/a"), b"%d" % number, mode=Put.CREATE)
        except FileExistsError:
            return
        won.append(number)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(create, number)
    assert store.truth() == {"run/a": b"%d" % won[0]}
    assert len(won) == 1


@both
async def test_swap_names_the_generation_it_replaces(store: Store) -> None:
    gcs, path = store.storage, store.path("run/a")
    first = await gcs.put(path, b"first", mode=Put.CREATE)
    assert first is not None
    second = await gcs.put(path, b"second", mode=Update(first))
    assert conditions(store.proxy.requests)[-1] == ("POST", first)
    assert (await gcs.get(path)).version == second
    with pytest.raises(StaleVersionError):
        await gcs.put(path, b"third", mode=Update(first))
    assert store.truth() == {"run/a": b"second"}
    third = await gcs.put(path, b"third", mode=Put.PRIVATE)
    assert (await gcs.get(path)).version == third
    with pytest.raises(StaleVersionError):
        await gcs.put(store.path("run/none"), b"x", mode=Update(first))
    assert store.truth() == {"run/a": b"third"}


@pytest.mark.parametrize("version", ["", "0", "0000", "-1", "etag"])
async def test_what_is_no_generation_is_stale_and_never_sent(store: Store, version: str) -> None:
    """Generation 0 would mean that nothing may be there, and an empty one would be no condition."""
    await store.storage.put(store.path("run/a"), b"x", mode=Put.OVERWRITE)
    store.proxy.requests.clear()
    with pytest.raises(StaleVersionError):
        await store.storage.put(store.path("run/b"), b"y", mode=Update(version))
    with pytest.raises(StaleVersionError):
        await store.storage.delete(store.path("run/a"), version=version)
    assert store.proxy.requests == []


async def test_delete_names_the_generation_that_was_seen(store: Store) -> None:
    gcs, path = store.storage, store.path("run/a")
    first = await gcs.put(path, b"first", mode=Put.OVERWRITE)
    second = await gcs.put(path, b"second", mode=Put.OVERWRITE)
    with pytest.raises(StaleVersionError):
        await gcs.delete(path, version=first)
    assert conditions(store.proxy.requests)[-1] == ("DELETE", first)
    assert store.truth() == {"run/a": b"second"}
    await gcs.delete(path, version=second)
    assert store.truth() == {}


@both
async def test_nothing_there_is_fine_for_a_delete_and_said_by_the_others(store: Store, tmp_path: Path) -> None:
    gcs, path = store.storage, store.path("run/a")
    await gcs.delete(path)
    await gcs.delete(path, version="1234567")
    assert await gcs.stat(path) is None
    assert await gcs.kind(path) is None
    assert await gcs.list(store.path("run"), recursive=True) == []
    with pytest.raises(FileNotFoundError, match="nothing is at gs://"):
        await gcs.get(path)
    with pytest.raises(FileNotFoundError):
        await gcs.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


@everywhere
@pytest.mark.parametrize("name", ["with space", "ünïcödé-日本", "a+b", "50%2F", "a&b=c?d#e", "tilde~'()!*", 'q"<>:@'])
async def test_any_name_comes_back_as_it_was(store: Store, tmp_path: Path, name: str) -> None:
    gcs, path = store.storage, store.path(f"run/{name}/{name}")
    version = await gcs.put(path, b"x", mode=Put.CREATE)
    assert store.truth() == {f"run/{name}/{name}": b"x"}
    found = await gcs.list(store.path("run"), recursive=True)
    assert found == [Entry(name=f"{name}/{name}", size=1, version=version)]
    assert await gcs.list(store.path("run"), recursive=False) == [Entry(name=name, kind=EntryKind.DIRECTORY)]
    assert await gcs.kind(path) == EntryKind.FILE
    assert await gcs.kind(store.path(f"run/{name}")) == EntryKind.DIRECTORY
    assert await gcs.download(path, tmp_path / "copy") == Entry(name="", size=1, version=version)
    await gcs.delete(path, version=version)
    assert store.truth() == {}


async def test_an_impossible_name_sends_nothing(store: Store) -> None:
    for name in ("run//a", "run/../a", "run/\udc80", "a" * 1025, "run/a\nb"):
        with pytest.raises(ValidationError):
            await store.storage.put(store.path(name), b"x", mode=Put.CREATE)
    assert store.proxy.requests == []


@both
@pytest.mark.parametrize("size", [0, 5, 2**18])
async def test_a_small_file_is_one_exclusive_request(store: Store, tmp_path: Path, size: int, small_parts: int) -> None:
    gcs, source, path = store.storage, tmp_path / "source", store.path("run/a")
    source.write_bytes(os.urandom(size))
    entry = await gcs.upload(source, path, owner="token", multipart=True)
    assert conditions(store.proxy.requests) == [("POST", "0")]
    assert store.truth() == {"run/a": source.read_bytes()}
    assert await gcs.stat(path) == Entry(name="", size=size, version=entry.version, owner="token")
    with pytest.raises(FileExistsError):
        await gcs.upload(source, path, owner="another", multipart=True)
    assert (await gcs.stat(path)).owner == "token"  # type: ignore[union-attr]


async def test_a_large_file_is_a_resumable_upload_that_is_exclusive(
    store: Store, tmp_path: Path, small_parts: int
) -> None:
    gcs, source, path = store.storage, tmp_path / "source", store.path("run/a")
    source.write_bytes(os.urandom(2 * small_parts + 3))
    entry = await gcs.upload(source, path, owner="token", multipart=True)
    sent = [request for request in store.proxy.requests if uploads(request)]
    assert conditions(sent) == [("POST", "0"), ("PUT", None), ("PUT", None), ("PUT", None)]
    assert max(len(request.body) for request in sent) == small_parts
    assert store.truth() == {"run/a": source.read_bytes()}
    assert await gcs.stat(path) == Entry(name="", size=2 * small_parts + 3, version=entry.version, owner="token")
    with pytest.raises(FileExistsError):
        await gcs.upload(source, path, owner="another", multipart=True)
    assert (await gcs.stat(path)).owner == "token"  # type: ignore[union-attr]


async def test_of_two_resumable_uploads_the_second_to_end_loses(
    store: Store, tmp_path: Path, small_parts: int, fake_gcs: Any
) -> None:
    gcs, source, path = store.storage, tmp_path / "source", store.path("run/a")
    source.write_bytes(b"x" * 2 * small_parts)

    def overtake(request: Request, send: Callable[[Request], Any]) -> Any:
        fake_gcs.put(store.bucket, "run/a", b"first")
        return send(request)

    store.proxy.rules.append(Rule(match=is_("PUT"), action=overtake))
    with pytest.raises(FileExistsError):
        await gcs.upload(source, path, owner="token", multipart=True)
    assert store.truth() == {"run/a": b"first"}
    assert fake_gcs.sessions == {}


@both
async def test_without_exclusive_multipart_a_large_file_is_one_request(
    store: Store, tmp_path: Path, small_parts: int
) -> None:
    gcs, source, path = store.storage, tmp_path / "source", store.path("run/a")
    source.write_bytes(os.urandom(9 * small_parts + 1))
    await gcs.upload(source, path, owner="token", multipart=False)
    assert conditions(store.proxy.requests) == [("POST", "0")]
    assert store.truth() == {"run/a": source.read_bytes()}
    with pytest.raises(FileExistsError):
        await gcs.upload(source, path, owner="another", multipart=False)
    assert (await gcs.stat(path)).owner == "token"  # type: ignore[union-attr]


@pytest.mark.parametrize("multipart", [True, False])
async def test_a_file_that_changes_while_it_is_uploaded_is_not_stored(
    store: Store, tmp_path: Path, small_parts: int, multipart: bool, monkeypatch: pytest.MonkeyPatch, fake_gcs: Any
) -> None:
    import atomicpath_gcs.uploads

    source = tmp_path / "source"
    source.write_bytes(b"x" * 4 * small_parts)
    look = atomicpath_gcs.uploads.Source.look

    def look_and_change(path: Path) -> Any:
        seen = look(path)
        with source.open("ab") as file:
            file.write(b"more")
        return seen

    monkeypatch.setattr(atomicpath_gcs.uploads.Source, "look", look_and_change)
    with pytest.raises(OSError, match="changed while"):
        await store.storage.upload(source, store.path("run/a"), owner="token", multipart=multipart)
    assert store.truth() == {}
    assert fake_gcs.sessions == {}


@both
async def test_download_creates_the_file_exclusively(store: Store, tmp_path: Path) -> None:
    path, target = store.path("run/a"), tmp_path / "copy"
    data = bytes(range(256)) * 40_000  # more than one chunk
    version = await store.storage.put(path, data, mode=Put.OVERWRITE)
    assert await store.storage.download(path, target) == Entry(name="", size=len(data), version=version)
    assert target.read_bytes() == data
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        await store.storage.download(path, target)
    assert target.read_bytes() == b"mine"


async def test_what_is_stored_compressed_comes_as_it_is_stored(store: Store, tmp_path: Path) -> None:
    await store.storage.put(store.path("run/a"), b"not really gzip", mode=Put.OVERWRITE)

    def say_compressed(request: Request, send: Callable[[Request], Any]) -> Any:
        assert request.headers["accept-encoding"] == "gzip"
        reply = send(request)
        reply.headers["Content-Encoding"] = "gzip"
        return reply

    store.proxy.rules.append(Rule(match=is_("GET", alt="media"), action=say_compressed, times=None))
    assert (await store.storage.get(store.path("run/a"))).data == b"not really gzip"
    await store.storage.download(store.path("run/a"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"not really gzip"


@both
async def test_listing_page_boundary(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_pages(request: Request, send: Callable[[Request], Any]) -> Any:
        return send(Request(request.method, f"{request.target}&maxResults=2", request.headers, request.body))

    names = ["a", "b", "c/d", "e", "f"]
    for name in names:
        await store.storage.put(store.path(f"run/{name}"), b"x", mode=Put.OVERWRITE)
    store.proxy.rules.append(Rule(match=is_("GET", "/o"), action=in_pages, times=None))
    store.proxy.requests.clear()
    assert [entry.name for entry in await store.storage.list(store.path("run"), recursive=True)] == names
    assert len(store.proxy.requests) == 3
    shown = [(entry.name, entry.kind) for entry in await store.storage.list(store.path("run"), recursive=False)]
    file, directory = EntryKind.FILE, EntryKind.DIRECTORY
    assert shown == [("a", file), ("b", file), ("c", directory), ("e", file), ("f", file)]


@everywhere
async def test_a_listing_keeps_to_the_directory_and_kind_is_not_misled_by_siblings(store: Store) -> None:
    gcs = store.storage
    for key in ("run/a", "run/sub/b", "run/sub/deeper/c", "run-1/d", "run.x", "runner", "other!", "step-1"):
        await gcs.put(store.path(key), b"x", mode=Put.OVERWRITE)
    found = await gcs.list(store.path("run"), recursive=False)
    assert [(entry.name, entry.kind, entry.size) for entry in found] == [
        ("a", EntryKind.FILE, 1),
        ("sub", EntryKind.DIRECTORY, 0),
    ]
    found = await gcs.list(store.path("run"), recursive=True)
    assert [entry.name for entry in found] == ["a", "sub/b", "sub/deeper/c"]
    assert [entry.name for entry in await gcs.list(store.bucket, recursive=False)][:3] == ["other!", "run", "run-1"]
    kinds = {name: await gcs.kind(store.path(name)) for name in ("run", "run/a", "run.x", "other", "step", "none")}
    expected = {
        "run": EntryKind.DIRECTORY,
        "run/a": EntryKind.FILE,
        "run.x": EntryKind.FILE,
        "other": None,
        "step": None,
        "none": None,
    }
    assert kinds == expected
    assert await gcs.kind(store.bucket) == EntryKind.DIRECTORY


async def test_what_consoles_put_for_an_empty_folder_is_no_file(store: Store, fake_gcs: Any) -> None:
    for key in ("run/", "run/sub/"):
        fake_gcs.put(store.bucket, key, b"")
    assert await store.storage.list(store.path("run"), recursive=True) == []
    assert await store.storage.list(store.path("run"), recursive=False) == [Entry(name="sub", kind=EntryKind.DIRECTORY)]


async def test_a_flat_bucket_has_no_directories(store: Store) -> None:
    gcs, path = store.storage, store.path("run")
    for refused in (
        lambda: gcs.make_directory(path, mode=None, durable=True),
        lambda: gcs.rename_directory(path, f"{path}-1"),
        lambda: gcs.remove_tree(path),
    ):
        with pytest.raises(GuaranteeError):
            await refused()
    assert {request.path.rpartition("/")[2] for request in store.proxy.requests} == {"storageLayout"}


@both_loops
async def test_cancelling_an_upload_ends_its_session(
    store: Store, tmp_path: Path, small_parts: int, fake_gcs: Any
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * small_parts * 3)
    seen, release = threading.Event(), threading.Event()
    store.proxy.rules.append(Rule(match=is_("PUT"), action=lambda request, send: send(request)))  # the first part
    store.proxy.rules.append(Rule(match=is_("PUT"), action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: store.storage.upload(source, store.path("run/a"), owner="token", multipart=True))
        await until(seen)
        assert len(fake_gcs.sessions) == 1
        group.cancel_scope.cancel()
    release.set()
    assert fake_gcs.sessions == {}
    assert store.truth() == {}


@pytest.mark.parametrize("store", ["flat", "folders"], indirect=True)
async def test_what_is_declared_depends_on_endpoint_and_bucket(store: Store) -> None:
    custom = await store.storage.declare(store.path("run"))
    assert custom.declared == Guarantee.ATOMIC_WRITE
    assert Guarantee.EXCLUSIVE_CREATE in custom.observable
    assert (Guarantee.ATOMIC_RENAME in custom.observable) == ("modes" in custom.evidence.get(Guarantee.DIRECTORIES, ""))
    assert Guarantee.DIRECTORIES not in custom.declared | custom.observable
    await store.storage.declare(store.path("other"))
    asked = [json.loads(r.body) if r.body else r.path for r in store.proxy.requests]
    assert asked == [f"/storage/v1/b/{store.bucket}/storageLayout"], "once for each bucket and process"
