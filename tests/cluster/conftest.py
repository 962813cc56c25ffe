"""Two hosts of a cluster, with a real GlusterFS volume at one path."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.host import Host
from tests.support.servers.gluster import gluster_mounts


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every host has the volume."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def start_host(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Host]]:
    """Start a process on one of the two hosts."""
    with gluster_mounts(tmp_path_factory.mktemp("gluster")) as mounts, ExitStack() as stack:
        yield lambda number: stack.enter_context(Host(mounts[number], shared))


@pytest.fixture(scope="module")
def first(start_host: Callable[[int], Host]) -> Host:
    return start_host(0)


@pytest.fixture(scope="module")
def second(start_host: Callable[[int], Host]) -> Host:
    return start_host(1)


@pytest.fixture
def root(shared: Path) -> str:
    """A directory of the test's own on the volume, not yet made."""
    return f"{shared}/{uuid.uuid4().hex[:12]}"
