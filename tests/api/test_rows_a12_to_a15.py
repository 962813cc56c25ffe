"""The floor, row by row (SPEC.md A12 to A15): directories created once for all processes of a job."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from datetime import timedelta
from typing import Any

import anyio
import pytest
from upath import UPath

import atomicpath
from atomicpath import (
    AtomicRenameTemporaryPath,
    CommitFileTemporaryPath,
    CompletionSignal,
    CoordinationTimeoutError,
    MultiprocessingOptions,
    RankFailedError,
    TemporaryPath,
    ValidationError,
)
from tests.support.roots import LocalRoot, Root
from tests.support.waiting import PATIENCE

from .threads import Board

SIZE = 3


def begun(local: LocalRoot) -> list[str]:
    """The directories of attempts that have not ended."""
    return [path.name for path in (local.path / ".atomicpath").glob("*") if path.is_dir()]


def _attempts(root: Root, *names: str, strategy: type[TemporaryPath] | None = None) -> list[TemporaryPath]:
    options: dict[str, Any] = root.storage_options
    chosen = strategy or (AtomicRenameTemporaryPath if root.kind == "local" else CommitFileTemporaryPath)
    return [chosen.from_final(UPath(root / name, **options)) for name in names]


def _in_ranks(board: Board, call: Callable[[int, Any], object], ranks: tuple[int, ...] | None = None) -> dict[int, Any]:
    """What `call(rank, coordinator)` returned or raised, each in a thread of its own."""
    ended: dict[int, Any] = {}

    def run(rank: int) -> None:
        try:
            ended[rank] = call(rank, board.member(rank))
        except Exception as error:
            ended[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in ranks or range(board.world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return dict(sorted(ended.items()))


class Noting(AtomicRenameTemporaryPath):
    """Says when it was created."""

    created: set[str] = set()  # noqa: RUF012 - emptied by the tests
    fails = ""
    together: threading.Barrier | None = None

    async def create(self) -> UPath:
        if self.get_final().name == self.fails:
            raise PermissionError(f"no right to {self.fails}")
        path = await super().create()
        self.created.add(self.get_final().name)
        return path


@pytest.fixture(autouse=True)
def _afresh() -> None:
    Noting.created, Noting.fails = set(), ""


# A12


@pytest.mark.parametrize("active", [None, {0, 2}, {0}])
@pytest.mark.parametrize("primary", [0, 2])
def test_when_create_all_returns_anywhere_the_primary_alone_has_created_everything(
    active: set[int] | None, primary: int, local: LocalRoot
) -> None:
    if active is not None and primary not in active:
        active = active | {primary}
    board = Board(SIZE)

    def call(rank: int, coordinator: Any) -> set[str]:
        options = MultiprocessingOptions(coordinator=coordinator, primary_host=primary, active_processes=active)
        for number in range(2):  # keys are used once
            atomicpath.create_all(
                _attempts(local, f"a{number}", f"b{number}", strategy=Noting), multiprocessing_options=options
            )
        return set(Noting.created)

    everything = {"a0", "b0", "a1", "b1"}
    expected = dict.fromkeys(sorted(active or range(SIZE)), everything)
    assert _in_ranks(board, call, tuple(expected)) == expected
    assert len(begun(local)) == 4  # and not once per rank


async def test_the_paths_are_created_at_the_same_time(local: LocalRoot) -> None:
    begun: list[str] = []

    class Waiting(AtomicRenameTemporaryPath):
        async def create(self) -> UPath:
            begun.append(self.get_final().name)
            with anyio.fail_after(PATIENCE):
                while len(begun) < 3:
                    await anyio.sleep(0.001)
            return await super().create()

    attempts = _attempts(local, "a", "b", "c", strategy=Waiting)
    await atomicpath.aio.create_all(attempts)
    for attempt in attempts:
        await attempt.finalize()
    assert local.names() == ["a", "b", "c"]


@pytest.mark.parametrize("active", [None, {0, 2}])
@pytest.mark.parametrize("primary", [0, 2, None])
def test_if_creating_fails_all_are_told_and_nothing_is_left(
    primary: int | None, active: set[int] | None, local: LocalRoot
) -> None:
    board, Noting.fails = Board(SIZE), "c2"

    def call(rank: int, coordinator: Any) -> None:
        options = MultiprocessingOptions(coordinator=coordinator, primary_host=primary, active_processes=active)
        names = [f"{name}{rank if primary is None else primary}" for name in "abc"]
        if primary is not None and primary != 2:
            names[-1] = "c2"
        atomicpath.create_all(_attempts(local, *names, strategy=Noting), multiprocessing_options=options)

    ended = _in_ranks(board, call, None if active is None else tuple(active))
    failed = 2 if primary is None else primary
    assert len(ended) == len(active or range(SIZE))
    assert isinstance(ended.pop(failed), PermissionError)
    for error in ended.values():
        assert isinstance(error, RankFailedError)
        assert error.failures == {failed: "PermissionError: no right to c2"}
    assert local.names() == []


@pytest.mark.parametrize("active", [None, {0, 1, 2}, {0, 1}])
def test_a_process_that_never_comes_is_named_and_nothing_is_created(active: set[int] | None, local: LocalRoot) -> None:
    board = Board(SIZE if active is None or len(active) == SIZE else SIZE + 1)
    never = 2 if len(active or range(SIZE)) == SIZE else 1

    def call(rank: int, coordinator: Any) -> None:
        options = MultiprocessingOptions(coordinator=coordinator, active_processes=active, timeout=3)
        atomicpath.create_all(_attempts(local, "a", strategy=Noting), multiprocessing_options=options)

    ended = _in_ranks(board, call, tuple(rank for rank in sorted(active or range(SIZE)) if rank != never))
    assert ended
    for error in ended.values():
        assert isinstance(error, CoordinationTimeoutError), error
        assert error.missing == (never,)
    assert Noting.created == set()
    assert local.names() == []


def test_create_all_async_returns_at_once_and_signals_when_everything_is_there(root: Root) -> None:
    board, go = Board(SIZE), threading.Event()
    strategy = AtomicRenameTemporaryPath if root.kind == "local" else CommitFileTemporaryPath

    class Late(strategy):  # type: ignore[valid-type, misc]
        async def create(self) -> Any:
            await anyio.to_thread.run_sync(go.wait)
            return await super().create()

    seen: list[list[bool]] = []

    def call(rank: int, coordinator: Any) -> bool:
        options = MultiprocessingOptions(coordinator=coordinator)
        attempts = _attempts(root, "step_1", "step_2", strategy=Late)
        signals = [CompletionSignal(name, multiprocessing_options=options) for name in ("first", "second")]
        future = atomicpath.create_all_async(
            attempts, signals, multiprocessing_options=options, subdirectories=["state", "deep/er"]
        )
        was_done = future.done()
        started.wait()
        for signal in signals:
            signal.wait(PATIENCE)
        if rank == 0 and root.kind == "local":
            seen.extend([os.path.isdir(attempt.get() / name) for name in ("state", "deep/er")] for attempt in attempts)
        future.result(PATIENCE)
        if rank == 0:
            for attempt in attempts:
                (attempt.get() / "state" / "x").write_bytes(b"1")
                anyio.run(attempt.finalize)
        return was_done

    started = threading.Barrier(SIZE, action=go.set, timeout=PATIENCE)
    assert _in_ranks(board, call) == dict.fromkeys(range(SIZE), False)
    assert seen == ([[True, True]] * 2 if root.kind == "local" else [])
    assert root.read_all("step_1")["state/x"] == b"1"


async def test_a_process_that_comes_late_and_did_not_call_finds_the_signal(local: LocalRoot) -> None:
    board = Board(SIZE)
    first, second = (MultiprocessingOptions(coordinator=board.member(rank), timeout=PATIENCE) for rank in range(2))
    for number in (1, 2):
        sent = CompletionSignal("created", multiprocessing_options=first)
        future = atomicpath.create_all_async(_attempts(local, f"step_{number}"), [sent], multiprocessing_options=first)
        await anyio.to_thread.run_sync(future.result, PATIENCE)
        late = CompletionSignal("created", multiprocessing_options=second)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(late.wait_async)
        await late.wait_async()
        await sent.wait_async()
    assert len(begun(local)) == 2
    assert len(board.reads) == 2  # the engine was asked once for each use
    with pytest.raises(ValidationError, match="sent by rank 0"):
        await late.send()
    with pytest.raises(ValidationError, match="sent before"):
        await sent.send()


def test_a_failure_in_the_background_reaches_the_future_the_signals_and_the_log(
    local: LocalRoot, caplog: pytest.LogCaptureFixture
) -> None:
    board, Noting.fails = Board(SIZE), "step_2"

    def call(rank: int, coordinator: Any) -> tuple[Any, Any]:
        options = MultiprocessingOptions(coordinator=coordinator)
        signal = CompletionSignal("made", multiprocessing_options=options)
        attempts = _attempts(local, "step_1", "step_2", strategy=Noting)
        future: Future[None] = atomicpath.create_all_async(attempts, [signal], multiprocessing_options=options)
        with pytest.raises(RankFailedError) as caught:
            signal.wait(PATIENCE)
        return type(future.exception(PATIENCE)), caught.value.failures

    failures = {0: "PermissionError: no right to step_2"}
    assert _in_ranks(board, call) == {0: (PermissionError, failures), 1: (RankFailedError, failures)} | {
        2: (RankFailedError, failures)
    }
    assert local.names() == []
    assert "no right to step_2" in caplog.text


def test_a_signal_that_cannot_be_sent_fails_the_future_and_nothing_is_left(local: LocalRoot) -> None:
    board = Board(2)
    board.lost = lambda key: "signal/lost" in key
    options = MultiprocessingOptions(coordinator=board.member(0))
    signals = [CompletionSignal(name, multiprocessing_options=options) for name in ("lost", "sent")]
    future = atomicpath.create_all_async(_attempts(local, "step_1"), signals, multiprocessing_options=options)
    with pytest.raises(atomicpath.CoordinationError, match="is lost"):
        future.result(PATIENCE)
    assert any("signal/sent" in key for key in board.written)
    assert local.names() == []


def test_a_signal_that_never_comes_is_waited_for_within_bounds() -> None:
    for rank in range(2):
        options = MultiprocessingOptions(coordinator=Board(2).member(rank), timeout=0.1)
        with pytest.raises(CoordinationTimeoutError) as caught:
            CompletionSignal("never", multiprocessing_options=options).wait()
        assert caught.value.missing == (0,)


def test_names_of_subdirectories_are_checked_before_anything_begins(local: LocalRoot) -> None:
    wrong: list[Any] = [["../x"], ["/x"], [""], ["_commit_record.json"], "state"]
    for names in wrong:
        with pytest.raises(ValidationError):
            atomicpath.create_all_async(_attempts(local, "a"), subdirectories=names)
    signal = CompletionSignal("twice")
    with pytest.raises(ValidationError, match="listed twice"):
        atomicpath.create_all_async(_attempts(local, "a"), [signal, signal])
    assert local.names() == []


# A14


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"primary_host": -1}, "primary_host cannot be -1"),
        ({"primary_host": True}, "primary_host cannot be True"),
        ({"active_processes": set()}, "at least one rank"),
        ({"active_processes": {0, -2}}, "at least one rank"),
        ({"primary_host": 1, "active_processes": {0, 2}}, "nobody would create anything"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": timedelta(seconds=-1)}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"barrier_sync_key_prefix": " "}, "barrier_sync_key_prefix is empty"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MultiprocessingOptions(**arguments)


def test_options_are_compared_with_the_job_before_anything_begins(local: LocalRoot) -> None:
    member = Board(2).member(1)
    for options, words in (
        (
            MultiprocessingOptions(coordinator=member, primary_host=2),
            "primary_host names rank 2 of a job of world size 2",
        ),
        (MultiprocessingOptions(coordinator=member, active_processes={0, 5}), "active_processes names rank 5"),
        (MultiprocessingOptions(coordinator=member, active_processes={0}), "rank 1 is not among"),
        (MultiprocessingOptions(primary_host=1), "initialise the job's engine first"),
    ):
        with pytest.raises(ValidationError, match=words):
            atomicpath.create_all(_attempts(local, "a"), multiprocessing_options=options)
    assert local.names() == []


def test_groups_with_different_prefixes_and_members_use_different_keys_and_each_key_once(local: LocalRoot) -> None:
    board = Board(2)  # which refuses a key that is used again

    def call(rank: int, coordinator: Any) -> None:
        together: list[dict[str, Any]] = [{}, {"barrier_sync_key_prefix": "other"}, {}]
        alone: list[dict[str, Any]] = [{"primary_host": rank, "active_processes": {rank}}] * (1 + rank)
        for number, arguments in enumerate(alone + together):
            options = MultiprocessingOptions(coordinator=coordinator, **arguments)
            atomicpath.create_all(_attempts(local, f"{rank}-{number}"), multiprocessing_options=options)

    assert _in_ranks(board, call) == {0: None, 1: None}
    assert {key.partition("/")[0] for key in board.written} == {"atomicpath", "other"}
    assert MultiprocessingOptions(active_processes={1, 0}).active_processes == frozenset({0, 1})


# A15


def test_the_commit_callback_finalizes_and_logs_process_thread_and_path(
    local: LocalRoot, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atomicpath")
    (attempt,) = _attempts(local, "step_1")
    anyio.run(attempt.create)
    worker = threading.Thread(
        target=atomicpath.on_commit_callback,
        args=(attempt,),
        kwargs={"checkpoint_start_time": time.time() - 5},
        name="saver-7",
    )
    worker.start()
    worker.join()
    assert atomicpath.is_committed(local / "step_1")
    (said,) = (record.getMessage() for record in caplog.records if "committed" in record.getMessage())
    assert said.startswith(f"committed {local.url}/step_1 in 5.")
    assert f"by process {os.getpid()}, thread " in said
    assert "saver-7" in said


async def test_a_commit_that_fails_is_not_logged_as_one(local: LocalRoot, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "atomicpath")
    rivals = _attempts(local, "step_1", "step_1")
    for attempt in rivals:
        await attempt.create()
    await atomicpath.aio.on_commit_callback(rivals[0], checkpoint_start_time=time.time())
    with pytest.raises(atomicpath.AlreadyCommittedError):
        await atomicpath.aio.on_commit_callback(rivals[1], checkpoint_start_time=time.time())
    assert len([record for record in caplog.records if "committed /" in record.getMessage()]) == 1
    assert not begun(local)


def test_every_future_ends() -> None:
    """Whatever else: a future that never ends would hang a training job at its next save."""
    futures = [
        atomicpath.create_all_async(
            [], multiprocessing_options=MultiprocessingOptions(coordinator=Board(2).member(rank), timeout=0.1)
        )
        for rank in range(2)
    ]
    done = wait_for(futures, PATIENCE).done
    assert {type(future.exception()) for future in done} == {type(None), CoordinationTimeoutError}
