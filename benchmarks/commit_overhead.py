"""What a durable local commit costs beside the system calls it cannot do without, and beside Orbax.

    python benchmarks/commit_overhead.py [--rounds 200] [--on DIRECTORY]

Each round makes and finishes one empty directory in each way, in turn, so that all see the same machine;
the medians are compared. Every way is called as a training script calls it, from blocking code. Before each the
directory above is synced, outside of the measured time: else its syncs would write what the way before it left behind.

- raw: the system calls that the storage layout (docs/design/0015) asks for, by hand, with the syncs that its promise
  needs and no other: the parent opened; the house-keeping directory made; the record beside the attempt created, locked
  and written; the attempt's directory made; the record in it written and synced; that directory synced; rename; the
  parent synced by its descriptor; the record beside and the house-keeping directory removed; the lock let go of.
  There are three syncs. The record beside is not synced: nobody needs it after a power cut, when no process lives.
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
    above, name = os.path.split(path)
    housekeeping = f"{above}/.housekeeping"
    temporary = f"{housekeeping}/{name}"
    parent = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir(housekeeping)
    lock = os.open(f"{temporary}.json", os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.mkdir(temporary)
    os.write(lock, PAYLOAD)
    record = os.open(f"{temporary}/record", os.O_WRONLY | os.O_CREAT, 0o666)
    os.write(record, PAYLOAD)
    if sync:
        os.fsync(record)
    os.close(record)
    if sync:
        directory = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
    os.rename(temporary, path)
    if sync:
        os.fsync(parent)
    os.close(parent)
    os.unlink(f"{temporary}.json")
    os.rmdir(housekeeping)
    os.close(lock)


def settle(root: str) -> None:
    """Sync what the way before has left to be written."""
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)


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
                settle(root)
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
