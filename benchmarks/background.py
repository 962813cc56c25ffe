"""The time for which a background save holds the training thread, beside torch's own asynchronous save in one run.

    python benchmarks/background.py [--rounds 10] [--mib 64] [--on DIRECTORY]

Each round saves the same tensors by every way, in turn, so that all see the same machine. The medians are compared of
the time that the caller is held for, and of the time until the save is complete.

- async_save: `torch.distributed.checkpoint.async_save` to a directory. It copies the tensors and writes the copy in a
  thread. What a kill leaves of it is half a checkpoint.
- manager: `with manager.save(step)`, with `torch.save` in the block, which writes the files; the sync and the commit
  are in the background.
- commit_in_background: of a directory whose files are there already.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

import atomicpath

Way = Callable[[int], Callable[[], Any]]
"""Begins a save, and returns how to wait for its end."""


def ways(state: dict[str, torch.Tensor], directory: Path) -> dict[str, Way]:
    manager = atomicpath.CheckpointManager(directory / "manager", keep_last=1, background=True)
    source = directory / "source"
    source.mkdir()
    torch.save(state, source / "model.pt")

    def async_save(step: int) -> Callable[[], Any]:
        return dcp.async_save(state, checkpoint_id=directory / "dcp" / str(step), no_dist=True).result

    def managed(step: int) -> Callable[[], Any]:
        with manager.save(step) as path:
            torch.save(state, path / "model.pt")
        return manager.wait

    def in_background(step: int) -> Callable[[], Any]:
        return atomicpath.commit_in_background(source, directory / "copies" / str(step)).committed.result

    return {"async_save": async_save, "manager": managed, "commit_in_background": in_background}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--on", type=Path, default=None, help="a directory on the disk to measure")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    state = {f"layer_{number}": torch.rand(options.mib * 2**20 // 4 // 8) for number in range(8)}
    directory = Path(tempfile.mkdtemp(prefix="atomicpath-background-", dir=options.on))
    try:
        measured = ways(state, directory)
        held: dict[str, list[float]] = {name: [] for name in measured}
        complete: dict[str, list[float]] = {name: [] for name in measured}
        for step in range(options.rounds + 1):
            for name, begin in measured.items():
                began = time.perf_counter()
                wait = begin(step)
                returned = time.perf_counter()
                wait()
                if step:  # the first one imports what it needs
                    held[name].append(returned - began)
                    complete[name].append(time.perf_counter() - began)
            shutil.rmtree(directory / "copies")
            shutil.rmtree(directory / "dcp")
        base = statistics.median(held["async_save"])
        print(f"{options.mib} MiB, {options.rounds} rounds, medians")
        for name in measured:
            middle = statistics.median(held[name])
            ratio = f"{middle / base:.2f} × async_save"
            print(
                f"{name:<22} held {middle * 1000:7.1f} ms ({ratio}), complete after"
                f" {statistics.median(complete[name]) * 1000:7.1f} ms"
            )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
