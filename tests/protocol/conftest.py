"""What the protocol's tests share: a server that speaks S3 behind a proxy that goes wrong, and an empty memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.protocol.worlds import ALL, Quick, nothing_above, trust
from tests.support.proxy import Proxy


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
    """A final path on S3, the guarantees and ancestors of which are known, so that nothing else is asked."""
    final = f"s3://{bucket}/run/step_1"
    trust(final, options, ALL)
    nothing_above(final, options)
    return final


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
