"""Commits in the background: their order, their errors, and the directory that they are made from."""

from __future__ import annotations

import gc
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath import commit_in_background
from atomicpath._core import environment
from atomicpath._manager import background, lanes
from tests.api.threads import Board
from tests.manager.gates import Gate
from tests.support.roots import Root
from tests.support.waiting import PATIENCE

BOTH = pytest.mark.parametrize("place", ["local", "moto"], indirect=True)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Each test begins and ends with idle lanes, and with no error that nobody has seen."""
    yield
    assert lanes.COMMITS.wait(PATIENCE)
    assert not [promise for promise in background._failed if not promise.is_seen]
    background._failed.clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source" / "below").mkdir(parents=True)
    (tmp_path / "source" / "model").write_bytes(b"1")
    (tmp_path / "source" / "below" / "state").write_bytes(b"11")
    return tmp_path / "source"


def save(source: Path, place: Root, name: str, **options: Any) -> atomicpath.BackgroundCommit:
    return commit_in_background(source, f"{place.url}/{name}", storage_options=place.storage_options or None, **options)


def content(place: Root, name: str) -> dict[str, bytes]:
    return {key: data for key, data in place.read_all(name).items() if not key.startswith("_")}


@BOTH
def test_it_is_committed_in_the_background_and_the_directory_may_then_be_changed(place: Root, source: Path) -> None:
    begun = save(source, place, "step_1", metadata={"step": 1})
    begun.reusable.result(PATIENCE)
    (source / "model").write_bytes(b"2")
    done = begun.committed.result(PATIENCE)
    assert (done.name, done.step) == ("step_1", 1)
    found = content(place, "step_1")
    assert (found["model"], found["below/state"]) == (b"1", b"11")


@BOTH
def test_commits_are_made_in_the_order_of_the_calls(place: Root, source: Path) -> None:
    gate, first = Gate(), []
    with environment.use(gate):
        begun = [save(source, place, f"step_{number}") for number in (3, 1, 2)]
    for commit in begun:
        commit.committed.add_done_callback(lambda future: first.append(future.result().name))
    gate.wait_until_reached()
    assert not any(commit.committed.done() or commit.reusable.done() for commit in begun)
    gate.open()
    assert begun[2].committed.result(PATIENCE).name == "step_2"
    assert lanes.COMMITS.wait(PATIENCE)
    assert first == ["step_3", "step_1", "step_2"]


@pytest.mark.parametrize("change", ["content", "new file", "gone"])
@pytest.mark.parametrize("moment", ["before", "while it is read"])
def test_host_tensors_not_copied(
    source: Path, local_place: Root, change: str, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is changed before it was read is an error, though sizes stay the same, and nothing is committed."""
    shut = threading.Event()
    reading = threading.Event()

    def progress(done: int, total: int) -> None:
        reading.set()
        assert shut.wait(PATIENCE)

    gate = Gate()
    if moment == "before":
        shut.set()
        with environment.use(gate):
            begun = save(source, local_place, "step_1")
    else:
        begun = save(source, local_place, "step_1", progress=progress)
        assert reading.wait(PATIENCE)
    if change == "content":
        (source / "model").write_bytes(b"2")
    elif change == "new file":
        (source / "more").write_bytes(b"3")
    else:
        (source / "model").unlink()
    shut.set()
    gate.open()
    with pytest.raises(atomicpath.AtomicPathError):
        begun.committed.result(PATIENCE)
    with pytest.raises(atomicpath.AtomicPathError):
        begun.reusable.result(PATIENCE)
    assert local_place.read_all() == {}
    again = save(source, local_place, "step_1")
    assert again.committed.result(PATIENCE).name == "step_1"


def test_an_error_is_raised_by_the_next_call_once_and_logged_once(
    source: Path, memory_place: Root, caplog: pytest.LogCaptureFixture
) -> None:
    save(source, memory_place, "step_1").committed.result(PATIENCE)
    begun = save(source, memory_place, "step_1")
    assert lanes.COMMITS.wait(PATIENCE)
    with pytest.raises(atomicpath.AlreadyCommittedError) as raised:
        save(source, memory_place, "step_2")
    assert "step_2 was not begun" in raised.value.__notes__[0]
    assert [one.levelno for one in caplog.records if "not committed in the background" in one.message] == [
        logging.ERROR
    ]
    assert begun.committed.done()
    assert save(source, memory_place, "step_2").committed.result(PATIENCE).step == 2


