"""Folders of hierarchical buckets, on our own fake: made, renamed in one step, followed to the end, removed."""

from __future__ import annotations

import errno
from typing import Any

import anyio
import pytest
from upath import UPath

from atomicpath import AtomicRenameTemporaryPath, Snapshot, SnapshotType, aio
from atomicpath.abc import Entry, EntryKind, Put
from atomicpath.errors import AccessError, GuaranteeError
from atomicpath.guarantees import Guarantee
from atomicpath_gcs import folders
from tests.gcs.stores import Store, both_loops
from tests.support.proxy import Request, Rule, answer_after, drop_reply, drop_request, is_, refuse
from tests.support.servers.fake_hns import FakeGcs

pytestmark = pytest.mark.parametrize("store", ["folders"], indirect=True)
RENAMES = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE


def renames(request: Request) -> bool:
    return request.method == "POST" and "/renameTo/" in request.target


def copies(request: Request) -> bool:
    return request.method == "POST" and "/rewriteTo/" in request.target


def looks(request: Request) -> bool:
    return "/operations/" in request.target


async def two_files(store: Store, name: str = "run/old") -> dict[str, bytes]:
    """A folder with two files and an empty folder; what it is to become."""
    await store.storage.make_directory(store.path(name), mode=None, durable=True)
    await store.storage.put(store.path(f"{name}/a"), b"a", mode=Put.OVERWRITE)
    await store.storage.put(store.path(f"{name}/sub/b"), b"b", mode=Put.OVERWRITE)
    await store.storage.make_directory(store.path(f"{name}/empty"), mode=None, durable=True)
    return {"run/new/a": b"a", "run/new/sub/b": b"b"}


async def test_a_directory_is_made_with_its_ancestors_exclusively_and_is_seen_empty(store: Store) -> None:
    gcs, path = store.storage, store.path("run/deep/step")
    assert await gcs.make_directory(path, mode=None, durable=True) is None
    for name in ("run", "run/deep", "run/deep/step"):
        assert await gcs.kind(store.path(name)) == EntryKind.DIRECTORY
    assert await gcs.list(store.path("run/deep"), recursive=False) == [Entry(name="step", kind=EntryKind.DIRECTORY)]
    assert await gcs.list(store.path("run"), recursive=True) == []
    with pytest.raises(FileExistsError):
        await gcs.make_directory(path, mode=None, durable=True)


async def test_a_mode_is_refused_before_anything_is_sent(store: Store) -> None:
    await store.storage.declare(store.bucket)
    store.proxy.requests.clear()
    with pytest.raises(GuaranteeError, match="path_permission_mode cannot be honoured.*Leave it out"):
        await store.storage.make_directory(store.path("run"), mode=0o700, durable=True)
    assert store.proxy.requests == []


@both_loops
async def test_a_rename_moves_everything_at_once(store: Store, fake_gcs: FakeGcs) -> None:
    expected = await two_files(store)
    fake_gcs.slow = 3
    await store.storage.rename_directory(store.path("run/old"), store.path("run/new"))
    assert store.truth() == expected
    assert fake_gcs.buckets[store.bucket].folders == {"run/", "run/new/", "run/new/sub/", "run/new/empty/"}
    assert store.proxy.count(renames) == 1
    assert store.proxy.count(looks) == 3
    assert store.environment.slept == [0.05, 0.1, 0.2]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("found_late", [False, True])
async def test_a_rename_replaces_nothing(store: Store, fake_gcs: FakeGcs, full: bool, found_late: bool) -> None:
    await two_files(store)
    before = store.truth()

    def make_target(request: Request, send: Any) -> Any:
        fake_gcs.buckets[store.bucket].folders.add("run/new/")
        return send(request)

    if found_late:  # by the operation, which the target overtook
        fake_gcs.slow = 1
        store.proxy.rules.append(Rule(match=looks, action=make_target))
    else:
        await store.storage.make_directory(store.path("run/new"), mode=None, durable=True)
    if full:
        fake_gcs.put(store.bucket, "run/new/c", b"c")
        before["run/new/c"] = b"c"
    with pytest.raises(FileExistsError):
        await store.storage.rename_directory(store.path("run/old"), store.path("run/new"))
    assert store.truth() == before


