"""One rank of a job of real processes: `python -m tests.coordination.ranks ENGINE SCENE ADDRESS RANK SIZE`.

It prints a line of JSON for each check that it ran: its name, and the error or null.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio

from atomicpath import coordinators
from atomicpath.abc import Coordinator
from tests.coordination.checks import CHECKS, LONG, Check

PATIENCE = timedelta(seconds=60)


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

    jax.distributed.initialize(address, size, rank, heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10)
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


async def part(job: Coordinator) -> None:
    """Rank 0 leaves last, since it may host what the others use."""
    await job.gather("done", b"", timeout=LONG)


def all_checks(engine: str, job: Coordinator) -> None:
    for check in CHECKS:
        attempt(check.__name__, check, job)
    anyio.run(part, job)
    close(engine)
    if engine != "torch_store":
        attempt("closed", barrier, job, "closed")


async def barrier(job: Coordinator, key: str) -> None:
    await job.barrier(key, timeout=LONG)


def killed(engine: str, job: Coordinator, victim: int) -> None:
    """One rank is killed while the others wait for it."""
    anyio.run(meet, job)
    if job.rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    attempt("survivor", barrier, job, "survivor")
    os._exit(0)  # an engine's own good-bye would wait for the dead


def main() -> None:
    engine, scene, address, rank, size = sys.argv[1:]
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", rank)
    warnings.simplefilter("error", ResourceWarning)
    job = ENGINES[engine](address, int(rank), int(size))
    if scene == "checks":
        all_checks(engine, job)
    else:
        killed(engine, job, 0 if scene == "kill-first" else int(size) - 1)


if __name__ == "__main__":
    main()
