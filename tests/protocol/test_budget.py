"""What a commit costs on the wire, counted request by request: the budget of DESIGN.md §5."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._strategies import borders
from tests.protocol.worlds import MARKER, RECORD, Quick, creates
from tests.support.proxy import Proxy, Request, Rule
from tests.support.waiting import PATIENCE


def sent(proxy: Proxy) -> list[str]:
    """The requests so far, in words, in the order of their arrival; then they are forgotten."""
    words = [_said(request) for request in proxy.requests]
    proxy.requests.clear()
    return words


def _said(request: Request) -> str:
    if "list-type" in request.query:
        return "list"
    name = request.path.rpartition("/")[2]
    condition = next(iter(request.conditions), "")
    return " ".join(filter(None, (request.method, name, condition)))


CREATE = ["PUT _commit_record.json if-none-match", "list"]
FINALIZE = ["PUT _commit_record.json if-match", f"PUT {MARKER} if-none-match"]


async def test_a_staged_commit_is_four_requests_beside_the_data(
    url: str, options: dict[str, Any], proxy: Proxy
) -> None:
    with use(Quick()):
        async with aio.commit(url, storage_options=options) as path:
            created = sent(proxy)
            for name in ("a", "b", "c"):
                Path(path, name).write_bytes(b"x")
    finished = sent(proxy)
    data = [f"PUT {name} if-none-match" for name in ("a", "b", "c")]
    assert sorted(created) == sorted(CREATE), created
    assert sorted(finished[:3]) == data, finished
    assert finished[3:] == FINALIZE, finished


async def test_a_direct_commit_is_five_requests_beside_the_data(
    url: str, options: dict[str, Any], proxy: Proxy, raw: Any, bucket: str
) -> None:
    with use(Quick()):
        async with aio.commit(url, storage_options=options, direct=True):
            created = sent(proxy)
            raw.put_object(Bucket=bucket, Key="run/step_1/data", Body=b"x")  # the data, past the proxy
    finished = sent(proxy)
    assert sorted(created) == sorted(CREATE), created
    assert finished == ["list", *FINALIZE], finished
    assert [file.name for file in (await aio.read_record(url, storage_options=options)).files] == ["data"]


async def test_the_first_commit_below_a_parent_looks_at_every_ancestor_and_the_next_does_not(
    source: Path, url: str, options: dict[str, Any], proxy: Proxy
) -> None:
    borders._free.clear()
    with use(Quick()):
        await aio.put(source, url, storage_options=options)
    first = sent(proxy)
    looks = [f"GET {RECORD}", "GET commit_record.json"]  # of "run", the one ancestor below the bucket
    assert sorted(first[:4]) == sorted([*CREATE, *looks]), first
    assert len(first) == 4 + 2 + len(looks)
    with use(Quick()):
        await aio.put(source, f"{url}0", storage_options=options)
    assert len(sent(proxy)) == 4 + 2


async def test_is_committed_is_one_request(source: Path, url: str, options: dict[str, Any], proxy: Proxy) -> None:
    with use(Quick()):
        await aio.put(source, url, storage_options=options)
    sent(proxy)
    assert await aio.is_committed(url, storage_options=options)
    requests = sent(proxy)
    assert requests == [f"GET {RECORD}"], requests


async def test_latest_is_at_most_three_requests(source: Path, url: str, options: dict[str, Any], proxy: Proxy) -> None:
    root = url.rpartition("/")[0]
    with use(Quick()):
        for step in range(1, 6):
            await aio.put(source, f"{root}/step_{step}", storage_options=options)
    sent(proxy)
    newest = await aio.latest(root, storage_options=options)
    requests = sent(proxy)
    assert newest is not None
    assert newest.step == 5
    assert requests == ["list", f"GET {RECORD}"], requests


async def test_the_claim_and_the_listing_are_under_way_at_once(
    source: Path, url: str, options: dict[str, Any], proxy: Proxy
) -> None:
    both = threading.Barrier(2)
    met: list[str] = []

    def meet(request: Request, send: Any) -> Any:
        both.wait(PATIENCE)  # neither is carried out before the other is there
        met.append(_said(request))
        return send(request)

    proxy.rules.append(Rule(match=creates(RECORD), action=meet))
    proxy.rules.append(Rule(match=lambda request: _said(request) == "list", action=meet))
    with use(Quick()):
        await aio.put(source, url, storage_options=options)
    assert sorted(met) == sorted(CREATE)
