"""Jobs of real processes under real engines: one commit of all ranks, or none, and every rank knows which."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath import SingleProcess
from atomicpath.testing import Place
from tests.many.jobs import SIZES, Job, Outcome, Server, content_of

FULL = os.environ.get("ATOMICPATH_FULL") == "1"
PLACES = ["local", "moto"]
OF_TORCH = ["torch", "torch default", "gloo", "found"]
SLOW = ["jax", "mpi"]
TIMEOUT = 3.0

Start = Callable[[str], Job]


@pytest.fixture(scope="session")
def forks() -> Iterator[Mapping[str, Server]]:
    """What the ranks of an engine are forked from; those of mpirun are not."""
    of_torch, of_jax = Server("torch.distributed"), Server("jax")
    yield {**dict.fromkeys(OF_TORCH, of_torch), "jax": of_jax}
    of_torch.close()
    of_jax.close()


@pytest.fixture
def start(forks: Mapping[str, Server], place: Place, tmp_path: Path) -> Start:
    return lambda engine: Job(engine, place, tmp_path, forks.get(engine))


def daily(cases: Mapping[str, Iterable[str]], every: Iterable[str]) -> Any:
    """Parameters `engine` and `place`: those of `cases`, by engine, in the daily run, and all in the full one."""
    return pytest.mark.parametrize(
        ("engine", "place"),
        [
            pytest.param(engine, place, marks=[] if place in cases.get(engine, ()) else [pytest.mark.full])
            for engine in every
            for place in PLACES
        ],
        indirect=["place"],
    )


def check_committed(place: Place, name: str, size: int) -> None:
    """Every rank's file, one record and its marker, and nothing else."""
    stored = place.read_all(name)
    assert set(stored) - set(content_of(size)) == {"commit_record.json", "commit_success.txt"}
    assert {file: stored[file] for file in content_of(size)} == content_of(size)
    url = f"{place.url}/{name}"
    assert atomicpath.verify(url, storage_options=place.storage_options).ok
    record = atomicpath.read_record(url, storage_options=place.storage_options)
    assert [entry.name for entry in record.files] == sorted(content_of(size))


def check_absent(place: Place, name: str, size: int) -> None:
    """Nobody sees anything of it, and the restarted job, here one process, commits the same name at once."""
    url, options = f"{place.url}/{name}", place.storage_options
    assert not atomicpath.is_committed(url, storage_options=options)
    assert atomicpath.latest(place.url, storage_options=options) is None
    with atomicpath.commit(url, storage_options=options, coordinator=SingleProcess()) as path:
        for file, data in content_of(size).items():
            (path / file).write_bytes(data)
    check_committed(place, name, size)


def survivors(seen: dict[int, Outcome], size: int, *, but: int) -> list[Outcome]:
    assert sorted(seen) == [rank for rank in range(size) if rank != but]
    return [outcome for rank, outcome in seen.items() if rank != but]


@daily({**dict.fromkeys(OF_TORCH + SLOW, ("local",)), "torch": PLACES}, OF_TORCH + SLOW)
def test_all_ranks_write_into_one_commit(engine: str, place: Place, start: Start) -> None:
    job = start(engine)
    seen = job.run("step_1")
    assert [seen[rank].outcome for rank in range(job.size)] == ["committed"] * job.size, seen
    check_committed(place, "step_1", job.size)


@daily({"torch": PLACES, "gloo": ["local"]}, ["torch", "gloo", *SLOW])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_raises_fails_every_rank_by_name(engine: str, rank: int, place: Place, start: Start) -> None:
    job = start(engine)
    seen = job.run("step_1", fault={"rank": rank, "kind": "raise", "at": "during"})
    assert sorted(seen) == list(range(job.size))
    for outcome in seen.values():
        assert outcome.outcome == "RankFailedError", outcome
        assert outcome.failures == {rank: "RuntimeError: the disk is on fire"}
        assert f"rank {rank}" in outcome.message
    check_absent(place, "step_1", job.size)


@daily({"torch": ["local"]}, ["torch", "torch default", "gloo"])
@pytest.mark.parametrize("at", ["before", "during", "after"])
def test_rank_dies_before_its_part_while_others_commit(engine: str, at: str, place: Place, start: Start) -> None:
    job = start(engine)
    seen = job.run("step_1", timeout=60.0, fault={"rank": 2, "kind": "kill", "at": at})
    for outcome in survivors(seen, job.size, but=2):
        assert outcome.outcome == "CoordinationTimeoutError", outcome
        assert outcome.missing == (2,)
        assert "died" in outcome.message
        assert outcome.seconds < 30, "its death is seen on this host, long before the time-out"
    check_absent(place, "step_1", job.size)


@daily({"torch": ["local"]}, ["torch", "torch default", "gloo", *SLOW])
def test_a_rank_that_stalls_past_the_time_out_is_named_on_every_rank(engine: str, place: Place, start: Start) -> None:
    job = start(engine)
    seen = job.run("step_1", timeout=TIMEOUT, fault={"rank": 1, "kind": "stall", "at": "during"})
    assert sorted(seen) == list(range(job.size))
    for outcome in seen.values():
        assert outcome.outcome == "CoordinationTimeoutError", outcome
        if outcome.rank != 1 or engine.startswith("torch"):  # other engines may be gone when it wakes up
            assert outcome.missing == (1,)
    check_absent(place, "step_1", job.size)


@daily({"torch": ["local"]}, ["torch"])
def test_a_primary_killed_at_any_step_leaves_a_whole_commit_or_none(engine: str, place: Place, start: Start) -> None:
    """And every survivor says which; where the engine is gone with the primary, the storage tells."""
    job = start(engine)
    outcomes = []
    for at in range(0, 1000, 2 if FULL else 12):
        name = f"step_{at}"
        seen = job.run(name, timeout=30.0, fault={"rank": 0, "calls": at})
        complete = atomicpath.is_committed(f"{place.url}/{name}", storage_options=place.storage_options)
        outcomes.append(complete)
        if 0 in seen:
            assert seen[0].outcome == "committed"
            break
        for outcome in survivors(seen, job.size, but=0):
            if complete:
                assert outcome.outcome == "committed", outcome
            else:  # before the attempt was begun the engine's own end is all there is to tell
                assert outcome.outcome in ("CoordinationTimeoutError", "CoordinationError"), outcome
                assert outcome.missing == (0,) or outcome.outcome == "CoordinationError"
        check = check_committed if complete else check_absent
        check(place, name, job.size)
        remove(place, name)
    assert outcomes == sorted(outcomes), "once committed, no later kill undoes it"
    assert {*outcomes} == {False, True}


def remove(place: Place, name: str) -> None:
    for file in place.read_all(name):
        place.delete(f"{name}/{file}")
    if place.url.startswith("/"):
        Path(place.url, name).rmdir()


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_ranks_that_mean_different_places_are_told_so_and_nothing_is_begun(place: Place, start: Start) -> None:
    job = start("torch")
    seen = job.run("step_1", names=["step_1", "step_1", "step_2", "step_1"])
    assert sorted(seen) == list(range(job.size))
    for outcome in seen.values():
        assert outcome.outcome == "ValidationError"
        assert "rank 2" in outcome.message
        assert "step_2" in outcome.message
    assert place.read_all() == {}


def test_every_engine_has_a_size() -> None:
    assert set(SIZES) == {*OF_TORCH, *SLOW}
