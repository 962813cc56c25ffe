"""The same root on a local disk, in memory and on S3 (moto), with a view of what is stored that bypasses our code."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atomicpath._core.environment import Environment, use
from atomicpath._core.layout import PROBE_PREFIX
from tests.support.probed import probed
from tests.support.roots import SECRET, LocalRoot, MemoryRoot, Root, S3Root
from tests.support.waiting import PATIENCE


@pytest.fixture(scope="session")
def bucket(raw: Any) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    raw.create_bucket(Bucket=name)
    return name


@pytest.fixture
def local(tmp_path: Path) -> LocalRoot:
    (tmp_path / "root").mkdir()
    return LocalRoot(tmp_path / "root")


@pytest.fixture
def memory() -> MemoryRoot:
    return MemoryRoot()


@pytest.fixture
def s3(raw: Any, bucket: str, server: str) -> S3Root:
    """Probed before: the tests of probes come through a proxy, which makes it another place."""
    return probed("moto", S3Root(raw, bucket, server))


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
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    return run
