"""A storage on Azurite behind a proxy that goes wrong on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

import atomicpath_azure.accounts
from atomicpath.abc import Environment, Storage
from atomicpath_azure import AzureBackend
from tests.support.proxy import Proxy
from tests.support.servers.azurite import connection_string

Truth = Callable[[], dict[str, bytes]]


@pytest.fixture(autouse=True)
def _quick_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """One repetition of the client's own, after hardly a pause."""
    monkeypatch.setattr(atomicpath_azure.accounts, "_RETRIES", 1)
    monkeypatch.setattr(atomicpath_azure.accounts, "_BACKOFF", 0.01)


@pytest.fixture
def az_proxy(azurite: str) -> Iterator[Proxy]:
    """Between the client and Azurite, and wrong on request."""
    with Proxy(azurite) as proxy:
        yield proxy


@pytest.fixture
def options(az_proxy: Proxy) -> dict[str, Any]:
    """Storage options for the proxy before Azurite."""
    return {"connection_string": connection_string(az_proxy.url)}


@pytest.fixture
async def azure(options: dict[str, Any], az_proxy: Proxy, bucket: str) -> Storage:
    """The storage, which knows already what kind of account it has."""
    storage = AzureBackend().open(options, Environment())
    await storage.declare(f"{bucket}/run")
    az_proxy.requests.clear()
    return storage


@pytest.fixture
def bucket(container: ContainerClient) -> str:
    """The name of an empty container."""
    name: str = container.container_name
    return name


@pytest.fixture
def truth(container: ContainerClient) -> Truth:
    """Every blob of the container, as the server has it."""
    return lambda: {blob.name: container.download_blob(blob.name).readall() for blob in container.list_blobs()}
