"""Ceph's gateway as Debian has it: commits, races, take-over and retention, with and without "100 Continue"."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from atomicpath import AlreadyCommittedError, ConflictError, GuaranteeError, aio
from tests.relay.behaviours import BEHAVIOURS
from tests.relay.operations import OPERATIONS, Operation
from tests.relay.places import speaking_s3
from tests.relay.runner import run
from tests.relay.scene import CONTENT
from tests.support.roots import S3Root
from tests.support.servers.ceph import Ceph, ceph
from tests.support.servers.s3 import client

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the server is asked, not the event loop


@pytest.fixture(scope="module")
def gateways(_no_ambient_configuration: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    with ceph(tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture(params=["says 100 Continue", "never says it"])
def place(request: pytest.FixtureRequest, gateways: Ceph) -> Iterator[S3Root]:
    endpoint = gateways.url if request.param == "says 100 Continue" else gateways.silent_url
    with client(endpoint) as direct:
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        direct.create_bucket(Bucket=bucket)
        yield S3Root(direct, bucket, endpoint)


@pytest.fixture
def versioned(gateways: Ceph) -> Iterator[S3Root]:
    with client(gateways.url) as direct:
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        direct.create_bucket(Bucket=bucket)
        direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield S3Root(direct, bucket, gateways.url)


def _tree(directory: Path) -> Path:
    for name, data in CONTENT.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


async def test_a_commit_a_race_and_what_readers_see(place: S3Root, tmp_path: Path) -> None:
    source, options = _tree(tmp_path / "source"), place.storage_options
    outcomes: list[str] = []

    async def one() -> None:
        try:
            await aio.put(source, place / "step_1", storage_options=options)
            outcomes.append("won")
        except (AlreadyCommittedError, ConflictError):
            outcomes.append("lost")

    await aio.put(source, place / "step_0", storage_options=options)
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(one)
    assert sorted(outcomes) == ["lost", "lost", "lost", "won"]
    newest = await aio.latest(place.url, storage_options=options)
    assert newest is not None
    assert newest.name == "step_1"
    assert (await aio.verify(place / "step_1", storage_options=options)).ok
    copy = await aio.get(place / "step_1", tmp_path / "copy", storage_options=options)
    assert {name: (copy / name).read_bytes() for name in CONTENT} == CONTENT


async def test_a_large_file_is_committed(place: S3Root, tmp_path: Path) -> None:
    """As one request with a body that is a file, for which botocore asks for "100 Continue"."""
    source = tmp_path / "source"
    source.mkdir()
    data = bytes(range(256)) * (2**16 + 1)  # more than a part
    (source / "model").write_bytes(data)
    await aio.put(source, place / "step_1", storage_options=place.storage_options)
    assert place.read_all("step_1")["model"] == data


def _marks(operation: Operation) -> Any:
    by_another_test = ("commit", "latest", "get", "verify")
    return pytest.mark.full if operation.name in by_another_test else ()


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(
            operation,
            marks=_marks(operation),
            id=operation.name,
        )
        for operation in OPERATIONS
    ],
)
async def test_every_operation_is_done(operation: Operation, gateways: Ceph) -> None:
    with speaking_s3("Ceph", gateways.url) as server:
        cell = await run(server, BEHAVIOURS[0], operation)
    assert cell.wrong == ()
    assert cell.outcome == "done", cell.said


async def test_a_versioned_bucket_is_refused_before_any_data_is_sent(versioned: S3Root, tmp_path: Path) -> None:
    """There conditions on writes are checked against nothing: all of many writers win."""
    source = _tree(tmp_path / "source")
    with pytest.raises(GuaranteeError, match="EXCLUSIVE_CREATE"):
        await aio.put(source, versioned / "step_1", storage_options=versioned.storage_options)
    assert versioned.read_all() == {}
