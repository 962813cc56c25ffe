"""The checkpoint manager: saves, what stays of them, errors, and where to resume."""

from __future__ import annotations

import logging
import math
import os
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import atomicpath
from atomicpath._core import environment
from atomicpath._manager import lanes
from tests.api.threads import Board
from tests.manager.conftest import Open
from tests.manager.gates import Gate
from tests.support.roots import LocalRoot, MemoryRoot, Root
from tests.support.waiting import PATIENCE

PLACES = pytest.mark.parametrize("place", ["local", "memory", "moto"], indirect=True)
BOTH = pytest.mark.parametrize("place", ["local", "moto"], indirect=True)  # the memory is locked while it is held up
WAYS = pytest.mark.parametrize("background", [False, True], ids=["blocking", "background"])


def save(manager: atomicpath.CheckpointManager, step: int, content: bytes = b"x", **more: Any) -> None:
    with manager.save(step, **more) as path:
        (path / "model").write_bytes(content)


def names(place: Root) -> list[str]:
    found = atomicpath.committed(place.url, storage_options=place.storage_options or None)
    return [commit.name for commit in found]


@WAYS
@PLACES
def test_saves_are_committed_retained_and_resumed(place: Root, background: bool, opened: Open, tmp_path: Path) -> None:
    with opened(place, keep_last=2, keep_best=1, metric="loss", background=background) as manager:
        assert manager.latest() is None
        assert manager.fetch(tmp_path / "copies") is None
        for step in range(5):
            save(manager, step, b"%d" % step, metrics={"loss": abs(step - 1)}, metadata={"epoch": step // 2})
    assert names(place) == ["step_1", "step_3", "step_4"]
    with opened(place) as manager:
        newest = manager.latest()
        assert newest is not None
        assert newest.step == 4
        assert newest.record is not None
        assert newest.record.metadata == {"epoch": 2, "step": 4, "metrics": {"loss": 3.0}}
        copy = manager.fetch(tmp_path / "copies")
        assert copy == manager.fetch(tmp_path / "copies") == tmp_path / "copies" / "step_4"
        assert (copy / "model").read_bytes() == b"4"
    assert names(place) == ["step_1", "step_3", "step_4"], "without a rule everything stays"


@PLACES
def test_no_rule_removes_the_target_of_an_alias(place: Root, opened: Open) -> None:
    with opened(place, keep_last=1) as manager:
        save(manager, 0)
        save(manager, 1)
        assert manager.wait(PATIENCE)
        atomicpath.alias(f"{place.url}/best", "step_1", storage_options=place.storage_options or None)
        for step in (2, 3):
            save(manager, step)
    assert [name for name in names(place) if name != "best"] == ["step_1", "step_3"]
    found = atomicpath.retain(place.url, keep_last=1, dry_run=True, storage_options=place.storage_options or None)
    assert {one.commit.name: one.reason for one in found}["step_1"] == "an alias leads to it"


@WAYS
@PLACES
def test_a_step_that_is_saved_already_can_be_kept(place: Root, background: bool, opened: Open) -> None:
    with opened(place, background=background, exists="keep") as manager:
        save(manager, 1, b"first")
        assert manager.wait(PATIENCE)
        save(manager, 1, b"again")
    assert place.read_all("step_1")["model"] == b"first"
    assert [name for name in place.names() if name != "step_1"] == []


@WAYS
@PLACES
def test_a_temporary_save_is_superseded_by_the_next_one(place: Root, background: bool, opened: Open) -> None:
    with opened(place, keep_last=5, background=background) as manager:
        save(manager, 1)
        save(manager, 2, temporary=True)
        assert manager.wait(PATIENCE)
        assert names(place) == ["step_1", "step_2"]
        save(manager, 3)
        assert manager.wait(PATIENCE)
        assert names(place) == ["step_1", "step_3"]
    with opened(place, background=background) as manager:  # without a rule, and by another process
        save(manager, 4, temporary=True)
    with opened(place, background=background) as manager:
        save(manager, 5)
    assert names(place) == ["step_1", "step_3", "step_5"]


@BOTH
def test_stale_arrays_after_the_first_save(place: Root, opened: Open) -> None:
    """A buffer that is used again after each block is in each save as it was in that block."""
    buffer = bytearray(b"0" * 100)
    gate = Gate()
    with environment.use(gate), opened(place, background=True) as manager:
        for step in range(3):
            buffer[:] = b"%d" % step * 100
            with manager.save(step) as path:
                (path / "model").write_bytes(buffer)
        buffer[:] = b"9" * 100
        gate.open()
        assert manager.wait(PATIENCE)
    for step in range(3):
        assert place.read_all(f"step_{step}")["model"] == b"%d" % step * 100


@BOTH
def test_pointer_advances_before_data(place: Root, opened: Open) -> None:
    """It does not: what is under way is not the latest."""
    gate = Gate()
    with opened(place, background=True) as manager:
        save(manager, 1)
        assert manager.wait(PATIENCE)
        with environment.use(gate):
            save(manager, 2)
        gate.wait_until_reached()
        assert (newest := manager.latest()) is not None
        assert newest.step == 1
        assert not manager.wait(0.01)
        gate.open()
        assert manager.wait(PATIENCE)
        assert (newest := manager.latest()) is not None
        assert newest.step == 2


@WAYS
@BOTH
def test_save_stalls_behind_deletes(place: Root, background: bool, opened: Open) -> None:
    """It does not: saves go on while removals are held up, and those are made up for."""
    gate = Gate("atomicpath, removals")
    with environment.use(gate), opened(place, keep_last=1, background=background) as manager:
        save(manager, 0)
        gate.wait_until_reached()
        for step in range(1, 4):
            save(manager, step)
        assert lanes.COMMITS.wait(PATIENCE)
        assert names(place) == ["step_0", "step_1", "step_2", "step_3"]
        gate.open()
        assert manager.wait(PATIENCE)
    assert names(place) == ["step_3"]


@PLACES
def test_an_error_in_the_background_is_raised_by_the_next_save_which_then_can_be_made(
    place: Root, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(place, background=True) as manager:
        save(manager, 1)
        try:
            save(manager, 1)  # a disk says so at once
        except atomicpath.AlreadyCommittedError:
            assert place.kind == "local"
            return
        lanes.COMMITS.wait(PATIENCE)
        with pytest.raises(atomicpath.AlreadyCommittedError) as raised:
            save(manager, 2)
        assert "step 2 was not saved" in raised.value.__notes__[-1]
        save(manager, 2)
    assert names(place) == ["step_1", "step_2"]
    logged = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert len(logged) == 1


@pytest.mark.parametrize("asked", ["check", "wait", "close", "exit"])
def test_error_swallowed_at_close(memory_place: MemoryRoot, opened: Open, asked: str) -> None:
    """It is not: whatever is called last raises it."""
    manager = opened(memory_place, background=True)
    save(manager, 1)
    with manager:
        save(manager, 1)
        lanes.COMMITS.wait(PATIENCE)
        with pytest.raises(atomicpath.AlreadyCommittedError):
            if asked == "exit":
                manager.__exit__(None, None, None)
            getattr(manager, asked)()
        manager.check()
    assert names(memory_place) == ["step_1"]


def test_the_error_of_a_block_goes_before_those_of_saves(memory_place: MemoryRoot, opened: Open) -> None:
    with pytest.raises(ZeroDivisionError), opened(memory_place, background=True) as manager:
        save(manager, 1)
        save(manager, 1)
        raise ZeroDivisionError
    assert names(memory_place) == ["step_1"]


@WAYS
@PLACES
def test_a_block_that_raises_leaves_nothing_and_the_step_can_be_saved_again(
    place: Root, background: bool, opened: Open
) -> None:
    with opened(place, background=background) as manager:
        with pytest.raises(KeyboardInterrupt), manager.save(1) as path:
            (path / "model").write_bytes(b"half")
            raise KeyboardInterrupt
        assert manager.latest() is None
        save(manager, 1)
    assert names(place) == ["step_1"]


@BOTH
def test_a_file_that_changes_after_the_block_is_an_error_and_nothing_is_lost(place: Root, opened: Open) -> None:
    gate = Gate()
    with opened(place, background=True) as manager:
        with environment.use(gate):
            with manager.save(1) as path:
                (path / "model").write_bytes(b"1")
            (path / "model").write_bytes(b"2")
        gate.open()
        lanes.COMMITS.wait(PATIENCE)
        with pytest.raises(atomicpath.ValidationError, match="model"):
            manager.check()
        save(manager, 1)
        assert manager.wait(PATIENCE)
    assert names(place) == ["step_1"]


@BOTH
def test_a_save_can_be_cancelled_until_it_is_committed(place: Root, opened: Open) -> None:
    gate = Gate()
    with opened(place, background=True) as manager:
        save(manager, 1)
        assert manager.wait(PATIENCE)
        with environment.use(gate):
            save(manager, 2)
            save(manager, 3)
        gate.wait_until_reached()
        cancelled: list[bool] = []
        canceller = threading.Thread(target=lambda: cancelled.append(manager.cancel(3)))
        canceller.start()
        job = manager._behind.commit_of(3)
        assert job is not None
        while not job.promise.cancelled():
            assert canceller.is_alive()
        gate.open()
        canceller.join(PATIENCE)
        assert cancelled == [True]
        assert not manager.cancel(1), "it is committed"
        assert not manager.cancel(99)
        assert manager.wait(PATIENCE)
        save(manager, 3)
    assert names(place) == ["step_1", "step_2", "step_3"]
    assert [name for name in place.names() if not name.startswith("step_")] == []


def test_one_that_is_under_way_is_broken_off(moto_place: Root, opened: Open) -> None:
    gate = Gate()
    with opened(moto_place, background=True) as manager:
        with environment.use(gate):
            save(manager, 1)
        gate.wait_until_reached()
        cancelling = threading.Timer(0.2, gate.open)  # what gives it up makes requests, too
        cancelling.start()
        assert manager.cancel(1)
        cancelling.join()
        assert manager.wait(PATIENCE)
        save(manager, 1)
    assert names(moto_place) == ["step_1"]


def test_a_metric_that_is_no_number_is_refused_before_anything_is_written(
    memory_place: MemoryRoot, opened: Open
) -> None:
    class Scalar:
        def __float__(self) -> float:
            return 0.25

    with opened(memory_place, keep_best=1, metric="loss") as manager:
        for wrong in ("0.5", None, True, [1.0], b"1"):
            with pytest.raises(atomicpath.ValidationError, match="'loss' is no number"):
                save(manager, 1, metrics={"loss": wrong})
        with pytest.raises(atomicpath.ValidationError, match="metrics= is a mapping"):
            save(manager, 1, metrics=0.5)
        assert memory_place.read_all() == {}
        save(manager, 1, metrics={"loss": Scalar()})
        save(manager, 2, metrics={"loss": math.nan})
        save(manager, 3, metrics={"loss": -math.inf, "acc": 1})
        save(manager, 4)
        assert manager.wait(PATIENCE)
        found = {one.step: one.record.metadata.get("metrics") for one in atomicpath.committed(memory_place.url)}  # type: ignore[union-attr]
    assert found == {3: {"loss": "-Infinity", "acc": 1.0}, 4: None}


@pytest.mark.parametrize("step", [-1, 1.0, "1", True, None])
def test_a_step_that_no_name_can_tell_is_refused(step: Any, memory_place: MemoryRoot, opened: Open) -> None:
    with opened(memory_place) as manager, pytest.raises(atomicpath.ValidationError, match="a step is"):
        save(manager, step)


@pytest.mark.parametrize("metadata", [{"step": 2}, {"metrics": {}}, {"atomicpath.temporary": True}, {"x": {1}}])
def test_metadata_that_the_manager_writes_itself_is_refused(
    metadata: Any, memory_place: MemoryRoot, opened: Open
) -> None:
    with opened(memory_place) as manager:
        with pytest.raises(atomicpath.ValidationError, match="metadata"):
            save(manager, 1, metadata=metadata, metrics={"loss": 1})
        assert memory_place.read_all() == {}


def test_two_managers_of_one_root_in_one_process_are_refused(memory_place: MemoryRoot, opened: Open) -> None:
    first = opened(memory_place)
    with pytest.raises(atomicpath.ValidationError, match="has a manager of"):
        opened(memory_place)
    first.close()
    first.close()
    second = opened(memory_place)
    for use in (partial(save, first, 1), first.wait, partial(first.cancel, 1)):
        with pytest.raises(atomicpath.CommitError, match="is closed"):
            use()
    save(second, 1)
    assert names(memory_place) == ["step_1"]


def test_one_that_was_let_go_of_is_in_nobodys_way(memory_place: MemoryRoot) -> None:
    manager = atomicpath.CheckpointManager(memory_place.url, keep_last=1, background=True)
    save(manager, 1)
    del manager
    assert lanes.COMMITS.wait(PATIENCE)
    assert lanes.REMOVALS.wait(PATIENCE)
    with atomicpath.CheckpointManager(memory_place.url) as manager:
        assert (newest := manager.latest()) is not None
        assert newest.step == 1


def test_a_forked_child_makes_a_manager_of_its_own(local_place: LocalRoot, opened: Open) -> None:
    with opened(local_place, background=True) as manager:
        child = os.fork()
        if child == 0:
            try:
                with pytest.raises(atomicpath.CommitError, match="a forked child"):
                    save(manager, 1)
                with pytest.raises(atomicpath.CommitError, match="a forked child"):
                    manager.wait()
                with atomicpath.CheckpointManager(local_place.url, background=True) as own:
                    save(own, 7)
                os._exit(0)
            except BaseException as error:
                print(repr(error))
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        save(manager, 8)
    assert names(local_place) == ["step_7", "step_8"]


def test_what_else_is_in_the_root_is_left_alone(local_place: LocalRoot, opened: Open) -> None:
    for name in ("checkpoint-1", "checkpoint-2", "best"):
        with atomicpath.commit(f"{local_place.url}/{name}") as path:
            (path / "x").write_bytes(b"1")
    (local_place.path / "step_0").mkdir()
    (local_place.path / "step_0" / "mine").write_bytes(b"1")
    with opened(local_place, keep_last=1) as manager:
        for step in (1, 2):
            save(manager, step)
    assert sorted(local_place.names()) == ["best", "checkpoint-1", "checkpoint-2", "step_0", "step_2"]


def test_retention_that_refuses_is_told_and_saves_go_on(
    local_place: LocalRoot, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(local_place, keep_last=1) as manager:
        for step in (500, 100, 200):  # rolled back
            save(manager, step)
            lanes.REMOVALS.wait(PATIENCE)
        with pytest.raises(atomicpath.ValidationError, match="rolled back"):
            manager.check()
        manager.check()
        assert names(local_place) == ["step_100", "step_200", "step_500"]
    assert "old saves below" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep_last": 0},
        {"keep_best": 1},
        {"mode": "least"},
        {"protect": "step_1"},
        {"prefix": "a/b"},
        {"prefix": ""},
        {"local": "s3://bucket/x"},
        {"local_keep_last": 0, "local": "/nowhere/at/all"},
        {"marker": ""},
    ],
)
def test_what_cannot_be_used_is_refused_when_the_root_is_opened(
    wrong: dict[str, Any], memory_place: MemoryRoot, opened: Open
) -> None:
    with pytest.raises(atomicpath.ValidationError):
        opened(memory_place, **wrong)
    opened(memory_place)


def test_one_process_of_a_job_of_several_says_that_it_saves_alone(
    memory_place: MemoryRoot, tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SimpleNamespace(name="torch.distributed", rank=0, world_size=2)
    monkeypatch.setattr("atomicpath.coordinators.detection._engines", lambda: iter([engine]))
    with pytest.raises(atomicpath.ValidationError, match="SingleProcess"):
        opened(memory_place)
    alone = atomicpath.SingleProcess()
    with opened(memory_place, coordinator=alone, background=True, local=tmp_path / "disk", keep_last=1) as manager:
        for step in (1, 2):
            save(manager, step)
        assert manager.wait(PATIENCE)
        assert manager.fetch(tmp_path / "copies") == tmp_path / "copies" / "step_2"
    assert names(memory_place) == ["step_2"]


def test_ranks_save_together_and_one_of_them_removes(local_place: LocalRoot) -> None:
    board, failures = Board(2), []

    def work(rank: int) -> None:
        try:
            for wrong in ({"background": True}, {"local": "/tmp/x"}):
                with pytest.raises(atomicpath.ValidationError, match="are for one process"):
                    atomicpath.CheckpointManager(local_place.url, coordinator=board.member(rank), **wrong)
            manager = managers[rank]
            for step in range(3):
                with manager.save(step, metrics={"loss": 1.0}) as path:
                    (path / f"shard-{rank}").write_bytes(b"%d" % rank)
            assert manager.wait(PATIENCE)
        except BaseException as error:
            failures.append(error)

    # the ranks of this test are threads of one process, which has one manager of a root
    from atomicpath._manager import manager as module

    managers = []
    for rank in range(2):
        managers.append(atomicpath.CheckpointManager(local_place.url, keep_last=1, coordinator=board.member(rank)))
        module._open.clear()
    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    assert names(local_place) == ["step_2"]
    assert {"shard-0", "shard-1"} <= {*local_place.read_all("step_2")}
