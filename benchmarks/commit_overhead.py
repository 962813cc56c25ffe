"""What a durable local commit costs beside the system calls it cannot do without, and beside Orbax.

    python benchmarks/commit_overhead.py [--rounds 200] [--files 0 10 1000] [--on DIRECTORY]

Each round makes and finishes one directory in each way, in turn, so that all see the same machine. Printed are the
median of each way, and, since a busy machine slows one round more than another, the median and the quartiles of what a
way took in a round against what the synced raw calls took in that round. Every way is called as a training script calls
it, from blocking code. Before each the directory above is synced, outside of the measured time: else its syncs would
write what the way before it left behind. Last come the numbers of calls, which no other process changes.

- raw: the system calls that the storage layout (docs/design/0015) asks for, by hand, with the syncs that its promise
  needs and no other: the parent opened; the house-keeping directory made; the record beside the attempt created, locked
  and written; the attempt's directory made; each file written and synced, one after the other; the record in it written
  and synced; that directory synced; rename; the parent synced by its descriptor; the record beside and the
  house-keeping directory removed; the lock let go of. The record beside is not synced: nobody needs it after a power
  cut, when no process lives.
- atomicpath: `with atomicpath.commit(path)`, and once more with `durable=False`.
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
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import atomicpath
from atomicpath._core.environment import use
from atomicpath.abc import Environment

PAYLOAD = b"x" * 600  # about the size of a record
CONTENT = b"x" * 4096  # of each file
WARM_UP = 5  # rounds at most, which load modules
RAW = "raw system calls, synced"

Way = Callable[[str, int], None]


def fill(directory: str, files: int, *, sync: bool = False) -> None:
    """Write the files of a directory."""
    for number in range(files):
        file = os.open(f"{directory}/{number:04}", os.O_WRONLY | os.O_CREAT, 0o666)
        os.write(file, CONTENT)
        if sync:
            os.fsync(file)
        os.close(file)


def raw(path: str, files: int = 0, *, sync: bool = True) -> None:
    """The same system calls by hand."""
    above, name = os.path.split(path)
    housekeeping = f"{above}/.housekeeping"
    temporary = f"{housekeeping}/{name}"
    parent = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir(housekeeping)
    lock = os.open(f"{temporary}.json", os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(lock, PAYLOAD)
    os.mkdir(temporary)
    fill(temporary, files, sync=sync)
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


def ours(path: str, files: int = 0, *, durable: bool = True) -> None:
    """The library, through its blocking face."""
    with atomicpath.commit(path, durable=durable, allow_empty=True) as directory:
        fill(str(directory), files)


def orbax() -> Way | None:
    """Orbax's create and finalize, or None if it is not installed."""
    try:
        from etils import epath
        from orbax.checkpoint._src import asyncio_utils
        from orbax.checkpoint._src.path import atomicity
    except ImportError:
        return None
    logging.getLogger("absl").setLevel(logging.ERROR)

    def both(path: str, files: int) -> None:
        temporary = atomicity.AtomicRenameTemporaryPath.from_final(epath.Path(path))
        asyncio_utils.run_sync(temporary.create())
        fill(str(temporary.get()), files)
        asyncio_utils.run_sync(temporary.finalize())

    return both


def measure(ways: dict[str, Way], root: str, files: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each way took in each round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    warm_up = min(WARM_UP, rounds)
    for number in range(rounds + warm_up):
        for index, (name, way) in enumerate(ways.items()):
            path = f"{root}/{files}-{index}-{number}"
            settle(root)
            begin = time.perf_counter()
            way(path, files)
            if number >= warm_up:
                times[name].append(time.perf_counter() - begin)
            shutil.rmtree(path)
    return times


def print_table(what: str, times: dict[str, list[float]]) -> None:
    """Print a line for each way."""
    rounds = len(times[RAW])
    print(f"| {what} ({rounds} rounds) | ms, median | against raw, synced: median | quartiles |")
    print("|---|---|---|---|")
    for name, measured in times.items():
        ratios = [one / other for one, other in zip(measured, times[RAW], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"| {name} | {statistics.median(measured) * 1e3:.2f} | {middle:.2f} × | {low:.2f} to {high:.2f} × |")
    print()


class Counting(Environment):
    """Counts what one commit asks of the world."""

    def __init__(self) -> None:
        self.calls = self.steps = 0

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Make one call that is counted."""
        self.calls += 1
        return super().call(function, *args, **kwargs)

    async def step(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run one step that is counted."""
        self.steps += 1
        return await super().step(function, *args, **kwargs)


def count(root: str) -> None:
    """Print the numbers of calls of one commit of an empty directory."""
    functions = 0

    def entered(_frame: object, event: str, _argument: object) -> None:
        nonlocal functions
        functions += event == "call"

    sys.setprofile(entered)
    try:
        ours(f"{root}/functions")
    finally:
        sys.setprofile(None)
    counting = Counting()
    with use(counting):
        ours(f"{root}/steps")
    print(
        f"A durable commit of an empty directory enters {functions} Python functions, and asks the system"
        f" {counting.calls} times in {counting.steps} steps."
    )


def main() -> None:
    """Measure in turn, and print a table for each number of files."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--rounds", type=int, default=200, help="of directories with few files; of others a fortieth"
    )
    arguments.add_argument("--files", type=int, nargs="+", default=[0, 10, 1000], help="in a directory, of 4 KiB each")
    arguments.add_argument("--on", default=None, help="a directory on the file system to measure")
    options = arguments.parse_args()
    ways: dict[str, Way] = {
        RAW: raw,
        "atomicpath, durable": ours,
        "raw system calls, no sync": lambda path, files: raw(path, files, sync=False),
        "atomicpath, durable=False": lambda path, files: ours(path, files, durable=False),
    }
    peer = orbax()
    if peer:
        ways["Orbax create + finalize, no sync"] = peer
    else:
        print("Orbax is not installed and is left out: pip install orbax-checkpoint")
    root = tempfile.mkdtemp(prefix="atomicpath-benchmark-", dir=options.on)
    try:
        for files in options.files:
            rounds = options.rounds if files < 100 else max(options.rounds // 40, 2)
            what = f"{files} files of 4 KiB" if files else "an empty directory"
            print_table(f"{what}, created and committed", measure(ways, root, files, rounds))
        count(root)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
