"""Places that refuse: what is said, and that it is said before any data is sent."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._strategies import retention_policy
from atomicpath.abc import Declaration, Storage
from atomicpath.errors import AccessError
from atomicpath_s3 import S3Backend, multipart, storage
from atomicpath_s3.storage import S3Storage
from tests.protocol.worlds import ALL, MARKER, RECORD, Quick, nothing_above, trust
from tests.support.proxy import Proxy, Request, Rule, is_, refuse
from tests.support.roots import SECRET, S3Root
from tests.support.servers.s3 import KEY

REFUSED = refuse(403, "AccessDenied")


@pytest.fixture
def anyio_backend() -> str:
    """The store is asked, not the event loop."""
    return "asyncio"


@pytest.fixture
def root(raw: Any, bucket: str, proxy: Proxy) -> S3Root:
    """A place on moto, behind a proxy, with a client that asks once."""
    place = S3Root(raw, bucket, proxy.url)
    retries = {"retries": {"total_max_attempts": 1, "mode": "legacy"}}
    place.storage_options = {"endpoint_url": proxy.url, "key": KEY, "secret": SECRET, "config_kwargs": retries}
    nothing_above(place / "any", place.storage_options)
    return place


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "data").write_bytes(b"the data")
    return tmp_path / "source"


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a vendor's own endpoint: everything is declared, nothing is tried."""

    async def declare(self: Storage, path: str) -> Declaration:
        return Declaration(declared=ALL)

    monkeypatch.setattr(S3Storage, "declare", declare)
    monkeypatch.setattr(retention_policy, "_seen", set[str]())


def _overwrites(request: Request) -> bool:
    return request.method == "PUT" and "if-match" in request.headers


def _sent(proxy: Proxy, name: str) -> int:
    return proxy.count(is_("PUT", f"/{name}"))


async def test_a_place_that_keeps_what_was_created_is_found_before_data_is_sent(
    root: S3Root, proxy: Proxy, source: Path, documented: None
) -> None:
    proxy.rules += [
        Rule(match=_overwrites, action=REFUSED, times=None),
        Rule(match=is_("DELETE"), action=REFUSED, times=None),
    ]
    with use(Quick()), pytest.raises(AccessError, match="may not be overwritten .* retention policy") as caught:
        await aio.put(source, root / "step_1", storage_options=root.storage_options)
    assert _sent(proxy, "data") == 0
    assert set(root.read_all()) == {f"step_1/{RECORD}"}, "the name is lost, and nothing else"
    assert f"{root / 'step_1'}/{RECORD} is left" in str(caught.value)


async def test_one_record_of_a_process_is_moved_to_find_that_out(
    root: S3Root, proxy: Proxy, source: Path, documented: None
) -> None:
    with use(Quick()):
        await aio.put(source, root / "step_1", storage_options=root.storage_options)
        first = proxy.count(_overwrites)
        await aio.put(source, root / "step_2", storage_options=root.storage_options)
    assert (first, proxy.count(_overwrites)) == (2, 3)


async def test_where_a_probe_has_overwritten_nothing_more_is_tried(root: S3Root, proxy: Proxy, source: Path) -> None:
    trust(root / "any", root.storage_options, ALL)
    with use(Quick()):
        await aio.put(source, root / "step_1", storage_options=root.storage_options)
    assert proxy.count(_overwrites) == 1


async def test_a_writer_that_may_not_delete_removes_nothing_where_conditional_deletes_are_documented(
    root: S3Root, proxy: Proxy, source: Path, documented: None
) -> None:
    with use(Quick()):
        for name in ("step_1", "step_2"):
            await aio.put(source, root / name, storage_options=root.storage_options)
        before = root.read_all()
        proxy.rules.append(Rule(match=is_("DELETE"), action=REFUSED, times=None))
        proxy.requests.clear()
        with pytest.raises(AccessError, match="step_1 was not removed, and nothing was changed"):
            await aio.remove(root / "step_1", storage_options=root.storage_options)
        with pytest.raises(AccessError, match="step_1 was not removed, and nothing was changed"):
            await aio.keep_last(root.url, 1, storage_options=root.storage_options)
        assert root.read_all() == before
        assert proxy.count(is_("DELETE")) == 2, "one for each"
        assert proxy.count(is_("PUT")) == 0
        assert await aio.is_committed(root / "step_1", storage_options=root.storage_options)


