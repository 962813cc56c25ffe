"""The servers behind the relay, each with a root of its own for every run, seen past the relay."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from botocore import retryhandler

import atomicpath_azure.accounts
from atomicpath_gcs.asking import Asking
from tests.support.proxy import Proxy
from tests.support.roots import SECRET, Root, S3Root
from tests.support.servers import azurite as azurite_server
from tests.support.servers import gcs as gcs_server
from tests.support.servers import s3 as s3_server
from tests.support.servers.azurite import ACCOUNT, KEY, AzureRoot, azurite
from tests.support.servers.gcs import GcsRoot, fake_gcs_server
from tests.support.servers.seaweedfs import seaweedfs

from .dialects import AZURE, GCS, S3, Dialect

__all__ = ["SERVERS", "Server"]


@dataclass(frozen=True)
class Server:
    """A running server, with a relay before it.

    `options` gives the storage options for an endpoint; the client repeats requests, or not. What no option can have
    it do, `repeating` does for a block. One relay serves all runs, since making a client for another endpoint takes
    longer than a commit.
    """

    name: str
    dialect: Dialect
    endpoint: str
    relay: Proxy
    make: Callable[[], Root]
    options: Callable[[str, bool], dict[str, Any]]
    repeating: Callable[[bool], AbstractContextManager[object]] = lambda _: nullcontext()


def s3_options(endpoint: str, repeats: bool) -> dict[str, Any]:
    """As `Server.options`, for what speaks S3."""
    retries = {"total_max_attempts": 3 if repeats else 1, "mode": "legacy"}
    config = {"retries": retries}
    return {"endpoint_url": endpoint, "key": s3_server.KEY, "secret": SECRET, "config_kwargs": config}


@contextmanager
def speaking_s3(name: str, endpoint: str) -> Iterator[Server]:
    """A server that speaks S3 and is running already."""
    # the client's own pauses before it repeats a request, hardly any
    with (
        s3_server.client(endpoint) as client,
        Proxy(endpoint) as relay,
        patch.object(retryhandler, "delay_exponential", lambda **_: 0.01),
    ):
        bucket = f"relay-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=bucket)
        yield Server(name, S3, endpoint, relay, lambda: S3Root(client, bucket, endpoint), s3_options)


@contextmanager
def moto(_: Path) -> Iterator[Server]:
    with s3_server.moto() as endpoint, speaking_s3("moto", endpoint) as server:
        yield server


@contextmanager
def _seaweedfs(directory: Path) -> Iterator[Server]:
    with seaweedfs(directory) as endpoint, speaking_s3("SeaweedFS", endpoint) as server:
        yield server


@contextmanager
def _fake_gcs(directory: Path) -> Iterator[Server]:
    with (
        fake_gcs_server(directory / "log") as endpoint,
        gcs_server.client_of(endpoint) as client,
        Proxy(endpoint) as relay,
    ):
        bucket = f"relay-{uuid.uuid4().hex[:12]}"
        client.create_bucket(bucket)

        def options(where: str, repeats: bool) -> dict[str, Any]:
            return {"endpoint_url": where, "token": "anon"}

        def make() -> Root:
            return GcsRoot(client, bucket, endpoint)

        yield Server("fake-gcs-server", GCS, endpoint, relay, make, options, _gcs_repeating)


def _gcs_repeating(repeats: bool) -> AbstractContextManager[object]:
    asked = Asking._ask

    async def once(self: Any, path: str, request: Any, *others: Any) -> Any:
        return await asked(self, path, replace(request, tries=1), *others)

    return nullcontext() if repeats else patch.object(Asking, "_ask", once)


@contextmanager
def _azurite(directory: Path) -> Iterator[Server]:
    with (
        azurite(directory / "log") as endpoint,
        azurite_server.raw(endpoint) as client,
        Proxy(endpoint) as relay,
    ):
        container = azurite_server.new_container(client)
        # a signature that does not cover the headers, which the relay changes
        signature = generate_account_sas(
            ACCOUNT,
            KEY,
            resource_types=ResourceTypes(service=True, container=True, object=True),
            permission=AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True),
            expiry=datetime.now(UTC) + timedelta(days=1),
        )

        def options(where: str, repeats: bool) -> dict[str, Any]:
            other = "" if repeats else ";DefaultEndpointsProtocol=http"  # a client of its own, which repeats nothing
            return {"connection_string": f"BlobEndpoint={where}/{ACCOUNT};SharedAccessSignature={signature}{other}"}

        def make() -> Root:
            return AzureRoot(endpoint, container)

        def repeating(repeats: bool) -> AbstractContextManager[object]:
            return patch.object(atomicpath_azure.accounts, "_RETRIES", 2 if repeats else 0)

        with patch.object(atomicpath_azure.accounts, "_BACKOFF", 0.01):
            yield Server("Azurite", AZURE, endpoint, relay, make, options, repeating)


SERVERS: Mapping[str, Callable[[Path], Any]] = {
    "moto": moto,
    "SeaweedFS": _seaweedfs,
    "fake-gcs-server": _fake_gcs,
    "Azurite": _azurite,
}


@contextmanager
def started(names: list[str], directory: Path) -> Iterator[list[Server]]:
    """The servers of these names."""
    with ExitStack() as stack:
        found = []
        for name in names:
            below = directory / name
            below.mkdir()
            found.append(stack.enter_context(SERVERS[name](below)))
        yield found
