"""An account with a hierarchical namespace, as far as a fake of its protocol shows: directories and their renames."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from azure.storage.blob import ContainerClient

import atomicpath
from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._profile import probing
from atomicpath.abc import Entry, EntryKind, Environment, Put, Storage
from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath.guarantees import Guarantee
from atomicpath_azure import AzureBackend
from tests.protocol.worlds import Quick, nothing_above
from tests.support.proxy import Proxy, Request, Rule, answer_after, drop_reply, drop_request, hold, is_, refuse
from tests.support.servers import azurite as azurite_server
from tests.support.servers.azurite import connection_string
from tests.support.servers.fake_adls import FakeAdls
from tests.support.waiting import until

RENAMES = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE | Guarantee.DIRECTORIES


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def lake(fake_adls: FakeAdls) -> Iterator[ContainerClient]:
    with azurite_server.raw(fake_adls.url) as client:
        yield azurite_server.new_container(client)


@pytest.fixture
def lake_proxy(fake_adls: FakeAdls) -> Iterator[Proxy]:
    with Proxy(fake_adls.url) as proxy:
        yield proxy


@pytest.fixture
def options(lake_proxy: Proxy) -> dict[str, Any]:
    return {"connection_string": connection_string(lake_proxy.url)}


@pytest.fixture
def top(lake: ContainerClient) -> str:
    return f"{lake.container_name}/run"


@pytest.fixture
async def adls(options: dict[str, Any], top: str, lake_proxy: Proxy) -> Storage:
    storage = AzureBackend().open(options, Environment())
    await storage.declare(top)
    lake_proxy.requests.clear()
    return storage


@pytest.fixture
def url(top: str, options: dict[str, Any]) -> str:
    """A final path, the guarantees of which are known, so that no probe is sent."""
    nothing_above(f"abfs://{top}/step_1", options)
    probing._known[AzureBackend().identity(top, options)] = probing._Findings(
        tried=~Guarantee(0), observed=~Guarantee(0)
    )
    return f"abfs://{top}/step_1"


def renames(request: Request) -> bool:
    return "x-ms-rename-source" in request.headers


def publishes(request: Request) -> bool:
    return renames(request) and request.path.endswith("/step_1")


def names(fake: FakeAdls) -> list[str]:
    [tree] = fake.containers.values()
    return sorted(tree)


async def test_a_rename_is_one_request_that_never_replaces(
    adls: Storage, fake_adls: FakeAdls, top: str, lake_proxy: Proxy
) -> None:
    for name in ("a", "b"):
        await adls.make_directory(f"{top}/{name}", mode=None, durable=True)
        await adls.put(f"{top}/{name}/sub/file", name.encode(), mode=Put.OVERWRITE)
    lake_proxy.requests.clear()
    await adls.rename_directory(f"{top}/a", f"{top}/final")
    assert [(r.method, r.conditions, r.query.get("mode")) for r in lake_proxy.requests] == [
        ("PUT", {"if-none-match": "*"}, "posix")
    ]
    with pytest.raises(FileExistsError):
        await adls.rename_directory(f"{top}/b", f"{top}/final")
    await adls.make_directory(f"{top}/empty", mode=None, durable=True)
    with pytest.raises(FileExistsError):
        await adls.rename_directory(f"{top}/b", f"{top}/empty")
    with pytest.raises(FileNotFoundError):
        await adls.rename_directory(f"{top}/gone", f"{top}/other")
    with pytest.raises(FileNotFoundError):
        await adls.rename_directory(f"{top}/b", f"{top}/no/parent")
    assert names(fake_adls) == [
        *["run", "run/b", "run/b/sub", "run/b/sub/file", "run/empty"],
        *["run/final", "run/final/sub", "run/final/sub/file"],
    ]
    assert (await adls.get(f"{top}/final/sub/file")).data == b"a"


@pytest.mark.parametrize("name", ["with space", "ünïcödé-日本", "a%20b", "a+b", "a&b=c#e", "50%"])
async def test_any_directory_is_renamed_under_its_own_name(
    adls: Storage, fake_adls: FakeAdls, top: str, name: str
) -> None:
    await adls.make_directory(f"{top}/{name}", mode=None, durable=True)
    await adls.rename_directory(f"{top}/{name}", f"{top}/{name}-2")
    assert names(fake_adls) == ["run", f"run/{name}-2"]
    await adls.remove_tree(f"{top}/{name}-2")
    assert names(fake_adls) == ["run"]


async def test_a_rename_in_parts_is_never_taken_for_one(adls: Storage, fake_adls: FakeAdls, top: str) -> None:
    fake_adls.renames_in_parts = True
    await adls.make_directory(f"{top}/a", mode=None, durable=True)
    with pytest.raises(OSError, match="renamed in part"):
        await adls.rename_directory(f"{top}/a", f"{top}/b")


async def test_a_directory_is_made_once_with_its_ancestors_and_exactly_its_mode(
    adls: Storage, fake_adls: FakeAdls, top: str, lake_proxy: Proxy
) -> None:
    await adls.make_directory(f"{top}/deep/a", mode=0o1701, durable=True)
    [tree] = fake_adls.containers.values()
    assert {name: node.mode for name, node in tree.items()} == {"run": "0750", "run/deep": "0750", "run/deep/a": "1701"}
    with pytest.raises(FileExistsError):
        await adls.make_directory(f"{top}/deep/a", mode=None, durable=True)
    lake_proxy.requests.clear()
    with pytest.raises(ValidationError, match="0o4755 cannot be honoured"):
        await adls.make_directory(f"{top}/deep/b", mode=0o4755, durable=True)
    assert lake_proxy.requests == []


async def test_a_directory_made_by_our_own_lost_request_is_ours(
    adls: Storage, fake_adls: FakeAdls, top: str, lake_proxy: Proxy
) -> None:
    makes = is_("PUT", resource="directory")
    lake_proxy.rules.append(Rule(match=makes, action=drop_reply))
    await adls.make_directory(f"{top}/a", mode=None, durable=True)
    assert lake_proxy.count(makes) == 2
    lake_proxy.rules.append(Rule(match=makes, action=drop_request))
    with pytest.raises(FileExistsError):  # the first was never carried out: another's is there
        await adls.make_directory(f"{top}/a", mode=None, durable=True)


async def test_kind_and_stat_tell_directories_that_hold_nothing(adls: Storage, top: str) -> None:
    await adls.make_directory(f"{top}/empty", mode=None, durable=True)
    version = await adls.put(f"{top}/file", b"x", mode=Put.CREATE, owner="token")
    assert await adls.kind(f"{top}/empty") == EntryKind.DIRECTORY
    assert await adls.kind(f"{top}/file") == EntryKind.FILE
    assert await adls.kind(f"{top}/none") is None
    assert await adls.stat(f"{top}/empty") == Entry(name="", kind=EntryKind.DIRECTORY)
    assert await adls.stat(f"{top}/file") == Entry(name="", size=1, version=version, owner="token")
    assert await adls.list(f"{top}/empty", recursive=True) == []
    assert await adls.list(f"{top}/no-container", recursive=True) == []
    with pytest.raises(FileNotFoundError, match="container does not exist"):
        await adls.list("no-such-container/run", recursive=True)


async def test_listings_and_deletions_follow_every_continuation(
    adls: Storage, fake_adls: FakeAdls, top: str, lake_proxy: Proxy
) -> None:
    for name in ("a", "b", "d/1", "d/2", "d/3", "e"):
        await adls.put(f"{top}/{name}", name.encode(), mode=Put.OVERWRITE)
    fake_adls.page = 2
    lake_proxy.requests.clear()
    assert [entry.name for entry in await adls.list(top, recursive=True)] == ["a", "b", "d/1", "d/2", "d/3", "e"]
    assert lake_proxy.count(is_("GET", resource="filesystem")) == 4
    found = [(entry.name, entry.kind) for entry in await adls.list(top, recursive=False)]
    assert found == [("a", EntryKind.FILE), ("b", EntryKind.FILE), ("d", EntryKind.DIRECTORY), ("e", EntryKind.FILE)]
    await adls.remove_tree(top)
    assert names(fake_adls) == []
    assert lake_proxy.count(is_("DELETE", recursive="true")) == 4


async def test_a_commit_is_one_rename_and_few_requests(
    fake_adls: FakeAdls, url: str, options: dict[str, Any], lake_proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"x" * 1000)
    await aio.put(tmp_path, url, storage_options=options, checksums=True)
    written = [(request.method, request.path.rpartition("/")[2][:18]) for request in lake_proxy.requests]
    assert [method for method, name in written if name == "step_1"] == ["HEAD", "PUT"]
    # One asks what kind of account it is, and one is the data. The last one deletes the record beside the directory.
    assert len(written) == 9, written
    assert [method for method, _ in written] == ["GET", "HEAD", *["PUT"] * 6, "DELETE"]
    assert [name for name in names(fake_adls) if "atomicpath" in name] == ["run/.atomicpath"], "it stays, empty"
    assert (await aio.verify(url, storage_options=options, checksums=True)).ok
    [file] = (await aio.read_record(url, storage_options=options)).files
    assert file.sha256
    lake_proxy.requests.clear()
    assert await aio.is_committed(url, storage_options=options)
    assert len(lake_proxy.requests) == 1
    with pytest.raises(atomicpath.AlreadyCommittedError):
        await aio.put(tmp_path, url, storage_options=options)
    lake_proxy.requests.clear()
    newest = await aio.latest(url.rpartition("/")[0], storage_options=options)
    assert newest is not None
    assert newest.name == "step_1"
    assert len(lake_proxy.requests) <= 3


@pytest.mark.parametrize("action", [drop_reply, answer_after(500, "InternalError")])
async def test_a_rename_whose_reply_was_lost_is_a_commit(
    url: str, options: dict[str, Any], lake_proxy: Proxy, tmp_path: Path, action: Callable[..., Any]
) -> None:
    (tmp_path / "data").write_bytes(b"x")
    lake_proxy.rules.append(Rule(match=publishes, action=action))
    await aio.put(tmp_path, url, storage_options=options)
    assert lake_proxy.count(publishes) == 2, "the client repeated it, and found no source"
    assert (await aio.verify(url, storage_options=options)).ok


async def test_a_rename_that_is_not_answered_is_withdrawn_before_it_counts_as_failed(
    fake_adls: FakeAdls, url: str, options: dict[str, Any], lake_proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"x")
    lake_proxy.rules.append(Rule(match=publishes, action=refuse(500, "InternalError"), times=None))
    with use(Quick()), pytest.raises(atomicpath.CommitError, match="was not committed"):
        await aio.put(tmp_path, url, storage_options=options)
    assert [name for name in names(fake_adls) if "step_1" in name] == []


async def test_a_rename_of_which_nobody_says_anything_is_unknown(
    url: str, options: dict[str, Any], lake_proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"x")
    lake_proxy.rules.append(Rule(match=renames, action=refuse(500, "InternalError"), times=None))
    with use(Quick()), pytest.raises(atomicpath.OutcomeUnknownError, match="look again"):
        await aio.put(tmp_path, url, storage_options=options)


@pytest.mark.parametrize("before", ["data", "commit_success.txt", "_commit_record.json"])
async def test_a_directory_that_was_swept_is_not_published_by_the_files_a_late_write_makes(
    fake_adls: FakeAdls, url: str, options: dict[str, Any], lake_proxy: Proxy, tmp_path: Path, before: str
) -> None:
    """Unlike a file system, the service makes the directory that a write needs."""
    (tmp_path / "data").write_bytes(b"x")
    writes: list[str] = []

    def last_write(request: Request) -> bool:
        if request.method == "PUT" and request.path.endswith(f"/{before}"):
            writes.append(request.path)
        return len(writes) == 1 and request.path in writes

    def sweep(request: Request, send: Any) -> Any:
        [tree] = fake_adls.containers.values()
        with fake_adls.lock:
            for name in [name for name in tree if ".atomicpath-tmp-" in name]:
                del tree[name]
        return send(request)

    lake_proxy.rules.append(Rule(match=last_write, action=sweep))
    with pytest.raises(atomicpath.AbandonedError):
        await aio.put(tmp_path, url, storage_options=options, marker="commit_success.txt")
    assert len(writes) == 1
    assert [name for name in names(fake_adls) if "step_1" in name] == []


async def test_a_seal_whose_reply_was_lost_is_a_commit(
    url: str, options: dict[str, Any], lake_proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"x")

    def seals(request: Request) -> bool:
        return request.path.endswith(".json") and "if-match" in request.headers and request.method == "PUT"

    lake_proxy.rules.append(Rule(match=seals, action=drop_reply))
    await aio.put(tmp_path, url, storage_options=options)
    assert lake_proxy.count(seals) == 2, "the client repeated it, and was refused"
    assert (await aio.verify(url, storage_options=options)).ok


async def test_a_cancelled_commit_leaves_nothing(
    fake_adls: FakeAdls, url: str, options: dict[str, Any], lake_proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"x")
    seen, release = threading.Event(), threading.Event()
    lake_proxy.rules.append(Rule(match=is_("PUT", "/data"), action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: aio.put(tmp_path, url, storage_options=options))
        await until(seen)
        group.cancel_scope.cancel()
    release.set()
    assert [name for name in names(fake_adls) if name.endswith("step_1")] == []


def test_a_mode_is_honoured_by_a_commit(fake_adls: FakeAdls, url: str, options: dict[str, Any], tmp_path: Path) -> None:
    mode = atomicpath.FileOptions(path_permission_mode=0o705)
    with atomicpath.commit(url, storage_options=options, file_options=mode) as path:
        (path / "data").write_bytes(b"x")
    [tree] = fake_adls.containers.values()
    assert tree["run/step_1"].mode == "0705"


def test_a_direct_commit_is_written_in_the_sibling(fake_adls: FakeAdls, url: str, options: dict[str, Any]) -> None:
    with atomicpath.commit(url, storage_options=options, direct=True) as path:
        (path / "data").write_bytes(b"x")
        assert not atomicpath.is_committed(url, storage_options=options)
        assert "run/step_1" not in names(fake_adls)
    assert atomicpath.verify(url, storage_options=options).ok
    assert (atomicpath.resolve(url, storage_options=options) / "data").read_bytes() == b"x"


@pytest.mark.parametrize("says", ["refused", "", "false"])
async def test_an_account_that_does_not_say_to_be_hierarchical_gets_no_rename(
    fake_adls: FakeAdls, options: dict[str, Any], top: str, lake_proxy: Proxy, tmp_path: Path, says: str
) -> None:
    fake_adls.detection = says
    url = f"abfs://{top}/step_1"
    explanation = " ".join(str(await aio.explain(url, storage_options=options)).split())
    assert ("only where the namespace is hierarchical, which is not known: " in explanation) == (says != "false")
    assert ("the account has no hierarchical namespace" in explanation) == (says == "false")
    if says == "refused":
        assert "403 AuthorizationPermissionMismatch" in explanation
    assert "Commits here use CommitFileTemporaryPath" in explanation
    (tmp_path / "data").write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "more").write_bytes(b"y")
    await aio.put(tmp_path, url, storage_options=options)
    assert lake_proxy.count(renames) == 0
    assert (await aio.verify(url, storage_options=options)).ok
    if says == "refused":
        assert lake_proxy.count(is_("GET", restype="account")) == 1, "it is not asked again"
    # and a process that is told what the account is meets what the other wrote
    fake_adls.detection = "true"
    knowing = {**options, "max_concurrency": 7}  # other options, hence another client
    with pytest.raises(atomicpath.AlreadyCommittedError):
        await aio.put(tmp_path, url, storage_options=knowing)
    assert (await aio.verify(url, storage_options=knowing)).ok


async def test_a_passing_failure_to_tell_is_asked_again(options: dict[str, Any], top: str, lake_proxy: Proxy) -> None:
    asks = is_("GET", restype="account")
    lake_proxy.rules.append(Rule(match=asks, action=refuse(503, "ServerBusy"), times=2))
    storage = AzureBackend().open(options, Environment())
    unsure = await storage.declare(top)
    assert not unsure.observable & RENAMES
    assert "which is not known" in unsure.evidence[Guarantee.ATOMIC_RENAME]
    with_renames = await storage.declare(top)
    assert with_renames.observable & RENAMES == RENAMES


async def test_an_endpoint_that_ignores_conditions_is_refuted(
    fake_adls: FakeAdls, options: dict[str, Any], top: str
) -> None:
    fake_adls.ignores_conditions = True
    profile = await aio.profile(f"abfs://{top}/step_1", storage_options=options)
    assert profile.refuted & (Guarantee.RENAME_NOREPLACE | Guarantee.EXCLUSIVE_CREATE)
    with pytest.raises(GuaranteeError):
        atomicpath.select(profile)


async def test_the_vendors_own_endpoint_is_believed(
    fake_adls: FakeAdls, lake: ContainerClient, lake_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Through a proxy that plays the whole of Azure's network: what is declared needs no probe."""
    monkeypatch.setenv("HTTP_PROXY", lake_proxy.url)
    account = f"DefaultEndpointsProtocol=http;AccountName=lake;AccountKey={azurite_server.KEY}"
    options = {"connection_string": f"{account};EndpointSuffix=core.windows.net"}
    url = f"abfss://{lake.container_name}@lake.dfs.core.windows.net/run/step_1"
    profile = await aio.profile(url, storage_options=options)
    assert profile.declared & RENAMES == RENAMES
    assert "hierarchical namespace, as this one has" in profile.evidence[Guarantee.ATOMIC_RENAME]
    assert [request.query.get("restype") for request in lake_proxy.requests] == ["account"]
    (tmp_path / "data").write_bytes(b"x")
    await aio.put(tmp_path, url, storage_options=options)
    hosts = {request.headers["host"] for request in lake_proxy.requests if renames(request)}
    assert hosts == {"lake.dfs.core.windows.net"}
    assert (await aio.verify(url, storage_options=options)).ok
    elsewhere = f"abfss://{lake.container_name}@other.dfs.core.windows.net/run/step_1"
    with pytest.raises(ValidationError, match="make them agree"):
        await aio.profile(elsewhere, storage_options=options)


