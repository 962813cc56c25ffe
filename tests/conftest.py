"""What every test shares: both event loops, a server that speaks S3, and a client that looks past our code."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.proxy import Proxy
from tests.roots import LocalRoot, MemoryRoot, Root, S3Root
from tests.servers.sftp import SftpRoot, SftpServer
from tests.servers.sftp import openssh as running_openssh

_SERVER = Path(__file__).parents[1] / "examples" / "s3_server.py"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session", autouse=True)
def _no_ambient_configuration() -> Iterator[None]:
    """Whatever the developer's own account is, no test knows it."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    yield
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(kept)


@pytest.fixture(scope="session")
def server(_no_ambient_configuration: None) -> Iterator[str]:
    """The endpoint of moto's S3, in a process of its own: it changes botocore in the one it runs in."""
    with subprocess.Popen(
        [sys.executable, str(_SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="session")
def raw(server: str) -> Iterator[Any]:
    """boto's own client, directly to the server."""
    client = boto3.client(
        "s3",
        endpoint_url=server,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


@pytest.fixture
def bucket(raw: Any) -> str:
    """An empty bucket of the test's own."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    raw.create_bucket(Bucket=name)
    return name


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    """Between the client and the server, and wrong on request."""
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture
def truth(raw: Any, bucket: str) -> Callable[[], dict[str, bytes]]:
    """Every object of the bucket, as the server has it."""

    def look() -> dict[str, bytes]:
        pages = raw.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: raw.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    return look


@pytest.fixture
def s3_options(server: str) -> dict[str, Any]:
    """Storage options for the server itself."""
    return {"endpoint_url": server, "key": "key", "secret": "secret"}


@pytest.fixture
def s3_root(bucket: str, truth: Callable[[], dict[str, bytes]]) -> tuple[str, Callable[[], dict[str, bytes]]]:
    """A prefix in a bucket of its own, and a look at every object of it."""
    return f"s3://{bucket}/run", truth


# A place of the test's own on every backend: `place` is the one that the test's parameter names.


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Root:
    """`@pytest.mark.parametrize("place", ["local", "moto"], indirect=True)`"""
    found: Root = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def local_place(tmp_path: Path) -> LocalRoot:
    (tmp_path / "place").mkdir()
    return LocalRoot(tmp_path / "place")


@pytest.fixture
def memory_place() -> MemoryRoot:
    return MemoryRoot()


@pytest.fixture
def moto_place(raw: Any, bucket: str, server: str) -> S3Root:
    return S3Root(raw, bucket, server)


@pytest.fixture(scope="session")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """OpenSSH's own server."""
    with running_openssh(tmp_path_factory.mktemp("openssh")) as server:
        yield server


@pytest.fixture
def sftp_place(openssh: SftpServer) -> SftpRoot:
    return SftpRoot(openssh)
