"""A storage on Cloud Storage's two fakes, each of which goes wrong on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import atomicpath_gcs.storage
import atomicpath_gcs.uploads
from atomicpath_gcs import GcsBackend
from tests.gcs.stores import Store
from tests.protocol.worlds import Quick
from tests.support.proxy import Proxy
from tests.support.servers.fake_hns import FakeGcs


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One event loop, but for tests that ask for `both_loops`: requests run in fsspec's own."""
    name: str = request.param
    return name


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """By parameter "fake-gcs-server" or "folders"; our own fake with a flat bucket without one."""
    which = getattr(request, "param", "flat")
    if which == "fake-gcs-server":
        raw, bucket = request.getfixturevalue("gcs_raw"), request.getfixturevalue("gcs_bucket")
        with Proxy(request.getfixturevalue("gcs_server")) as proxy:
            yield _store(proxy, bucket, lambda: {b.name: b.download_as_bytes() for b in raw.list_blobs(bucket)})
    else:
        fake: FakeGcs = request.getfixturevalue("fake_gcs")
        bucket = fake.make_bucket(hierarchical=which == "folders")
        yield _store(fake, bucket, lambda: fake.truth(bucket))


def _store(proxy: Proxy, bucket: str, truth: Callable[[], dict[str, bytes]]) -> Store:
    options: dict[str, Any] = {"endpoint_url": proxy.url, "token": "anon"}
    environment = Quick()
    return Store(GcsBackend().open(options, environment), bucket, proxy, truth, options, environment)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    size = 2**18  # the least that a part but the last may have
    monkeypatch.setattr(atomicpath_gcs.uploads, "PART", size)
    monkeypatch.setattr(atomicpath_gcs.storage, "PART", size)
    monkeypatch.setattr(atomicpath_gcs.storage.GcsStorage, "largest_single", size)
    return size
