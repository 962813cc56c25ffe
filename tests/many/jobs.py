"""Jobs of several real processes, started as each engine's users start them, and what every rank of one saw."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from atomicpath.testing import Place
from tests.many.rank import HALVES
from tests.support.servers.base import free_port
from tests.support.waiting import PATIENCE

__all__ = ["SIZES", "Job", "Outcome", "Servers", "content_of"]

RANK = Path(__file__).parent / "rank.py"
SIZES = {"torch": 4, "torch default": 4, "gloo": 4, "found": 4, "unsaid": 4, "jax": 3, "mpi": 3}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one rank saw; `seconds` from the fault to its leaving the block.

    `outcome` is "committed", the class of the error, or how its engine ended it before it could say anything.
    """

    rank: int
    outcome: str
    message: str = ""
    missing: tuple[int, ...] = ()
    failures: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0


def content_of(size: int) -> dict[str, bytes]:
    """What a job leaves behind: every rank's file."""
    return {f"rank-{rank}.bin": b"".join(HALVES) for rank in range(size)}


class Servers:
    """Fork the ranks of jobs from processes that have imported everything: a job takes a blink."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.communicate(timeout=PATIENCE)

    def run(self, module: str, job: dict[str, Any]) -> list[int]:
        """Exit codes by rank; negative is the number of a signal."""
        if module not in self._processes:
            command = [sys.executable, "-W", "ignore", str(RANK), "serve", module]
            self._processes[module] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
            )
        process = self._processes[module]
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        codes: list[int] = json.loads(process.stdout.readline())
        return codes


class Job:
    """Starts jobs that commit one directory each to a place."""

    def __init__(self, engine: str, place: Place, directory: Path, servers: Servers) -> None:
        self.engine, self.place, self.size = engine, place, SIZES[engine]
        self._directory, self._servers = directory, servers
        self._staging = directory / "staging"
        self._staging.mkdir(exist_ok=True)

    def run(
        self,
        name: str,
        *,
        timeout: float = 60.0,
        fault: dict[str, Any] | None = None,
        names: list[str] | None = None,
        claims: dict[int, dict[str, Any]] | None = None,
        shut_down: bool = False,
        work: str = "commit",
    ) -> dict[int, Outcome]:
        """Run one job to its end: what each rank saw that was not killed by `fault`, which says who fails and how.

        `work`: "commit", or "create_all" or "create_all_async", by hand and of the default group.
        `claims`: what ranks say of themselves that is not so. `shut_down`: they end their engine before the commit.
        """
        results = self._directory / "results"
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        job: dict[str, Any] = {
            "engine": self.engine,
            "size": self.size,
            "port": free_port(),
            "timeout": timeout,
            "fault": fault,
            "urls": [f"{self.place.url}/{own}" for own in names or [name] * self.size],
            "storage_options": self.place.storage_options,
            "staging": str(self._staging),
            "results": str(results),
            "claims": claims or {},
            "shut down": shut_down,
            "work": work,
        }
        codes: Mapping[int, int] = {}
        if self.engine == "mpi":
            self._mpirun(job)
        else:
            module = "jax" if self.engine == "jax" else "torch.distributed"
            codes = dict(enumerate(self._servers.run(module, job)))
        ended = time.time()
        begun = float((results / "fault").read_text()) if (results / "fault").exists() else ended
        seen = {outcome.rank: outcome for outcome in (_outcome(path, begun) for path in results.glob("*.json"))}
        victims = {fault["rank"]} if fault and (fault.get("kind") == "kill" or "calls" in fault) else set()
        for rank in {*range(self.size)} - victims - {*seen}:
            seen[rank] = Outcome(rank=rank, outcome=_end(codes.get(rank)), seconds=ended - begun)
        return dict(sorted(seen.items()))

    def _mpirun(self, job: dict[str, Any]) -> None:
        description = self._directory / "job.json"
        description.write_text(json.dumps(job))
        mpirun = [str(Path(sys.executable).parent / "mpirun"), "--allow-run-as-root", "--oversubscribe"]
        command = [*mpirun, "-n", str(self.size), sys.executable, "-W", "ignore", str(RANK), str(description)]
        # on a time-out mpirun is killed, and each rank by its own alarm
        subprocess.run(command, env=_environment(), timeout=PATIENCE, check=False, capture_output=True)


def _end(code: int | None) -> str:
    if code is None:
        return "ended by mpirun"
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _outcome(path: Path, begun: float) -> Outcome:
    seen = json.loads(path.read_text())
    return Outcome(
        rank=seen["rank"],
        outcome=seen["outcome"],
        message=seen["message"],
        missing=tuple(seen.get("missing", ())),
        failures={int(rank): text for rank, text in seen.get("failures", {}).items()},
        seconds=seen["time"] - begun,
    )


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
