"""URLs, options, accounts and whole commits of the Azure backend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import atomicpath
from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath.abc import Environment, Put, Storage
from atomicpath.errors import BackendError, ValidationError
from atomicpath.guarantees import Guarantee
from atomicpath_azure import AzureBackend
from tests.protocol.worlds import ALL, Quick, creates, nothing_above, swaps_to, trust
from tests.support.processes import Child, Killer, commit_files, content_of, fork_in_the_block, known
from tests.support.proxy import Proxy, Rule, answer_after, drop_reply
from tests.support.servers.azurite import AzureRoot, connection_string
from tests.support.waiting import PATIENCE

Truth = Callable[[], dict[str, bytes]]
LONG = "é" * 450


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(bucket: str, options: dict[str, Any]) -> str:
    """A final path, the guarantees of which are known, so that no probe is sent."""
    final = f"abfs://{bucket}/run/step_1"
    trust(final, options, ALL)
    return final


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("abfs://box/run/step_1", "box/run/step_1"),
        ("az://box/run/", "box/run"),
        ("abfss://box@Acct.dfs.core.windows.net/run", "box@acct.dfs.core.windows.net/run"),
        ("abfs://box@acct.blob.core.windows.net/run", "box@acct.dfs.core.windows.net/run"),
        ("abfs://box/a b+c%20&d?versionid=1", "box/a b+c%20&d?versionid=1"),
        (f"abfs://box/{LONG}", f"box/{LONG}"),
        ("abfs://$web/run", "$web/run"),
    ],
)
def test_every_url_of_a_place_has_one_path(url: str, path: str) -> None:
    backend = AzureBackend()
    assert backend.parse_url(url) == path
    assert backend.parse_url(backend.url(path)) == path


@pytest.mark.parametrize(
    "rest",
    [
        *("/run", "B/run", "box//run", "box/a/../b", "box/a.", f"box/{LONG}é", "box/\udcff", "box/a\\b"),
        *("box@acct.dfs.core.chinacloudapi.cn/run", "box@host/run", "@acct.dfs.core.windows.net/run", "box--a/run"),
    ],
)
def test_an_unusable_url_is_refused(rest: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AzureBackend().parse_url(f"abfs://{rest}")
    str(caught.value).encode()  # can be printed


def test_a_url_with_a_signature_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError, match="pass sas_token=") as caught:
        atomicpath.is_committed("abfs://box/run?sv=2024-01-01&sr=c&sig=do-not-show")
    assert "do-not-show" not in str(caught.value)


def test_a_place_has_its_endpoint_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    place = AzureBackend().identity
    vendor = place("box/run", {"account_name": "acct", "account_key": "S"})
    assert vendor == "abfs://box/run at acct.blob.core.windows.net"
    assert place("box@acct.dfs.core.windows.net/run", {"sas_token": "S"}) == vendor
    assert place("box/run", {"connection_string": "AccountName=acct;AccountKey=S=="}) == vendor
    assert place("box/run", {"account_name": "acct", "account_host": "Acct.blob.core.chinacloudapi.cn"}) != vendor
    endpoint = "AccountName=a;AccountKey=S;BlobEndpoint=http://user:S@127.0.0.1:9/a?sig=S"
    assert place("box/run", {"connection_string": endpoint}) == "abfs://box/run at 127.0.0.1:9/a"
    assert place("box/run", {}) == "abfs://box/run"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acct")
    assert place("box/run", {}) == vendor
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=other;AccountKey=S")
    assert place("box/run", {}) != vendor


@pytest.mark.parametrize(
    ("options", "is_vendors"),
    [
        ({"account_name": "acct"}, True),
        ({"account_name": "acct", "account_host": "acct.blob.core.usgovcloudapi.net"}, True),
        ({"account_name": "acct", "account_host": "acct.z01.blob.storage.azure.net"}, True),
        ({"account_name": "acct", "account_host": "storage.example.com"}, False),
        ({"account_name": "acct", "account_host": "notcore.windows.net.example.com"}, False),
    ],
)
def test_only_the_vendors_own_endpoint_is_believed(options: dict[str, Any], is_vendors: bool) -> None:
    from atomicpath_azure.accounts import Accounts
    from atomicpath_azure.declaring import declaration
    from atomicpath_azure.names import split
    from atomicpath_azure.settings import resolve

    account = Accounts(resolve({**options, "sas_token": "sv=2024-11-04&sig=x"})).of(split("box/run"))
    for hierarchical in (True, False, None):
        found = declaration(account.host, hierarchical=hierarchical, problem="it was refused")
        known, other = (found.declared, found.observable) if is_vendors else (found.observable, found.declared)
        assert Guarantee.ATOMIC_WRITE in found.declared
        assert ALL & ~Guarantee.ATOMIC_WRITE in known
        assert (Guarantee.RENAME_NOREPLACE in known) == (hierarchical is True)
        assert not other & ~Guarantee.ATOMIC_WRITE
        assert set(found.evidence) >= set(found.declared)


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("azure.storage.filedatalake", "adlfs"):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(BackendError, match=r"pip install 'atomicpath\[azure\]'"):
            AzureBackend().open({}, Environment())


def test_the_backend_is_imported_without_its_libraries() -> None:
    program = "import sys; import atomicpath_azure; assert not {'adlfs', 'azure', 'aiohttp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
def test_each_blocking_call_may_have_an_event_loop_of_its_own(
    options: dict[str, Any], bucket: str, truth: Truth, anyio_backend: str
) -> None:
    azure = AzureBackend().open(options, Environment())
    for number in range(3):
        anyio.run(partial(azure.put, mode=Put.CREATE), f"{bucket}/run/{number}", b"x", backend=anyio_backend)
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda number: anyio.run(partial(azure.put, mode=Put.CREATE), f"{bucket}/run/{number}", b"x"),
                range(3, 9),
            )
        )
    assert truth() == {f"run/{number}": b"x" for number in range(9)}


async def test_every_request_passes_through_the_environment(
    bucket: str, options: dict[str, Any], az_proxy: Proxy
) -> None:
    class Counting(Environment):
        made = 0

        async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.made += 1
            return await super().request(function, *args, **kwargs)

    environment = Counting()
    storage = AzureBackend().open(options, environment)
    await storage.declare(bucket)
    await storage.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)
    await storage.get(f"{bucket}/run/a")
    await storage.list(f"{bucket}/run", recursive=False)
    await storage.delete(f"{bucket}/run/a")
    assert environment.made == len(az_proxy.requests) == 5


def test_interpreter_exit_is_quiet(azurite: str, bucket: str) -> None:
    program = f"""
