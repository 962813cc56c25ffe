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
from azure.storage.blob import BlobServiceClient, ContainerClient
from botocore.config import Config

from tests.proxy import Proxy
from tests.roots import LocalRoot, MemoryRoot, Root, S3Root
from tests.servers import azurite as azurite_server
from tests.servers.fake_adls import AdlsRoot, FakeAdls

_AMBIENT = ("AWS_", "AZURE_")
_SERVER = Path(__file__).parents[1] / "examples" / "s3_server.py"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session", autouse=True)
def _no_ambient_configuration() -> Iterator[None]:
    """Whatever the developer's own account is, no test knows it."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_AMBIENT)}
    os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    yield
    for name in [name for name in os.environ if name.startswith(_AMBIENT)]:
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


@pytest.fixture(scope="session")
def azurite(_no_ambient_configuration: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of Microsoft's emulator of Blob Storage."""
    with azurite_server.azurite(tmp_path_factory.mktemp("azurite") / "log") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def azure_client(azurite: str) -> Iterator[BlobServiceClient]:
    """Microsoft's own client, directly to the emulator."""
    with azurite_server.raw(azurite) as client:
        yield client


@pytest.fixture
def container(azure_client: BlobServiceClient) -> ContainerClient:
    """An empty container of the test's own."""
    return azurite_server.new_container(azure_client)


@pytest.fixture
def fake_adls(_no_ambient_configuration: None) -> Iterator[FakeAdls]:
    """A fake of an Azure account with a hierarchical namespace."""
    with FakeAdls() as fake:
        yield fake


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


@pytest.fixture
def azure_place(azurite: str, container: ContainerClient) -> azurite_server.AzureRoot:
    return azurite_server.AzureRoot(azurite, container)


@pytest.fixture
def adls_place(fake_adls: FakeAdls) -> Iterator[AdlsRoot]:
    with azurite_server.raw(fake_adls.url) as client:
        yield AdlsRoot(fake_adls.url, azurite_server.new_container(client))
