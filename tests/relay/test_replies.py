"""Replies are not trusted: what is missing is named, listings end, and no peer that falls silent is waited for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import anyio
import pytest

import atomicpath_s3.storage
from atomicpath.abc import Environment, Put, Storage
from atomicpath.errors import AccessError
from atomicpath.storage import Answer, Paging, replies, sessions, silence
from atomicpath_azure import AzureBackend, accounts
from atomicpath_gcs import GcsBackend, exchange
from atomicpath_s3 import S3Backend
from atomicpath_sftp import SftpBackend, files
from tests.support.proxy import Proxy, Rule, fall_silent, refuse
from tests.support.roots import SECRET
from tests.support.servers.azurite import connection_string
from tests.support.servers.s3 import KEY

ANSWER = Answer(
    "s3://bucket/key", "put_object", {"ETag": None, "Size": "many", "Empty": "", "Contents": [1], "Metadata": 3}
)


@pytest.fixture
def anyio_backend() -> str:
    """Requests run in fsspec's own event loop, whatever the caller's is."""
    return "asyncio"


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: ANSWER.text("ETag"), "has no ETag"),
        (lambda: ANSWER.text("UploadId"), "has no UploadId"),
        (lambda: ANSWER.text("Empty"), "has no Empty"),
        (lambda: ANSWER.text("Contents"), "has a Contents that is no text"),
        (lambda: ANSWER.number("Size"), "has a Size that is no number"),
        (lambda: ANSWER.number("Length"), "has no Length"),
        (lambda: ANSWER.part("Metadata"), "has a Metadata that is not made of fields"),
        (lambda: list(ANSWER.parts("Contents")), "has a Contents that is no list of fields"),
        (lambda: ANSWER.texts("Contents"), "has a Contents that is no list of texts"),
    ],
)
def test_a_field_that_is_missing_or_of_another_kind_is_named_with_the_request(use: Any, says: str) -> None:
    with pytest.raises(OSError) as caught:
        use()
    assert str(caught.value) == f"[Errno 5] s3://bucket/key: the reply to put_object {says}"


def test_fields_that_may_be_missing_may_be_missing() -> None:
    assert ANSWER.text_or_none("VersionId") is None
    assert ANSWER.time("LastModified") is None
    assert list(ANSWER.parts("CommonPrefixes")) == []
    assert ANSWER.part("Headers").text_or_none("date") is None


def test_a_listing_that_gives_one_token_twice_is_an_error() -> None:
    paging = Paging("s3://bucket/run")
    assert paging.goes_on("a", 1)
    assert paging.goes_on("b", 2)
    with pytest.raises(OSError, match="s3://bucket/run: the listing does not end: .* token twice"):
        paging.goes_on("a", 3)


def test_a_listing_with_nothing_new_for_ever_is_an_error_but_empty_pages_are_none() -> None:
    paging = Paging("s3://bucket/run")
    for number in range(5000):
        assert paging.goes_on(f"token-{number}", number // 900)
    with pytest.raises(OSError, match="nothing new on 1000 pages in a row"):
        for number in range(1000):
            paging.goes_on(f"more-{number}", 5)


def test_a_listing_with_something_new_for_ever_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "_MOST", 10)
    paging = Paging("s3://bucket/run")
    with pytest.raises(OSError, match="there is more after 10 pages"):
        for number in range(20):
            paging.goes_on(f"token-{number}", number + 1)


def test_the_last_page_ends_a_listing() -> None:
    assert not Paging("s3://bucket/run").goes_on(None, 0)
    assert not Paging("s3://bucket/run").goes_on("", 0)


# on the wire


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more than a hundred bytes is streamed."""
    monkeypatch.setattr(atomicpath_s3.storage, "PART", 100)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"x" * 1000)
    return path


def _options(url: str, **config: Any) -> dict[str, Any]:
    retries = {"total_max_attempts": 1, "mode": "legacy"}
    return {"endpoint_url": url, "key": KEY, "secret": SECRET, "config_kwargs": {"retries": retries, **config}}


async def test_a_store_that_never_says_100_continue_is_written_to(
    server: str, bucket: str, truth: Any, source: Path, small_parts: None
) -> None:
    with Proxy(server, continues=False) as proxy:
        storage = S3Backend().open(_options(proxy.url), Environment())
        with anyio.fail_after(300):
            await storage.upload(source, f"{bucket}/run/a", owner="t", multipart=False)
    assert truth() == {"run/a": b"x" * 1000}
    assert [request for request in proxy.requests if "expect" in request.headers] == []


