"""The table of places: each strategy on each kind of storage that it is tried on."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import atomicpath
from atomicpath import AtomicRenameTemporaryPath, CommitFileTemporaryPath, TemporaryPath, aio
from atomicpath._profile import registry
from tests.support.roots import LocalRoot, MemoryRoot, Root, S3Root

__all__ = ["PLACES", "Setting", "s3_setting"]


@dataclass(frozen=True)
class Setting:
    """A strategy on a storage.

    `survives`: what is stored outlives the process. `replaces`: a committed directory can be replaced there.
    `takes_over` is what a new attempt has to pass where the storage cannot stop a writer that was killed.
    """

    name: str
    make: Callable[[Path], Root]
    options: Mapping[str, Any]
    survives: bool = True
    replaces: bool = False
    takes_over: Mapping[str, Any] = field(default_factory=dict)
    rehearse: Callable[[], object] = lambda: _rehearse()
    """Let the process that forks import what its children need. It must have no threads afterwards."""

    @property
    def on_disk(self) -> bool:
        """Return True if the root is a local directory."""
        return self.make is _directory


def _directory(base: Path) -> LocalRoot:
    (base / "root").mkdir()
    return LocalRoot(base / "root")


PLACES = (
    Setting(
        name="rename, disk",
        make=_directory,
        options={"temporary_path_class": AtomicRenameTemporaryPath},
        replaces=True,
    ),
    Setting(
        name="commit file, memory",
        make=lambda _: MemoryRoot(),
        options={"temporary_path_class": CommitFileTemporaryPath},
        survives=False,
    ),
    Setting(
        name="commit file, disk",
        make=_directory,
        options={"temporary_path_class": CommitFileTemporaryPath},
        takes_over={"unsafe_takeover": True},  # file systems have no conditional writes
    ),
)


@lru_cache
def _rehearse() -> None:
    """Commit once by both faces, look and clean up, on a disk and in memory."""
    with tempfile.TemporaryDirectory() as directory:
        memory = MemoryRoot()
        for root, strategy in product((directory, memory.url), (AtomicRenameTemporaryPath, CommitFileTemporaryPath)):
            if root is directory or strategy is CommitFileTemporaryPath:
                asyncio.run(_one_of_each(f"{root}/{strategy.__name__}", strategy, directory))


async def _one_of_each(url: str, strategy: type[TemporaryPath], directory: str) -> None:
    options: Any = {"temporary_path_class": strategy, "staging_dir": directory}
    async with aio.commit(url, **options) as path:
        Path(path, "data").write_bytes(b"x")
    atomicpath.sweep(url.rpartition("/")[0])
    await aio.verify(url)
    await aio.get(url, f"{directory}/copy of {strategy.__name__} at {url.partition(':')[0].rpartition('/')[2]}")
    await aio.remove(url)


@lru_cache
def _import_s3() -> None:
    # its client has an event loop in a thread of its own, which no child would have
    for module in ("anyio._backends._asyncio", "aiobotocore.client", "boto3", "s3fs", "upath.implementations.cloud"):
        import_module(module)
    registry.backend_for("s3")


class _ForkedS3Root(S3Root):
    """A prefix in a bucket, looked at by a client of the process that looks: connections do not outlive a fork."""

    def __init__(self, bucket: str, endpoint: str) -> None:
        super().__init__(None, bucket, endpoint)
        self._endpoint = endpoint

    def _with_client(self) -> None:
        from tests.support.servers.s3 import client

        self._context = client(self._endpoint)
        self.client = self._context.__enter__()

    def read_all(self, below: str = "") -> dict[str, bytes]:
        self._with_client()
        return super().read_all(below)

    def write(self, name: str, data: bytes) -> None:
        self._with_client()
        super().write(name, data)


def s3_setting(endpoint: str) -> Setting:
    """The commit file on a server that speaks S3."""

    def make(_: Path) -> Root:
        from tests.protocol.worlds import ALL, trust
        from tests.support.servers.s3 import client

        bucket = f"b-{uuid.uuid4().hex[:12]}"
        with client(endpoint) as raw:
            raw.create_bucket(Bucket=bucket)
        root = _ForkedS3Root(bucket, endpoint)
        trust(root / "any", root.storage_options, ALL)  # a probe costs a hundred requests, and has its own tests
        return root

    return Setting(name="commit file, S3", make=make, options={"temporary_path_class": CommitFileTemporaryPath})
