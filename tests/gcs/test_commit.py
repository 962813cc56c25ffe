"""Whole commits through the public functions, and what they cost on the wire."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._core.layout import HOUSEKEEPING
from atomicpath._profile import probing
from atomicpath.abc import EntryKind, Put
from atomicpath_gcs import folders
from tests.gcs.stores import Store, both_loops, uploads
from tests.protocol.worlds import ALL, MARKER, RECORD, Quick, nothing_above, trust
from tests.support.processes import Child, Killer, commit_files, content_of, known, write_tree
from tests.support.proxy import Request, Rule, answer_after, drop_reply, drop_request, refuse

FLAT = pytest.mark.parametrize("store", ["flat", "fake-gcs-server"], indirect=True)
FOLDERS = pytest.mark.parametrize("store", ["folders"], indirect=True)
RENAMES = atomicpath.Guarantee.ATOMIC_RENAME | atomicpath.Guarantee.RENAME_NOREPLACE
PLACES = pytest.mark.parametrize("place", ["gcs", "gcs_flat", "gcs_hns"], indirect=True)


@pytest.fixture
def url(store: Store) -> str:
    return f"gs://{store.bucket}/run/step_1"


async def commit(store: Store, url: str, writer: object = "us", **options: Any) -> Quick:
    with use(Quick()) as environment:
        async with aio.commit(url, storage_options=store.options, **options) as path:
            write_tree(Path(path), content_of(writer))
    assert isinstance(environment, Quick)
    return environment


def committed(store: Store, writer: object = "us", *, marked: bool = True) -> bool:
    """Whether that is all there is; the rename strategy writes no marker."""
    names = {f"run/step_1/{name}": data for name, data in content_of(writer).items()}
    found = store.truth()
    records = {f"run/step_1/{name}" for name in (RECORD, *[MARKER] * marked)}
    return found.keys() == names.keys() | records and all(found[name] == data for name, data in names.items())


def sent(store: Store) -> list[str]:
    """The requests so far, in words; then they are forgotten."""
    words = [_said(request) for request in store.proxy.requests]
    store.proxy.requests.clear()
    return words


def _said(request: Request) -> str:
    if request.path.endswith("/o") and request.method == "GET":
        return "list"
    if "/renameTo/" in request.target:
        return "rename"
    name = next(
        (name for name in (RECORD, MARKER, "model.bin", "state.bin") if name.encode() in request.body[:300]), ""
    )
    name = name or request.path.strip("/").rpartition("/")[2]
    return " ".join(filter(None, (request.method, name, request.query.get("ifGenerationMatch", ""))))


@PLACES
def test_what_was_committed_is_read_verified_explained_and_never_replaced(
    place: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    options = {"storage_options": place.storage_options}
    source = tmp_path / "source"
    write_tree(source, content_of("us"))
    with atomicpath.commit(place / "step_1", metadata={"step": 1}, checksums=True, **options) as path:
        write_tree(path, content_of("us"))
    atomicpath.put(source, place / "step_2", **options)
    for step in (1, 2):
        assert atomicpath.verify(place / f"step_{step}", checksums=step == 1, **options).ok
    newest = atomicpath.latest(place.url, **options)
    assert newest is not None
    assert newest.step == 2
    copy = atomicpath.get(place / "step_1", tmp_path / "copy", **options)
    assert {name: (copy / name).read_bytes() for name in content_of("us")} == content_of("us")
    before = place.read_all()
    with pytest.raises(atomicpath.AlreadyCommittedError, match="was already committed by process"):
        atomicpath.put(source, place / "step_1", **options)
    assert place.read_all() == before

    def names() -> list[str]:
        """Leave out the house-keeping folder, which stays, empty: to remove it costs a request."""
        return [name for name in place.names() if name not in (HOUSEKEEPING, "") or place.read_all(HOUSEKEEPING)]

    assert names() == ["step_1", "step_2"], "neither probes nor attempts are left"
    with pytest.raises(ZeroDivisionError), atomicpath.commit(place / "step_3", **options):
        raise ZeroDivisionError
    assert names() == ["step_1", "step_2"]


@FLAT
@both_loops
async def test_lost_replies_are_settled(store: Store, url: str) -> None:
    """Every upload of the commit is carried out and answered 503: each is told that it exists, by itself."""
    trust(url, store.options, ALL)
    everything = store.proxy.rules
    for writer in ("first", "second"):
        seen: set[bytes] = set()

        def once(request: Request, seen: set[bytes] = seen) -> bool:
            key = request.body[60:]  # without the boundary, which is new each time
            return uploads(request) and key not in seen and not seen.add(key)  # type: ignore[func-returns-value]

        everything[:] = [
            Rule(match=once, action=answer_after(503, "x") if writer == "first" else drop_reply, times=None)
        ]
        await commit(store, f"{url}-{writer}", writer)
        assert seen
        assert await aio.is_committed(f"{url}-{writer}", storage_options=store.options)


@FLAT
async def test_the_budget_of_a_flat_bucket(store: Store, url: str, request: pytest.FixtureRequest) -> None:
    trust(url, store.options, ALL)
    nothing_above(url, store.options)
    await aio.profile(url, storage_options=store.options)  # the layout is asked for once in a process
    assert sent(store) == ["GET storageLayout"]
    create = sorted([f"POST {RECORD} 0", "list"])
    with use(Quick()):
        async with aio.commit(url, storage_options=store.options) as path:
            assert sorted(sent(store)) == create
            write_tree(Path(path), content_of("us"))
    finish = sent(store)
    assert sorted(finish[:2]) == ["POST model.bin 0", "POST state.bin 0"]
    record = await aio.read_record(url, storage_options=store.options)
    assert finish[2].startswith(f"POST {RECORD} 1")
    assert finish[3:] == [f"POST {MARKER} 0"]
    assert len(record.files) == 2
    sent(store)

    with use(Quick()):
        async with aio.commit(f"{url}0", storage_options=store.options, direct=True):
            assert sorted(sent(store)) == create
            await store.storage.put(store.path("run/step_10/data"), b"x", mode=Put.OVERWRITE)
            sent(store)
    assert [said.rpartition(" ")[0] if RECORD in said else said for said in sent(store)] == [
        "list",
        f"POST {RECORD}",
        f"POST {MARKER} 0",
    ]

    assert await aio.is_committed(url, storage_options=store.options)
    assert sent(store) == [f"GET {RECORD}"]
    newest = await aio.latest(url.rpartition("/")[0], storage_options=store.options)
    assert newest is not None
    assert newest.step == 10
    assert sent(store) == ["list", f"GET {RECORD}"]


@FOLDERS
async def test_the_budget_of_a_hierarchical_bucket(store: Store, url: str) -> None:
    trust(url, store.options, ALL | RENAMES)
    nothing_above(url, store.options)
    await aio.profile(url, storage_options=store.options)
    sent(store)
    await commit(store, url)
    said = sent(store)
    assert len(said) - 2 == 8, "beside the two files; a name may be a folder's or an object's, so a look is two"
    assert said[-2] == "rename"
    assert said[-1].startswith("DELETE "), "of the record beside the attempt's folder"
    assert committed(store, marked=False)


@pytest.mark.parametrize("store", ["fake-gcs-server"], indirect=True)
def test_what_an_emulator_lacks_is_found_out_and_explained(store: Store, tmp_path: Path) -> None:
    url = f"gs://{store.bucket}/run/step_1"
    options = {"storage_options": store.options, "staging_dir": str(tmp_path)}
    explained = str(atomicpath.explain(url, storage_options=store.options))
    assert "CONDITIONAL_DELETE   refuted   a probe found: a delete that named an old version was not" in explained
    assert "EXCLUSIVE_MULTIPART  refuted" in explained
    assert "ATOMIC_RENAME        unknown   (2)" in explained
    assert "(2) the bucket's storage layout is not known (the endpoint answered" in explained
    assert "Commits here use CommitFileTemporaryPath" in explained
    assert "each is sent once, early in a lease" in explained
    killer = Killer(of="request", at=5)
    assert Child(commit_files, url, "killed", killer, known(), **options).result() is None
    assert f"run/step_1/{RECORD}" in store.truth()
    with atomicpath.commit(url, **options) as path:
        write_tree(path, content_of("us"))
    assert committed(store)


@pytest.mark.parametrize("store", ["fake-gcs-server", "flat"], indirect=True)
async def test_a_large_file_is_uploaded_as_the_place_allows(
    store: Store, url: str, small_parts: int, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(b"x" * 2 * small_parts)
    await aio.put(tmp_path, url, storage_options=store.options)
    begun = [r.query["uploadType"] for r in store.proxy.requests if b"run/step_1/large" in r.body[:300]]
    refuted = probing._known[f"gs://{store.bucket}/run at {store.proxy.url}"].refuted
    assert begun == ["multipart" if atomicpath.Guarantee.EXCLUSIVE_MULTIPART in refuted else "resumable"]
    assert store.truth()["run/step_1/large"] == b"x" * 2 * small_parts


# hierarchical buckets


def renames_to(name: str) -> Any:
    return lambda request: f"/renameTo/folders/run%2F{name}%2F" in request.target


@FOLDERS
@both_loops
@pytest.mark.parametrize("action", [drop_reply, answer_after(503, "x")])
async def test_a_rename_that_happened_without_an_answer_is_a_commit(store: Store, url: str, action: Any) -> None:
    trust(url, store.options, ALL | RENAMES)
    store.proxy.rules.append(Rule(match=renames_to("step_1"), action=action))
    await commit(store, url)
    assert committed(store, marked=False)


@FOLDERS
async def test_a_rename_that_cannot_be_followed_is_settled_once_it_has_happened(
    store: Store, url: str, fake_gcs: Any
) -> None:
    trust(url, store.options, ALL | RENAMES)
    fake_gcs.slow = 2

    def finish(request: Request, send: Any) -> None:
        fake_gcs.finish()

    def looks(request: Request) -> bool:
        return "/operations/" in request.target

    store.proxy.rules.append(Rule(match=looks, action=drop_request, times=3))
    store.proxy.rules.append(Rule(match=looks, action=finish))
    await commit(store, url)
    assert committed(store, marked=False)


@FOLDERS
async def test_a_rename_that_never_arrives_is_withdrawn(store: Store, url: str, fake_gcs: Any) -> None:
    trust(url, store.options, ALL | RENAMES)
    store.proxy.rules.append(Rule(match=renames_to("step_1"), action=refuse(503, "x"), times=None))
    with pytest.raises(atomicpath.CommitError, match="was not committed.*the attempt was discarded") as caught:
        await commit(store, url)
    assert not isinstance(caught.value, atomicpath.OutcomeUnknownError)
    assert store.truth() == {}
    assert fake_gcs.buckets[store.bucket].folders == {"run/", "run/.atomicpath/"}, "the latter stays, empty"


@FOLDERS
async def test_a_rename_that_does_not_end_is_unknown_and_nothing_is_cleaned_up(
    store: Store, url: str, fake_gcs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_PATIENCE", 5.0)
    trust(url, store.options, ALL | RENAMES)
    fake_gcs.slow = 10**6
    with pytest.raises(atomicpath.OutcomeUnknownError, match="Nothing was cleaned up"):
        await commit(store, url)
    assert not await aio.is_committed(url, storage_options=store.options)
    fake_gcs.finish()
    assert await aio.is_committed(url, storage_options=store.options)
    [left] = [name for name in store.truth() if not name.startswith("run/step_1/")]
    assert left.startswith("run/.atomicpath/step_1.atomicpath-tmp-"), "the record of the attempt"
    assert left.endswith(".json")
    [swept] = await aio.sweep(url.rpartition("/")[0], older_than=timedelta(0), storage_options=store.options)
    assert swept.error is None


@FOLDERS
async def test_another_who_was_first_is_named(store: Store, url: str, fake_gcs: Any) -> None:
    trust(url, store.options, ALL | RENAMES)
    with use(Quick()), pytest.raises(atomicpath.AlreadyCommittedError, match="was already committed by process"):
        async with aio.commit(url, storage_options=store.options) as path:
            write_tree(Path(path), content_of("the second"))
            await commit(store, url, "the first")
    assert committed(store, "the first", marked=False)
    assert fake_gcs.buckets[store.bucket].folders == {
        *["run/", "run/.atomicpath/", "run/step_1/", "run/step_1/optimizer/"]
    }


@FOLDERS
async def test_an_empty_folder_at_the_target_is_somebody_elses(store: Store, url: str) -> None:
    trust(url, store.options, ALL | RENAMES)
    await store.storage.make_directory(store.path("run/step_1"), mode=None, durable=True)
    with pytest.raises(atomicpath.ConflictError, match="a directory without a commit record"):
        await commit(store, url)
    assert await store.storage.kind(store.path("run/step_1")) == EntryKind.DIRECTORY


@FOLDERS
async def test_a_mode_cannot_be_asked_for(store: Store, url: str) -> None:
    trust(url, store.options, ALL | RENAMES)
    options = atomicpath.FileOptions(path_permission_mode=0o700)
    with pytest.raises(atomicpath.GuaranteeError, match="path_permission_mode"):
        await commit(store, url, file_options=options)
    assert store.truth() == {}


@FOLDERS
def test_a_killed_job_leaves_nothing_that_counts_and_is_done_again(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"gs://{store.bucket}/run/step_1"
    options: dict[str, Any] = {"storage_options": store.options, "staging_dir": str(tmp_path)}
    atomicpath.profile(url, storage_options=store.options)
    killer = Killer(of="request", at=9)
    assert Child(commit_files, url, "killed", killer, known(), **options).result() is None
    left = [*store.truth()]
    assert all(name.startswith("run/.atomicpath/step_1.atomicpath-tmp-") for name in left)
    assert len({name.split("/")[2].removesuffix(".json") for name in left}) == 1
    with caplog.at_level(logging.WARNING):
        assert atomicpath.latest(f"gs://{store.bucket}/run", storage_options=store.options) is None
    assert "1 unfinished attempt(s) of processes that have ended" in caplog.text
    with atomicpath.commit(url, **options) as path:
        write_tree(path, content_of("us"))
    newest = atomicpath.latest(f"gs://{store.bucket}/run", storage_options=store.options)
    assert newest is not None
    assert newest.step == 1


@FOLDERS
async def test_where_the_layout_is_not_known_the_record_decides_also_against_a_rename(store: Store, url: str) -> None:
    """The two ways of publishing never both win: conditional writes work on both kinds of bucket."""
    trust(url, store.options, ALL | RENAMES)
    await commit(store, url, "renamed")
    key = store.proxy.url, store.bucket
    learnt = folders._known[key]
    folders._known[key] = folders.Layout(None, "as the test asked")
    try:
        with pytest.raises(atomicpath.AlreadyCommittedError):
            await commit(store, url, "written in place")
        explanation = await aio.explain(f"{url}0", storage_options=store.options)
        assert explanation.strategy is atomicpath.CommitFileTemporaryPath
        with use(Quick()):
            async with aio.commit(f"{url}0", storage_options=store.options) as path:
                write_tree(Path(path), content_of("written in place"))
                folders._known[key] = learnt
                with pytest.raises(atomicpath.ConflictError, match="is held by"):
                    await commit(store, f"{url}0", "renamed")
    finally:
        folders._known[key] = learnt
    assert await aio.is_committed(f"{url}0", storage_options=store.options)
    assert committed(store, "renamed") is False, "there are two"
