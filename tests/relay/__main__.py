"""`python -m tests.relay`: run the matrix, or some cells of it, and print the table.

python -m tests.relay                                            every cell, on every server
python -m tests.relay --server moto --operation commit --behaviour '429 bursts' --show
python -m tests.relay --write                                    put the table into docs/stores.md, too
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import anyio

from .behaviours import BEHAVIOURS
from .operations import OPERATIONS
from .places import SERVERS, started
from .report import Found, put, table
from .runner import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.relay", description="The matrix of behaviours of stores.")
    parser.add_argument("--server", action="append", choices=list(SERVERS), help="only this one; may be repeated")
    parser.add_argument("--operation", action="append", choices=[one.name for one in OPERATIONS])
    parser.add_argument("--behaviour", action="append", choices=[one.name for one in BEHAVIOURS])
    parser.add_argument("--show", action="store_true", help="print all that was said in each cell")
    parser.add_argument("--write", action="store_true", help="put the table into docs/stores.md, too")
    chosen = parser.parse_args()
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")
    found: Found = {}
    wrong = 0
    with (
        tempfile.TemporaryDirectory() as directory,
        started(chosen.server or list(SERVERS), Path(directory)) as servers,
    ):
        for server in servers:
            for behaviour in BEHAVIOURS:
                if (chosen.behaviour and behaviour.name not in chosen.behaviour) or not behaviour.speaks(
                    server.dialect
                ):
                    continue
                for operation in OPERATIONS:
                    if chosen.operation and operation.name not in chosen.operation:
                        continue
                    cell = anyio.run(run, server, behaviour, operation)
                    found[server.name, behaviour.name, operation.name] = cell
                    wrong += bool(cell.wrong)
                    if cell.wrong or chosen.show:
                        print(f"--- {server.name} / {behaviour.name} / {operation.name}: {cell}", file=sys.stderr)
    print(table(found))
    if chosen.write:
        put("python -m tests.relay", table(found))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
