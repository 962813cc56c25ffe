"""What it costs that the processes of a job act together, beside the engine's own barriers around the same work.

    python benchmarks/coordination.py [--rounds 200] [--on DIRECTORY]

Four processes on this host. In each round every way makes one attempt at a directory, in turn, so that all
see the same machine; a round's time is from the moment at which the last process began until the last one
was done. The medians are compared.

- TCPStore, gloo: `create` in rank 0 between two barriers of the engine's own, which say neither that the
  creation failed nor who is missing.
- create_all: the same with `atomicpath._jobs.create_all` over the same store. It says both, in every process.
- commit: all of `with atomicpath.commit(url)`, in every process, of no file.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from upath import UPath

import atomicpath
from atomicpath._core.environment import without_event_loop
from atomicpath.coordinators import TorchStoreCoordinator

SIZE = 4
WARM_UP = 10
Way = Callable[[str], None]
Times = dict[str, list[tuple[float, float]]]


def attempt(final: str) -> atomicpath.TemporaryPath:
    """What every way makes."""
    return atomicpath.AtomicRenameTemporaryPath.from_final(UPath(final))


def create(final: str) -> None:
    """As a blocking program calls it at its cheapest: without an event loop."""
    with without_event_loop():
        try:
            attempt(final).create().send(None)
        except StopIteration:
            return


def between(barrier: Callable[[], None], rank: int, final: str) -> None:
    """Rank 0 creates, between two barriers."""
    barrier()
    if rank == 0:
        create(final)
    barrier()


def ways(rank: int, store: Any) -> dict[str, Way]:
    """How to do it, by name, in the order of the table."""
    coordinator = TorchStoreCoordinator(store, rank=rank, world_size=SIZE, timeout=60)
    options = atomicpath.MultiprocessingOptions(coordinator=coordinator)
    numbers = iter(range(10**9))

    def create_all(final: str) -> None:
        atomicpath.create_all([attempt(final)], multiprocessing_options=options)

    def commit(final: str) -> None:
        with atomicpath.commit(final, coordinator=coordinator, allow_empty=True):
            pass

    def store_barrier() -> None:
        store.barrier(f"benchmark/{next(numbers)}", SIZE)

    return {
        "TCPStore's barrier, create, barrier": functools.partial(between, store_barrier, rank),
        "gloo's barrier, create, barrier": functools.partial(between, dist.barrier, rank),
        "create_all over the TCPStore": create_all,
        "commit over the TCPStore": commit,
    }


def work(rank: int, port: int, root: str, rounds: int, results: Any) -> None:
    """One process of the job."""
    store = dist.TCPStore("127.0.0.1", port, SIZE, rank == 0)
    dist.init_process_group("gloo", store=dist.PrefixStore("gloo", store), rank=rank, world_size=SIZE)
    times: Times = {}
    for number in range(-WARM_UP, rounds):
        for index, (name, way) in enumerate(_ways(rank, store).items()):
            dist.barrier()
            begin = time.perf_counter()
            way(f"{root}/{index}-{number}")
            if number >= 0:
                times.setdefault(name, []).append((begin, time.perf_counter()))
    dist.barrier()
    results.put(times)
    dist.destroy_process_group()


@functools.cache
def _ways(rank: int, store: Any) -> dict[str, Way]:
    return ways(rank, store)


def measure(root: str, rounds: int) -> dict[str, float]:
    """Medians in seconds, by way."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [context.Process(target=work, args=(rank, port, root, rounds, results)) for rank in range(SIZE)]
    for process in processes:
        process.start()
    of_ranks: list[Times] = [results.get() for _ in processes]
    for process in processes:
        process.join()
    medians = {}
    for name in of_ranks[0]:
        of_rounds = zip(*(times[name] for times in of_ranks), strict=True)
        medians[name] = statistics.median(max(e for _, e in spans) - max(b for b, _ in spans) for spans in of_rounds)
    return medians


def main() -> None:
    """Measure in turn, and print a table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=200)
    arguments.add_argument("--on", default=None, help="a directory on the file system to measure")
    options = arguments.parse_args()
    root = tempfile.mkdtemp(prefix="atomicpath-benchmark-", dir=options.on)
    try:
        medians = measure(root, options.rounds)
    finally:
        shutil.rmtree(root)
    store, gloo = (medians[f"{name}'s barrier, create, barrier"] for name in ("TCPStore", "gloo"))
    title = f"{SIZE} processes, {os.cpu_count()} cores, median of {options.rounds}"
    print(f"| {title} | ms | against TCPStore's | against gloo's |")
    print("|---|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median * 1e3:.2f} | {median / store:.2f} × | {median / gloo:.2f} × |")


if __name__ == "__main__":
    main()
