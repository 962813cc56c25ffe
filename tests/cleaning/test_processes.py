"""Sweeping and removing among real processes: paused and woken, killed at every call, and many at once."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import atomicpath
from atomicpath._core import environment
from tests.cleaning.leftovers import (
    IN_PLACE,
    Later,
    commit,
    from_elsewhere,
    killed,
    options_of,
    remove_until_killed,
    sweep,
    sweep_until_killed,
    told,
    wait_in_the_block,
)
from tests.support.processes import CONTEXT, FILES, Child, Killer, content_of, known
from tests.support.roots import LocalRoot, Root, S3Root

BOTH = pytest.mark.parametrize("place", ["local", "moto"], indirect=True)


class Sleeper:
    """A process that is in the block of a commit."""

    def __init__(self, place: Root, *, elsewhere: bool, **options: Any) -> None:
        commit(place, "step_0")  # so that what holds here is known
        self._mine, theirs = CONTEXT.Pipe(duplex=False)
        wait, self._wake = CONTEXT.Pipe(duplex=False)
        url = f"{place.url}/step_1"
        everything = {**options_of(place), **options, "findings": known()}
        self.child = Child(wait_in_the_block, url, theirs, wait, elsewhere=elsewhere, **everything)
        theirs.close()
        wait.close()
        assert self._mine.recv() == "in the block"
        self.pid = self.child.process.pid or 0

    def pause(self) -> None:
        """It need not have stopped yet when this returns: it waits in its block in any case."""
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> str:
        """Let it go on to the end of its block; what came of it."""
        os.kill(self.pid, signal.SIGCONT)
        self._wake.send("go on")
        outcome: str = self.child.result()
        self._wake.close()
        self._mine.close()
        return outcome


STRATEGIES = pytest.mark.parametrize(
    ("place", "options"),
    [("local", {}), ("local", IN_PLACE), ("moto", {}), ("moto", {"direct": True})],
    ids=["rename", "in place", "s3", "s3, direct"],
    indirect=["place"],
)


@STRATEGIES
def test_a_paused_process_of_this_host_is_never_swept(place: Root, options: dict[str, Any]) -> None:
    sleeper = Sleeper(place, elsewhere=False, **options)
    sleeper.pause()
    with environment.use(Later(900000)):
        assert [(one.action, one.done) for one in sweep(place)] == [("keep", False)]
    assert sleeper.wake() == "committed"
    assert atomicpath.verify(f"{place.url}/step_1", **options_of(place)).ok


@STRATEGIES
@pytest.mark.parametrize("restarted", [False, True], ids=["swept", "swept and committed by another"])
def test_paused_writer_resumes_after_sweep(place: Root, options: dict[str, Any], restarted: bool) -> None:
    """It loses cleanly, and what is there afterwards is what was there before it woke up."""
    sleeper = Sleeper(place, elsewhere=True, **options)
    sleeper.pause()
    (record,) = [name for name in place.begun() if "step_1" in name]
    name = record.removesuffix(".json").removesuffix("/_commit_record").rpartition("/")[2]
    if place.kind == "s3":  # ages are the store's: the lease it waits for has to be short
        from_elsewhere(place, record)
    with environment.use(Later(90000)):
        assert told(sweep(place)) == [(name, "attempt", "remove", True)]
    if restarted:
        commit(place, "step_1", **options)
    before = place.read_all()
    lost = "AlreadyCommittedError" if restarted and (options or place.kind == "s3") else "AbandonedError"
    assert sleeper.wake() == lost
    after = place.read_all()
    assert {name: after.get(name) for name in before} == before, "nothing of the others' was touched"
    added = {name.rpartition("/")[2] for name in after.keys() - before.keys()}
    assert added <= {"model.bin", "state.bin"}, "at most data of its own, on a store, which no record names"
    assert not added or place.kind == "s3"
    assert atomicpath.is_committed(f"{place.url}/step_1", **options_of(place)) is restarted


# killed at every call


FULL = os.environ.get("ATOMICPATH_FULL") == "1"


def at_every(of: str, run: Callable[[Killer], int | None]) -> int:
    """Let `run` be killed at every call, before and after it; at some without ATOMICPATH_FULL=1. How many there are."""
    count = run(Killer(of=of, at=None))
    assert count is not None
    points = [(at, after) for at in range(count) for after in (False, True)]
    for at, after in points if FULL else points[:: len(points) // 7]:
        run(Killer(of=of, at=at, after=after))
    return count


@pytest.mark.parametrize("options", [{}, IN_PLACE], ids=["by rename", "in place"])
def test_crash_during_recovery_of_a_local_sweep(local_place: LocalRoot, options: dict[str, Any]) -> None:
    commit(local_place, "step_0")
    kept = local_place.read_all()

    def run(killer: Killer) -> int | None:
        killed(local_place, "step_1", **options)
        count: int | None = Child(sweep_until_killed, local_place.url, killer, known(), None).result()
        with environment.use(Later(61)):
            assert all(one.done for one in sweep(local_place))
        assert local_place.read_all() == kept
        assert local_place.names() == ["step_0"]
        return count

    assert at_every("call", run) > 20


def test_crash_during_recovery_of_a_sweep_of_s3(moto_place: S3Root) -> None:
    commit(moto_place, "step_0")
    kept = moto_place.read_all()
    url, options = moto_place.url, moto_place.storage_options

    def run(killer: Killer) -> int | None:
        killed(moto_place, "step_1", at_request=4)
        count: int | None = Child(sweep_until_killed, url, killer, known(), options).result()
        assert all(one.done for one in sweep(moto_place))
        assert moto_place.read_all() == kept
        return count

    assert at_every("request", run) > 8


@BOTH
def test_killed_at_any_call_a_removal_is_done_or_not(place: Root) -> None:
    """And what it leaves is for readers as if it were not there; the next attempt at the name need not wait."""
    commit(place, "step_0")
    kept = place.read_all()
    outcomes = []

    def run(killer: Killer) -> int | None:
        if not atomicpath.is_committed(f"{place.url}/step_1", **options_of(place)):
            commit(place, "step_1")
        url = f"{place.url}/step_1"
        count: int | None = Child(remove_until_killed, url, killer, known(), place.storage_options).result()
        there = atomicpath.is_committed(url, **options_of(place))
        outcomes.append(there)
        if there:
            assert atomicpath.verify(url, **options_of(place)).ok
            assert {name: place.read_all("step_1")[name] for name in FILES} == content_of("step_1")
            return count
        with pytest.raises(atomicpath.NotCommittedError):
            atomicpath.remove(url, **options_of(place))
        if len(outcomes) % 2:  # a writer takes the place of what was left, or a sweep clears it away
            world = Later()
            slept: list[float] = []

            async def sleep(seconds: float) -> None:
                slept.append(seconds)

            world.sleep = sleep  # type: ignore[method-assign]
            with environment.use(world):
                commit(place, "step_1")
            assert not any(slept), "its process is provably gone"
            assert atomicpath.verify(url, **options_of(place)).ok
            atomicpath.remove(url, **options_of(place))
        with environment.use(Later(61)):
            assert all(one.done for one in sweep(place))
        assert place.read_all() == kept
        return count

    assert at_every("call" if place.kind == "local" else "request", run) > 6
    outcomes.pop(0)  # that of the one that was not killed
    assert {*outcomes} == {False, True}
    assert outcomes == sorted(outcomes, reverse=True), "once removed, no later kill undoes it"


# many at once


@BOTH
def test_many_sweepers_at_once_do_it_once(place: Root) -> None:
    commit(place, "step_0")
    kept = place.read_all()
    for step in range(1, 4):
        killed(place, f"step_{step}")
    results: list[list[atomicpath.SweepResult]] = []
    barrier = threading.Barrier(4)

    def one() -> None:
        barrier.wait()
        results.append(sweep(place))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.error for result in results for found in result if found.error] == []
    done = sorted(str(found.path) for result in results for found in result if found.done)
    assert len({re.search(r"step_\d", path)[0] for path in done}) == 3
    assert place.read_all() == kept
