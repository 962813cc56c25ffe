"""Retention: the newest and the protected stay, and whatever happens at the same time something complete is there."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from upath import UPath

import atomicpath
from atomicpath._cleaning import remove
from atomicpath._core.record import State
from atomicpath._profile.location import Location
from tests.cleaning.leftovers import RECORD, commit, killed, options_of, rewrite
from tests.support.roots import LocalRoot, MemoryRoot, Root

BOTH = pytest.mark.parametrize("place", ["local", "moto"], indirect=True)


def keep_last(place: Root, n: Any, **options: Any) -> list[str]:
    return [commit.name for commit in atomicpath.keep_last(place.url, n, **options_of(place), **options)]


def committed(place: Root) -> list[str]:
    return [commit.name for commit in atomicpath.committed(place.url, **options_of(place))]


@BOTH
def test_the_oldest_go_and_the_newest_and_the_protected_stay(place: Root) -> None:
    for step in (1, 2, 8, 9, 10):
        commit(place, f"step_{step}")
    place.write("step_3/commit_success.txt", b"of another tool")
    place.write("logs/events", b"x")
    killed(place, "step_99")
    unfinished = {name: data for name, data in place.read_all().items() if name.startswith(("step_99", "logs"))}
    protect = ["step_8", f"{place.url}/step_1", UPath(f"{place.url}/step_77", **place.storage_options)]
    assert keep_last(place, 2, protect=protect) == ["step_2"]
    assert committed(place) == ["step_1", "step_3", "step_8", "step_9", "step_10"]
    assert keep_last(place, 1) == ["step_1", "step_8", "step_9"]
    assert keep_last(place, 1) == []
    assert keep_last(place, 99) == []
    assert committed(place) == ["step_3", "step_10"]
    left = place.read_all()
    assert {name: left[name] for name in unfinished} == unfinished


def test_what_has_no_step_is_no_part_of_the_series(local_place: LocalRoot) -> None:
    for name in ("best", "step_1", "step_2"):
        commit(local_place, name)
    assert keep_last(local_place, 1) == ["step_1"]
    assert committed(local_place) == ["best", "step_2"]
    for name in ("a", "b"):
        commit(local_place, f"unnumbered/{name}")
    root = atomicpath.keep_last(f"{local_place.url}/unnumbered", 1)
    assert [commit.name for commit in root] == ["a"], "where none has one, the time of the commit tells"


@pytest.mark.parametrize("n", [0, -1, True, 1.0, "1", None])
def test_at_least_one_is_kept(local_place: LocalRoot, n: Any) -> None:
    commit(local_place, "step_1")
    with pytest.raises(atomicpath.ValidationError, match="at least one"):
        keep_last(local_place, n)
    assert committed(local_place) == ["step_1"]


@pytest.mark.parametrize("protect", ["step_1", ["/elsewhere/step_1"], ["memory://run/step_1"], ["./step_1"]])
def test_what_would_protect_nothing_is_refused(local_place: LocalRoot, protect: Any) -> None:
    for step in range(3):
        commit(local_place, f"step_{step}")
    with pytest.raises(atomicpath.ValidationError, match="protect"):
        keep_last(local_place, 1, protect=protect)
    assert len(committed(local_place)) == 3


def test_retention_removes_last_complete_one(
    memory_place: MemoryRoot, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not: if what was newer is gone by then, what is left stays."""
    for step in range(3):
        commit(memory_place, f"step_{step}")

    async def then_the_newest_goes(location: Location, **options: Any) -> None:
        await remove(location, **options)
        rewrite(memory_place, f"step_2/{RECORD}", state=State.WRITING)

    monkeypatch.setattr("atomicpath._cleaning.retention.remove", then_the_newest_goes)
    assert keep_last(memory_place, 1) == ["step_0"]
    assert "nothing newer is complete any more" in caplog.text
    assert committed(memory_place) == ["step_1"]


def test_what_another_process_removes_at_the_same_moment_is_not_in_the_result(
    memory_place: MemoryRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(2):
        commit(memory_place, f"step_{step}")

    async def another_is_faster(location: Location, *, guarantees: Any, on_removed: Any) -> None:
        await remove(location, guarantees=guarantees)
        raise atomicpath.ConflictError(f"{location} is being removed or replaced by another process")

    monkeypatch.setattr("atomicpath._cleaning.retention.remove", another_is_faster)
    assert keep_last(memory_place, 1) == []
    assert committed(memory_place) == ["step_1"]


@BOTH
def test_while_jobs_commit_and_others_keep_the_last_one_something_complete_is_always_there(place: Root) -> None:
    commit(place, "step_0")
    over = threading.Event()
    errors: list[BaseException] = []
    removed: list[str] = []

    def guarded(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        return threading.Thread(target=run)

    def keep() -> None:
        while not over.is_set():
            removed.extend(keep_last(place, 1))

    def look() -> None:
        while not over.is_set():
            assert any(
                atomicpath.is_committed(f"{place.url}/step_{step}", **options_of(place))
                for _ in range(50)  # each look may come too late for the one it is at
                for step in range(11, -1, -1)
            )

    threads = [guarded(keep), guarded(keep), guarded(look)]
    for thread in threads:
        thread.start()
    for step in range(1, 12):
        commit(place, f"step_{step}")
    over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(removed) == len({*removed}), "each was removed by one"
    keep_last(place, 1)
    assert committed(place) == ["step_11"]
    assert [name for name in place.names() if ".atomicpath-probe" not in name] == ["step_11"]
