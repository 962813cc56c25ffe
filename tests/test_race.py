"""Many processes commit one path at the same moment: exactly one wins, and nothing of the others is left.

By default 50 rounds on the local disk and 4 on a store, so that the suite stays short; with ATOMICPATH_FULL=1
in the environment, as in continuous integration, 200 and 50.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath.testing import Place
from tests.support.processes import CONTEXT, FILES, Child, Killer, commit_files, content_of, known, race

FULL = os.environ.get("ATOMICPATH_FULL") == "1"
PROCESSES = 8


def run_race(url: str, rounds: int, *, inside: bool, **options: Any) -> list[int]:
    """Let the processes race; the winner of each round."""
    barrier = CONTEXT.Barrier(PROCESSES)
    writers = [
        Child(race, writer, url, rounds, barrier, known(), inside=inside, **options) for writer in range(PROCESSES)
    ]
    outcomes = [writer.result() for writer in writers]
    winners = []
    for number, outcome in enumerate(zip(*outcomes, strict=True)):
        assert Counter(outcome) == {"won": 1, "lost": PROCESSES - 1}, f"round {number}: {outcome}"
        winners.append(outcome.index("won"))
    return winners


def check(url: str, winners: list[int], storage_options: Mapping[str, object] | None = None) -> None:
    """Every round's directory is that of its winner."""
    for number, winner in enumerate(winners):
        step = f"{url}/step_{number}"
        found = atomicpath.verify(step, storage_options=storage_options)
        assert found.ok, f"{step}: {found}"
        record = atomicpath.read_record(step, storage_options=storage_options)
        assert record.metadata == {"writer": winner}
        content = content_of(winner)
        assert {file.name: file.size for file in record.files} == {name: len(data) for name, data in content.items()}
        directory = atomicpath.resolve(step, storage_options=storage_options)
        assert {name: (directory / name).read_bytes() for name in FILES} == content


@pytest.mark.parametrize("inside", [False, True], ids=["to-begin", "to-commit"])
def test_of_eight_processes_on_a_local_disk_exactly_one_wins_each_round(tmp_path: Path, inside: bool) -> None:
    rounds = 200 if FULL else 50
    root = tmp_path / "run"
    winners = run_race(str(root), rounds, inside=inside, durable=False)
    check(str(root), winners)
    assert {path.name for path in root.iterdir()} == {f"step_{number}" for number in range(rounds)}, "nothing beside"
    for path in root.iterdir():
        left = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        assert left - {"commit_success.txt"} == {*FILES, "_commit_record.json"}


def test_of_eight_processes_that_write_in_place_exactly_one_wins_each_round(tmp_path: Path) -> None:
    rounds = 200 if FULL else 50
    root = tmp_path / "run"
    strategy = atomicpath.CommitFileTemporaryPath
    winners = run_race(str(root), rounds, inside=False, temporary_path_class=strategy)
    check(str(root), winners)
    assert {path.name for path in root.iterdir()} == {f"step_{number}" for number in range(rounds)}, "nothing beside"


STORES = ["moto", "seaweedfs", "gcs", "gcs_flat", "azure"]
RENAMING = ["gcs_hns", "adls", "sftp"]
COMMIT = {"moto": 4, "seaweedfs": 4, "gcs_flat": 4, "azure": 5}
"""The number of the request that commits two files, from zero; a process first asks an Azure account what it is.

Where a directory is renamed nothing is taken over: a killed attempt is in nobody's way. fake-gcs-server has no
conditional delete.
"""


@pytest.mark.parametrize("place", STORES, indirect=True)
def test_of_eight_processes_on_a_store_exactly_one_wins_each_round(place: Place, tmp_path: Path) -> None:
    rounds = 50 if FULL else 4
    options = {"storage_options": place.storage_options, "staging_dir": str(tmp_path)}
    atomicpath.profile(place / "any", storage_options=place.storage_options)  # so that they need not probe
    winners = run_race(place.url, rounds, inside=False, **options)
    check(place.url, winners, place.storage_options)
    check_nothing_beside(place, rounds)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("inside", [pytest.param(False, marks=pytest.mark.full), True], ids=["to-begin", "to-commit"])
@pytest.mark.parametrize("place", RENAMING, indirect=True)
def test_of_eight_processes_on_a_store_that_renames_exactly_one_wins_each_round(
    place: Place, tmp_path: Path, inside: bool
) -> None:
    rounds = 50 if FULL else 4
    options = {"storage_options": place.storage_options, "staging_dir": str(tmp_path)}
    atomicpath.profile(place / "any", storage_options=place.storage_options)
    winners = run_race(place.url, rounds, inside=inside, **options)
    check(place.url, winners, place.storage_options)
    check_nothing_beside(place, rounds)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("place", "at"),
    [
        pytest.param(place, at, marks=[pytest.mark.full] if place in ("seaweedfs", "gcs_flat") else [])
        for place, at in COMMIT.items()
    ],
    indirect=["place"],
)
def test_of_eight_restarted_jobs_exactly_one_takes_over(place: Place, at: int, tmp_path: Path) -> None:
    rounds = 50 if FULL else 4
    options = {"storage_options": place.storage_options, "staging_dir": str(tmp_path)}
    atomicpath.profile(place / "any", storage_options=place.storage_options)
    for number in range(rounds):
        killer = Killer(of="request", at=at)  # every file is there, the commit was not sent
        assert Child(commit_files, place / f"step_{number}", "killed", killer, known(), **options).result() is None
    winners = run_race(place.url, rounds, inside=False, **options)
    check(place.url, winners, place.storage_options)
    check_nothing_beside(place, rounds)


def check_nothing_beside(place: Place, rounds: int) -> None:
    names = {*FILES, "_commit_record.json"}
    stored = {name for name in place.read_all() if not name.endswith("/commit_success.txt")}  # of the commit file only
    assert stored == {f"step_{number}/{name}" for number in range(rounds) for name in names}
