"""The S3 storage works from any event loop, thread and forked process, and stops when it is cancelled."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from atomicpath import AtomicRenameTemporaryPath, CommitFileTemporaryPath, select
from atomicpath._core.environment import use
from atomicpath._profile.location import locate
from atomicpath._profile.probing import profile_of
from atomicpath.abc import DirectoryStorage, Environment, Put, Storage
from atomicpath.errors import BackendError, GuaranteeError, ValidationError
from atomicpath.guarantees import Guarantee
from atomicpath_s3 import S3Backend
from tests.support.proxy import Proxy, Rule, hold, is_
from tests.support.waiting import until

Truth = Callable[[], dict[str, bytes]]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
def test_each_blocking_call_may_have_an_event_loop_of_its_own(
    s3: Storage, bucket: str, truth: Truth, anyio_backend: str
) -> None:
    for number in range(3):
        anyio.run(partial(s3.put, mode=Put.CREATE), f"{bucket}/run/{number}", b"x", backend=anyio_backend)
    assert truth() == {f"run/{number}": b"x" for number in range(3)}


def test_threads_share_it(s3: Storage, bucket: str, truth: Truth) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda number: anyio.run(partial(s3.put, mode=Put.CREATE), f"{bucket}/run/{number}", b"x"), range(16)
            )
        )
    assert truth() == {f"run/{number}": b"x" for number in range(16)}


def test_a_forked_child_makes_its_own_client(
    s3: Storage, bucket: str, options: dict[str, object], proxy: Proxy, truth: Truth
) -> None:
    anyio.run(partial(s3.put, mode=Put.CREATE), f"{bucket}/parent", b"x")
    child = os.fork()
    if child == 0:
        try:
            anyio.run(partial(s3.put, mode=Put.CREATE), f"{bucket}/child-same-storage", b"x")
            anyio.run(
                partial(S3Backend().open(options, Environment()).put, mode=Put.CREATE),
                f"{bucket}/child-new-storage",
                b"x",
            )
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    anyio.run(partial(s3.put, mode=Put.CREATE), f"{bucket}/parent-again", b"x")
    assert set(truth()) == {"parent", "child-same-storage", "child-new-storage", "parent-again"}


async def test_cancelling_ends_the_request(s3: Storage, bucket: str, proxy: Proxy) -> None:
    """The connection is closed and nothing is sent again: an attempt that was given up does not go on."""
    seen, release = threading.Event(), threading.Event()
    proxy.rules.append(Rule(match=is_("PUT"), action=hold(seen, release)))
    ended: list[Any] = []
    call = s3._call  # type: ignore[attr-defined]

    async def watched(*args: object) -> object:
        try:
            return await call(*args)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    s3._call = watched  # type: ignore[attr-defined]
    async with anyio.create_task_group() as group:
        group.start_soon(partial(s3.put, mode=Put.CREATE), f"{bucket}/run/a", b"x")
        await until(seen)
        group.cancel_scope.cancel()
    assert ended == ["CancelledError"]
    release.set()
    assert proxy.count(is_("PUT")) == 1


async def test_a_cancelled_download_leaves_nothing(s3: Storage, bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    await s3.put(f"{bucket}/run/a", b"x" * 1000, mode=Put.OVERWRITE)
    seen, release = threading.Event(), threading.Event()
    proxy.rules.append(Rule(match=is_("GET"), action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(s3.download, f"{bucket}/run/a", tmp_path / "copy")
        await until(seen)
        group.cancel_scope.cancel()
    release.set()
    assert os.listdir(tmp_path) == []


async def test_every_request_passes_through_the_environment(
    bucket: str, options: dict[str, object], proxy: Proxy
) -> None:
    class Counting(Environment):
        made = 0

        async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.made += 1
            return await super().request(function, *args, **kwargs)

    environment = Counting()
    storage = S3Backend().open(options, environment)
    await storage.declare(bucket)
    await storage.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)
    await storage.get(f"{bucket}/run/a")
    await storage.list(f"{bucket}/run", recursive=False)
    await storage.delete(f"{bucket}/run/a")
    assert environment.made == len(proxy.requests) == 4


async def test_the_callers_event_loop_goes_on_during_a_request(s3: Storage, bucket: str, proxy: Proxy) -> None:
    seen, release = threading.Event(), threading.Event()
    proxy.rules.append(Rule(match=is_("PUT"), action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(partial(s3.put, mode=Put.CREATE), f"{bucket}/run/a", b"x")
        await until(seen)
        release.set()  # from this very event loop: a blocked one would never come here


def test_interpreter_exit_is_quiet(server: str, bucket: str) -> None:
    program = f"""
import anyio
from atomicpath.abc import Environment
from atomicpath_s3 import S3Backend
s3 = S3Backend().open({{"endpoint_url": {server!r}, "key": "k", "secret": "s"}}, Environment())
from functools import partial
from atomicpath.abc import Put
anyio.run(partial(s3.put, mode=Put.CREATE), "{bucket}/a", b"x")
anyio.run(s3.get, "{bucket}/a", backend="trio")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_s3fs_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BackendError, match=r"pip install 'atomicpath\[s3\]'"):
        S3Backend().open({}, Environment())


