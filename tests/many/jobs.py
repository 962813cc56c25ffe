"""Jobs of several real processes, started as each engine's users start them, and what every rank of one saw."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atomicpath.testing import Place
from tests.many.rank import HALVES
from tests.servers.base import free_port

__all__ = ["SIZES", "Job", "Outcome", "Server", "content_of"]

RANK = Path(__file__).parent / "rank.py"
SIZES = {"torch": 4, "torch default": 4, "gloo": 4, "found": 4, "jax": 3, "mpi": 3}
PATIENCE = 120  # seconds for a whole job


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one rank saw; `seconds` from the fault to its leaving the block."""

    rank: int
    outcome: str
    message: str
    missing: tuple[int, ...] = ()
    failures: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0


def content_of(size: int) -> dict[str, bytes]:
    """What a job leaves behind: every rank's file."""
    return {f"rank-{rank}.bin": b"".join(HALVES) for rank in range(size)}


class Server:
    """Forks the ranks of an engine's jobs from a process that has imported everything: a job takes a blink."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: dict[str, Any]) -> None:
        if self._process is None:
            command = [sys.executable, "-W", "ignore", str(RANK), "serve", self._module]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
            )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=PATIENCE)


class Job:
    """Starts jobs that commit one directory each to a place."""

    def __init__(self, engine: str, place: Place, directory: Path, server: Server | None) -> None:
        self.engine, self.place, self.size = engine, place, SIZES[engine]
        self._directory, self._server = directory, server
        self._staging = directory / "staging"
        self._staging.mkdir(exist_ok=True)

    def run(
        self, name: str, *, timeout: float = 60.0, fault: dict[str, Any] | None = None, names: list[str] | None = None
    ) -> dict[int, Outcome]:
        """Run one job to its end: what each rank saw that was not killed. `fault`: which rank fails, how and when."""
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
        }
        if self._server is None:
            self._start(job)
        else:
            self._server.run(job)
        begun = float((results / "fault").read_text()) if (results / "fault").exists() else None
        return {seen.rank: seen for seen in (_outcome(path, begun) for path in sorted(results.glob("*.json")))}

    def _start(self, job: dict[str, Any]) -> None:
        """By mpirun, which starts each rank itself."""
        description = self._directory / "job.json"
        description.write_text(json.dumps(job))
        rank = [sys.executable, "-W", "ignore", str(RANK), str(description)]
        mpirun = str(Path(sys.executable).parent / "mpirun")
        command = [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", str(self.size), *rank]
        subprocess.run(command, env=_environment(), timeout=PATIENCE, check=False, capture_output=True)


def _outcome(path: Path, begun: float | None) -> Outcome:
    seen = json.loads(path.read_text())
    return Outcome(
        rank=seen["rank"],
        outcome=seen["outcome"],
        message=seen["message"],
        missing=tuple(seen.get("missing", ())),
        failures={int(rank): text for rank, text in seen.get("failures", {}).items()},
        seconds=seen["time"] - begun if begun else 0.0,
    )


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
