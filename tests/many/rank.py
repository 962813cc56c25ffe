"""One rank of a job, as a training script would be: joins its engine, writes its files in one commit, says what it saw.

Run with a job's description in a file. What it saw goes into a file of its own, as a killed rank says nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import atomicpath
from atomicpath import Coordinator, environment, registry
from atomicpath.coordinators import GlooCoordinator, JaxCoordinator, MpiCoordinator, TorchStoreCoordinator
from atomicpath.environment import Environment

PATIENCE = 20
ALARM = 100  # seconds after which a rank that hangs is killed, and then missed
_OF_STORES = ("anyio._backends._asyncio", "aiobotocore.client", "s3fs", "upath.implementations.cloud")
HALVES = (b"first half, ", b"second half")


class Dying(Environment):
    """Dies by SIGKILL at one call through the seam, once it is told to count."""

    def __init__(self, at: int, note: Callable[[], None]) -> None:
        self.left, self.note = at, note

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not str(args[:1]).startswith("('/proc/"):  # how often it looks whether the others live is not told by steps
            self._count()
        return function(*args, **kwargs)

    async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._count()
        return await function(*args, **kwargs)

    def _count(self) -> None:
        if self.left == 0:
            self.note()
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def torch_store(job: dict[str, Any], rank: int) -> Coordinator:
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", job["port"], job["size"], is_master=rank == 0)
    return TorchStoreCoordinator(store, rank=rank, world_size=job["size"], timeout=job["timeout"])


def torch_group(job: dict[str, Any], rank: int, *, backend: str = "gloo") -> None:
    import torch.distributed as dist

    address = f"tcp://127.0.0.1:{job['port']}"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=job["size"])


def torch_default(job: dict[str, Any], rank: int) -> Coordinator:
    torch_group(job, rank)
    return TorchStoreCoordinator(timeout=job["timeout"])


def gloo(job: dict[str, Any], rank: int) -> Coordinator:
    import torch.distributed as dist

    torch_group(job, rank)
    return GlooCoordinator(dist.group.WORLD, timeout=job["timeout"])


def found(job: dict[str, Any], rank: int) -> None:
    """The engine of training itself is up, and `commit` is to find it."""
    torch_group(job, rank)


def jax(job: dict[str, Any], rank: int) -> Coordinator:
    import jax

    jax.distributed.initialize(f"127.0.0.1:{job['port']}", num_processes=job["size"], process_id=rank)
    return JaxCoordinator(timeout=job["timeout"])


def mpi(job: dict[str, Any], rank: int) -> Coordinator:
    return MpiCoordinator(timeout=job["timeout"])


ENGINES: dict[str, Callable[[dict[str, Any], int], Coordinator | None]] = {
    "torch": torch_store,
    "torch default": torch_default,
    "gloo": gloo,
    "found": found,
    "jax": jax,
    "mpi": mpi,
}


def main(job: dict[str, Any], rank: int) -> None:
    """Take part in the job's commit, fail as it says, and note what was seen."""
    signal.alarm(ALARM)
    fault = job["fault"] if job.get("fault") and job["fault"]["rank"] == rank else {}
    results = Path(job["results"])

    def note() -> None:
        (results / "fault").write_text(repr(time.time()))

    def at(moment: str) -> None:
        if fault.get("at") != moment:
            return
        note()
        if fault["kind"] == "raise":
            raise RuntimeError("the disk is on fire")
        if fault["kind"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(job["timeout"] + 2)

    coordinator = ENGINES[job["engine"]](job, rank)
    world = Dying(fault["calls"], note) if "calls" in fault else Environment()
    seen: dict[str, Any] = {"rank": rank, "outcome": "committed", "message": ""}
    try:
        with (
            environment.use(world),
            atomicpath.commit(
                job["urls"][rank],
                coordinator=coordinator,
                storage_options=job["storage_options"],
                staging_dir=job["staging"],
            ) as path,
        ):
            at("before")
            with (path / f"rank-{rank}.bin").open("wb") as file:
                file.write(HALVES[0])
                file.flush()
                at("during")
                file.write(HALVES[1])
            at("after")
    except Exception as error:
        seen |= {"outcome": type(error).__name__, "message": str(error)}
        seen |= {name: getattr(error, name) for name in ("missing", "failures") if hasattr(error, name)}
    seen["time"] = time.time()
    (results / f"{rank}.json").write_text(json.dumps(seen))
    if (job.get("fault") or {}).get("kind") == "stall":  # training goes on in the others meanwhile
        ends = time.monotonic() + PATIENCE
        while len(list(results.glob("*.json"))) < job["size"] and time.monotonic() < ends:
            time.sleep(0.05)


def finalize(*, wait: bool) -> None:
    """mpirun ends all ranks when one leaves without this, and with a dead rank it would hang."""
    from mpi4py import MPI

    if wait:
        time.sleep(2)
    else:
        MPI.Finalize()


def serve(engine: str) -> None:
    """Fork the ranks of each job that comes in, everything imported once: the engine, and what a store needs."""
    for module in (engine, *_OF_STORES):
        importlib.import_module(module)
    registry.backend_for("s3")
    for line in sys.stdin:
        job = json.loads(line)
        children = [_forked(job, rank) for rank in range(job["size"])]
        for child in children:
            os.waitpid(child, 0)
        print("done", flush=True)


def _forked(job: dict[str, Any], rank: int) -> int:
    child = os.fork()
    if child:
        return child
    with _leaving():
        main(job, rank)
    raise AssertionError


@contextlib.contextmanager
def _leaving() -> Iterator[None]:
    status = 1
    try:
        yield
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:  # by mpirun
        description = json.loads(Path(sys.argv[1]).read_text())
        with _leaving():
            from mpi4py import MPI

            main(description, MPI.COMM_WORLD.rank)
            finalize(wait=bool(description["fault"]))
