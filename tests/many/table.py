"""The table of docs/many-processes.md: every engine, every fault, on a local disk and on S3 (moto).

    python -m tests.many.table [--engine NAME] [--fault WORDS] [--every K]

Runs some hundred jobs of real processes, prints the table in Markdown, and ends with 1 if a rank saw what
it should not. Every job is followed by another that commits the same name; a half, or a wait, ends the run.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.many.faults import ENGINES, FAULTS, run, words
from tests.many.jobs import Job, Servers
from tests.roots import LocalRoot, Root, S3Root
from tests.servers import s3

SERVER = Path(__file__).parents[2] / "examples" / "s3_server.py"


@contextmanager
def places() -> Iterator[dict[str, Root]]:
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        endpoint = process.stdout.readline().strip()
        with s3.client(endpoint) as client:
            client.create_bucket(Bucket="table")
            yield {"local": LocalRoot(Path(directory)), "S3": S3Root(client, "table", endpoint)}
        process.stdin.close()


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--engine", default="")
    arguments.add_argument("--fault", default="")
    arguments.add_argument("--every", type=int, default=1)
    options = arguments.parse_args()
    with Servers() as servers, tempfile.TemporaryDirectory() as directory:
        for engine in ENGINES:
            for fault in FAULTS:
                if options.engine not in ("", engine) or options.fault not in fault:
                    continue
                with places() as both:
                    for where, place in both.items():
                        job = Job(engine, place, Path(directory), servers)
                        try:
                            seen = run(job, fault, every=options.every)
                        except AssertionError as error:
                            import traceback; traceback.print_exc()
                            continue
                        kinds = sorted({(one.committed, rank if rank in (0,1,2) else 9, words(o)) for one in seen for rank, o in one.outcomes.items()})
                        print(engine, "|", fault, "|", where, len(seen), f"{min(o.seconds for o in seen):.1f} {max(o.seconds for o in seen):.1f}", flush=True)
                        for k in kinds: print("     ", k)
                        print("     ", {o.message[:250] for one in seen[:1] for o in one.outcomes.values()}, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