def copies(request: Request) -> bool:
    return request.method == "PUT" and "x-ms-copy-source" in request.headers


async def test_files_are_copied_by_the_service_and_followed_until_they_are(
    adls: Storage, top: str, fake_adls: FakeAdls, lake_proxy: Proxy
) -> None:
    data = {"a b": b"large", "sub/small": b"x"}
    for name, content in data.items():
        await adls.put(f"{top}/old/{name}", content, mode=Put.OVERWRITE)
    fake_adls.looks_at_a_copy = 3
    lake_proxy.rules.append(Rule(match=copies, action=drop_reply))
    await adls.copy_files(f"{top}/old", f"{top}/new", [*data])
    for name, content in data.items():
        assert (await adls.get(f"{top}/new/{name}")).data == content
    assert all(request.headers["if-none-match"] == "*" for request in lake_proxy.requests if copies(request))
    await adls.put(f"{top}/taken/a b", b"precious", mode=Put.OVERWRITE)
    with pytest.raises(FileExistsError):
        await adls.copy_files(f"{top}/old", f"{top}/taken", ["a b"])
    assert (await adls.get(f"{top}/taken/a b")).data == b"precious"
    with pytest.raises(FileNotFoundError):
        await adls.copy_files(f"{top}/old", f"{top}/other", ["missing"])
    fake_adls.copies_fail = True
    with pytest.raises(OSError, match="ended as failed"):
        await adls.copy_files(f"{top}/old", f"{top}/failing", ["a b"])


async def test_a_snapshot_begins_a_new_directory_with_what_the_service_copies(
    adls: Storage, top: str, options: dict[str, Any]
) -> None:
    url = f"abfs://{top}"
    async with aio.commit(f"{url}/step_1", storage_options=options) as path:
        (path / "a").write_bytes(b"a")
    snapshot = atomicpath.Snapshot(f"{url}/step_1", f"{url}/step_2", storage_options=options)
    await snapshot.create_snapshot()
    await snapshot.publish()
    assert (await adls.get(f"{top}/step_2/a")).data == b"a"
    assert (await aio.verify(f"{url}/step_2", storage_options=options)).ok
    with pytest.raises(GuaranteeError, match="RENAME_EXCHANGE"):
        await atomicpath.Snapshot(f"{url}/step_1", storage_options=options).create_snapshot()
