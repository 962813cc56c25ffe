"""What holds on SeaweedFS and what does not, and that whole commits are made of what does."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

import atomicpath
from atomicpath import AlreadyCommittedError, Guarantee, aio
from atomicpath._core.environment import use
from atomicpath._profile.location import locate
from atomicpath.abc import Put, StaleVersionError, Storage, Update
from atomicpath.errors import AccessError
from atomicpath.guarantees import NONE
from tests.protocol.worlds import MARKER, RECORD, Quick, creates, nothing_above, swaps_to, trust
from tests.support.processes import FILES, Child, Killer, commit_files, content_of, known
from tests.support.proxy import Proxy, Rule, answer_after, drop_reply, is_, truncate
from tests.support.roots import SECRET, S3Root
from tests.support.servers.s3 import client as s3_client

HOLDS = (
    Guarantee.LIST_AFTER_WRITE | Guarantee.EXCLUSIVE_CREATE | Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE
)
FAILS = Guarantee.EXCLUSIVE_MULTIPART
STATUS = {
    Guarantee.ATOMIC_WRITE: {"declared"},
    **{guarantee: {"observed"} for guarantee in HOLDS},
    FAILS: {"refuted", "unknown"},  # the probe finds it out in most tries, and never calls it good
}


@pytest.fixture
def proxy(seaweedfs: str) -> Iterator[Proxy]:
    with Proxy(seaweedfs) as proxy:
        yield proxy


@pytest.fixture
def watched(seaweedfs_client: Any, proxy: Proxy) -> S3Root:
    """A place on SeaweedFS, reached through the proxy by a client that never repeats by itself."""
    root = S3Root(seaweedfs_client, "places", proxy.url)
    once = {"retries": {"total_max_attempts": 1, "mode": "legacy"}}
    root.storage_options = {**root.storage_options, "config_kwargs": once}
    trust(root / "any", root.storage_options, HOLDS)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "sub").mkdir(parents=True)
    (directory / "data").write_bytes(b"the data")
    (directory / "sub" / "more").write_bytes(b"more of it")
    return directory


# what holds


def test_the_probes_find_what_holds(seaweedfs_place: S3Root) -> None:
    found = atomicpath.explain(seaweedfs_place / "step_1", storage_options=seaweedfs_place.storage_options)
    told = {line.split()[0]: line.split()[1] for line in str(found).splitlines() if line.startswith("  ")}
    for guarantee in Guarantee:
        assert told.get(str(guarantee), "unknown") in STATUS.get(guarantee, {"unknown"}), f"{guarantee} in\n{found}"
    assert found.profile.effective == HOLDS | Guarantee.ATOMIC_WRITE
    assert found.strategy is atomicpath.CommitFileTemporaryPath
    assert seaweedfs_place.read_all() == {}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the server is asked, not the event loop
async def test_exclusive_create_holds_for_bodies_of_any_size(seaweedfs_place: S3Root, tmp_path: Path) -> None:
    storage = _open(seaweedfs_place)
    size = 20 * 2**20  # more than a part: one request all the same, without EXCLUSIVE_MULTIPART
    for number in range(4):
        (tmp_path / str(number)).write_bytes(b"%d" % number * size)

    async def small(number: int, path: str) -> None:
        await storage.put(path, b"%d" % number, mode=Put.CREATE)

    async def large(number: int, path: str) -> None:
        await storage.upload(tmp_path / str(number), path, owner="", multipart=False)

    for again, create in enumerate([small, small, large, large]):
        won = await _winners(4, create, _path(seaweedfs_place, f"file-{again}"))
        assert len(won) == 1, f"{create.__name__}, round {again}: {won}"
        assert seaweedfs_place.read_all()[f"file-{again}"][:1] == b"%d" % won[0]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the server is asked, not the event loop
async def test_compare_and_swap_holds(seaweedfs_place: S3Root) -> None:
    storage, path = _open(seaweedfs_place), _path(seaweedfs_place, "file")
    for _ in range(3):
        version = await storage.put(path, b"first", mode=Put.OVERWRITE)
        assert version is not None

        async def swap(number: int, path: str, version: str = version) -> None:
            await storage.put(path, b"%d" % number, mode=Update(version))

        won = await _winners(4, swap, path)
        assert len(won) == 1
        assert seaweedfs_place.read_all() == {"file": b"%d" % won[0]}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the server is asked, not the event loop
async def test_exclusive_multipart_does_not_hold(seaweedfs_place: S3Root) -> None:
    """If this ever fails SeaweedFS has become better: then so may the table above."""
    storage = _open(seaweedfs_place)

    async def complete(number: int, path: str) -> None:
        await storage.create_in_parts(path, b"%d" % number)

    for again in range(60):  # half of them show it
        if len(await _winners(6, complete, _path(seaweedfs_place, f"file-{again}"))) > 1:
            return
    pytest.fail("in 60 rounds of 6 completions each had one winner")


def test_a_refusal_does_not_say_which_condition_failed(seaweedfs_place: S3Root) -> None:
    """s3fs looks for it and raises EINVAL without it; our translation goes by the status."""
    seaweedfs_place.write("file", b"x")
    client, key = seaweedfs_place.client, f"{seaweedfs_place.top}/file"
    with pytest.raises(client.exceptions.ClientError) as caught:
        client.put_object(Bucket=seaweedfs_place.bucket, Key=key, Body=b"y", IfNoneMatch="*")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert "Condition" not in caught.value.response["Error"]


# whole commits


async def test_a_commit_from_begin_to_end(seaweedfs_place: S3Root, source: Path, tmp_path: Path) -> None:
    root, options = seaweedfs_place, seaweedfs_place.storage_options
    trust(root / "any", options, HOLDS)  # the probes, which take seconds there, are another test's
    await aio.put(source, root / "step_1", storage_options=options, metadata={"loss": 0.5})
    async with aio.commit(root / "step_2", storage_options=options) as path:
        Path(path, "data").write_bytes(b"two")
    with pytest.raises(ZeroDivisionError):
        async with aio.commit(root / "step_3", storage_options=options) as path:
            Path(path, "data").write_bytes(b"three")
            raise ZeroDivisionError
    with pytest.raises(AlreadyCommittedError):
        await aio.put(source, root / "step_2", storage_options=options)
    assert root.names() == ["step_1", "step_2"]
    assert set(root.read_all("step_1")) == {"data", "sub/more", RECORD, MARKER}
    newest = await aio.latest(root.url, storage_options=options)
    assert newest is not None
    assert newest.name == "step_2"
    assert (await aio.verify(root / "step_1", storage_options=options)).ok
    copy = await aio.get(root / "step_1", tmp_path / "copy", storage_options=options)
    assert (copy / "sub" / "more").read_bytes() == b"more of it"
    root.write("step_1/data", b"THE DATA")  # as long, but not the same
    assert (await aio.verify(root / "step_1", storage_options=options)).altered == ("data",)


@pytest.mark.parametrize("asserted", [NONE, FAILS], ids=["not-asserted", "asserted"])
def test_a_large_file_is_one_streamed_request(
    asserted: Guarantee, watched: S3Root, proxy: Proxy, tmp_path: Path
) -> None:
    trust(watched / "any", watched.storage_options, HOLDS, refuted=FAILS)
    data = bytes(range(256)) * (40 * 2**12)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model").write_bytes(data)
    url, options = watched / "step_1", watched.storage_options
    atomicpath.put(tmp_path / "source", url, storage_options=options, guarantees=asserted)
    sent = [r for r in proxy.requests if r.path.endswith("/model")]
    assert [(r.method, r.query.keys() & {"uploads", "uploadId"}) for r in sent] == [("PUT", set())]
    assert sent[0].conditions == {"if-none-match": "*"}
    assert watched.read_all("step_1")["model"] == data
    assert atomicpath.verify(url, storage_options=options).ok
    copy = atomicpath.get(url, tmp_path / "copy", storage_options=options)
    assert (copy / "model").read_bytes() == data


def test_a_killed_attempt_is_taken_over(seaweedfs_place: S3Root, tmp_path: Path) -> None:
    url, options = seaweedfs_place / "step_1", {"storage_options": seaweedfs_place.storage_options}
    _killed(url, tmp_path, **options)
    assert set(seaweedfs_place.read_all("step_1")) == {*FILES, RECORD}
    _taken_over(url, tmp_path, **options)
    assert set(seaweedfs_place.read_all("step_1")) == {*FILES, RECORD, MARKER}


@pytest.fixture(params=["moto_server", "seaweedfs"])
def versioned_place(request: pytest.FixtureRequest) -> Iterator[S3Root]:
    """In a bucket whose deletes only hide what was there."""
    endpoint: str = request.getfixturevalue(request.param)
    with s3_client(endpoint) as client:
        bucket = f"versioned-{request.param.partition('_')[0]}"
        client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield S3Root(client, bucket, endpoint)


def test_a_killed_attempt_is_taken_over_where_deletes_only_hide(versioned_place: S3Root, tmp_path: Path) -> None:
    place, options = versioned_place, {"storage_options": versioned_place.storage_options}
    url = place / "step_1"
    _killed(url, tmp_path, **options)
    place.write("step_1/late", b"of nobody's")
    place.delete("step_1/late")  # hidden by a delete marker: not a foreign file
    _taken_over(url, tmp_path, **options)
    assert set(place.read_all("step_1")) == {*FILES, RECORD, MARKER}
    found = place.client.list_object_versions(Bucket=place.bucket, Prefix=f"{place.top}/step_1/")
    hidden = {item["Key"].rpartition("step_1/")[2] for item in found["DeleteMarkers"]}
    assert hidden == {*FILES, "late"}, "the old attempt's files were deleted by name, under the version listed"


# what is lost on the way


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the server is asked, not the event loop
@pytest.mark.parametrize("action", [drop_reply, answer_after(503, "SlowDown")], ids=["no-reply", "503"])
@pytest.mark.parametrize("what", ["claim", "data", "commit"])
@pytest.mark.parametrize("repeats", [False, True], ids=["we-repeat", "the-client-repeats"])
async def test_a_request_that_was_carried_out_but_not_confirmed_is_settled(
    what: str, action: Any, repeats: bool, watched: S3Root, proxy: Proxy, source: Path
) -> None:
    if repeats:
        retries = {"retries": {"total_max_attempts": 2}}
        watched.storage_options = {**watched.storage_options, "config_kwargs": retries}
    match = {"claim": creates(RECORD), "data": creates("data"), "commit": swaps_to("committed")}
    rule = Rule(match=match[what], action=action)
    proxy.rules.append(rule)
    url, options = watched / "step_1", watched.storage_options
    failed = None
    with use(Quick()):
        try:
            await aio.put(source, url, storage_options=options)
        except atomicpath.CommitError as error:
            failed = error
    assert rule.times == 0, "the fault did not happen"
    if failed is not None:  # an upload is not repeated by us: nothing is committed, nothing left
        assert (what, repeats) == ("data", False)
        assert watched.read_all() == {}
        return
    assert (await aio.verify(url, storage_options=options)).ok
    assert set(watched.read_all("step_1")) == {"data", "sub/more", RECORD, MARKER}


async def test_a_download_cut_short_is_no_directory(
    watched: S3Root, proxy: Proxy, source: Path, tmp_path: Path
) -> None:
    url, options = watched / "step_1", watched.storage_options
    await aio.put(source, url, storage_options=options)
    proxy.rules.append(Rule(match=is_("GET", "/data"), action=truncate(3), times=None))
    with pytest.raises(OSError):
        await aio.get(url, tmp_path / "copy", storage_options=options)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("options", [{"secret": "wr0ng-s3cret"}, {"key": "nobody"}], ids=["secret", "key"])
def test_refused_credentials_are_said_and_not_shown(options: dict[str, str], seaweedfs_place: S3Root) -> None:
    storage_options = {**seaweedfs_place.storage_options, **options}
    with pytest.raises(AccessError) as caught:
        atomicpath.profile(seaweedfs_place / "step_1", storage_options=storage_options)
    said = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "403" in said
    assert SECRET not in said
    assert "wr0ng-s3cret" not in said
    assert caught.value.__cause__ is None
    assert seaweedfs_place.read_all() == {}


# the budget


async def test_the_requests_of_each_face_are_as_many_as_promised(watched: S3Root, proxy: Proxy, source: Path) -> None:
    options = watched.storage_options

    async def count(function: Any, *args: Any, **kwargs: Any) -> int:
        before = len(proxy.requests)
        with use(Quick()):
            await function(*args, storage_options=options, **kwargs)
        return len(proxy.requests) - before

    async def direct(url: str, *, storage_options: Any) -> None:
        async with aio.commit(url, storage_options=storage_options, direct=True):
            watched.write("step_2/data", b"x")  # past the proxy

    nothing_above(watched / "step_1", options)
    assert await count(aio.put, source, watched / "step_1") == 2 + 4
    assert await count(direct, watched / "step_2") == 5
    assert await count(aio.is_committed, watched / "step_1") == 1
    assert await count(aio.latest, watched.url) <= 3


async def test_a_cancelled_commit_leaves_nothing(watched: S3Root, proxy: Proxy, source: Path) -> None:
    def cancel(request: Any, send: Any) -> Any:
        answer = send(request)
        anyio.from_thread.run_sync(group.cancel_scope.cancel, token=token)
        return answer

    token = anyio.lowlevel.current_token()
    proxy.rules.append(Rule(match=creates("sub/more"), action=cancel))
    async with anyio.create_task_group() as group:
        await aio.put(source, watched / "step_1", storage_options=watched.storage_options)
        pytest.fail("it was not cancelled")
    assert watched.read_all() == {}


def _open(place: S3Root) -> Storage:
    return locate(place.url, place.storage_options).open()


def _path(place: S3Root, name: str) -> str:
    return locate(place / name, place.storage_options).path


async def _winners(racers: int, attempt: Any, path: str) -> list[int]:
    won: list[int] = []

    async def one(number: int) -> None:
        try:
            await attempt(number, path)
        except OSError as error:
            if not isinstance(error, FileExistsError | StaleVersionError) and error.errno != errno.EBUSY:
                raise
            return
        won.append(number)

    async with anyio.create_task_group() as group:
        for number in range(racers):
            group.start_soon(one, number)
    return won


def _killed(url: str, tmp_path: Path, **options: Any) -> None:
    """All files are there when it is killed, the commit was not sent; it looks above its place first, twice."""
    trust(url, options["storage_options"], HOLDS)
    child = Child(
        commit_files, url, "killed", Killer(of="request", at=6), known(), staging_dir=str(tmp_path), **options
    )
    assert child.result() is None


def _taken_over(url: str, tmp_path: Path, **options: Any) -> None:
    with atomicpath.commit(url, staging_dir=tmp_path, **options) as path:
        for name, data in content_of("the next").items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(data)
    assert atomicpath.verify(url, **options).ok
    assert (atomicpath.resolve(url, **options) / FILES[0]).read_bytes() == content_of("the next")[FILES[0]]
