"""The same root on a local disk, in memory and on S3 (moto), with a view of what is stored that bypasses our code."""

from __future__ import annotations

import abc
import logging
import os
import shutil
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

from atomicpath.environment import Environment, use
from atomicpath.layout import PROBE_PREFIX

SECRET = "s3cr3t-d0-n0t-sh0w"


class Root(abc.ABC):
    """A place to publish in. `raw`, `write` and `delete` go past the code under test; names are relative."""

    kind: str
    url: str
    options: dict[str, object]

    def __truediv__(self, name: str) -> str:
        return f"{self.url}/{name}"

    @abc.abstractmethod
    def raw(self, below: str = "") -> dict[str, bytes]:
        """Every file below a name: relative name → content."""

    @abc.abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Store a file, whatever is there."""

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file."""

    def copy(self, source: str, target: str) -> None:
        """What `cp -r` does."""
        for name, data in self.raw(source).items():
            self.write(f"{target}/{name}", data)

    def names(self) -> list[str]:
        """The first components of all that is stored, and of empty directories where there are any."""
        return sorted({name.partition("/")[0] for name in self.raw()})


class LocalRoot(Root):
    kind = "local"

    def __init__(self, path: Path) -> None:
        self.path, self.url, self.options = path, str(path), {}

    def raw(self, below: str = "") -> dict[str, bytes]:
        top = self.path / below
        return {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)

    def delete(self, name: str) -> None:
        (self.path / name).unlink()

    def copy(self, source: str, target: str) -> None:
        shutil.copytree(self.path / source, self.path / target)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))


class MemoryRoot(Root):
    kind = "memory"

    def __init__(self) -> None:
        self.top = f"/{uuid.uuid4().hex}"
        self.url, self.options = f"memory:/{self.top}", {}
        self.fs = fsspec.filesystem("memory")

    def raw(self, below: str = "") -> dict[str, bytes]:
        prefix = f"{self.top}/{below}".rstrip("/") + "/"
        return {k[len(prefix) :]: f.getvalue() for k, f in sorted(self.fs.store.items()) if k.startswith(prefix)}

    def write(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(f"{self.top}/{name}", data)

    def delete(self, name: str) -> None:
        self.fs.rm_file(f"{self.top}/{name}")


class S3Root(Root):
    kind = "s3"

    def __init__(self, client: Any, bucket: str, endpoint: str) -> None:
        self.client, self.bucket, self.top = client, bucket, uuid.uuid4().hex
        self.url = f"s3://{bucket}/{self.top}"
        self.options = {"endpoint_url": endpoint, "key": "key", "secret": SECRET}

    def raw(self, below: str = "") -> dict[str, bytes]:
        prefix = f"{self.top}/{below}".rstrip("/") + "/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key[len(prefix) :]: self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.top}/{name}", Body=data)

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{self.top}/{name}")


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[Any]:
    client = boto3.client(
        "s3",
        endpoint_url=server,
        aws_access_key_id="key",
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


@pytest.fixture(scope="session")
def bucket(client: Any) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def local(tmp_path: Path) -> LocalRoot:
    (tmp_path / "root").mkdir()
    return LocalRoot(tmp_path / "root")


@pytest.fixture
def memory() -> MemoryRoot:
    return MemoryRoot()


@pytest.fixture
def s3(client: Any, bucket: str, server: str) -> S3Root:
    return S3Root(client, bucket, server)


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest) -> Root:
    found: Root = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> Root:
    """A root without directories, where a block is staged."""
    found: Root = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    (tmp_path / "staging").mkdir()
    return tmp_path / "staging"


@pytest.fixture(autouse=True)
def _no_secret_anywhere(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After every test: nothing that was logged holds the credentials, and no probe was left behind."""
    caplog.set_level(logging.DEBUG, "atomicpath")
    yield
    for phase in ("setup", "call"):
        for entry in caplog.get_records(phase):
            assert SECRET not in entry.getMessage(), entry
            assert SECRET not in repr(entry.args), entry
    for name in ("local", "memory", "s3"):
        if name in request.fixturenames and name in request.node.funcargs:
            left = [found for found in request.node.funcargs[name].names() if PROBE_PREFIX in found]
            assert not left


class Counting(Environment):
    """Counts everything asked of the world."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def call(self, function, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.asked.append(getattr(function, "__name__", "call"))
        return super().call(function, *args, **kwargs)

    async def request(self, function, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.asked.append(getattr(function, "__name__", "request"))
        return await super().request(function, *args, **kwargs)

    async def step(self, function, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.asked.append(getattr(function, "__name__", "step"))
        return await super().step(function, *args, **kwargs)


@pytest.fixture
def world() -> Iterator[Counting]:
    with use(Counting()) as environment:
        assert isinstance(environment, Counting)
        yield environment


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a process of its own, with the same import path; its output and end."""

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", script, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    return run
