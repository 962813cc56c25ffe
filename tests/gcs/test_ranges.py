"""Large objects are fetched in ranges, each of the generation that was seen first, and checked as one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atomicpath.abc import Entry, Put, StaleVersionError
from atomicpath.storage import receive_in_ranges
from tests.gcs.stores import Store
from tests.support.proxy import Reply, Request, Rule, refuse

RANGE = 1000
DATA = os.urandom(5 * RANGE + 1)

both = pytest.mark.parametrize("store", ["flat", "fake-gcs-server"], indirect=True)


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(receive_in_ranges.__kwdefaults__, "length", RANGE)


@pytest.fixture
async def path(store: Store) -> str:
    """An object of six ranges."""
    await store.storage.put(store.path("run/a"), DATA, mode=Put.OVERWRITE)
    store.proxy.requests.clear()
    return store.path("run/a")


def of_a_range(request: Request) -> bool:
    return request.method == "GET" and "range" in request.headers


@both
async def test_a_large_object_is_asked_for_range_by_range(store: Store, path: str, tmp_path: Path) -> None:
    entry = await store.storage.download(path, tmp_path / "copy")
    requests = list(store.proxy.requests)
    assert (tmp_path / "copy").read_bytes() == DATA
    assert entry == Entry(name="", size=len(DATA), version=(await store.storage.get(path)).version)
    assert (requests[0].headers.get("range"), requests[0].query.get("ifGenerationMatch")) == (None, None)
    assert sorted((r.headers["range"], r.query["ifGenerationMatch"]) for r in requests[1:]) == [
        (f"bytes={n * RANGE}-{(n + 1) * RANGE - 1}", entry.version) for n in range(1, 6)
    ]


@both
async def test_an_object_that_is_overwritten_meanwhile_is_no_mixture(store: Store, path: str, tmp_path: Path) -> None:
    def change(request: Request, send: Any) -> Reply:
        reply: Reply = send(request)
        other = {name: value for name, value in reply.headers.items() if name.lower() != "x-goog-generation"}
        return replace(reply, headers={**other, "X-Goog-Generation": "1"})

    store.proxy.rules.append(Rule(match=of_a_range, action=change))
    with pytest.raises(StaleVersionError, match="changed while"):
        await store.storage.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


@both
async def test_a_refused_generation_is_a_changed_object(store: Store, path: str, tmp_path: Path) -> None:
    store.proxy.rules.append(Rule(match=of_a_range, action=refuse(412, "conditionNotMet")))
    with pytest.raises(StaleVersionError):
        await store.storage.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


@both
async def test_a_range_that_breaks_off_is_asked_for_again(store: Store, path: str, tmp_path: Path) -> None:
    def cut(request: Request, send: Any) -> Reply:
        return replace(send(request), short=100)

    store.proxy.rules.append(Rule(match=of_a_range, action=cut, times=2))
    await store.storage.download(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA


@both
async def test_the_checksum_of_a_large_object_is_checked_over_its_ranges(
    store: Store, path: str, tmp_path: Path
) -> None:
    def change_a_byte(request: Request, send: Any) -> Reply:
        reply: Reply = send(request)
        return replace(reply, body=bytes([reply.body[0] ^ 1]) + reply.body[1:])

    store.proxy.rules.append(Rule(match=of_a_range, action=change_a_byte))
    with pytest.raises(OSError, match="checksum"):
        await store.storage.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []
