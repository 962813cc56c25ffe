"""A storage on S3 behind a proxy that goes wrong on request."""

from __future__ import annotations

import pytest

from atomicpath.abc import Environment, Storage
from atomicpath_s3 import S3Backend
from tests.support.proxy import Proxy
from tests.support.roots import SECRET
from tests.support.servers.s3 import KEY


@pytest.fixture
def options(proxy: Proxy) -> dict[str, object]:
    """Storage options for the proxy before the server."""
    retries = {"total_max_attempts": 2}  # one of the client's own, without the pauses before a fifth
    return {"endpoint_url": proxy.url, "key": KEY, "secret": SECRET, "config_kwargs": {"retries": retries}}


@pytest.fixture
def s3(options: dict[str, object]) -> Storage:
    return S3Backend().open(options, Environment())
