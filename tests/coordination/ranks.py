"""A job of real processes: `python -m tests.coordination.ranks ENGINE SCENE ADDRESS SIZE`.

The engine is imported once, which takes seconds, and the ranks are forked; under mpirun each is started by
it. A rank prints a line of JSON for each check that it ran: its name, and the error or null. At the end
there is one for each rank: its exit code, and all that it printed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import anyio._backends._asyncio

from atomicpath import coordinators
from atomicpath.abc import Coordinator
from tests.coordination.checks import CHECKS, LONG

PATIENCE = timedelta(seconds=300)


def report(check: str, error: BaseException | None) -> None:
    text = None if error is None else f"{type(error).__name__}: {error}"
    print(json.dumps({"check": check, "error": text}), flush=True)


def attempt(check: str, function: Callable[..., Any], *arguments: Any) -> None:
    """Run it and say how that ended; the log has the traceback."""
    try:
        anyio.run(function, *arguments)
    except BaseException as error:
        traceback.print_exc()
        report(check, error)
    else:
        report(check, None)


def _tcp_store(address: str, rank: int) -> Any:
    import torch.distributed

    host, _, port = address.partition(":")
    return torch.distributed.TCPStore(host, int(port), None, rank == 0, PATIENCE, wait_for_workers=False)


def torch_store(address: str, rank: int, size: int) -> Coordinator:
    return coordinators.TorchStoreCoordinator(_tcp_store(address, rank), rank=rank, world_size=size)


def torch_group(address: str, rank: int, size: int) -> Coordinator:
    import torch.distributed

    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://{address}", rank=rank, world_size=size, timeout=PATIENCE
    )
    return coordinators.TorchStoreCoordinator()


def jax(address: str, rank: int, size: int) -> Coordinator:
    import jax

    jax.distributed.initialize(address, size, rank, heartbeat_timeout_seconds=100, shutdown_timeout_seconds=100)
    return coordinators.JaxCoordinator()


def gloo(address: str, rank: int, size: int) -> Coordinator:
    import torch.distributed

    store = _tcp_store(address, rank)
    short = timedelta(seconds=2)  # shorter than waits that are checked: they must not be gloo's own
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=short)
    return coordinators.GlooCoordinator(torch.distributed.group.WORLD)


def mpi(address: str, rank: int, size: int) -> Coordinator:
    from mpi4py import MPI

    assert MPI.COMM_WORLD.Get_size() == size
    return coordinators.MpiCoordinator()


ENGINES: dict[str, Callable[[str, int, int], Coordinator]] = {
    "torch_store": torch_store,
    "torch_group": torch_group,
    "gloo": gloo,
    "jax": jax,
    "mpi": mpi,
}


def close(engine: str) -> None:
    if engine in {"gloo", "torch_group"}:
        import torch.distributed

        torch.distributed.destroy_process_group()
    elif engine == "jax":
        import jax

        jax.distributed.shutdown()
    elif engine == "mpi":
        from mpi4py import MPI

        MPI.Finalize()


async def meet(job: Coordinator) -> None:
    await job.barrier("met", timeout=LONG)


async def by_itself(job: Coordinator) -> None:
    """The engine is found without being named, and once."""
    found = coordinators.initialised()
    assert found is coordinators.initialised()
    assert isinstance(found, coordinators.TorchStoreCoordinator if type(job).__name__.startswith("Gloo") else type(job))
    assert (found.rank, found.world_size) == (job.rank, job.world_size)
    await found.barrier("initialised", timeout=LONG)


async def part(job: Coordinator) -> None:
    """Rank 0 leaves last, since it may host what the others use."""
    await job.gather("done", b"", timeout=LONG)


def all_checks(engine: str, job: Coordinator) -> None:
    for check in CHECKS:
        attempt(check.__name__, check, job)
    if engine != "torch_store":
        attempt("initialised", by_itself, job)
    anyio.run(part, job)
    close(engine)
    if engine != "torch_store":
        attempt("closed", barrier, job, "closed")


async def barrier(job: Coordinator, key: str, patience: float = LONG) -> None:
    await job.barrier(key, timeout=patience)


async def reach(job: Coordinator, victim: int) -> None:
    """Everybody has been met, and has said so to the victim."""
    await job.gather("reached", b"", root=victim, timeout=LONG)


def killed(engine: str, job: Coordinator, victim: int) -> None:
    """One rank is killed while the others wait for it."""
    anyio.run(meet, job)
    anyio.run(reach, job, victim)
    if job.rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    patience = 10.0 if engine == "gloo" else LONG  # it does not tell that a process has ended
    attempt("survivor", barrier, job, "survivor", patience)
    os._exit(0)  # an engine's own good-bye would wait for the dead


def main() -> None:
    engine, scene, address, size = sys.argv[1:]
    if engine == "mpi":
        act(engine, scene, address, int(os.environ["OMPI_COMM_WORLD_RANK"]), int(size))
        return
    importlib.import_module("jax" if engine == "jax" else "torch.distributed")
    logs = [tempfile.TemporaryFile("w+") for _ in range(int(size))]  # noqa: SIM115 - closed with the process
    children = []
    for rank, log in enumerate(logs):
        children.append(os.fork())
        if not children[rank]:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            act(engine, scene, address, rank, int(size))
            return
    for rank, (child, log) in enumerate(zip(children, logs, strict=True)):
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        log.seek(0)
        print(json.dumps({"rank": rank, "code": code, "output": log.read()}), flush=True)


def act(engine: str, scene: str, address: str, rank: int, size: int) -> None:
    signal.alarm(500)  # nothing here may hang
    job = ENGINES[engine](address, rank, size)
    if scene == "checks":
        all_checks(engine, job)
    else:
        killed(engine, job, 0 if scene == "kill-first" else size - 1)


if __name__ == "__main__":
    main()
