"""Two tiers: a disk of this host before a store, which is cut off for a while, and a disk that is full or lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._core import environment
from atomicpath._manager import lanes
from atomicpath._manager import manager as module
from tests.manager.conftest import Open
from tests.manager.gates import Gate
from tests.manager.test_manager import save
from tests.support.probed import probed
from tests.support.proxy import Proxy, Rule, refuse
from tests.support.roots import MemoryRoot, Root, S3Root
from tests.support.waiting import PATIENCE

WAYS = pytest.mark.parametrize("background", [False, True], ids=["blocking", "background"])


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def at(root: str | Path, options: Any = None) -> list[str]:
    return [commit.name for commit in atomicpath.committed(root, storage_options=options or None)]


def in_order_of_commits(place: Root) -> list[str]:
    found = atomicpath.committed(place.url, storage_options=place.storage_options or None)
    return [one.name for one in sorted(found, key=lambda one: (one.record and one.record.committed) or 0)]


@pytest.fixture
def cut_off(proxy: Proxy, raw: Any, bucket: str) -> tuple[S3Root, Callable[[bool], None]]:
    """A store behind a proxy, and a switch that has it refuse everything."""
    place = probed("moto", S3Root(raw, bucket, proxy.url))

    def switch(off: bool) -> None:
        proxy.rules[:] = [Rule(match=lambda _: True, action=refuse(403, "AccessDenied"), times=None)] if off else []

    return place, switch


@WAYS
@pytest.mark.parametrize("place", ["memory", "moto"], indirect=True)
def test_a_save_is_on_the_disk_first_and_each_tier_keeps_its_own(
    place: Root, disk: Path, background: bool, opened: Open, tmp_path: Path
) -> None:
    with opened(place, local=disk, keep_last=3, local_keep_last=2, background=background) as manager:
        for step in range(5):
            save(manager, step, b"%d" % step)
    assert at(place.url, place.storage_options) == ["step_2", "step_3", "step_4"]
    assert at(disk) == ["step_3", "step_4"]
    with opened(place, local=disk) as manager:
        newest = manager.latest()
        assert newest is not None
        assert str(newest.path) == str(disk / "step_4"), "the near one of the two"
        assert (copy := manager.fetch(tmp_path / "copies")) is not None
        assert (copy / "model").read_bytes() == b"4"


def test_a_slow_store_holds_up_no_save(memory_place: MemoryRoot, disk: Path, opened: Open) -> None:
    gate = Gate("atomicpath, copies")
    with environment.use(gate), opened(memory_place, local=disk, local_keep_last=1, background=True) as manager:
        save(manager, 0)
        gate.wait_until_reached()
        for step in (1, 2):
            save(manager, step)
        assert lanes.COMMITS.wait(PATIENCE)
        assert at(disk) == ["step_0", "step_1", "step_2"], "what the store lacks stays"
        gate.open()
    assert in_order_of_commits(memory_place) == ["step_0", "step_1", "step_2"]
    assert at(disk) == ["step_2"]


@WAYS
def test_what_the_store_lacks_after_an_outage_is_committed_in_order(
    cut_off: tuple[S3Root, Callable[[bool], None]], disk: Path, background: bool, opened: Open
) -> None:
    place, switch = cut_off
    with opened(place, local=disk, local_keep_last=1, background=background) as manager:
        save(manager, 0)
        assert manager.wait(PATIENCE)
        switch(True)
        for step in (1, 2, 3):
            save(manager, step)
        with pytest.raises(atomicpath.AtomicPathError):
            manager.wait(PATIENCE)
        assert at(disk)[-3:] == ["step_1", "step_2", "step_3"]
        with pytest.raises(atomicpath.AtomicPathError):
            manager.latest()
        switch(False)
        assert at(place.url, place.storage_options) == ["step_0"]
        save(manager, 4)
        assert manager.wait(PATIENCE)
        assert in_order_of_commits(place) == [f"step_{step}" for step in range(5)]
    assert at(disk) == ["step_4"]


def test_close_tries_once_more_and_a_new_process_too(
    cut_off: tuple[S3Root, Callable[[bool], None]], disk: Path, opened: Open
) -> None:
    place, switch = cut_off
    manager = opened(place, local=disk, background=True)
    save(manager, 0)
    assert manager.wait(PATIENCE)
    switch(True)
    save(manager, 1)
    with pytest.raises(atomicpath.AtomicPathError):
        manager.close()
    switch(False)
    with opened(place, local=disk, background=True) as manager:
        assert manager.wait(PATIENCE)
        assert at(place.url, place.storage_options) == ["step_0", "step_1"]
        switch(True)
        save(manager, 2)
        with pytest.raises(atomicpath.AtomicPathError):
            manager.wait(PATIENCE)
        switch(False)
    assert at(place.url, place.storage_options) == ["step_0", "step_1", "step_2"]


def test_what_the_store_would_remove_at_once_is_not_copied(
    cut_off: tuple[S3Root, Callable[[bool], None]], disk: Path, opened: Open
) -> None:
    place, switch = cut_off
    with opened(place, local=disk, keep_last=2, background=True) as manager:
        switch(True)
        for step in range(5):
            save(manager, step)
        lanes.COMMITS.wait(PATIENCE)
        lanes.UPLOADS.wait(PATIENCE)
        lanes.REMOVALS.wait(PATIENCE)
        assert at(disk) == ["step_3", "step_4"]
        switch(False)
    assert at(place.url, place.storage_options) == ["step_3", "step_4"]


def test_what_was_removed_from_the_store_is_not_copied_again(
    memory_place: MemoryRoot, disk: Path, opened: Open
) -> None:
    with opened(memory_place, local=disk, keep_last=1, local_keep_last=4) as manager:
        for step in range(3):
            save(manager, step)
    assert at(memory_place.url) == ["step_2"]
    with opened(memory_place, local=disk, local_keep_last=4) as manager:  # with other rules, by another process
        save(manager, 3)
    assert at(memory_place.url) == ["step_2", "step_3"]


def test_when_the_disk_is_lost_the_run_resumes_from_the_store(
    memory_place: MemoryRoot, disk: Path, opened: Open, tmp_path: Path
) -> None:
    with opened(memory_place, local=disk, background=True) as manager:
        for step in range(3):
            save(manager, step, b"%d" % step)
        assert manager.wait(PATIENCE)
        shutil.rmtree(disk)
        newest = manager.latest()
        assert newest is not None
        assert newest.step == 2
        save(manager, 3)
    shutil.rmtree(disk)
    with opened(memory_place, local=disk, background=True) as manager:
        copy = manager.fetch(tmp_path / "copies")
        assert copy is not None
        assert copy.name == "step_3"
        save(manager, 4)
    assert at(memory_place.url) == [f"step_{step}" for step in range(5)]
    assert at(disk) == ["step_4"]


@WAYS
@pytest.mark.parametrize("place", ["memory", "moto"], indirect=True)
def test_a_disk_without_room_is_passed_over(
    place: Root,
    disk: Path,
    background: bool,
    opened: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def no_room(*_: object) -> None:
        raise atomicpath.ValidationError("it has not enough room")

    with opened(place, local=disk, background=background) as manager:
        save(manager, 0)
        assert manager.wait(PATIENCE)
        with monkeypatch.context() as patched:
            patched.setattr(module, "expect_room_at", no_room)
            save(manager, 1)
        save(manager, 2)
    assert at(disk) == ["step_2"]
    assert at(place.url, place.storage_options) == ["step_0", "step_1", "step_2"]
    assert "not enough room" in caplog.text


def test_a_disk_that_cannot_be_used_is_passed_over(
    memory_place: MemoryRoot, tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    manager = opened(memory_place, local=tmp_path / "file" / "disk", background=True)
    save(manager, 0)
    assert lanes.UPLOADS.wait(PATIENCE)
    newest = manager.latest()
    assert newest is not None
    assert newest.step == 0
    assert "step 0 goes to" in caplog.text
    manager.close()


def test_another_commit_of_that_name_in_the_store_is_told_and_the_others_are_copied(
    memory_place: MemoryRoot, disk: Path, opened: Open
) -> None:
    with opened(memory_place, local=disk, background=True) as manager:
        with atomicpath.commit(f"{memory_place.url}/step_1") as path:
            (path / "model").write_bytes(b"somebody else's")
        for step in (1, 2):
            save(manager, step)
        with pytest.raises(atomicpath.AlreadyCommittedError):
            while manager.wait(PATIENCE):
                save(manager, 3)
    assert at(memory_place.url) in (["step_1", "step_2"], ["step_1", "step_2", "step_3"])
    assert memory_place.read_all("step_1")["model"] == b"somebody else's"


def test_the_root_itself_is_no_local_tier(tmp_path: Path) -> None:
    with pytest.raises(atomicpath.ValidationError, match="is the root itself"):
        atomicpath.CheckpointManager(tmp_path / "x", local=tmp_path / "x")
