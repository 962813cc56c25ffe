"""A sample of the matrix every day; with ATOMICPATH_RELAY=all each cell on each server, as in docs/stores.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from .behaviours import BEHAVIOURS, Behaviour
from .dialects import DIALECTS
from .expected import must_work
from .operations import OPERATIONS, Operation
from .places import SERVERS, Server
from .runner import run

_EVERYTHING = os.environ.get("ATOMICPATH_RELAY") == "all"
_SPEAK = {"moto": "S3", "SeaweedFS": "S3", "fake-gcs-server": "GCS", "Azurite": "Azure"}
_DAILY = {
    ("403 on delete", "commit"),
    ("404 page of a load balancer", "latest"),
    ("429 bursts", "commit"),
    ("501 for conditions", "commit"),
    ("DELETE conditions ignored", "remove"),
    ("DELETE conditions ignored", "take-over"),
    ("If-Match quoted only", "take-over"),
    ("endless pages", "latest"),
    ("endless pages", "sweep"),
    ("no length", "get"),
    ("no length", "latest"),
    ("no metadata", "commit"),
    ("no version in replies", "commit"),
    ("no version in replies", "keep_last"),
    ("other version in listings", "keep_last"),
    ("replies delayed past a lease", "remove"),
    ("replies lost", "commit"),
}


@pytest.fixture
def anyio_backend() -> str:
    """Requests run in fsspec's own event loop, whatever the caller's is."""
    return "asyncio"


@pytest.fixture(scope="module")
def _servers(
    _no_ambient_configuration: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Any, Server]]]:
    running: dict[str, tuple[Any, Server]] = {}
    yield running
    for context, _ in running.values():
        context.__exit__(None, None, None)


@pytest.fixture
def server(request: pytest.FixtureRequest, _servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Server:
    name: str = request.param
    if name not in _servers:
        context = SERVERS[name](tmp_path_factory.mktemp("relay"))
        _servers[name] = context, context.__enter__()
    found: Server = _servers[name][1]
    return found


def _cells() -> Iterator[Any]:
    for server in SERVERS if _EVERYTHING else ["moto"]:
        for behaviour in BEHAVIOURS:
            if not behaviour.speaks(DIALECTS[_SPEAK[server]]):
                continue
            for operation in OPERATIONS:
                if not _EVERYTHING and (behaviour.name, operation.name) not in _DAILY:
                    continue
                yield pytest.param(server, behaviour, operation, id=f"{server}-{behaviour.name}-{operation.name}")


@pytest.mark.parametrize(("server", "behaviour", "operation"), list(_cells()), indirect=["server"])
async def test_no_outcome_is_wrong_a_hang_a_raw_exception_or_a_leftover_that_nobody_is_told_of(
    server: Server, behaviour: Behaviour, operation: Operation
) -> None:
    cell = await run(server, behaviour, operation)
    assert cell.wrong == (), cell.said
    if must_work(server, behaviour, operation):
        assert cell.outcome == "done", cell.said


def test_every_cell_that_is_run_every_day_is_one_of_the_matrix() -> None:
    known = {(behaviour.name, operation.name) for behaviour in BEHAVIOURS for operation in OPERATIONS}
    assert known >= _DAILY