def test_an_error_that_was_asked_for_is_not_raised_again(source: Path, memory_place: Root) -> None:
    save(source, memory_place, "step_1").committed.result(PATIENCE)
    begun = save(source, memory_place, "step_1")
    assert isinstance(begun.committed.exception(PATIENCE), atomicpath.AlreadyCommittedError)
    assert save(source, memory_place, "step_2").committed.result(PATIENCE).step == 2


def test_what_cannot_be_saved_is_an_error_at_once(source: Path, memory_place: Root, tmp_path: Path) -> None:
    for wrong in (tmp_path / "missing", source / "model"):
        with pytest.raises(atomicpath.ValidationError, match="not a directory"):
            save(wrong, memory_place, "step_1")
    with pytest.raises(atomicpath.ValidationError):
        save(source, memory_place, "step_1", marker="a/b")
    with pytest.raises(atomicpath.ValidationError, match="for this process alone"):
        save(source, memory_place, "step_1", coordinator=Board(2).member(0))
    assert memory_place.read_all() == {}


def test_dead_worker_waited_for_for_ever(source: Path, memory_place: Root) -> None:
    """It is not: whatever a callback raises is the error of that commit, and the next one is made."""

    def progress(done: int, total: int) -> None:
        raise SystemExit(3)

    begun = save(source, memory_place, "step_1", progress=progress)
    with pytest.raises(SystemExit):
        begun.committed.result(PATIENCE)
    begun = save(source, memory_place, "step_1")
    begun.committed.add_done_callback(lambda _: 1 / 0)
    assert begun.committed.result(PATIENCE).step == 1
    assert save(source, memory_place, "step_2").committed.result(PATIENCE).step == 2


@BOTH
def test_one_that_has_not_begun_can_be_cancelled(place: Root, source: Path) -> None:
    gate = Gate()
    with environment.use(gate):
        first = save(source, place, "step_1")
        gate.wait_until_reached()
        second, third = save(source, place, "step_2"), save(source, place, "step_3")
    assert second.committed.cancel()
    assert not second.reusable.cancel()
    gate.open()
    assert first.committed.result(PATIENCE).step == 1
    assert third.committed.result(PATIENCE).step == 3
    with pytest.raises(CancelledError):
        second.committed.result(PATIENCE)
    with pytest.raises(atomicpath.CommitError, match="was cancelled"):
        second.reusable.result(PATIENCE)
    assert [commit.step for commit in atomicpath.committed(place.url, storage_options=place.storage_options)] == [1, 3]


def test_a_forked_child_has_no_part_in_the_commits_of_its_parent(source: Path, local_place: Root) -> None:
    gate = Gate()
    with environment.use(gate):
        begun = save(source, local_place, "step_1")
    failed: lanes.Promise[atomicpath.Commit] = lanes.Promise("an earlier one")
    failed.set_exception(atomicpath.CommitError("which the parent has not asked for"))
    background._failed.append(failed)
    gate.wait_until_reached()
    child = os.fork()
    if child == 0:
        try:
            with pytest.raises(atomicpath.CommitError, match="a forked child has no part in it"):
                begun.committed.result(PATIENCE)
            assert save(source, local_place, "child").committed.result(PATIENCE).name == "child"
            os._exit(0)
        except BaseException as error:
            print(repr(error))
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.open()
    assert begun.committed.result(PATIENCE).step == 1
    assert atomicpath.is_committed(f"{local_place.url}/child")
    with pytest.raises(atomicpath.CommitError, match="which the parent has not asked for"):
        save(source, local_place, "step_2")


def test_memory_kept_after_save(source: Path, memory_place: Root) -> None:
    """It is not: what a commit was given is let go of once it has ended."""

    class Large:
        def __call__(self, done: int, total: int) -> None:
            pass

    large = Large()
    let_go = weakref.ref(large)
    begun = save(source, memory_place, "step_1", progress=large)
    del large
    begun.committed.result(PATIENCE)
    assert lanes.COMMITS.wait(PATIENCE)
    gc.collect()
    assert let_go() is None


def test_every_thread_ends_when_there_is_nothing_to_do(source: Path, memory_place: Root) -> None:
    save(source, memory_place, "step_1").committed.result(PATIENCE)
    assert lanes.COMMITS.wait(PATIENCE)
    for thread in threading.enumerate():
        if thread.name.startswith("atomicpath, commits"):
            thread.join(PATIENCE)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("atomicpath, commits")] == []
