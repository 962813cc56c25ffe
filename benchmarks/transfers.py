"""How fast files go to an S3 store and come back: `put` and `get` beside the tools that move files.

    python benchmarks/transfers.py [--quick] [--rounds 3] [--only SET] [--network loopback|relay] [--peers NAME,NAME]
    python benchmarks/transfers.py --memory

SeaweedFS is started on loopback for it, anew for each set of files, and `relay.py` in front of it stands for a distant
store. Each round sends and fetches the same files in each way, in turn and in another order, so that all see the same
machine; what came back is compared with what was sent. The first round, in which connections are made and caches are
filled, is left out.

- atomicpath: `atomicpath.put` and `atomicpath.get`, whole: each object must not exist before and carries its owner,
  lost replies are settled, the record is written, and what is fetched is verified and committed. A large file goes in
  parts, as where a store documents that their completion is exclusive.
- atomicpath, one request: the same where the store does not promise that, as SeaweedFS itself: a file is one request.
- The peers overwrite: no condition, no owner, no settlement, no record. Programs are started anew each time.

With `--memory` it prints by how much a process grows over the interpreter with its modules.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import boto3
import botocore.config
import obstore
import s3fs
from boto3.s3.transfer import TransferConfig
from obstore.store import S3Store

import atomicpath
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile import probing

BUCKET = "bench"
KEYS = {"key": "key", "secret": "secret"}
ROUND_TRIP, RATE = 0.03, 40e6
SETS = {"1 × 512 MiB": (1, 512 * 2**20), "8 × 64 MiB": (8, 64 * 2**20), "2,000 × 16 KiB": (2000, 2**14)}
QUICK = {"1 × 64 MiB": (1, 64 * 2**20), "200 × 16 KiB": (200, 2**14)}
_CONNECTIONS = 64
_RANGE = 8 * 2**20


@dataclass(frozen=True)
class Way:
    """How to send the files of a directory to a prefix, and how to fetch them into a new directory."""

    name: str
    put: Callable[[Path, str], object]
    get: Callable[[str, Path, list[str]], object]


def ours(endpoint: str, *, parts: bool) -> Way:
    """The library, through its blocking face."""
    options = {"endpoint_url": endpoint, **KEYS}
    guarantees = atomicpath.Guarantee.EXCLUSIVE_MULTIPART if parts else None

    def put(source: Path, prefix: str) -> None:
        atomicpath.put(source, f"s3://{BUCKET}/{prefix}", storage_options=options, guarantees=guarantees)

    def get(prefix: str, target: Path, _names: list[str]) -> None:
        atomicpath.get(f"s3://{BUCKET}/{prefix}", target, storage_options=options)

    return Way("atomicpath" if parts else "atomicpath, one request", put, get)


def of_s3fs(endpoint: str) -> Way:
    """s3fs with as many connections as we have."""
    config = {"max_pool_connections": _CONNECTIONS}
    filesystem = s3fs.S3FileSystem(endpoint_url=endpoint, **KEYS, config_kwargs=config, use_listings_cache=False)

    def put(source: Path, prefix: str) -> None:
        paths = sorted(source.iterdir())
        filesystem.put([str(path) for path in paths], [f"{BUCKET}/{prefix}/{path.name}" for path in paths])

    def get(prefix: str, target: Path, names: list[str]) -> None:
        target.mkdir()
        filesystem.get([f"{BUCKET}/{prefix}/{name}" for name in names], [str(target / name) for name in names])

    return Way("s3fs", put, get)


def of_obstore(endpoint: str) -> Way:
    """obstore: uploads as it divides them itself, downloads in ranges, `_CONNECTIONS` requests at once."""
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
            await obstore.put_async(store, f"{prefix}/{path.name}", path, max_concurrency=16)

        async def main() -> None:
            await map_concurrently(sorted(source.iterdir()), one, at_once=_CONNECTIONS)

        anyio.run(main)

    def get(prefix: str, target: Path, names: list[str]) -> None:
        limiter: anyio.CapacityLimiter

        async def one(name: str) -> None:
            reply = await obstore.get_async(store, f"{prefix}/{name}", options={"range": (0, _RANGE)})
            size = reply.meta["size"]
            with (target / name).open("xb") as file:
                os.pwrite(file.fileno(), await reply.bytes_async(), 0)

                async def part(offset: int) -> None:
                    async with limiter:
                        end = min(offset + _RANGE, size)
                        data = await obstore.get_range_async(store, f"{prefix}/{name}", start=offset, end=end)
                        await anyio.to_thread.run_sync(os.pwrite, file.fileno(), data, offset)

                await map_concurrently(range(_RANGE, size, _RANGE), part, at_once=16)

        async def main() -> None:
            nonlocal limiter
            limiter = anyio.CapacityLimiter(_CONNECTIONS)
            await map_concurrently(names, one, at_once=_CONNECTIONS)

        target.mkdir()
        anyio.run(main)

    return Way("obstore", put, get)


def of_boto3(endpoint: str) -> Way:
    """boto3's transfers: 16 files at once in threads, and 10 parts of each, as is its default."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEYS["key"],
        aws_secret_access_key=KEYS["secret"],
        region_name="us-east-1",
        config=botocore.config.Config(max_pool_connections=_CONNECTIONS),
    )
    transfer = TransferConfig()

    def put(source: Path, prefix: str) -> None:
        def one(path: Path) -> None:
            client.upload_file(str(path), BUCKET, f"{prefix}/{path.name}", Config=transfer)

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(one, sorted(source.iterdir())))

    def get(prefix: str, target: Path, names: list[str]) -> None:
        def one(name: str) -> None:
            client.download_file(BUCKET, f"{prefix}/{name}", str(target / name), Config=transfer)

        target.mkdir()
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(one, names))

    return Way("boto3", put, get)


