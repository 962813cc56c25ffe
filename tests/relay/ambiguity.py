"""Faults on the wire, at one request of a commit after the other: what the caller is told of it.

python -m tests.relay.ambiguity                            every fault, on every server
python -m tests.relay.ambiguity --server moto --fault 'reset after'
python -m tests.relay.ambiguity --server moto --write      put the server's table into docs/stores.md, too
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import anyio

from tests.support.proxy import Action, Reply, Request, Rule, Send, drop_reply, reset_after, reset_before, truncate

from .behaviours import Behaviour, Sleep
from .dialects import Dialect
from .operations import OPERATIONS
from .places import SERVERS, Server, started
from .report import put, row
from .runner import run

__all__ = ["FAULTS", "Tried", "tried"]

_COMMIT = next(one for one in OPERATIONS if one.name == "commit")
_MOST = 60  # requests of one commit, repetitions included
_LEAST = 6
_PAST_A_LEASE = 100.0


def _before(dialect: Dialect, sleep: Sleep) -> Action:
    return lambda request, send: dialect.error(503, "ServiceUnavailable")


def _after(dialect: Dialect, sleep: Sleep) -> Action:
    def act(request: Request, send: Send) -> Reply:
        send(request)
        return dialect.error(500, "InternalError")

    return act


def _twice(dialect: Dialect, sleep: Sleep) -> Action:
    def act(request: Request, send: Send) -> Reply:
        reply = send(request)
        send(request)
        return reply

    return act


def _delayed(dialect: Dialect, sleep: Sleep) -> Action:
    def act(request: Request, send: Send) -> Reply:
        reply = send(request)
        sleep(_PAST_A_LEASE)
        return reply

    return act


FAULTS: dict[str, Callable[[Dialect, Sleep], Action]] = {
    "503 before": _before,
    "reset before": lambda *_: reset_before,
    "reset after": lambda *_: reset_after,
    "closed after": lambda *_: drop_reply,
    "500 after": _after,
    "duplicated": _twice,
    "delayed": _delayed,
    "truncated": lambda *_: truncate(1),
}


@dataclass
class Tried:
    """One fault at each request of a commit: how often each outcome was told, and what of that is wrong."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])

    @property
    def requests(self) -> int:
        return self.outcomes.total()


async def tried(server: Server, fault: str, *, repeats: bool) -> Tried:
    """Commit again and again, with the fault at the next request each time, until a commit takes fewer.

    Raises:
        AssertionError: A commit takes more requests than any should, or so few that hardly any was tried.
    """
    found = Tried()
    for number in range(_MOST):
        cell = await run(server, _at(number, fault), _COMMIT, repeats=repeats)
        if cell.requests <= number:
            break
        found.outcomes[cell.outcome] += 1
        found.wrong += [f"{fault} at request {number}: {cell}"] if cell.wrong else []
    else:
        raise AssertionError(f"a commit took more than {_MOST} requests")
    if found.requests < _LEAST:
        raise AssertionError(f"a commit takes more than {found.requests} requests")
    return found


def _at(number: int, fault: str) -> Behaviour:
    """A relay that goes wrong at the request of that number."""

    def rules(dialect: Dialect, sleep: Sleep) -> list[Rule]:
        seen = count()
        return [Rule(match=lambda request: next(seen) == number, action=FAULTS[fault](dialect, sleep))]

    return Behaviour(f"{fault} at {number}", rules, is_known=True)


def _table(name: str, found: dict[tuple[str, bool], Tried]) -> str:
    lines = [
        f"### {name}: one fault at each request of a commit",
        "",
        row(["fault", "client repeats", "requests it met", "what the caller got", "wrong"]),
        row(["---"] * 5),
    ]
    for (fault, repeats), one in found.items():
        told = ", ".join(f"{outcome}: {times}" for outcome, times in sorted(one.outcomes.items()))
        lines.append(row([fault, "yes" if repeats else "no", str(one.requests), told, str(len(one.wrong))]))
    requests = sum(one.requests for one in found.values())
    wrong = sum(len(one.wrong) for one in found.values())
    return "\n".join([*lines, "", f"{requests} commits with a fault, {wrong} wrong."])


def _tries(server: Server, faults: list[str]) -> Iterator[tuple[tuple[str, bool], Tried]]:
    for fault in faults:
        for repeats in (True, False):

            async def one(fault: str = fault, repeats: bool = repeats) -> Tried:
                return await tried(server, fault, repeats=repeats)

            found = anyio.run(one)
            print(f"{server.name}, {fault}, repeats={repeats}: {dict(found.outcomes)}", file=sys.stderr, flush=True)
            for wrong in found.wrong:
                print(f"--- {wrong}", file=sys.stderr, flush=True)
            yield (fault, repeats), found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.relay.ambiguity", description="Faults on the wire.")
    parser.add_argument("--server", action="append", choices=list(SERVERS), help="only this one; may be repeated")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one; may be repeated")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/stores.md, too")
    chosen = parser.parse_args()
    if chosen.write and chosen.fault:
        parser.error("a table has every fault: do not pass --fault with --write")
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")
    wrong = 0
    with (
        tempfile.TemporaryDirectory() as directory,
        started(chosen.server or list(SERVERS), Path(directory)) as servers,
    ):
        for server in servers:
            found = dict(_tries(server, chosen.fault or list(FAULTS)))
            wrong += sum(len(one.wrong) for one in found.values())
            print(_table(server.name, found))
            if chosen.write:
                put(f"python -m tests.relay.ambiguity --server {server.name}", _table(server.name, found))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
