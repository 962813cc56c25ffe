"""The storage works from any event loop, thread and forked process, and is quiet; URLs, options, imports."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import pytest

from atomicpath.abc import Environment, Put
from atomicpath.errors import BackendError, ValidationError
from atomicpath_gcs import GcsBackend
from tests.gcs.stores import Store

real = pytest.mark.parametrize("store", ["fake-gcs-server"], indirect=True)


@real
def test_loops_threads_and_forked_children_share_it(store: Store) -> None:
    gcs = store.storage
    for number, backend in enumerate(("asyncio", "trio", "asyncio")):
        anyio.run(partial(gcs.put, mode=Put.CREATE), store.path(f"loop-{number}"), b"x", backend=backend)
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda number: anyio.run(partial(gcs.put, mode=Put.CREATE), store.path(f"thread-{number}"), b"x"),
                range(8),
            )
        )
    child = os.fork()
    if child == 0:
        try:
            anyio.run(partial(gcs.put, mode=Put.CREATE), store.path("child-same-storage"), b"x")
            other = GcsBackend().open(store.options, Environment())
            anyio.run(partial(other.put, mode=Put.CREATE), store.path("child-new-storage"), b"x")
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    anyio.run(partial(gcs.put, mode=Put.CREATE), store.path("parent-again"), b"x")
    names = {f"loop-{number}" for number in range(3)} | {f"thread-{number}" for number in range(8)}
    assert set(store.truth()) == names | {"child-same-storage", "child-new-storage", "parent-again"}


@real
def test_a_process_of_its_own_is_quick_and_quiet_whatever_the_environment(store: Store) -> None:
    """gcsfs's own requests would ask by gRPC first, for minutes; ours do not, without the variable that stops them."""
    program = f"""
import atomicpath
url, options = "gs://{store.bucket}/run/step_1", {store.options!r}
with atomicpath.commit(url, storage_options=options) as path:
    (path / "a").write_bytes(b"x")
assert atomicpath.latest("gs://{store.bucket}/run", storage_options=options).step == 1
assert atomicpath.verify(url, storage_options=options).ok
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GCSFS_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,  # gRPC would wait for longer
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_backend_is_imported_without_gcsfs() -> None:
    program = "import sys; import atomicpath_gcs; assert not {'gcsfs', 'google', 'aiohttp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("module", ["gcsfs", "google_crc32c"])
def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=r"pip install 'atomicpath\[gcs\]'"):
        GcsBackend().open({}, Environment())


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("gs://bucket/run/step_1", "bucket/run/step_1"),
        ("gcs://bucket/run/", "bucket/run"),
        ("gs://bucket/a b+c%20&d?x=1#2", "bucket/a b+c%20&d?x=1#2"),
        ("gs://bucket.example.com/" + "é" * 450, "bucket.example.com/" + "é" * 450),
    ],
)
def test_a_path_is_the_bucket_and_the_key(url: str, path: str) -> None:
    backend = GcsBackend()
    assert backend.parse_url(url) == path
    assert backend.parse_url(backend.url(path)) == path


@pytest.mark.parametrize(
    "rest",
    [
        *("/run", "b/run", "Bucket/run", "bucket//run", "bucket/a//b", "bucket/./a", "bucket/a/..", "bucket/a\rb"),
        *("bucket/" + "é" * 451, "bucket/\udcff"),
    ],
)
def test_an_unusable_url_is_refused(rest: str) -> None:
    with pytest.raises(ValidationError) as caught:
        GcsBackend().parse_url(f"gs://{rest}")
    str(caught.value).encode()  # can be printed


def test_a_place_has_its_endpoint_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = GcsBackend()
    assert backend.identity("bucket/run", {"token": "T"}) == "gs://bucket/run"
    ours = backend.identity("bucket/run", {"endpoint_url": "http://user:S@Store:9000/", "token": "T"})
    assert ours == "gs://bucket/run at http://store:9000"
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.cloud")
    assert backend.identity("bucket/run", {}) == "gs://bucket/run at https://storage.example.cloud"
    for value in ("http://store:9000", "store:9000"):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", value)
        assert backend.identity("bucket/run", {}) == ours
    assert backend.identity("bucket/run", {"endpoint_url": "https://other"}) == "gs://bucket/run at https://other"


async def test_users_options_are_kept(store: Store) -> None:
    options: dict[str, Any] = {
        **store.options,
        "requester_pays": "payer",
        "session_kwargs": {"headers": {"X-Mine": "1"}},
        "requests_timeout": 7,
    }
    storage = GcsBackend().open(options, store.environment)
    await storage.put(store.path("a"), b"x", mode=Put.CREATE)
    assert store.proxy.requests[0].query["userProject"] == "payer"
    assert store.proxy.requests[0].headers["x-mine"] == "1"
    assert GcsBackend().open(options, store.environment).filesystem is storage.filesystem
