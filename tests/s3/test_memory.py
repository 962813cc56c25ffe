"""The memory of a process that sends and fetches stays flat, whatever the files are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.roots import SECRET
from tests.support.servers.s3 import KEY

_LIMIT = 300  # MiB over the interpreter with its modules

_SCRIPT = """
import json, resource, sys
from pathlib import Path
import anyio
from atomicpath._core.tasks import map_concurrently
from atomicpath.abc import Environment
from atomicpath_s3 import S3Backend

options, bucket, directory = json.loads(sys.argv[1])
storage = S3Backend().open(options, Environment())
names = sorted(path.name for path in Path(directory).iterdir())

async def send(name):
    await storage.upload(Path(directory, name), f"{bucket}/run/{name}", owner="token", multipart=True)

async def fetch(name):
    await storage.download(f"{bucket}/run/{name}", Path(directory + "-copy", name))

async def main():
    await map_concurrently(names, send, at_once=storage.files_at_once)
    Path(directory + "-copy").mkdir()
    await map_concurrently(names, fetch, at_once=storage.files_at_once)

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
anyio.run(main)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize(("count", "size"), [(1, 1024 * 2**20), (20, 48 * 2**20), (200, 2**20)])
def test_neither_large_nor_many_files_fill_the_memory(seaweedfs: str, tmp_path: Path, count: int, size: int) -> None:
    from tests.support.servers.s3 import client

    source = tmp_path / "source"
    source.mkdir()
    for number in range(count):
        with (source / f"{number:03}").open("wb") as file:
            file.truncate(size)
    bucket = f"memory-{count}"
    with client(seaweedfs) as raw:
        raw.create_bucket(Bucket=bucket)
    options = {"endpoint_url": seaweedfs, "key": KEY, "secret": SECRET}
    command = [sys.executable, "-c", _SCRIPT, json.dumps([options, bucket, str(source)])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert not done.returncode, done.stderr
    assert float(done.stdout) < _LIMIT
    copies = sorted(Path(f"{source}-copy").iterdir())
    assert [(copy.name, copy.stat().st_size) for copy in copies] == [(f"{n:03}", size) for n in range(count)]
