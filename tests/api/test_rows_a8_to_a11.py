"""The floor, row by row (SPEC.md A8, A10, A11): metadata stores, deferred paths, paths that are only looked at."""

from __future__ import annotations

import errno
import json
import os
import pickle
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from upath import UPath

import atomicpath
from atomicpath import (
    AtomicRenameTemporaryPath,
    CommitFileTemporaryPath,
    DeferredPath,
    JsonMetadataStore,
    ReadOnlyTemporaryPath,
    StepMetadata,
    TemporaryPath,
    ValidationError,
)
from atomicpath._core.environment import Environment, use
from atomicpath._core.layout import METADATA_FILE, is_unfinished
from atomicpath.abc import AttemptOptions
from tests.support.roots import SECRET, LocalRoot, Root
from tests.support.waiting import PATIENCE

from .conftest import Counting

STRATEGIES = [AtomicRenameTemporaryPath, CommitFileTemporaryPath]
strategies = pytest.mark.parametrize("strategy", STRATEGIES)
stores = pytest.mark.parametrize("background", [False, True], ids=["at once", "in the background"])


def _at(root: Root, name: str) -> UPath:
    options: dict[str, Any] = root.storage_options
    path: UPath = UPath(root / name, **options)
    return path


def _begun(strategy: type[TemporaryPath], final: UPath, store: Any, **options: Any) -> TemporaryPath:
    attempt = strategy.from_final(final, checkpoint_metadata_store=store)
    attempt.configure(AttemptOptions(**options))
    return attempt


def _strategy_of(root: Root) -> type[TemporaryPath]:
    return AtomicRenameTemporaryPath if root.kind == "local" else CommitFileTemporaryPath


# A8


@stores
async def test_the_metadata_file_is_committed_with_both_times_and_the_users_own(root: Root, background: bool) -> None:
    attempt = _begun(
        _strategy_of(root), _at(root, "step_1"), JsonMetadataStore(background=background), metadata={"a": 1}
    )
    path = await attempt.create()
    (path / "x").write_bytes(b"1")
    await attempt.finalize()
    there = StepMetadata.from_json(json.loads(root.read_all("step_1")[METADATA_FILE]))
    assert there.custom_metadata == {"a": 1}
    assert 0 < (there.init_timestamp_nsecs or 0) < (there.commit_timestamp_nsecs or 0)
    record = await atomicpath.aio.read_record(root / "step_1", storage_options=root.storage_options)
    assert [entry.name for entry in record.files] == [METADATA_FILE, "x"]
    assert (await atomicpath.aio.verify(root / "step_1", storage_options=root.storage_options)).ok
    assert root.names() == ["step_1"]


