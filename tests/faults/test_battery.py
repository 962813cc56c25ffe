"""The battery of everyday: some points of each operation; `make faults` runs it at every point."""

from __future__ import annotations

import errno
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby

import pytest

from tests.faults import bugs, cells
from tests.faults.cells import Key
from tests.faults.faults import FAULTS
from tests.faults.report import failures, table
from tests.faults.seam import Seam

CELLS = {names: [*found] for names, found in groupby(cells.keys(), key=lambda key: (key.operation, key.setting))}


@pytest.fixture(scope="session")
def battery() -> Iterator[ProcessPoolExecutor]:
    """A fresh interpreter: it forks for each run, which only a process without threads may do."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("names", CELLS, ids=[f"{setting}-{operation}" for operation, setting in CELLS])
def test_whatever_happens_at_the_seam_the_outcome_is_true_and_whole_and_nothing_is_left(
    names: tuple[str, str], battery: ProcessPoolExecutor
) -> None:
    found = [*battery.map(cells.run, CELLS[names])]
    print(table(found))
    assert all(cell.outcomes.total() for cell in found), "some fault never happened"
    assert not any(cell.failures for cell in found), "\n\n".join(failures(cell) for cell in found if cell.failures)


@pytest.mark.parametrize("name", bugs.BUGS)
def test_the_battery_finds_a_strategy_that(name: str, battery: ProcessPoolExecutor) -> None:
    cell = battery.submit(bugs.run, name).result()
    assert any(bugs.BUGS[name].complaint in failure for failure in cell.failures), failures(cell)


def test_the_battery_goes_on_until_a_run_meets_no_fault(battery: ProcessPoolExecutor) -> None:
    """Shown on one cell, at every point, by the same code as all of them."""
    cell = battery.submit(cells.run_whole, Key("remove", "commit file, memory", "handler commits")).result()
    assert cell.whole
    assert cell.outcomes.total() == cell.points == cell.runs - 1


@pytest.mark.parametrize("method", ["call", "step"])
async def test_a_fault_once_a_call_was_made_happens_too_if_the_call_itself_fails(method: str) -> None:
    """Else a cell would end at the first look at what is not there, and count as tried at every point."""

    def fire() -> None:
        raise OSError(errno.EIO, "says the test")

    def missing() -> None:
        raise FileNotFoundError

    seam = Seam(0, fire, after=True)
    with pytest.raises(OSError, match="says the test"):
        made = getattr(seam, method)(missing)
        await made
    assert seam.fired is not None


def test_every_method_of_the_environment_is_a_point() -> None:
    seam = Seam()
    methods = {name for name in dir(Seam) if not name.startswith("_") and callable(getattr(Seam, name))}
    clocks = methods - {"call", "step", "request", "sleep"}
    assert {"monotonic", "wall_ns", "token"} <= clocks
    for number, name in enumerate(sorted(clocks), start=1):
        getattr(seam, name)()
        assert seam.points == number


def test_the_table_of_faults_has_each_name_once() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