@pytest.mark.parametrize("is_observed", [False, True], ids=["declared", "observed"])
async def test_the_right_to_delete_is_asked_for_by_one_request_unless_a_probe_has_used_it(
    is_observed: bool, root: S3Root, proxy: Proxy, source: Path, request: pytest.FixtureRequest
) -> None:
    if is_observed:
        trust(root / "any", root.storage_options, ALL)
    else:
        request.getfixturevalue("documented")
    with use(Quick()):
        await aio.put(source, root / "step_1", storage_options=root.storage_options)
        proxy.requests.clear()
        await aio.remove(root / "step_1", storage_options=root.storage_options)
    deletes = [one for one in proxy.requests if one.method == "DELETE"]
    assert len(deletes) == len(("data", RECORD, MARKER)) + (not is_observed)
    assert all(one.conditions for one in deletes)
    assert root.read_all() == {}


async def test_a_writer_that_may_list_below_its_prefix_only_commits_and_reads(
    root: S3Root, proxy: Proxy, source: Path
) -> None:
    trust(root / "any", root.storage_options, ALL)
    inside = f"{root.top}/"

    def lists_elsewhere(request: Request) -> bool:
        return "list-type" in request.query and not request.query.get("prefix", "").startswith(inside)

    proxy.rules.append(Rule(match=lists_elsewhere, action=REFUSED, times=None))
    with use(Quick()):
        await aio.put(source, root / "step_1", storage_options=root.storage_options)
        newest = await aio.latest(root.url, storage_options=root.storage_options)
    assert newest is not None
    assert set(root.read_all("step_1")) == {"data", RECORD, MARKER}


async def test_one_archived_directory_does_not_hide_the_others(root: S3Root, proxy: Proxy, source: Path) -> None:
    trust(root / "any", root.storage_options, ALL)
    with use(Quick()):
        for name in ("step_1", "step_2"):
            await aio.put(source, root / name, storage_options=root.storage_options)
        archived = refuse(403, "InvalidObjectState")
        proxy.rules.append(Rule(match=is_("GET", f"step_2/{RECORD}"), action=archived, times=None))
        newest = await aio.latest(root.url, storage_options=root.storage_options)
        found = await aio.committed(root.url, storage_options=root.storage_options)
    assert newest is not None
    assert newest.name == "step_1"
    assert [one.name for one in found] == ["step_1"]


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({"requester_pays": True}, {"x-amz-request-payer": "requester"}),
        (
            {"s3_additional_kwargs": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key-1"}},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
            },
        ),
        (
            {"s3_additional_kwargs": {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}},
            {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
        ),
        ({"s3_additional_kwargs": {"ChecksumAlgorithm": "SHA256"}}, {"x-amz-sdk-checksum-algorithm": "SHA256"}),
    ],
    ids=["requester-pays", "kms", "sse-c", "checksum"],
)
async def test_what_a_bucket_demands_of_each_request_is_sent_with_the_record_and_the_data(
    options: dict[str, Any], headers: dict[str, str], root: S3Root, proxy: Proxy, source: Path
) -> None:
    asked = {**root.storage_options, **options}
    trust(root / "any", asked, ALL)
    with use(Quick()):
        await aio.put(source, root / "step_1", storage_options=asked)
        assert await aio.is_committed(root / "step_1", storage_options=asked)
    for name in ("data", RECORD):
        sent = next(one for one in proxy.requests if one.method == "PUT" and one.path.endswith(name))
        assert headers.items() <= sent.headers.items(), name


async def test_the_checksum_of_each_part_is_named_in_the_completion(
    root: S3Root, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 5 * 2**20  # the least that a part but the last may have
    for module in (multipart, storage):
        monkeypatch.setattr(module, "PART", size)
    options = {**root.storage_options, "s3_additional_kwargs": {"ChecksumAlgorithm": "SHA256"}}
    data = b"x" * size + b"y"
    (tmp_path / "model").write_bytes(data)
    opened = S3Backend().open(options, Quick())
    await opened.upload(tmp_path / "model", f"{root.bucket}/{root.top}/model", owner="t", multipart=True)
    completion = next(one for one in proxy.requests if one.method == "POST" and "uploadId" in one.query)
    for part in (data[:size], data[size:]):
        assert base64.b64encode(hashlib.sha256(part).digest()) in completion.body
    assert root.read_all() == {"model": data}