async def test_a_rename_of_nothing_or_to_nowhere_says_so(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        await store.storage.rename_directory(store.path("run/none"), store.path("run/new"))
    await two_files(store)
    with pytest.raises(OSError, match="was refused") as caught:
        await store.storage.rename_directory(store.path("run/old"), store.path("elsewhere/new"))
    assert caught.value.errno == errno.EBUSY
    assert not isinstance(caught.value, FileNotFoundError | FileExistsError)


async def test_of_eight_concurrent_renames_one_succeeds(store: Store) -> None:
    outcomes: list[str] = []

    async def rename(number: int) -> None:
        source = store.path(f"run/{number}")
        await store.storage.make_directory(source, mode=None, durable=True)
        await store.storage.put(f"{source}/file-{number}", b"x", mode=Put.OVERWRITE)
        try:
            await store.storage.rename_directory(source, store.path("run/new"))
        except FileExistsError:
            return
        outcomes.append(f"run/new/file-{number}")

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(rename, number)
    assert [name for name in store.truth() if name.startswith("run/new/")] == outcomes


@pytest.mark.parametrize("action", [drop_reply, answer_after(503, "x")])
async def test_a_rename_whose_reply_is_lost_is_unknown(store: Store, action: Any) -> None:
    """It is sent again, and then its source is gone: that may be its own doing."""
    expected = await two_files(store)
    store.proxy.rules.append(Rule(match=renames, action=action))
    with pytest.raises(OSError, match="when it was sent again") as caught:
        await store.storage.rename_directory(store.path("run/old"), store.path("run/new"))
    assert type(caught.value) is OSError
    assert store.truth() == expected


@pytest.mark.parametrize("action", [drop_request, refuse(503, "x"), refuse(429, "x")])
async def test_a_rename_that_was_not_served_is_repeated(store: Store, action: Any) -> None:
    expected = await two_files(store)
    store.proxy.rules.append(Rule(match=renames, action=action, times=3))
    await store.storage.rename_directory(store.path("run/old"), store.path("run/new"))
    assert store.truth() == expected


@pytest.mark.parametrize(
    "action", [drop_request, refuse(500, "x"), refuse(403, "x"), refuse(404, "x"), lambda request, send: send(request)]
)
async def test_a_rename_that_cannot_be_followed_to_its_end_is_unknown(
    store: Store, fake_gcs: FakeGcs, action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_PATIENCE", 5.0)
    expected = await two_files(store)
    fake_gcs.slow = 10**6
    store.proxy.rules.append(Rule(match=looks, action=action, times=None))
    with pytest.raises(OSError, match="was begun, and could not be followed") as caught:
        await store.storage.rename_directory(store.path("run/old"), store.path("run/new"))
    assert type(caught.value) is OSError
    assert "run/new/a" not in store.truth()
    fake_gcs.finish()
    assert store.truth() == expected, "it happened all the same"


async def test_a_rename_that_is_refused_by_right_did_not_happen(store: Store) -> None:
    await two_files(store)
    store.proxy.rules.append(Rule(match=renames, action=refuse(403, "x")))
    with pytest.raises(AccessError):
        await store.storage.rename_directory(store.path("run/old"), store.path("run/new"))
    store.proxy.rules.append(Rule(match=renames, action=drop_reply))
    store.proxy.rules.append(Rule(match=renames, action=refuse(403, "x")))
    with pytest.raises(OSError, match="answered 403") as caught:
        await store.storage.rename_directory(store.path("run/old"), store.path("run/new"))
    assert not isinstance(caught.value, PermissionError), "the first may have been carried out"


async def test_a_directory_whose_making_had_no_answer_is_unknown(store: Store) -> None:
    store.proxy.rules.append(Rule(match=is_("POST", "/folders"), action=drop_reply))
    with pytest.raises(OSError, match="the first of two") as caught:
        await store.storage.make_directory(store.path("run"), mode=None, durable=True)
    assert type(caught.value) is OSError


@both_loops
async def test_a_tree_is_removed_and_nothing_beside_it(store: Store, fake_gcs: FakeGcs) -> None:
    await two_files(store)
    await store.storage.put(store.path("run/old-1/a"), b"x", mode=Put.OVERWRITE)
    await store.storage.remove_tree(store.path("run/old"))
    assert store.truth() == {"run/old-1/a": b"x"}
    assert fake_gcs.buckets[store.bucket].folders == {"run/", "run/old-1/"}
    await store.storage.remove_tree(store.path("run/old"))  # nothing there is fine
    store.proxy.rules.append(Rule(match=is_("DELETE"), action=refuse(403, "x"), times=None))
    with pytest.raises(AccessError):
        await store.storage.remove_tree(store.path("run/old-1"))


@pytest.mark.parametrize(
    ("action", "why", "kept"),
    [
        (refuse(403, "x"), "answered 403", True),
        (refuse(404, "x"), "answered 404", True),
        (refuse(500, "x"), "TemporaryError", False),
        (drop_request, "ConnectionError", False),
        (lambda request, send: send(Request("GET", request.target.replace("storageLayout", "o"), {}, b"")), "", True),
    ],
)
async def test_a_layout_that_cannot_be_learnt_is_unknown_not_guessed(
    store: Store, action: Any, why: str, kept: bool
) -> None:
    store.proxy.rules.append(Rule(match=is_("GET", "/storageLayout"), action=action, times=None))
    found = await store.storage.declare(store.path("run"))
    assert not (found.declared | found.observable) & RENAMES
    assert Guarantee.EXCLUSIVE_CREATE in found.observable
    assert "the bucket's storage layout is not known" in found.evidence[Guarantee.ATOMIC_RENAME]
    assert why in found.evidence[Guarantee.ATOMIC_RENAME]
    with pytest.raises(GuaranteeError):
        await store.storage.rename_directory(store.path("run/old"), store.path("run/new"))
    store.proxy.rules.clear()
    again = await store.storage.declare(store.path("run"))
    assert (RENAMES in again.observable) is not kept


async def test_only_googles_own_endpoint_is_believed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from atomicpath_gcs import GcsBackend

    async def declared(bucket: str, *, hierarchical: bool | None, **options: object) -> Any:
        storage = GcsBackend().open({"token": "anon", **options}, store.environment)
        await storage.ready(bucket)
        layout = folders.Layout(hierarchical, "as the test asked")
        monkeypatch.setitem(folders._known, (storage.endpoint, bucket), layout)  # nothing is sent
        return await storage.declare(f"{bucket}/run")

    custom = await store.storage.declare(store.path("run"))
    assert custom.declared == Guarantee.ATOMIC_WRITE
    vendor = await declared("bucket-1", hierarchical=True)
    assert vendor.declared == custom.declared | custom.observable
    assert vendor.observable == Guarantee(0)
    assert set(vendor.declared) <= set(vendor.evidence)
    assert Guarantee.DIRECTORIES not in vendor.declared, "which have modes"
    for unsure in (None, False):
        flat = await declared("bucket-2", hierarchical=unsure)
        assert flat.declared == vendor.declared & ~RENAMES
        assert flat.evidence[Guarantee.ATOMIC_RENAME] == "as the test asked"
    regional = await declared("bucket-1", hierarchical=True, endpoint_url="https://storage.us-east1.rep.googleapis.com")
    assert regional.declared == vendor.declared
    impostor = await declared("bucket-1", hierarchical=True, endpoint_url="https://notgoogleapis.com")
    assert impostor.declared == Guarantee.ATOMIC_WRITE
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://store:9000")
    elsewhere = await declared("bucket-1", hierarchical=True, project="p")
    assert elsewhere.declared == Guarantee.ATOMIC_WRITE


async def test_a_store_that_renames_over_an_empty_folder_is_found_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = FakeGcs._rename

    def lie(server: FakeGcs, bucket: str, source: str, target: str) -> Any:
        place = server.buckets[bucket]
        if not any(name.startswith(target) for name in place.objects):
            place.folders.discard(target)
        return rename(server, bucket, source, target)

    monkeypatch.setattr(FakeGcs, "_rename", lie)
    explanation = await aio.explain(f"gs://{store.bucket}/run/step_1", storage_options=store.options)
    assert explanation.profile.refuted == Guarantee.RENAME_NOREPLACE
    assert "a directory was renamed onto an empty one" in str(explanation)
    assert store.truth() == {}


@both_loops
async def test_files_are_copied_by_the_store_in_as_many_calls_as_it_takes(store: Store, fake_gcs: FakeGcs) -> None:
    data = {"large": bytes(range(256)) * 4, "sub/small": b"x", "sub/empty": b""}
    for name, content in data.items():
        await store.storage.put(store.path(f"old/{name}"), content, mode=Put.OVERWRITE)
    fake_gcs.rewritten_per_call = 300
    store.proxy.requests.clear()
    await store.storage.copy_files(store.path("old"), store.path("new"), [*data])
    assert store.truth() == {f"{top}/{name}": content for top in ("old", "new") for name, content in data.items()}
    assert store.proxy.count(copies) == 4 + 1 + 1
    assert {request.query["ifGenerationMatch"] for request in store.proxy.requests if copies(request)} == {"0"}
    with pytest.raises(FileNotFoundError):
        await store.storage.copy_files(store.path("old"), store.path("other"), ["missing"])
    await store.storage.put(store.path("taken/large"), b"precious", mode=Put.OVERWRITE)
    with pytest.raises(FileExistsError):
        await store.storage.copy_files(store.path("old"), store.path("taken"), ["large"])
    assert store.truth()["taken/large"] == b"precious"


async def test_a_copy_whose_answer_was_lost_is_known_by_its_content(store: Store) -> None:
    await store.storage.put(store.path("old/a"), b"a", mode=Put.OVERWRITE)
    store.proxy.rules.append(Rule(match=copies, action=drop_reply))
    await store.storage.copy_files(store.path("old"), store.path("new"), ["a"])
    assert store.truth() == {"old/a": b"a", "new/a": b"a"}


async def test_a_snapshot_begins_a_new_directory_with_what_the_store_copies(store: Store) -> None:
    url = f"gs://{store.bucket}/run"
    async with aio.commit(f"{url}/step_1", storage_options=store.options) as path:
        for name in ("a", "b"):
            (path / name).write_bytes(name.encode())
    snapshot = Snapshot(f"{url}/step_1", f"{url}/step_2", storage_options=store.options)
    await store.storage.put((await snapshot.create_snapshot()).path + "/c", b"c", mode=Put.OVERWRITE)
    assert [commit.name for commit in await aio.committed(url, storage_options=store.options)] == ["step_1"]
    await snapshot.publish()
    record = await aio.read_record(f"{url}/step_2", storage_options=store.options)
    assert [file.name for file in record.files] == ["a", "b", "c"]
    assert (await aio.verify(f"{url}/step_2", storage_options=store.options)).ok
    with pytest.raises(GuaranteeError, match="RENAME_EXCHANGE"):
        await Snapshot(f"{url}/step_1", storage_options=store.options).create_snapshot()
    with pytest.raises(GuaranteeError, match="RENAME_EXCHANGE"):
        async with aio.commit(f"{url}/step_1", storage_options=store.options, replace=True):
            raise AssertionError
    addition = AtomicRenameTemporaryPath.from_final(
        UPath(f"{url}/step_1", **store.options), snapshot_type=SnapshotType.EMPTY
    )
    await store.storage.put((await addition.create()).path + "/d", b"d", mode=Put.OVERWRITE)
    await addition.finalize()
    (added,) = await aio.committed(f"{url}/step_1", storage_options=store.options)
    assert added.record is not None
    assert [file.name for file in added.record.files] == ["d"]
    assert (await aio.verify(f"{url}/step_1", storage_options=store.options)).ok
    assert not [name for name in store.truth() if ".atomicpath-tmp-" in name]


async def test_a_copy_is_made_by_the_store_itself_unless_checksums_are_to_be_verified(store: Store) -> None:
    url = f"gs://{store.bucket}/run"
    async with aio.commit(f"{url}/step_1", storage_options=store.options, metadata={"loss": 0.5}) as path:
        (path / "a").write_bytes(b"1")
        (path / "sub").mkdir()
        (path / "sub" / "b").write_bytes(b"22")
    store.proxy.requests.clear()
    done = await aio.copy(f"{url}/step_1", f"{url}/copy", storage_options=store.options)
    assert store.proxy.count(copies) == 2
    assert {key: data for key, data in store.truth().items() if key in ("run/copy/a", "run/copy/sub/b")} == {
        "run/copy/a": b"1",
        "run/copy/sub/b": b"22",
    }
    assert done.record is not None
    assert done.record.metadata == {"loss": 0.5}
    assert (await aio.verify(f"{url}/copy", storage_options=store.options)).ok
    store.proxy.requests.clear()
    again = await aio.copy(f"{url}/copy", f"{url}/again", storage_options=store.options, checksums=True)
    assert store.proxy.count(copies) == 0
    assert again.record is not None
    assert all(file.sha256 for file in again.record.files)
