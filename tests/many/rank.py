"""One rank of a job, as a training script would be: joins its engine, writes its files in one commit, says what it saw.

Run with a job's description in a file. What it saw goes into a file of its own, as a killed rank says nothing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import atomicpath
from atomicpath import Coordinator
from atomicpath._core import environment
from atomicpath._core.environment import Environment
from atomicpath.coordinators import GlooCoordinator, JaxCoordinator, MpiCoordinator, TorchStoreCoordinator

PATIENCE = 300  # seconds; a rank that waits longer for another has failed
ALARM = 500  # seconds after which a rank that hangs is killed, and then missed
ELSE = (
    "anyio._backends._asyncio",
    "aiobotocore.client",
    "s3fs",
    "upath.implementations.cloud",
    "atomicpath_s3.storage",
)
HALVES = (b"first half, ", b"second half")


LOOKS = {  # how often a rank asks whether something has come is not told by steps
    "_receive",
    "_source_rank",
    "blocking_key_value_get_bytes",
    "check",
    "key_value_try_get_bytes",
    "sleep",
    "Test",
}


class Dying(Environment):
    """Dies by SIGKILL at one call through the seam, once it is told to count."""

    def __init__(self, at: int, note: Callable[[], None]) -> None:
        self.left, self.note = at, note

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        looks = getattr(function, "__name__", "") in LOOKS or str(args[:1]).startswith("('/proc/")
        if not looks:
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
    claims = {"rank": rank, "world_size": job["size"], "timeout": job["timeout"]}
    return TorchStoreCoordinator(store, **claims | job["claims"].get(str(rank), {}))


def torch_group(job: dict[str, Any], rank: int, *, backend: str = "gloo") -> None:
    import torch.distributed as dist

    address = f"tcp://127.0.0.1:{job['port']}"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=job["size"])


def torch_default(job: dict[str, Any], rank: int) -> Coordinator:
    import torch.distributed as dist

    torch_group(job, rank)
    made = TorchStoreCoordinator(timeout=job["timeout"])
    if job["shut down"]:
        dist.barrier()
        dist.destroy_process_group()
    return made


def gloo(job: dict[str, Any], rank: int) -> Coordinator:
    import torch.distributed as dist

    torch_group(job, rank)
    made = GlooCoordinator(dist.group.WORLD, timeout=job["timeout"])
    if job["shut down"]:
        dist.barrier()
        dist.destroy_process_group()
    return made


def found(job: dict[str, Any], rank: int) -> str:
    """The engine of training itself is up, and `commit` is to find it."""
    torch_group(job, rank)
    return "auto"


def unsaid(job: dict[str, Any], rank: int) -> None:
    """It is up, and nobody says who commits."""
    torch_group(job, rank)


def jax(job: dict[str, Any], rank: int) -> Coordinator:
    import jax

    jax.distributed.initialize(f"127.0.0.1:{job['port']}", num_processes=job["size"], process_id=rank)
    made = JaxCoordinator(timeout=job["timeout"])
    if job["shut down"]:
        jax.distributed.shutdown()
    return made


def mpi(job: dict[str, Any], rank: int) -> Coordinator:
    return MpiCoordinator(timeout=job["timeout"])


def create_all(job: dict[str, Any], rank: int) -> None:
    """Attempts made by hand: rank 0 creates, in the background or not, all write, rank 0 finalizes."""
    import torch.distributed as dist
    from upath import UPath

    torch_group(job, rank)
    store = dist.distributed_c10d._get_default_store()
    url, options = job["urls"][rank], job["storage_options"]
    strategy = atomicpath.CommitFileTemporaryPath if "://" in url else atomicpath.AtomicRenameTemporaryPath
    if rank == 0:
        attempt = strategy.from_final(UPath(url, **options))
        store.set("attempt", str(attempt.get()))
    else:
        attempt = strategy.from_temporary(UPath(store.get("attempt").decode(), **options))
    if job["work"] == "create_all":
        atomicpath.create_all([attempt])
    else:
        there = atomicpath.CompletionSignal("there")
        created = atomicpath.create_all_async([attempt], [there])
        there.wait(PATIENCE)
        created.result(PATIENCE)
    (attempt.get() / f"rank-{rank}.bin").write_bytes(b"".join(HALVES))
    dist.barrier()
    if rank == 0:
        atomicpath.on_commit_callback(attempt, checkpoint_start_time=time.time())
    dist.barrier()


ENGINES: dict[str, Callable[[dict[str, Any], int], Coordinator | str | None]] = {
    "torch": torch_store,
    "torch default": torch_default,
    "gloo": gloo,
    "found": found,
    "unsaid": unsaid,
    "jax": jax,
    "mpi": mpi,
}


def commit(job: dict[str, Any], rank: int, world: Environment, at: Callable[[str], None]) -> None:
    """As a training script's ranks do it."""
    coordinator = ENGINES[job["engine"]](job, rank)
    with (
        environment.use(world),
        atomicpath.commit(
            job["urls"][rank],
            coordinator=coordinator,  # type: ignore[arg-type]  # "auto"
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


def rank_of(job: dict[str, Any]) -> int:
    """Under mpirun."""
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.rank)


def main(job: dict[str, Any], rank: int) -> None:
    """Take part in the job's commit, fail as it says, and note what was seen."""
    faulthandler.dump_traceback_later(ALARM - 20)  # where it hangs
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
        _await(results, range(job["size"]), but=rank)  # they give up waiting for this one

    world = Dying(fault["calls"], note) if "calls" in fault else Environment()
    seen: dict[str, Any] = {"rank": rank, "outcome": "committed", "message": ""}
    try:
        if job["work"] == "commit":
            commit(job, rank, world, at)
        else:
            create_all(job, rank)
    except Exception as error:
        seen |= {"outcome": type(error).__name__, "message": str(error)}
        seen |= {name: getattr(error, name) for name in ("missing", "failures") if hasattr(error, name)}
    seen["time"] = time.time()
    part = results / f"{rank}.part"  # whole under its name: the others read when it is there
    part.write_text(json.dumps(seen))
    part.rename(results / f"{rank}.json")
    everything = (job.get("fault") or {}).get("kind") == "stall"  # training goes on in the others meanwhile
    if rank == 0 or everything:  # who hosts the engine's service leaves last, else the others are ended by their engine
        _await(results, range(job["size"]), but=None if everything else _victim(job))


def _victim(job: dict[str, Any]) -> int | None:
    """The rank that is killed, and leaves no result."""
    fault = job["fault"] or {}
    return fault["rank"] if fault.get("kind") == "kill" or "calls" in fault else None


def _await(results: Path, ranks: Iterable[int], *, but: int | None) -> None:
    """Return once the others have said what they saw."""
    ends = time.monotonic() + PATIENCE
    left = {f"{rank}.json" for rank in ranks if rank != but}
    while left - {path.name for path in results.glob("*.json")} and time.monotonic() < ends:
        time.sleep(0.05)


def finalize(*, wait: bool) -> None:
    """mpirun ends all ranks when one leaves without this, and with a dead rank it would hang."""
    from mpi4py import MPI

    if wait:
        time.sleep(2)
    else:
        MPI.Finalize()


def serve(module: str) -> None:
    """Fork the ranks of each job that comes in, the engine's module imported once; answer how each of them ended."""
    for name in (module, *ELSE):
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        children = [_forked(job, rank) for rank in range(job["size"])]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


def _forked(job: dict[str, Any], rank: int) -> int:
    child = os.fork()
    if child:
        return child
    with _leaving():
        log = os.open(f"{job['results']}/{rank}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 2)
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
    else:
        description = json.loads(Path(sys.argv[1]).read_text())
        with _leaving():
            main(description, rank_of(description))
            finalize(wait=bool(description["fault"]))
