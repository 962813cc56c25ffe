"""What the protocol's tests share: a server that speaks S3 behind a proxy that goes wrong, and an empty memory."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from botocore.config import Config

from tests.protocol.worlds import ALL, Quick, trust
from tests.proxy import Proxy

_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def _no_ambient_configuration() -> Iterator[None]:
    """Whatever the developer's own account is, no test knows it."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in kept:
        del os.environ[name]
    os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    yield
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(kept)


@pytest.fixture(scope="session")
def server(_no_ambient_configuration: None) -> Iterator[str]:
    # a process of its own: moto changes botocore in the one it runs in
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
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
    name = f"b-{uuid.uuid4().hex[:12]}"
    raw.create_bucket(Bucket=name)
    return name


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture
def retrying(proxy: Proxy) -> dict[str, object]:
    """Storage options for the proxy; the client repeats by itself, as it does for everybody."""
    return {"endpoint_url": proxy.url, "key": "key", "secret": "secret"}


@pytest.fixture
def options(retrying: dict[str, object]) -> dict[str, object]:
    """The same for a client that never repeats: what the proxy answers is what the protocol hears."""
    return {**retrying, "config_kwargs": {"retries": {"total_max_attempts": 1, "mode": "legacy"}}}


@pytest.fixture
def url(bucket: str, options: dict[str, object]) -> str:
    """A final path on S3, the guarantees of which are known, so that no probe is sent."""
    final = f"s3://{bucket}/run/step_1"
    trust(final, options, ALL)
    return final


@pytest.fixture
def truth(raw: Any, bucket: str) -> Callable[[], dict[str, bytes]]:
    """Every object of the bucket, as the server has it."""

    def look() -> dict[str, bytes]:
        pages = raw.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: raw.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    return look


@pytest.fixture
def memory() -> Iterator[dict[str, Any]]:
    """fsspec's in-process store, emptied: path → file, past our code."""
    store: dict[str, Any] = fsspec.filesystem("memory").store
    store.clear()
    yield store
    store.clear()


@pytest.fixture
def quick() -> Quick:
    return Quick()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory to commit: one file, and one below a directory."""
    directory = tmp_path / "source"
    (directory / "sub").mkdir(parents=True)
    (directory / "data").write_bytes(b"the data")
    (directory / "sub" / "more").write_bytes(b"more of it")
    return directory
