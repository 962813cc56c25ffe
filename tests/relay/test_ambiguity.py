"""Faults on the wire at each request of a commit, one at a time: what the caller is told is so, on every store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count, product
from typing import Any

import pytest

from tests.proxy import Action, Reply, Request, Rule, Send, drop_reply, reset_after, reset_before, truncate

from .behaviours import Behaviour, Sleep
from .dialects import Dialect
from .operations import OPERATIONS
from .places import SERVERS, Server
from .runner import Cell, run

_EVERYTHING = os.environ.get("ATOMICPATH_RELAY") == "all"
_COMMIT = next(one for one in OPERATIONS if one.name == "commit")
_MOST = 60  # requests of one commit, repetitions included
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
_DAILY = [("503 before", False), ("reset after", True)]


def _at(number: int, fault: str) -> Behaviour:
    """A relay that goes wrong at the request of that number."""

    def rules(dialect: Dialect, sleep: Sleep) -> list[Rule]:
        seen = count()
        return [Rule(match=lambda request: next(seen) == number, action=FAULTS[fault](dialect, sleep))]

    return Behaviour(f"{fault} at {number}", rules, is_known=True)


@pytest.fixture
def anyio_backend() -> str:
    """Requests run in fsspec's own event loop, whatever the caller's is."""
    return "asyncio"


@pytest.fixture(scope="module", params=list(SERVERS) if _EVERYTHING else ["moto"])
def server(
    request: pytest.FixtureRequest, _no_ambient_configuration: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    context: Any = SERVERS[request.param](tmp_path_factory.mktemp("relay"))
    with context as running:
        yield running


@pytest.mark.parametrize(("fault", "repeats"), list(product(FAULTS, [True, False])) if _EVERYTHING else _DAILY)
async def test_no_fault_at_any_request_of_a_commit_leads_to_a_false_outcome(
    fault: str, repeats: bool, server: Server
) -> None:
    wrong: list[str] = []
    for number in range(_MOST):
        cell: Cell = await run(server, _at(number, fault), _COMMIT, repeats=repeats)
        if cell.requests <= number:
            break  # the commit took fewer: every one has been tried
        wrong += [f"{fault} at request {number}: {cell}"] if cell.wrong else []
    else:
        pytest.fail(f"a commit took more than {_MOST} requests")
    assert number > 5, "a commit takes more requests than that"
    assert not wrong, "\n".join(wrong)
