"""`python -m tests.faults`: run the battery, or one run of it, and print the table.

python -m tests.faults                                    a sample of the points
ATOMICPATH_FAULTS=all python -m tests.faults              every point
python -m tests.faults --operation commit --fault EIO     some cells
python -m tests.faults --keep DIRECTORY                   cells that are right are kept there, and not run again
python -m tests.faults --one OPERATION PLACE FAULT POINT --fresh   one run, with what it said
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

from . import cells
from .report import failures, table
from .runner import run_once

_DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN = f"<!-- printed by the {'whole battery' if cells.WHOLE else 'battery'} -->\n"
_END = "\n<!-- end -->"


def _s3(wanted: bool) -> AbstractContextManager[str | None]:
    if not wanted:
        return nullcontext()
    from tests.support.servers.s3 import moto  # not at the top: it imports a client into each process of the battery

    return moto()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The battery of faults at the seam.")
    parser.add_argument("--operation", action="append", help="only this one; may be repeated, as the next two")
    parser.add_argument("--place", action="append")
    parser.add_argument("--fault", action="append")
    parser.add_argument("--jobs", type=int, default=2, help="so many cells at once")
    parser.add_argument("--s3", action="store_true", help="on moto's S3, too, where a run takes seconds")
    parser.add_argument("--one", nargs=4, metavar=("OPERATION", "PLACE", "FAULT", "POINT"))
    parser.add_argument("--same", action="store_true", help="with --one: what follows is tried in the same process")
    parser.add_argument("--fresh", action="store_true", help="with --one: in another one, which is the default")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md, too")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="go on where an earlier run was ended")
    chosen = parser.parse_args()
    with _s3(chosen.s3 or bool(chosen.one and "S3" in chosen.one[1])) as endpoint:
        if chosen.one:
            return _one(chosen.one, endpoint, same=chosen.same)
        keys = [
            key
            for key in cells.keys(endpoint)
            if (not chosen.operation or key.operation in chosen.operation)
            and (not chosen.place or key.setting in chosen.place)
            and (not chosen.fault or key.fault in chosen.fault)
        ]
        if chosen.keep:
            chosen.keep.mkdir(exist_ok=True)
        kept = {key: cell for key in keys if chosen.keep and (cell := _kept(chosen.keep, key))}
        left = [key for key in keys if key not in kept]
        # fresh interpreters: they fork for each run, which only a process without threads may do
        with ProcessPoolExecutor(chosen.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            for key, cell in zip(left, pool.map(cells.run, left), strict=True):
                kept[key] = cell
                if cell.failures:
                    print(failures(cell), end="\n\n", file=sys.stderr, flush=True)
                elif chosen.keep:
                    (chosen.keep / _file_of(key)).write_bytes(pickle.dumps(cell))
    found = [kept[key] for key in keys]
    print(table(found))
    if chosen.write:
        _write(table(found))
    return int(any(cell.failures for cell in found))


def _file_of(key: cells.Key) -> str:
    return f"{key.operation}, {key.setting}, {key.fault}{', all' if cells.WHOLE else ''}".replace(" ", "_")


def _kept(directory: Path, key: cells.Key) -> cells.Cell | None:
    try:
        return cast("cells.Cell", pickle.loads((directory / _file_of(key)).read_bytes()))  # our own, of an earlier run
    except FileNotFoundError:
        return None


def _one(names: list[str], endpoint: str | None, *, same: bool) -> int:
    operation, setting, fault, at = names
    run = run_once(*cells.Key(operation, setting, fault, endpoint).found(), int(at), same=same)
    print(run)
    return bool(run.complaints)


def _write(text: str) -> None:
    before, begin, rest = _DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    _DOCUMENT.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
