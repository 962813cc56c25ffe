"""The same root on each backend that is always there, with a view of what is stored that bypasses our code."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import fsspec

from atomicpath.testing import Place

SECRET = "s3cr3t-d0-n0t-sh0w"


class Root(Place):
    """A place whose copy and first names can be asked for too."""

    kind: str

    def copy(self, source: str, target: str) -> None:
        """What `cp -r` does."""
        for name, data in self.read_all(source).items():
            self.write(f"{target}/{name}", data)

    def names(self) -> list[str]:
        """The first components of all that is stored, and of empty directories where there are any."""
        return sorted({name.partition("/")[0] for name in self.read_all()})

    def begun(self) -> list[str]:
        """The records of attempts, relative to the place: beside their directories, else in place."""
        return sorted(name for name in self.read_all() if name.endswith("/_commit_record.json"))


class LocalRoot(Root):
    kind = "local"

    def __init__(self, path: Path) -> None:
        self.path, self.url, self.storage_options = path, str(path), {}

    def read_all(self, below: str = "") -> dict[str, bytes]:
        top = self.path / below
        return {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)

    def delete(self, name: str) -> None:
        (self.path / name).unlink()

    def copy(self, source: str, target: str) -> None:
        shutil.copytree(self.path / source, self.path / target)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def begun(self) -> list[str]:
        found = self.read_all()
        beside = sorted(name for name in found if name.startswith(".atomicpath/") and name.endswith(".json"))
        return [name for name in beside if found[name]] or super().begun()


class MemoryRoot(Root):
    kind = "memory"

    def __init__(self) -> None:
        self.top = f"/{uuid.uuid4().hex}"
        self.url, self.storage_options = f"memory:/{self.top}", {}
        self.fs = fsspec.filesystem("memory")

    def read_all(self, below: str = "") -> dict[str, bytes]:
        prefix = f"{self.top}/{below}".rstrip("/") + "/"
        return {k[len(prefix) :]: f.getvalue() for k, f in sorted(self.fs.store.items()) if k.startswith(prefix)}

    def write(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(f"{self.top}/{name}", data)

    def delete(self, name: str) -> None:
        self.fs.rm_file(f"{self.top}/{name}")


class S3Root(Root):
    kind = "s3"

    def __init__(self, client: Any, bucket: str, endpoint: str) -> None:
        self.client, self.bucket, self.top = client, bucket, uuid.uuid4().hex
        self.url = f"s3://{bucket}/{self.top}"
        self.storage_options = {"endpoint_url": endpoint, "key": "key", "secret": SECRET}

    def read_all(self, below: str = "") -> dict[str, bytes]:
        prefix = f"{self.top}/{below}".rstrip("/") + "/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key[len(prefix) :]: self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.top}/{name}", Body=data)

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{self.top}/{name}")
