"""Large objects are fetched in ranges, and whatever a store does meanwhile, the file is whole and of one version."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atomicpath.abc import Entry, Environment, Put, StaleVersionError, Storage
from atomicpath.storage import receive_in_ranges
from atomicpath.testing.cancelling import Caller
from atomicpath_s3 import S3Backend
from tests.support.proxy import Proxy, Reply, Request, Rule, drop_reply, hold
from tests.support.waiting import PATIENCE, until

RANGE = 1000
DATA = os.urandom(5 * RANGE + 1)

Send = Callable[[Request], Reply]


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(receive_in_ranges.__kwdefaults__, "length", RANGE)


@pytest.fixture
async def path(s3: Storage, bucket: str, proxy: Proxy) -> str:
    """An object of six ranges."""
    await s3.put(f"{bucket}/run/a", DATA, mode=Put.OVERWRITE)
    proxy.requests.clear()
    return f"{bucket}/run/a"


def of_a_range(request: Request) -> bool:
    return request.method == "GET" and "range" in request.headers


def with_header(**changed: str | None) -> Callable[[Request, Send], Reply]:
    """Carried out, and answered with other headers, or without some."""
    names = {name.replace("_", "-").lower(): value for name, value in changed.items()}

    def act(request: Request, send: Send) -> Reply:
        reply = send(request).with_headers(lambda name: name not in names)
        more = {name: value for name, value in names.items() if value is not None}
        return replace(reply, headers={**reply.headers, **more})

    return act


async def test_a_small_object_is_one_request_for_all_of_it(
    s3: Storage, bucket: str, proxy: Proxy, tmp_path: Path
) -> None:
    for size in (0, 1, 2 * RANGE):
        await s3.put(f"{bucket}/run/a", DATA[:size], mode=Put.OVERWRITE)
        proxy.requests.clear()
        assert (await s3.download(f"{bucket}/run/a", tmp_path / f"{size}")).size == size
        assert (tmp_path / f"{size}").read_bytes() == DATA[:size]
        assert [(request.method, "range" in request.headers) for request in proxy.requests] == [("GET", False)]


async def test_a_large_object_is_asked_for_range_by_range(s3: Storage, path: str, proxy: Proxy, tmp_path: Path) -> None:
    entry = await s3.download(path, tmp_path / "copy")
    assert entry == Entry(name="", size=len(DATA), version=(await s3.get(path)).version)
    assert (tmp_path / "copy").read_bytes() == DATA
    asked = [request.headers.get("range") for request in proxy.requests[:6]]
    assert asked[0] is None
    assert sorted(map(str, asked[1:])) == [f"bytes={n * RANGE}-{(n + 1) * RANGE - 1}" for n in range(1, 6)]


async def test_the_ranges_are_under_way_at_once(s3: Storage, path: str, proxy: Proxy, tmp_path: Path) -> None:
    all_there = threading.Barrier(5)

    def meet(request: Request, send: Send) -> Reply:
        all_there.wait(PATIENCE)
        return send(request)

    proxy.rules.append(Rule(match=of_a_range, action=meet, times=5))
    await s3.download(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA


async def test_more_than_one_chunk_of_each_range_is_written_where_it_belongs(
    s3: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(receive_in_ranges.__kwdefaults__, "length", 3 * 2**20 + 1)
    data = os.urandom(10 * 2**20)
    await s3.put(f"{bucket}/run/a", data, mode=Put.OVERWRITE)
    await s3.download(f"{bucket}/run/a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


async def test_an_object_that_is_overwritten_meanwhile_is_no_mixture(
    s3: Storage, path: str, bucket: str, proxy: Proxy, raw: Any, tmp_path: Path
) -> None:
    def overwrite(request: Request, send: Send) -> Reply:
        raw.put_object(Bucket=bucket, Key="run/a", Body=DATA[::-1])
        return send(request)

    proxy.rules.append(Rule(match=of_a_range, action=overwrite))
    with pytest.raises(StaleVersionError, match="changed while"):
        await s3.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


async def test_an_object_that_is_deleted_meanwhile_is_not_there(
    s3: Storage, path: str, bucket: str, proxy: Proxy, raw: Any, tmp_path: Path
) -> None:
    def delete(request: Request, send: Send) -> Reply:
        raw.delete_object(Bucket=bucket, Key="run/a")
        return send(request)

    proxy.rules.append(Rule(match=of_a_range, action=delete))
    with pytest.raises(FileNotFoundError):
        await s3.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


async def test_a_store_that_ignores_ranges_is_asked_for_the_whole(
    s3: Storage, path: str, proxy: Proxy, tmp_path: Path
) -> None:
    def ignore(request: Request, send: Send) -> Reply:
        kept = {name: value for name, value in request.headers.items() if name != "range"}
        return send(replace(request, headers=kept))

    proxy.rules.append(Rule(match=of_a_range, action=ignore, times=None))
    entry = await s3.download(path, tmp_path / "copy")
    assert entry.size == len(DATA)
    assert (tmp_path / "copy").read_bytes() == DATA
    assert "range" not in proxy.requests[-1].headers


@pytest.mark.parametrize(
    "action",
    [
        with_header(content_range=f"bytes 0-{RANGE - 1}/{len(DATA)}"),
        with_header(content_range=f"bytes {RANGE}-{2 * RANGE - 1}/*"),
        with_header(content_range="nonsense"),
        with_header(etag=None),
        drop_reply,
    ],
)
async def test_a_range_that_is_not_what_was_asked_for_leaves_nothing(
    s3: Storage, path: str, proxy: Proxy, tmp_path: Path, action: Any
) -> None:
    proxy.rules.append(Rule(match=of_a_range, action=action, times=None))
    with pytest.raises(OSError, match="has another range|cannot be read|has no ETag|the connection failed"):
        await s3.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


async def test_a_range_that_is_cut_short_leaves_nothing(s3: Storage, path: str, proxy: Proxy, tmp_path: Path) -> None:
    def cut(request: Request, send: Send) -> Reply:
        return replace(send(request), short=1)

    proxy.rules.append(Rule(match=of_a_range, action=cut))
    with pytest.raises(OSError, match=r"no usable answer|the connection failed|the reply ended"):
        await s3.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


async def test_the_checksum_of_a_large_object_is_checked_over_its_ranges(
    s3: Storage, path: str, proxy: Proxy, tmp_path: Path
) -> None:
    def without_range(request: Request) -> bool:
        return request.method == "GET" and "range" not in request.headers

    proxy.rules.append(Rule(match=without_range, action=with_header(x_amz_checksum_crc32="AAAAAA==")))
    with pytest.raises(OSError, match="checksum"):
        await s3.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


async def test_an_object_whose_checksum_is_only_of_the_whole_comes_in_one_reply(
    s3: Storage, path: str, proxy: Proxy, tmp_path: Path
) -> None:
    import base64
    import hashlib

    said = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    proxy.rules.append(Rule(match=lambda request: True, action=with_header(x_amz_checksum_sha256=said)))
    await s3.download(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    assert len(proxy.requests) == 1


async def test_what_the_disk_says_is_not_taken_for_the_store_s(
    options: dict[str, object], path: str, tmp_path: Path
) -> None:
    class Full(Environment):
        def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            if getattr(function, "__name__", "") == "open":
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().call(function, *args, **kwargs)

    with pytest.raises(OSError, match="No space left") as caught:
        await S3Backend().open(options, Full()).download(path, tmp_path / "copy")
    assert caught.value.errno == errno.ENOSPC


async def test_a_file_that_is_there_stays_as_it_is(s3: Storage, path: str, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        await s3.download(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"mine"


@pytest.mark.parametrize("what", ["step", "request"])
async def test_a_download_that_is_cancelled_anywhere_leaves_nothing(
    options: dict[str, object], path: str, tmp_path: Path, what: str
) -> None:
    for number in range(20):
        caller, left = Caller(), iter(range(number, -1, -1))

        class Cancelling(Environment):
            async def step(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
                return await self._then(what == "step", super().step(function, *args, **kwargs))

            async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
                return await self._then(what == "request", super().request(function, *args, **kwargs))

            async def _then(self, counts: bool, done: Any, left: Any = left, caller: Caller = caller) -> Any:
                if counts and not next(left, 1):
                    caller.cancel()
                return await done

        with caller:
            await S3Backend().open(options, Cancelling()).download(path, tmp_path / "copy")
        if not caller.scope.cancelled_caught:
            assert (tmp_path / "copy").read_bytes() == DATA
            assert number > 4
            return
        assert os.listdir(tmp_path) == []
    pytest.fail("each was cancelled")


async def test_a_download_that_is_cancelled_in_the_middle_of_a_range_leaves_nothing(
    s3: Storage, path: str, proxy: Proxy, tmp_path: Path
) -> None:
    import anyio

    seen, release = threading.Event(), threading.Event()
    proxy.rules.append(Rule(match=of_a_range, action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(s3.download, path, tmp_path / "copy")
        await until(seen)
        group.cancel_scope.cancel()
    release.set()
    assert os.listdir(tmp_path) == []