def of_s5cmd(endpoint: str) -> Way:
    """s5cmd: 256 workers, as is its default, and 16 parts of a file."""
    program = _program("s5cmd")
    secrets = {"AWS_ACCESS_KEY_ID": KEYS["key"], "AWS_SECRET_ACCESS_KEY": KEYS["secret"], "AWS_REGION": "us-east-1"}
    copy = [program, "--endpoint-url", endpoint, "--log", "error", "cp", "--concurrency", "16", "--part-size", "16"]

    def put(source: Path, prefix: str) -> None:
        _run([*copy, f"{source}/*", f"s3://{BUCKET}/{prefix}/"], secrets)

    def get(prefix: str, target: Path, _names: list[str]) -> None:
        target.mkdir()
        _run([*copy, f"s3://{BUCKET}/{prefix}/*", f"{target}/"], secrets)

    return Way("s5cmd", put, get)


def of_rclone(endpoint: str) -> Way:
    """rclone: as many transfers as we have connections, and 16 parts of a file."""
    program = _program("rclone")
    place = (
        f":s3,provider=SeaweedFS,endpoint='{endpoint}',access_key_id={KEYS['key']},secret_access_key={KEYS['secret']}"
    )
    copy = [program, "copy", "--config", os.devnull, "--transfers", str(_CONNECTIONS), "--checkers", "64"]
    copy += ["--s3-upload-concurrency", "16", "--multi-thread-streams", "16", "--s3-no-check-bucket"]
    copy += ["--multi-thread-cutoff", "16M", "--multi-thread-chunk-size", "8M"]

    def put(source: Path, prefix: str) -> None:
        _run([*copy, "--no-traverse", str(source), f"{place}:{BUCKET}/{prefix}"], {})

    def get(prefix: str, target: Path, _names: list[str]) -> None:
        _run([*copy, f"{place}:{BUCKET}/{prefix}", str(target)], {})

    return Way("rclone", put, get)


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


def _run(command: list[str], more: dict[str, str]) -> None:
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr or done.stdout}")


PEERS: dict[str, Callable[[str], Way]] = {
    "s5cmd": of_s5cmd,
    "rclone": of_rclone,
    "obstore": of_obstore,
    "s3fs": of_s3fs,
    "boto3": of_boto3,
}


