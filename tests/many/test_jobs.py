"""Jobs of real processes under real engines: one commit of all ranks, or none, and every rank knows which."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath.testing import Place
from tests.many.faults import ENGINES, FAULTS, check, check_committed, in_words, run
from tests.many.jobs import SIZES, Job, Outcome, Servers

FULL = os.environ.get("ATOMICPATH_FULL") == "1"
PLACES = ["local", "moto"]
LOCAL_FIRST = ["local", pytest.param("moto", marks=pytest.mark.full)]
QUICK = ["torch", "torch default", "gloo", "found"]  # forked from one process that has imported torch
SLOW = ["jax", "mpi"]
TABLE = Path(__file__).parents[2] / "docs" / "many-processes.md"

Start = Callable[[str], Job]


@pytest.fixture(scope="session")
def forks() -> Iterator[Servers]:
    with Servers() as running:
        yield running


@pytest.fixture
def start(forks: Servers, place: Place, tmp_path: Path) -> Start:
    return lambda engine: Job(engine, place, tmp_path, forks)


@pytest.mark.parametrize("place", LOCAL_FIRST, indirect=True)
@pytest.mark.parametrize("engine", QUICK + SLOW)
def test_all_ranks_write_into_one_commit(engine: str, place: Place, start: Start) -> None:
    job = start(engine)
    seen = job.run("step_1")
    assert [seen[rank].outcome for rank in range(job.size)] == ["committed"] * job.size, seen
    check_committed(place, "step_1", job.size)


def see(job: Job, fault: str, *, every: int = 1) -> None:
    check(job.engine, fault, run(job, fault, every=every))


@pytest.mark.parametrize("place", PLACES, indirect=True)
@pytest.mark.parametrize("engine", ENGINES if FULL else ["torch", "gloo"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_raises_fails_every_rank_by_name(engine: str, rank: int, place: Place, start: Start) -> None:
    see(start(engine), f"rank {rank} raises")


@pytest.mark.parametrize("place", PLACES, indirect=True)
@pytest.mark.parametrize("at", ["before", "during", "after"])
@pytest.mark.parametrize("engine", ENGINES if FULL else ["torch"])
def test_rank_dies_before_its_part_while_others_commit(engine: str, at: str, place: Place, start: Start) -> None:
    """With a time-out of a minute: its death is seen long before."""
    see(start(engine), f"rank 2 killed {at} its write")


@pytest.mark.parametrize("place", LOCAL_FIRST, indirect=True)
@pytest.mark.parametrize("engine", ENGINES if FULL else ["torch"])
def test_a_rank_that_stalls_past_the_time_out_is_named_on_every_rank(engine: str, place: Place, start: Start) -> None:
    see(start(engine), "rank 1 stalls past the time-out")


@pytest.mark.parametrize("place", LOCAL_FIRST, indirect=True)
@pytest.mark.parametrize("engine", ENGINES if FULL else ["gloo"])
def test_a_primary_killed_in_its_block_leaves_nothing(engine: str, place: Place, start: Start) -> None:
    see(start(engine), "rank 0 killed in its block")


EVERY = {"torch": 4, "mpi": 40} if FULL else {"torch": 12}


@pytest.mark.parametrize("place", LOCAL_FIRST, indirect=True)
@pytest.mark.parametrize("engine", ENGINES if FULL else ["torch"])
def test_a_primary_killed_at_any_step_leaves_a_whole_commit_or_none(engine: str, place: Place, start: Start) -> None:
    """And every survivor says which; where the engine is gone with the primary, the storage tells."""
    see(start(engine), "rank 0 killed at each of its steps", every=EVERY.get(engine, 16))


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


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("work", ["create_all", "create_all_async"])
def test_an_attempt_that_one_rank_creates_is_written_by_all(work: str, place: Place, start: Start) -> None:
    job = start("found")
    seen = job.run("step_1", work=work)
    assert [outcome.outcome for outcome in seen.values()] == ["committed"] * job.size, seen
    check_committed(place, "step_1", job.size)


def refused(place: Place, seen: dict[int, Outcome], size: int, error: str, words: str) -> None:
    """By every rank, and nothing is left behind, not even for `sweep`."""
    assert sorted(seen) == list(range(size))
    for outcome in seen.values():
        assert outcome.outcome == error, outcome
        assert words in outcome.message
    assert place.read_all() == {}
    assert atomicpath.sweep(place.url, older_than=timedelta(0), storage_options=place.storage_options) == []


@pytest.mark.parametrize("place", PLACES if FULL else ["local"], indirect=True)
@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({1: {"world_size": 5}}, "world_size=5"),
        ({1: {"rank": 0}}, "rank 0"),
        ({1: {"rank": 2}}, "rank 2"),
    ],
    ids=["sizes differ", "two primaries", "a rank twice"],
)
def test_ranks_that_say_what_is_not_so_are_told_and_nothing_is_begun(
    claims: dict[int, dict[str, Any]], words: str, place: Place, start: Start
) -> None:
    job = start("torch")
    seen = job.run("step_1", claims=claims, timeout=5.0)
    for outcome in seen.values():
        assert outcome.outcome in ("CoordinationError", "CoordinationTimeoutError"), outcome
    assert any(words in outcome.message for outcome in seen.values()), seen
    assert place.read_all() == {}
    assert atomicpath.sweep(place.url, older_than=timedelta(0), storage_options=place.storage_options) == []


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize(("claim", "words"), [({"timeout": 0.0}, "timeout=0.0"), ({"rank": 4}, "rank=4")])
def test_what_no_rank_can_be_is_refused(claim: dict[str, Any], words: str, place: Place, start: Start) -> None:
    job = start("torch")
    seen = job.run("step_1", claims=dict.fromkeys(range(job.size), claim))
    refused(place, seen, job.size, "ValidationError", words)


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("engine", ["torch default", "gloo", *(["jax"] if FULL else [])])
def test_an_engine_that_was_shut_down_is_told_of_at_once(engine: str, place: Place, start: Start) -> None:
    job = start(engine)
    refused(place, job.run("step_1", shut_down=True), job.size, "CoordinationError", "call atomicpath before")


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_ranks_that_do_not_say_who_commits_are_refused_before_they_wait(place: Place, start: Start) -> None:
    job = start("unsaid")
    refused(place, job.run("step_1"), job.size, "ValidationError", 'coordinator="auto" in every rank')


def test_the_table_of_the_docs_says_what_is_checked_here() -> None:
    cells = [line.strip("| \n").split(" | ") for line in TABLE.read_text(encoding="utf-8").splitlines()]
    told = {(row[0], row[1]): row[2] for row in cells if len(row) == 6 and row[0] in ENGINES}
    assert told == {(engine, fault): in_words(engine, fault) for engine in ENGINES for fault in FAULTS}


def test_every_engine_has_a_size() -> None:
    assert set(SIZES) == {*QUICK, *SLOW, "unsaid"}