async def test_a_client_is_prepared_once(server: str, bucket: str) -> None:
    storage = S3Backend().open(_options(server), Environment())
    await storage.put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)
    client = storage.filesystem._s3  # type: ignore[attr-defined]
    handlers = [one for one in client.meta.events._emitter._lookup_cache if one == "before-send.s3.PutObject"]
    assert len(handlers) == 1
    before = len(list(client.meta.events._emitter._handlers.prefix_search("before-send.s3")))
    await storage.put(f"{bucket}/b", b"x", mode=Put.OVERWRITE)
    assert len(list(client.meta.events._emitter._handlers.prefix_search("before-send.s3"))) == before


SILENT = 0.5
LARGE = 12 * 2**20  # more than the buffers of a connection hold


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A peer that accepts connections and then reads and says nothing."""
    monkeypatch.setattr(silence, "_SILENCE", SILENT)
    monkeypatch.setattr(accounts, "_DATA_TIMEOUT", SILENT / 3)
    monkeypatch.setattr(exchange, "_WAITS", aiohttp.ClientTimeout(total=None, sock_read=SILENT / 3))
    release = threading.Event()
    with Proxy("http://127.0.0.1:9") as proxy:
        body = Rule(match=lambda request: request.method in ("PUT", "POST"), action=fall_silent(release), times=None)
        body.is_early = True
        proxy.rules.append(body)
        yield proxy
        release.set()


def _s3(url: str) -> tuple[Storage, str]:
    options = _options(url, read_timeout=SILENT / 3, s3={"addressing_style": "path"})
    return S3Backend().open(options, Environment()), "bucket"


def _gcs(url: str) -> tuple[Storage, str]:
    return GcsBackend().open({"endpoint_url": url, "token": "anon"}, Environment()), "bucket"


def _azure(url: str) -> tuple[Storage, str]:
    return AzureBackend().open({"connection_string": connection_string(url)}, Environment()), "container"


@pytest.mark.parametrize(
    ("make", "streamed"),
    [(_s3, False), (_s3, True), (_gcs, False), (_azure, False)],
    ids=["s3", "s3, a file", "gcs", "azure"],
)
async def test_a_data_request_whose_body_nobody_takes_ends(
    make: Any, streamed: bool, silent: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if streamed:
        monkeypatch.setattr(atomicpath_s3.storage, "PART", 100)
    storage, top = make(silent.url)
    source = tmp_path / "source"
    source.write_bytes(b"x" * LARGE)
    with anyio.fail_after(300), patch("atomicpath_gcs.asking._PAUSE", 0.0), pytest.raises(TimeoutError) as caught:
        await storage.upload(source, f"{top}/run/a", owner="t", multipart=False)
    assert "did not answer in time" in str(caught.value)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that were looked up. The first look-up has no answer, and later ones find this host."""
    monkeypatch.setattr(sessions, "_LOOKUP", SILENT)
    asked: list[str] = []
    release = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("store.test", b"store.test"):
            return getaddrinfo(host, *args, **kwargs)
        asked.append(str(host))
        if len(asked) == 1:
            release.wait()
        return getaddrinfo("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    release.set()


@pytest.mark.parametrize("make", [_s3, _gcs, _azure])
async def test_a_data_request_whose_host_is_never_found_ends_and_the_next_one_looks_again(
    make: Any, lookups: list[str], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with Proxy("http://127.0.0.1:9") as proxy:
        storage, top = make(proxy.url.replace("127.0.0.1", "store.test"))
        proxy.rules.append(Rule(match=lambda request: True, action=refuse(403, "AccessDenied"), times=None))
        with anyio.fail_after(300), patch("atomicpath_gcs.asking._PAUSE", 0.0):
            with pytest.raises(OSError, match="the endpoint cannot be reached"):
                await storage.upload(source, f"{top}/run/a", owner="t", multipart=False)
            assert (len(lookups), proxy.requests) == (1, [])
            with pytest.raises(AccessError):
                await storage.upload(source, f"{top}/run/a", owner="t", multipart=False)
    assert proxy.requests


async def test_a_server_of_files_whose_host_is_never_found_is_given_up(lookups: list[str]) -> None:
    storage = SftpBackend().open({"connect_timeout": SILENT, "username": "u", "password": "p"}, Environment())
    with anyio.fail_after(300), pytest.raises(OSError, match="sftp://"):
        await storage.get("store.test/run/a")
    assert len(lookups) == 1


async def test_a_server_of_files_that_stalls_ends_a_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_STALL", 0.1)

    class Stalled:
        async def open(self, *args: Any, **kwargs: Any) -> None:
            await anyio.sleep_forever()

        async def stat(self, *args: Any) -> None:
            await anyio.sleep_forever()

        async def remove(self, *args: Any) -> None:
            pass

    class Channel:
        sftp = Stalled()

    with anyio.fail_after(300):
        with pytest.raises(TimeoutError):
            await files.fetch(Channel(), "/a", None, None)  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            await files._fill(Channel(), "/a", None)  # type: ignore[arg-type]
