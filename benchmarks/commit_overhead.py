"""What a durable local commit costs beside the system calls it cannot do without, and beside Orbax.

    python benchmarks/commit_overhead.py [--rounds 200] [--on DIRECTORY]

Each round makes and finishes one empty directory in each way, in turn, so that all see the same machine;
the medians are compared. Every way is called as a training script calls it, from blocking code.

- raw: the system calls of the rename protocol with the same syncs, nothing else: mkdir, flock, the record,
  the record again and the marker, fsync of both and of the directory, rename, fsync of the parent.
- atomicpath: `with atomicpath.commit(path): pass`, and once more with `durable=False`.
- Orbax: `AtomicRenameTemporaryPath.create` and `finalize`, which sync nothing, each run as its own blocking
  `Checkpointer` does. Left out if it is not installed: pip install orbax-checkpoint.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable

import atomicpath

PAYLOAD = b"x" * 600  # about the size of a record


def raw(path: str, *, sync: bool = True) -> None:
    """The same system calls by hand."""
    temporary = f"{path}.tmp"
    os.mkdir(temporary)
    directory = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for name in ("record", "record", "marker"):
        file = os.open(f"{temporary}/{name}", os.O_WRONLY | os.O_CREAT, 0o666)
        os.write(file, PAYLOAD)
        os.close(file)
    if sync:
        for name in ("record", "marker"):
            file = os.open(f"{temporary}/{name}", os.O_RDONLY)
            os.fsync(file)
            os.close(file)
        os.fsync(directory)
    os.rename(temporary, path)
    os.close(directory)
    if sync:
        parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(parent)
        os.close(parent)


def ours(path: str, *, durable: bool = True) -> None:
    """The library, through its blocking face."""
    with atomicpath.commit(path, durable=durable, allow_empty=True):
        pass


def orbax() -> Callable[[str], None] | None:
    """Orbax's create and finalize, or None if it is not installed."""
    try:
        from etils import epath
        from orbax.checkpoint._src import asyncio_utils
        from orbax.checkpoint._src.path import atomicity
    except ImportError:
        return None
    logging.getLogger("absl").setLevel(logging.ERROR)

    def both(path: str) -> None:
        temporary = atomicity.AtomicRenameTemporaryPath.from_final(epath.Path(path))
        asyncio_utils.run_sync(temporary.create())
        asyncio_utils.run_sync(temporary.finalize())

    return both


def main() -> None:
    """Measure in turn, and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=200)
    arguments.add_argument("--on", default=None, help="a directory on the file system to measure")
    options = arguments.parse_args()
    ways: dict[str, Callable[[str], None]] = {
        "raw system calls, synced": raw,
        "atomicpath, durable": ours,
        "raw system calls, no sync": lambda path: raw(path, sync=False),
        "atomicpath, durable=False": lambda path: ours(path, durable=False),
    }
    peer = orbax()
    if peer:
        ways["Orbax create + finalize, no sync"] = peer
    else:
        print("Orbax is not installed and is left out: pip install orbax-checkpoint")
    root = tempfile.mkdtemp(prefix="atomicpath-benchmark-", dir=options.on)
    times: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for number in range(options.rounds + 5):
            for index, (name, way) in enumerate(ways.items()):
                begin = time.perf_counter()
                way(f"{root}/{index}-{number}")
                if number >= 5:  # the first few load modules
                    times[name].append(time.perf_counter() - begin)
    finally:
        shutil.rmtree(root)
    base = statistics.median(times["raw system calls, synced"])
    print(f"| an empty directory, created and committed (median of {options.rounds}) | ms | against raw, synced |")
    print("|---|---|---|")
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"| {name} | {median * 1e3:.2f} | {median / base:.2f} × |")


if __name__ == "__main__":
    main()