def test_the_backend_is_imported_without_s3fs() -> None:
    program = "import sys; import atomicpath_s3; assert not {'s3fs', 'botocore', 'aiohttp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("s3://bucket/run/step_1", "bucket/run/step_1"),
        ("s3a://bucket/run/", "bucket/run"),
        ("s3://bucket/a b+c%20&d?versionId=1", "bucket/a b+c%20&d?versionId=1"),
        ("s3://bucket/" + "é" * 450, "bucket/" + "é" * 450),
    ],
)
def test_a_path_is_the_bucket_and_the_key(url: str, path: str) -> None:
    backend = S3Backend()
    assert backend.parse_url(url) == path
    assert backend.parse_url(backend.url(path)) == path


@pytest.mark.parametrize(
    "rest",
    [
        *("/run", "b/run", "bucket//run", "bucket/a//b", "bucket/./a", "bucket/a/.."),
        *("bucket/" + "é" * 451, "bucket/\udcff", "arn:aws:s3:us-east-1:1:accesspoint/x/run"),
    ],
)
def test_an_unusable_url_is_refused(rest: str) -> None:
    with pytest.raises(ValidationError) as caught:
        S3Backend().parse_url(f"s3://{rest}")
    str(caught.value).encode()  # can be printed


def test_a_place_has_its_endpoint_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = S3Backend()
    assert backend.identity("b/run", {"key": "K", "secret": "S"}) == "s3://b/run"
    ours = backend.identity("b/run", {"endpoint_url": "http://user:S@Store:9000/", "key": "K"})
    assert ours == "s3://b/run at http://store:9000"
    assert backend.identity("b/run", {"client_kwargs": {"endpoint_url": "http://store:9000"}}) == ours
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    assert backend.identity("b/run", {}) == ours
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://other")
    assert backend.identity("b/run", {}) != ours


async def test_only_the_vendors_own_endpoint_is_believed(s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    custom = await s3.declare("bucket/run")
    assert custom.declared == Guarantee.ATOMIC_WRITE
    assert Guarantee.EXCLUSIVE_CREATE in custom.observable
    assert custom.refutable == Guarantee.EXCLUSIVE_MULTIPART
    assert "no probe can show it" in custom.evidence[Guarantee.EXCLUSIVE_MULTIPART]

    def declared(**options: object) -> Storage:
        return S3Backend().open({"key": "k", "secret": "s", **options}, Environment())

    vendor = await declared().declare("bucket/run")
    assert vendor.declared == custom.declared | custom.observable | custom.refutable
    assert vendor.observable == vendor.refutable == Guarantee(0)
    assert set(vendor.evidence) == set(vendor.declared)
    assert (
        "directory buckets" in (await declared().declare("b--use1-az4--x-s3/run")).evidence[Guarantee.EXCLUSIVE_CREATE]
    )
    regional = declared(endpoint_url="https://s3.eu-west-1.amazonaws.com")
    assert (await regional.declare("bucket/run")).declared == vendor.declared
    impostor = declared(endpoint_url="https://notamazonaws.com")
    assert (await impostor.declare("bucket/run")).declared == Guarantee.ATOMIC_WRITE
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store:9000")
    elsewhere = declared(use_ssl=False)  # other options, hence a client made under that variable
    assert (await elsewhere.declare("bucket/run")).declared == Guarantee.ATOMIC_WRITE


class Offline(Environment):
    async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a request was made")


async def test_a_directory_bucket_is_committed_to_by_its_record_although_it_can_rename_objects() -> None:
    """RenameObject moves one object; what directories are there is only in its keys."""
    location = locate("s3://run--use1-az4--x-s3/run/step_1", {"key": "k", "secret": "s"})
    with use(Offline()):
        storage = location.open()
        declaration = await storage.declare(location.path)
        profile = await profile_of(location)
        assert not isinstance(storage, DirectoryStorage)
        with pytest.raises(GuaranteeError, match="needs ATOMIC_RENAME"):
            await AtomicRenameTemporaryPath.from_final(location.upath).create()
    said = declaration.declared | declaration.observable | declaration.refutable
    assert not said & (Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE | Guarantee.DIRECTORIES)
    assert select(profile) is CommitFileTemporaryPath


async def test_users_options_are_kept(proxy: Proxy, bucket: str) -> None:
    options = {
        "endpoint_url": proxy.url,
        "key": "key",
        "secret": "secret",
        "config_kwargs": {"user_agent_extra": "mine/1", "read_timeout": 7},
        "s3_additional_kwargs": {"ServerSideEncryption": "AES256"},
        "requester_pays": True,
    }
    storage = S3Backend().open(options, Environment())
    await storage.put(f"{bucket}/a", b"x", mode=Put.CREATE)
    headers = proxy.requests[0].headers
    assert headers["x-amz-server-side-encryption"] == "AES256"
    assert headers["x-amz-request-payer"] == "requester"
    assert "mine/1" in headers["user-agent"]
    config = storage.filesystem._s3.meta.config  # type: ignore[attr-defined]
    assert (config.read_timeout, config.connect_timeout, config.max_pool_connections) == (7, 5, 80)


async def test_nested_options_stay_the_users_and_name_one_client(proxy: Proxy, bucket: str) -> None:
    """botocore writes into the dictionaries it is given."""
    retries = {"total_max_attempts": 2}
    options = {"endpoint_url": proxy.url, "key": "k", "secret": "s", "config_kwargs": {"retries": retries}}
    first = S3Backend().open(options, Environment())
    await first.put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)
    assert retries == {"total_max_attempts": 2}
    assert S3Backend().open(options, Environment()).filesystem is first.filesystem  # type: ignore[attr-defined]