class Recording:
    """A user's own store, of the protocol's shape and nothing else."""

    def __init__(self, seen: Callable[[], object]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._seen = seen

    def write(self, *, file_path: Any, metadata: Mapping[str, Any]) -> None:
        self.calls.append(("write", sorted(metadata)))
        Path(file_path).write_text(json.dumps(metadata))

    def read(self, file_path: Any) -> Any:
        raise AssertionError("an attempt has nothing to read")

    def update(self, *, file_path: Any, **fields: Any) -> None:
        self.calls.append(("update", sorted(fields)))

    def wait_until_finished(self) -> None:
        self.calls.append(("wait", self._seen()))


@strategies
async def test_a_users_own_store_is_written_waited_for_updated_and_waited_for_before_the_commit(
    strategy: type[TemporaryPath], local: LocalRoot
) -> None:
    store = Recording(lambda: (local.path / "step_1" / "commit_success.txt").exists())
    attempt = _begun(strategy, _at(local, "step_1"), store)
    await attempt.create()
    assert store.calls == [("write", ["custom_metadata", "init_timestamp_nsecs"])]
    await attempt.finalize()
    assert store.calls[1:] == [("wait", False), ("update", ["commit_timestamp_nsecs"]), ("wait", False)]
    assert METADATA_FILE in local.read_all("step_1")


async def test_the_file_of_a_staged_attempt_is_written_on_this_host_and_uploaded_as_one_more(store: Root) -> None:
    seen = Recording(lambda: METADATA_FILE in store.read_all("step_1"))
    attempt = _begun(CommitFileTemporaryPath, _at(store, "step_1"), seen, direct=False)
    await attempt.create()
    await attempt.finalize()
    assert [call for call in seen.calls if call[0] == "wait"] == [("wait", False)] * 2
    record = await atomicpath.aio.read_record(store / "step_1", storage_options=store.storage_options)
    assert [entry.name for entry in record.files] == [METADATA_FILE]


@strategies
@pytest.mark.parametrize("which", ["write", "update", "wait_until_finished"])
@pytest.mark.parametrize("kind", [FileExistsError, FileNotFoundError, KeyError])
async def test_a_store_that_fails_fails_the_attempt_and_nothing_is_left(
    strategy: type[TemporaryPath], which: str, kind: type[Exception], local: LocalRoot
) -> None:
    class Failing(JsonMetadataStore):
        pass

    def fail(*_: Any, **__: Any) -> None:
        raise kind("of the user's")

    setattr(Failing, which, fail)
    attempt = _begun(strategy, _at(local, "step_1"), Failing())
    with pytest.raises(
        atomicpath.CommitError, match=f"metadata store failed .{kind.__name__}: .?of the user's"
    ) as error:
        await attempt.create()
        await attempt.finalize()
    assert type(error.value) is atomicpath.CommitError
    assert local.names() == []


async def test_what_fails_in_the_background_fails_the_attempt_and_is_waited_for_before_it_is_discarded(
    local: LocalRoot,
) -> None:
    class Full(Environment):
        def call(self, function, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            if getattr(function, "__name__", "") == "write_bytes":
                raise OSError(errno.ENOSPC, "no space left")
            return super().call(function, *args, **kwargs)

    store = JsonMetadataStore(background=True)
    attempt = _begun(AtomicRenameTemporaryPath, _at(local, "step_1"), store)
    with use(Full()):
        path = attempt.get() / METADATA_FILE
        Path(str(path.parent)).mkdir(parents=True)
        store.write(path, {})
        with pytest.raises(OSError, match="no space left"):
            store.wait_until_finished()
    store.update(path, commit_timestamp_nsecs=1)  # what was to be kept is not there: never half a file
    with pytest.raises(OSError, match="no space left"):
        store.wait_until_finished()
    store.wait_until_finished()
    assert local.read_all() == {}
    store.write(path, {"a": 1})
    store.wait_until_finished()
    assert store.read(path) == {"a": 1}


async def test_a_write_in_the_background_does_not_come_back_to_what_was_discarded(root: Root) -> None:
    entered, go = threading.Event(), threading.Event()

    class Slow(JsonMetadataStore):
        def write(self, file_path: UPath, metadata: Any) -> None:
            def work() -> None:
                entered.set()
                go.wait(PATIENCE)
                JsonMetadataStore.write(self, file_path, metadata)

            self.thread = threading.Thread(target=work)
            self.thread.start()

        def wait_until_finished(self) -> None:
            go.set()
            self.thread.join()

    attempt = _begun(_strategy_of(root), _at(root, "step_1"), Slow())
    await attempt.create()
    assert entered.wait(PATIENCE)
    await attempt.discard()
    assert go.is_set()
    assert root.read_all() == {}
    assert root.names() == []


def test_a_file_that_was_written_elsewhere_after_a_listing_is_found(store: Root) -> None:
    path = _at(store, METADATA_FILE)
    store.write("other", b"1")
    assert [found.name for found in path.parent.iterdir()] == ["other"]  # which a client may remember
    store.write(METADATA_FILE, b'{"a": 1}')
    assert JsonMetadataStore().read(path) == {"a": 1}


@pytest.mark.parametrize("background", [False, True])
def test_an_error_of_the_storage_below_the_metadata_store_is_a_storage_error(tmp_path: Path, background: bool) -> None:
    store = JsonMetadataStore(background=background)
    path = UPath(tmp_path / "gone" / "metadata")
    with pytest.raises(atomicpath.StorageError, match=f"cannot write the metadata file {path}: .*") as caught:
        store.write(path, {"a": 1})
        store.wait_until_finished()
    assert isinstance(caught.value, FileNotFoundError)
    (tmp_path / "metadata").mkdir()
    with pytest.raises(atomicpath.StorageError, match="cannot read the metadata file .*"):
        store.read(UPath(tmp_path / "metadata"))


def test_fields_that_are_not_known_are_kept(root: Root) -> None:
    store = JsonMetadataStore()
    path = _at(root, f"{METADATA_FILE}")
    store.write(path, {"item_handlers": {"state": "h"}, "init_timestamp_nsecs": 5, "later": [1, None]})
    store.update(path, commit_timestamp_nsecs=7)
    fields = store.read(path)
    assert fields == {"item_handlers": {"state": "h"}, "init_timestamp_nsecs": 5, "later": [1, None]} | {
        "commit_timestamp_nsecs": 7
    }
    there = StepMetadata.from_json(fields)
    assert (there.init_timestamp_nsecs, there.commit_timestamp_nsecs) == (5, 7)
    assert there.to_json() == {**fields, "custom_metadata": {}}
    assert list(root.read_all()) == [METADATA_FILE]  # and no temporary name beside it


@stores
def test_many_threads_update_one_file_and_no_field_is_lost(local: LocalRoot, background: bool) -> None:
    store, path = JsonMetadataStore(background=background), _at(local, METADATA_FILE)
    threads = [threading.Thread(target=store.update, args=(path,), kwargs={f"f{n}": n}) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read(path) == {f"f{n}": n for n in range(16)}
    store.wait_until_finished()


def test_a_local_reader_sees_the_old_file_or_the_new_and_a_failed_write_leaves_the_old(local: LocalRoot) -> None:
    store, path = JsonMetadataStore(), _at(local, METADATA_FILE)
    store.write(path, {"a": 1})

    class Failing(Environment):
        def call(self, function, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            if function is os.replace:
                assert is_unfinished(args[0].name)
                assert json.loads((local.path / METADATA_FILE).read_text()) == {"a": 1}
                raise OSError(errno.EIO, "broken disk")
            return super().call(function, *args, **kwargs)

    with use(Failing()), pytest.raises(OSError, match="broken disk"):
        store.update(path, b=2)
    assert local.read_all() == {METADATA_FILE: b'{"a": 1}\n'}


@pytest.mark.parametrize("data", [b"", b'{"init_timest', b"[]", b"\xff"])
def test_a_damaged_metadata_file_is_named(data: bytes, local: LocalRoot) -> None:
    local.write(METADATA_FILE, data)
    with pytest.raises(atomicpath.IntegrityError, match=f"{local.url}/{METADATA_FILE}"):
        JsonMetadataStore().read(_at(local, METADATA_FILE))
    with pytest.raises(atomicpath.IntegrityError):
        JsonMetadataStore().update(_at(local, METADATA_FILE), a=1)
    assert local.read_all() == {METADATA_FILE: data}


@pytest.mark.parametrize(
    "fields", [{"init_timestamp_nsecs": "now"}, {"commit_timestamp_nsecs": True}, {"custom_metadata": 1}]
)
def test_step_metadata_of_wrong_types_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(atomicpath.IntegrityError, match=next(iter(fields))):
        StepMetadata.from_json(fields)


def test_a_store_travels_to_another_process_without_credentials(store: Root) -> None:
    mine = JsonMetadataStore(background=True)
    mine.write(_at(store, METADATA_FILE), {"a": 1})
    assert SECRET not in repr(mine)
    assert SECRET.encode() not in pickle.dumps(mine)
    theirs = pickle.loads(pickle.dumps(mine))
    assert repr(theirs) == "JsonMetadataStore(background=True)"
    theirs.wait_until_finished()
    mine.wait_until_finished()
    assert theirs.read(_at(store, METADATA_FILE)) == {"a": 1}
    assert theirs.read(_at(store, "no-such-file")) is None


# A10


@pytest.mark.parametrize("told", ["before", "after"])
def test_a_deferred_path_reaches_every_thread_and_every_event_loop_at_once(told: str) -> None:
    deferred = DeferredPath()
    seen: list[tuple[str, UPath]] = []
    ready = threading.Barrier(5, timeout=PATIENCE)

    async def asynchronous(where: str) -> None:
        child = deferred / "a" / "b"
        ready.wait()
        seen.append((where, await child.await_creation(timeout=PATIENCE)))

    def blocking() -> None:
        ready.wait()
        seen.append(("thread", (deferred / "a" / "b").wait(PATIENCE)))

    threads = [
        threading.Thread(target=anyio.run, args=(asynchronous, "asyncio")),
        threading.Thread(target=anyio.run, args=(asynchronous, "asyncio")),
        threading.Thread(target=trio.run, args=(asynchronous, "trio")),
        threading.Thread(target=blocking),
    ]
    if told == "before":
        deferred.set_path("/somewhere")
    for thread in threads:
        thread.start()
    ready.wait()
    if told == "after":
        deferred.set_path("/somewhere")
    for thread in threads:
        thread.join(PATIENCE)
    assert seen == [(where, UPath("/somewhere/a/b")) for where, _ in seen]
    assert sorted(where for where, _ in seen) == ["asyncio", "asyncio", "thread", "trio"]


async def test_cancelling_one_that_waits_disturbs_no_other_and_leaves_no_thread() -> None:
    deferred, found = DeferredPath(), []
    scope = anyio.CancelScope()
    latch = deferred._latch

    async def gives_up() -> None:
        with scope:
            await deferred.await_creation()

    async def waits() -> None:
        found.append(await deferred.await_creation())

    async with anyio.create_task_group() as group:
        group.start_soon(gives_up)
        group.start_soon(waits)
        while latch.waiting < 2:
            await anyio.lowlevel.checkpoint()
        scope.cancel()
        while latch.waiting > 1:
            await anyio.lowlevel.checkpoint()
        deferred.set_path("/x")  # in the loop's own thread: whoever tells waits for nobody
    assert scope.cancelled_caught
    assert found == [UPath("/x")]
    assert latch.waiting == 0


async def test_a_deferred_path_is_told_once_and_says_so_before_and_after() -> None:
    deferred = DeferredPath()
    with pytest.raises(ValidationError, match="await await_creation"):
        _ = (deferred / "a").path
    with pytest.raises(ValidationError, match="follows it: call set_path of that one"):
        (deferred / "a").set_path("/y")
    deferred.set_path("/x")
    assert (deferred.path, (deferred / "a").path) == (UPath("/x"), UPath("/x/a"))
    for again in (lambda: deferred.set_path("/y"), lambda: deferred.set_error(OSError())):
        with pytest.raises(ValidationError, match="told before, and it is told only once"):
            again()
    assert await deferred.await_creation() == UPath("/x")


async def test_a_failure_to_allocate_reaches_all_who_wait_and_waits_are_bounded() -> None:
    deferred = DeferredPath()
    with pytest.raises(atomicpath.CoordinationTimeoutError, match="within 0.01 s"):
        await deferred.await_creation(timeout=0.01)
    with pytest.raises(TimeoutError):
        deferred.wait(0.01)
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValidationError, match="timeout"):
            deferred.wait(wrong)
    deferred.set_error(PermissionError("no quota"))
    for child in (deferred, deferred / "a"):
        with pytest.raises(PermissionError, match="no quota"):
            child.wait()
        with pytest.raises(PermissionError, match="no quota"):
            await child.await_creation()


async def test_a_strategy_may_allocate_its_path_while_it_is_created(local: LocalRoot) -> None:
    class Allocating(atomicpath.DeferredWritableTemporaryPath, AtomicRenameTemporaryPath):
        def get_awaitable_path(self) -> DeferredPath:
            deferred: DeferredPath = self.__dict__.setdefault("deferred", DeferredPath())
            return deferred

        async def create(self) -> UPath:
            self.get_awaitable_path().set_path(self._temporary.upath)
            return await AtomicRenameTemporaryPath.create(self)

    attempt = Allocating.from_final(_at(local, "step_1"))
    with pytest.raises(ValidationError, match="not told yet"):
        attempt.get()
    written = []

    async def write_when_it_is_there() -> None:
        path = await (attempt.get_awaitable_path() / "x").await_creation(timeout=PATIENCE)
        written.append(path)

    async with anyio.create_task_group() as group:
        group.start_soon(write_when_it_is_there)
        await attempt.create()
    written[0].write_bytes(b"1")
    await attempt.finalize()
    assert local.read_all("step_1")["x"] == b"1"
    with pytest.raises(TypeError, match="abstract"):
        atomicpath.DeferredWritableTemporaryPath()  # type: ignore[abstract]


# A11


async def test_another_process_learns_both_locations_from_the_bytes_and_never_the_credentials(root: Root) -> None:
    attempt = _strategy_of(root).from_final(_at(root, "step_1"))
    sent = ReadOnlyTemporaryPath.from_paths(temporary_path=attempt.get(), final_path=attempt.get_final())
    data = sent.to_bytes()
    assert sorted(json.loads(data)) == ["final_path", "format", "kind", "temporary_path"]
    received = ReadOnlyTemporaryPath.from_bytes(data, storage_options=root.storage_options)
    assert (received.get(), received.get_final()) == (attempt.get(), attempt.get_final())
    (await attempt.create() / "x").write_bytes(b"1")
    assert (received.get() / "x").read_bytes() == b"1"
    await attempt.finalize()
    assert (received.get_final() / "x").read_bytes() == b"1"
    unpickled = pickle.loads(pickle.dumps(sent))
    assert unpickled.to_bytes() == data
    for shown in (data, pickle.dumps(sent), repr(sent).encode()):
        assert SECRET.encode() not in shown
        assert b"endpoint_url" not in shown


async def test_a_read_only_path_refuses_all_that_begins_or_ends_an_attempt(local: LocalRoot, world: Counting) -> None:
    path = ReadOnlyTemporaryPath.from_paths(temporary_path=local / "t", final_path=local / "f")
    coroutines: list[Any] = [path.create, path.finalize, path.discard]
    for coroutine in (*coroutines, lambda: path.validate(path.get()), lambda: path.validate_final(path.get())):
        with pytest.raises(NotImplementedError, match="the primary. Call .* there"):
            await coroutine()
    with pytest.raises(NotImplementedError):
        await path.add("x", Path("x"))
    for method in (ReadOnlyTemporaryPath.from_final, ReadOnlyTemporaryPath.from_temporary):
        with pytest.raises(NotImplementedError, match="from_paths or from_bytes"):
            method(path.get())
    assert world.asked == []


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_truncated_bytes_are_refused(cut: int, local: LocalRoot) -> None:
    data = ReadOnlyTemporaryPath.from_paths(temporary_path=local / "t", final_path=local / "f").to_bytes()
    with pytest.raises(ValidationError, match="truncated"):
        ReadOnlyTemporaryPath.from_bytes(data[:cut])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "another"}, "use what to_bytes returned"),
        ({"format": 2}, "newer atomicpath"),
        ({"format": "1"}, "format is '1'"),
        ({"final_path": None}, "a path in them is missing"),
        ({"final_path": "s3://user:pass@bucket/x"}, "password"),
    ],
)
def test_foreign_and_newer_bytes_are_refused(changes: dict[str, Any], words: str, local: LocalRoot) -> None:
    made = ReadOnlyTemporaryPath.from_paths(temporary_path=local / "t", final_path=local / "f").to_bytes()
    with pytest.raises(ValidationError, match=words):
        ReadOnlyTemporaryPath.from_bytes(json.dumps({**json.loads(made), **changes}).encode())
    with pytest.raises(ValidationError, match="use what to_bytes returned"):
        ReadOnlyTemporaryPath.from_bytes(b"[]")
