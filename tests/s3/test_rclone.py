"""rclone's S3 server ignores every condition: nothing is published there, and the refusal says why."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from upath import UPath

import atomicpath
from atomicpath import CommitFileTemporaryPath, Guarantee, GuaranteeError, aio
from atomicpath._core.layout import PROBE_PREFIX
from tests.support.proxy import Proxy, Request, is_
from tests.support.servers.rclone import RcloneRoot

CONDITIONS = (
    Guarantee.EXCLUSIVE_CREATE
    | Guarantee.EXCLUSIVE_MULTIPART
    | Guarantee.COMPARE_AND_SWAP
    | Guarantee.CONDITIONAL_DELETE
)


@pytest.fixture
def watched(rclone: str) -> Iterator[Proxy]:
    with Proxy(rclone) as proxy:
        yield proxy


@pytest.fixture
def place(rclone_client: Any, watched: Proxy, rclone_directory: Path) -> RcloneRoot:
    return RcloneRoot(rclone_client, "places", watched.url, rclone_directory)


def writes(request: Request) -> bool:
    return request.method in ("PUT", "POST", "DELETE")


def of_a_probe(request: Request) -> bool:
    return any(part.startswith(PROBE_PREFIX) for part in request.path.split("/"))


def commit(url: str, source: Path, **options: Any) -> None:
    with atomicpath.commit(url, **options) as path:
        (path / "file").write_bytes(b"x")


def put(url: str, source: Path, **options: Any) -> None:
    atomicpath.put(source, url, **options)


def commit_async(url: str, source: Path, **options: Any) -> None:
    async def main() -> None:
        async with aio.commit(url, **options) as path:
            (path / "file").write_bytes(b"x")

    anyio.run(main, backend="trio")


def create(url: str, source: Path, *, storage_options: Any) -> None:
    anyio.run(CommitFileTemporaryPath.from_final(UPath(url, **storage_options)).create)


WAYS: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "commit": (commit, {}),
    "direct": (commit, {"direct": True}),
    "asynchronous": (commit_async, {}),
    "put": (put, {}),
    "the-strategy-named": (commit, {"temporary_path_class": CommitFileTemporaryPath}),
    "the-strategy-itself": (create, {}),
    "asserted": (put, {"guarantees": CONDITIONS}),
    "takeover": (put, {"unsafe_takeover": True}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_is_refused_and_leaves_the_bucket_as_it_was(
    way: str, place: RcloneRoot, watched: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    place.write("step_0/of-somebody", b"else")
    function, options = WAYS[way]
    with pytest.raises(GuaranteeError) as caught:
        function(place / "step_1", tmp_path, storage_options=place.storage_options, **options)
    said = str(caught.value)
    assert "EXCLUSIVE_CREATE, which was refuted" in said
    assert "concurrent creations of one name succeeded" in said
    assert "What was refuted cannot be asserted: use another location" in said
    assert "guarantees=" not in said  # advice that would not help
    assert [request for request in watched.requests if writes(request) and not of_a_probe(request)] == []
    assert watched.count(lambda request: writes(request) and of_a_probe(request)) > 10
    assert place.read_all() == {"step_0/of-somebody": b"else"}
    ended = [request.query["uploadId"] for request in watched.requests if is_("POST", uploadId="")(request)]
    assert watched.count(is_("POST", uploads="")) == len(set(ended))  # no parts are left


def test_explain_says_in_plain_words_what_is_wrong(place: RcloneRoot) -> None:
    found = atomicpath.explain(place / "step_1", storage_options=place.storage_options)
    assert found.strategy is None
    # Of completions one may come alone, and a listing has no ETag while rclone still computes it.
    undecided = Guarantee.EXCLUSIVE_MULTIPART | Guarantee.CONDITIONAL_DELETE
    assert CONDITIONS & ~undecided in found.profile.refuted
    assert found.profile.effective == Guarantee.ATOMIC_WRITE | Guarantee.LIST_AFTER_WRITE
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in str(found).splitlines() if line.startswith("  ")}
    assert lines["COMPARE_AND_SWAP"] == "refuted a probe found: 6 of 6 concurrent swaps from one version succeeded"
    why = "the reply to list_objects_v2 has no ETag|a delete that named an old version was not refused"
    assert re.search(why, found.profile.evidence[Guarantee.CONDITIONAL_DELETE])
    assert str(found).splitlines()[-1].startswith("What was refuted cannot be asserted: use another location")
    assert place.read_all() == {}


def test_what_is_asserted_is_overruled_by_the_probe_that_refutes_it(place: RcloneRoot) -> None:
    options = {"storage_options": place.storage_options, "guarantees": CONDITIONS}
    with pytest.raises(GuaranteeError), atomicpath.commit(place / "step_1", **options):
        pytest.fail("the block was entered")
    again = atomicpath.profile(place / "step_2", storage_options=place.storage_options)
    assert CONDITIONS & ~Guarantee.CONDITIONAL_DELETE in again.refuted
    assert not again.asserted