import anyio
from atomicpath.abc import Environment
from atomicpath_azure import AzureBackend
azure = AzureBackend().open({{"connection_string": {connection_string(azurite)!r}}}, Environment())
from functools import partial
from atomicpath.abc import Put
anyio.run(partial(azure.put, mode=Put.CREATE), "{bucket}/a", b"x")
anyio.run(azure.get, "{bucket}/a", backend="trio")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_forked_child_ends_and_may_commit_by_itself(azurite: str, bucket: str, truth: Truth) -> None:
    """adlfs, left alone, would wait at the child's exit for an event loop that only its parent runs."""
    program = f"""
import os, sys
import atomicpath
options = {{"connection_string": {connection_string(azurite)!r}}}
with atomicpath.commit("abfs://{bucket}/run/step_1", storage_options=options) as path:
    (path / "a").write_bytes(b"x")
child = os.fork()
if child == 0:
    with atomicpath.commit("abfs://{bucket}/run/step_2", storage_options=options) as path:
        (path / "a").write_bytes(b"x")
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
    assert {"run/step_1/a", "run/step_2/a"} <= set(truth())


@pytest.mark.parametrize("place", ["azure", "adls"], indirect=True)
def test_a_forked_child_leaves_the_attempt_alone(place: AzureRoot, tmp_path: Path) -> None:
    options = {"storage_options": place.storage_options}
    atomicpath.profile(place / "step_1", **options)
    child = Child(fork_in_the_block, place / "step_1", "sys.exit", **options, staging_dir=str(tmp_path))
    assert child.result() == 12
    assert atomicpath.verify(place / "step_1", **options).ok
    assert [*tmp_path.iterdir()] == []


# whole commits


def words(proxy: Proxy) -> list[str]:
    """The requests so far, in words; then they are forgotten."""
    found = [
        "list"
        if request.query.get("comp") == "list"
        else " ".join([request.method, request.path.rpartition("/")[2], *request.conditions])
        for request in proxy.requests
    ]
    proxy.requests.clear()
    return found


CREATE = ["PUT _commit_record.json if-none-match", "list"]
FINALIZE = ["PUT _commit_record.json if-match", "PUT commit_success.txt if-none-match"]


async def test_the_budget_of_requests_is_kept(
    azure: Storage, url: str, options: dict[str, Any], az_proxy: Proxy, tmp_path: Path, azurite: str
) -> None:
    nothing_above(url, options)
    with use(Quick()):
        async with aio.commit(url, storage_options=options) as path:
            assert sorted(words(az_proxy)) == CREATE
            for name in ("a", "b"):
                Path(path, name).write_bytes(b"x")
        finished = words(az_proxy)
        assert sorted(finished[:2]) == ["PUT a if-none-match", "PUT b if-none-match"]
        assert finished[2:] == FINALIZE
        async with aio.commit(f"{url}0", storage_options=options, direct=True, allow_empty=True):
            assert sorted(words(az_proxy)) == CREATE
        assert words(az_proxy) == ["list", *FINALIZE]
    assert await aio.is_committed(url, storage_options=options)
    assert words(az_proxy) == ["GET _commit_record.json"]
    newest = await aio.latest(url.rpartition("/")[0], storage_options=options)
    assert newest is not None
    assert newest.step == 10
    assert words(az_proxy) == ["list", "GET _commit_record.json"]


@pytest.mark.parametrize("action", [drop_reply, answer_after(500, "InternalError")])
@pytest.mark.parametrize(
    "match",
    [creates("_commit_record.json"), swaps_to("committed"), creates("data"), creates("commit_success.txt")],
    ids=["claim", "commit", "data", "marker"],
)
async def test_a_reply_that_was_lost_does_not_lose_the_commit(
    url: str, options: dict[str, Any], az_proxy: Proxy, tmp_path: Path, match: Any, action: Any
) -> None:
    (tmp_path / "data").write_bytes(b"x")
    az_proxy.rules.append(Rule(match=match, action=action))
    await aio.put(tmp_path, url, storage_options=options)
    assert az_proxy.count(match) == 2, "the client repeated it, and was told that it exists"
    assert (await aio.verify(url, storage_options=options)).ok


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_directory_goes_there_and_comes_back(azure_place: AzureRoot, tmp_path: Path) -> None:
    options = {"storage_options": azure_place.storage_options}
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "data").write_bytes(b"the data")
    (source / "sub" / "more").write_bytes(b"m" * (17 * 2**20))
    step = azure_place / "step_1"
    await aio.put(source, step, **options, checksums=True)
    assert (await aio.verify(step, **options, checksums=True)).ok
    copied = await aio.get(step, tmp_path / "copy", **options)
    assert {p.relative_to(copied).as_posix() for p in Path(copied).rglob("*") if p.is_file()} >= {"data", "sub/more"}
    azure_place.write("step_1/data", b"THE DATA")  # as long as before
    assert not (await aio.verify(step, **options)).ok
    said = str(await aio.explain(step, **options))
    assert "ATOMIC_RENAME        unknown   (1)" in said
    assert "(1) only where the namespace is hierarchical, which is not known: the endpoint" in said
    assert "EXCLUSIVE_CREATE     observed  a probe raced 6 creations" in said
    assert "Commits here use CommitFileTemporaryPath" in said


def test_a_killed_attempt_is_taken_over(azure_place: AzureRoot) -> None:
    options = {"storage_options": azure_place.storage_options}
    url = azure_place / "step_1"
    atomicpath.profile(url, **options)
    killer = Killer(of="request", at=5)
    assert Child(commit_files, url, "killed", killer, known(), **options).result() is None
    assert not atomicpath.is_committed(url, **options)
    assert atomicpath.latest(azure_place.url, **options) is None
    with atomicpath.commit(url, **options) as path:
        (path / "data").write_bytes(b"second")
    assert atomicpath.verify(url, **options).ok
    assert set(azure_place.read_all("step_1")) == {"data", "_commit_record.json", "commit_success.txt"}


def test_a_killed_rename_attempt_is_in_nobodys_way(adls_place: AzureRoot) -> None:
    options = {"storage_options": adls_place.storage_options}
    url = adls_place / "step_1"
    atomicpath.profile(url, **options)
    total = Child(
        commit_files, adls_place / "step_0", "whole", Killer(of="request", at=None), known(), **options
    ).result()
    killer = Killer(of="request", at=total - 2)  # the rename was not sent, nor the deletion of the record beside
    assert Child(commit_files, url, "killed", killer, known(), **options).result() is None
    assert not atomicpath.is_committed(url, **options)
    with atomicpath.commit(url, **options) as path:
        (path / "data").write_bytes(b"second")
    assert atomicpath.verify(url, **options).ok
    [left] = atomicpath.attempts(adls_place.url, **options)
    assert left.final.name == "step_1"
    assert left.alive is False
    assert content_of("whole").keys() <= set(adls_place.read_all("step_0"))
