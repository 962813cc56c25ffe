"""Azurite, Microsoft's own emulator of Blob Storage, on loopback; it has no hierarchical namespaces."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient, ContainerClient

from tests.support.roots import Root
from tests.support.servers.base import answers, find_of_npm, free_port, running

__all__ = ["ACCOUNT", "HOW", "KEY", "AzureRoot", "azurite", "connection_string"]

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, which everybody knows."""

HOW = "npm install --prefix .venv/node azurite (make does it where there is npm)"


def connection_string(endpoint: str) -> str:
    """For the account of an emulator at `endpoint`."""
    return f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint}/{ACCOUNT}"


@contextmanager
def azurite(log: Path) -> Iterator[str]:
    """Its endpoint."""
    port = free_port()
    command = [
        find_of_npm("azurite-blob", "Azurite", HOW),
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--inMemoryPersistence",
    ]
    command += ["--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    with running(command, lambda: answers(port), log):
        yield f"http://127.0.0.1:{port}"


class AzureRoot(Root):
    """A prefix in a container, looked at with Microsoft's own blocking client."""

    kind = "azure"

    def __init__(self, endpoint: str, container: ContainerClient, **options: Any) -> None:
        self.container, self.top = container, uuid.uuid4().hex
        self.url = f"abfs://{container.container_name}/{self.top}"
        self.storage_options = {"connection_string": connection_string(endpoint), **options}

    def read_all(self, below: str = "") -> dict[str, bytes]:
        prefix = f"{self.top}/{below}".rstrip("/") + "/"
        found = self.container.list_blobs(name_starts_with=prefix, include=["metadata"])
        names = [blob.name for blob in found if "hdi_isfolder" not in (blob.metadata or {})]
        return {name[len(prefix) :]: self.container.download_blob(name).readall() for name in names}

    def write(self, name: str, data: bytes) -> None:
        self.container.upload_blob(f"{self.top}/{name}", data, overwrite=True)

    def delete(self, name: str) -> None:
        self.container.delete_blob(f"{self.top}/{name}")


@contextmanager
def raw(endpoint: str) -> Iterator[BlobServiceClient]:
    """The vendor's own client, which never repeats a request."""
    with BlobServiceClient.from_connection_string(connection_string(endpoint), retry_total=0) as client:
        yield client


def new_container(client: BlobServiceClient) -> ContainerClient:
    """An empty one of the test's own."""
    return client.create_container(f"c-{uuid.uuid4().hex[:12]}")
