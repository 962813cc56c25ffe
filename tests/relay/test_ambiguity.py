"""Faults on the wire at each request of a commit, one at a time: what the caller is told is so, on every store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from .ambiguity import FAULTS, tried
from .places import SERVERS, Server

_EVERYTHING = os.environ.get("ATOMICPATH_RELAY") == "all"
_DAILY = [("503 before", False), ("reset after", True)]


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
    found = await tried(server, fault, repeats=repeats)
    assert not found.wrong, "\n".join(found.wrong)