def ways_of(endpoint: str, names: list[str]) -> list[Way]:
    """Ours and those of the peers that are to be had; the others are named on standard error."""
    found = [ours(endpoint, parts=True), ours(endpoint, parts=False)]
    for name in names:
        try:
            found.append(PEERS[name](endpoint))
        except FileNotFoundError as error:
            print(f"not measured: {error}", file=sys.stderr)
    return found


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """SeaweedFS below `directory`, with one bucket."""
    port = _free_port()
    names = ("master.port", "volume.port", "filer.port", "admin.port", "s3.port")
    ports = [f"-{name}.grpc={_free_port()}" for name in names] + [f"-{name}={_free_port()}" for name in names[:-1]]
    command = [
        *(_program("weed"), "-logtostderr=true", "mini", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
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


@contextmanager
def relay(endpoint: str) -> Iterator[str]:
    """`relay.py` in front of an endpoint."""
    command = [sys.executable, str(Path(__file__).with_name("relay.py")), "--to", endpoint.removeprefix("http://")]
    command += ["--round-trip", str(ROUND_TRIP), "--rate", str(RATE)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Times = dict[str, list[float]]


def measure(ways: list[Way], source: Path, work: Path, rounds: int) -> tuple[Times, Times]:
    """Seconds of sending and of fetching by way."""
    sent: Times = {way.name: [] for way in ways}
    fetched: Times = {way.name: [] for way in ways}
    names = sorted(path.name for path in source.iterdir())
    for number in range(rounds + 1):
        shift = number % len(ways)
        for way in ways[shift:] + ways[:shift]:
            where, target = f"{number}-{ways.index(way)}", work / "fetched"
            begin = time.perf_counter()
            way.put(source, where)
            middle = time.perf_counter()
            way.get(where, target, names)
            end = time.perf_counter()
            for name in names:
                if not filecmp.cmp(target / name, source / name, shallow=False):
                    sys.exit(f"{way.name} did not bring {name} back as it was")
            shutil.rmtree(target)
            os.sync()  # nobody's writes are paid for by the next one
            print(f"{where} {way.name}: {middle - begin:.2f} {end - middle:.2f}", file=sys.stderr)
            if number:
                sent[way.name].append(middle - begin)
                fetched[way.name].append(end - middle)
    return sent, fetched


def show(found: dict[str, Times], rounds: int) -> None:
    """Print the table."""
    ways = list(next(iter(found.values())))
    print(f"Seconds, median of {rounds} (least to most), and × the time of atomicpath:\n")
    print(f"| | {' | '.join(found)} |")
    print("|---|" + "---|" * len(found))
    for way in ways:
        cells = []
        for times in found.values():
            if way not in times:
                cells.append("")
                continue
            own, median = statistics.median(times[ways[0]]), statistics.median(times[way])
            ratio = f", {median / own:.2f} ×" if way != ways[0] else ""
            cells.append(f"{median:.2f} ({min(times[way]):.2f} to {max(times[way]):.2f}){ratio}")
        print(f"| {way} | {' | '.join(cells)} |")


def make(source: Path, count: int, size: int) -> None:
    """Fill a new directory with files."""
    source.mkdir()
    for number in range(count):
        with (source / f"file-{number:05}").open("xb") as file:
            for offset in range(0, size, 2**24):
                file.write(os.urandom(min(2**24, size - offset)))


def measure_memory(work: Path) -> None:
    """Print the growth of a process that sends and fetches, in MiB of its resident memory at its largest."""
    print("| MiB over the interpreter | put | get |\n|---|---|---|")
    for label, (count, size) in {"1 × 4 GiB": (1, 4 * 2**30), "50,000 × 1 KiB": (50_000, 2**10)}.items():
        with tempfile.TemporaryDirectory(dir=work) as name:
            place = Path(name)
            make(place / "source", count, size)
            (place / "server").mkdir()
            with server(place / "server") as endpoint:
                grown = [_growth(endpoint, what, place) for what in ("put", "get")]
        print(f"| {label} | {' | '.join(f'{one:.0f}' for one in grown)} |")


def _growth(endpoint: str, what: str, place: Path) -> float:
    command = [sys.executable, __file__, "--grow", json.dumps([endpoint, what, str(place)])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grow(endpoint: str, what: str, place: str) -> None:
    """Send or fetch in this process, and print by how many MiB its largest size has grown."""
    import resource

    way = ours(endpoint, parts=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if what == "put":
        way.put(Path(place, "source"), "memory")
    else:
        way.get("memory", Path(place, "fetched"), [])
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def believe_parts() -> None:
    """Have this process believe, without a race, that the completion of parts is exclusive, as S3 documents it."""
    probe = probing._probe

    async def spared(location: object, due: atomicpath.Guarantee, *rest: object) -> None:
        await probe(location, due & ~atomicpath.Guarantee.EXCLUSIVE_MULTIPART, *rest)  # type: ignore[arg-type]

    probing._probe = spared  # type: ignore[assignment]


def main() -> None:
    """Measure in turn, and print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="3 by default, 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="small sets")
    parser.add_argument("--only", help="the set whose name begins so")
    parser.add_argument("--network", choices=("loopback", "relay"))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--grow", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    believe_parts()
    if asked.grow:
        grow(*json.loads(asked.grow))
        return
    sets, rounds = (QUICK, asked.rounds or 1) if asked.quick else (SETS, asked.rounds or 3)
    with tempfile.TemporaryDirectory(prefix="atomicpath-benchmark-") as name:
        if asked.memory:
            measure_memory(Path(name))
            return
        for network in (asked.network,) if asked.network else ("loopback", "relay"):
            found: dict[str, Times] = {}
            for label, (count, size) in sets.items():
                if not label.startswith(asked.only or ""):
                    continue
                with tempfile.TemporaryDirectory(dir=name) as place:
                    work = Path(place)
                    make(work / "source", count, size)
                    (work / "server").mkdir()
                    with server(work / "server") as endpoint, relay(endpoint) as distant:
                        ways = ways_of(distant if network == "relay" else endpoint, asked.peers.split(","))
                        if size < 2**24:
                            ways = [way for way in ways if way.name != "atomicpath, one request"]
                        sent, fetched = measure(ways, work / "source", work, rounds)
                found |= {f"put {label}": sent, f"get {label}": fetched}
            relayed = f"{ROUND_TRIP * 1000:.0f} ms there and back, {RATE / 1e6:.0f} MB/s a connection"
            print(f"\n{'Over a relay: ' + relayed if network == 'relay' else 'On loopback'}.")
            show(found, rounds)


if __name__ == "__main__":
    main()
