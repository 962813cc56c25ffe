"""What commits of 1,000 ranks, 10,000 files and 100,000 steps cost on S3 and on Google Cloud Storage, computed.

    python -m benchmarks.scale [--latency 0.1] [--bandwidth 100e6]

No account is asked. `counting.py` counts the requests of small commits, `latest`, `committed`, `keep_last`, `sweep` and
a take-over on stores on loopback, and finds the formula that gives every count; it raises if there is none. Here the
formulas are taken to large sizes, and priced. What a record takes to write and to read is measured on this machine up
to `_MEASURED` files, and taken to be linear beyond.

Seconds are a model, not a measurement. Kinds of requests are taken to follow one another. For each kind the longer of
two counts: what the store's rate allows, and what a round trip allows with as many requests under way as the library
has. The bytes of the files themselves are left out.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from atomicpath._cleaning import sweeper
from atomicpath._commit import readers
from atomicpath._core.environment import Environment
from atomicpath._core.record import CommitRecord, FileEntry, State
from atomicpath._strategies import cleanup
from atomicpath_gcs.storage import GcsStorage
from atomicpath_s3.storage import _PATIENCE, S3Storage
from benchmarks.counting import (
    KINDS,
    MANIFESTS,
    OPERATIONS,
    Formula,
    expect_late_records_to_be_withdrawn,
    formulas,
    stores,
)

PAGE = 1000  # names in a page of a listing: ListObjectsV2, and objects.list
_MEASURED = 100_000
_RATES = (100e6, 10e6)  # bytes a second of one request
_SECONDS_OF = {1: "s", 60: "min", 3600: "h", 86400: "days"}


@dataclass(frozen=True)
class Prices:
    """US dollars for 1,000 requests, and where that is written."""

    write: float
    read: float
    source: str

    def of(self, requests: Mapping[str, int]) -> float:
        """The price of requests: a listing is paid like a write on both stores, and a delete is free."""
        writes = requests["create"] + requests["swap"] + requests["list"]
        return (writes * self.write + requests["read"] * self.read) / 1000


# Looked up on 2026-11-27, in stored copies of these pages. That of AWS's page has no numbers, which a script fills in:
# they are from the second source. Google's page states them in a worked example.
PRICES = {
    "S3": Prices(
        0.005,
        0.0004,
        "S3 Standard, us-east-1: https://aws.amazon.com/s3/pricing/,"
        " compared with https://c3x.dev/blog/s3-request-fees-explained",
    ),
    "GCS": Prices(
        0.005,
        0.0004,
        "Standard storage, by the example of us-east1 on the pricing page, flat namespace: https://cloud.google.com/storage/pricing,"
        " https://cloud.google.com/storage/pricing-examples",
    ),
}


@dataclass(frozen=True)
class Limits:
    """Requests a second; how soon the store doubles what it takes; and how soon one object may be written again."""

    writes: float
    reads: float
    doubles_in: float | None
    same_object: float
    source: str

    def seconds(self, kind: str, number: int) -> float:
        """The least time for so many requests of one kind."""
        rate = self.reads if kind in ("read", "list") else self.writes
        if self.doubles_in is None:
            return number / rate
        # the rate grows as rate * 2 ** (t / doubles_in); its integral up to t is the number
        return self.doubles_in * math.log2(1 + number * math.log(2) / (rate * self.doubles_in))


LIMITS = {
    "S3": Limits(
        3500,
        5500,
        None,  # a bucket is divided under load, by its own rules: not counted on
        0,
        "at least 3,500 writes and 5,500 reads a second for one partitioned prefix:"
        " https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html",
    ),
    "GCS": Limits(
        1000,
        5000,
        20 * 60,
        1,
        "1,000 writes (deletes included) and 5,000 reads a second for a bucket at first, doubled in 20 minutes or more:"
        " https://cloud.google.com/storage/docs/request-rate; one write a second to one object:"
        " https://cloud.google.com/storage/quotas",
    ),
}

FILES_AT_ONCE = {"S3": S3Storage.files_at_once, "GCS": GcsStorage.files_at_once}


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    `files` are in each manifest. `moves`: how often one record is written or deleted. `at_once`: the reads under way.
    `waits`: seconds that the protocol itself waits.
    """

    name: str
    operation: str
    sizes: Mapping[str, int]
    files: int
    times: int = 1
    ranks: int = 1
    moves: int = 1
    at_once: int = readers._READS_AT_ONCE
    waits: float = 0.0

    def requests(self, formula: Formula) -> dict[str, int]:
        """What it takes, by kind."""
        sizes = OPERATIONS[self.operation].sizes(**self.sizes, page=PAGE)
        return {kind: number * self.times for kind, number in formula.requests(sizes).items()}


@dataclass(frozen=True)
class Manifest:
    """What one file takes in a record: bytes, seconds to write and to read it, bytes of memory afterwards.

    `peak` is the memory while it is read.
    """

    size: float
    encode: float
    decode: float
    memory: float
    peak: float


STEPS, FILES, RANKS = 100_000, 10_000, 1000
ALL = FILES * RANKS
CASES = [
    Case(
        "commit, 1 file a rank", "commit", {"files": RANKS, "ranks": RANKS}, RANKS, ranks=RANKS, at_once=RANKS, moves=2
    ),
    Case(
        "commit, 10 files a rank",
        "commit",
        {"files": FILES, "ranks": RANKS},
        FILES,
        ranks=RANKS,
        at_once=RANKS,
        moves=2,
    ),
    Case(
        "commit, 10,000 files a rank",
        "commit",
        {"files": ALL, "ranks": RANKS},
        ALL,
        ranks=RANKS,
        at_once=RANKS,
        moves=2,
    ),
    Case("100,000 commits, 1 file a rank", "commit", {"files": RANKS, "ranks": RANKS}, RANKS, STEPS, RANKS, 2, RANKS),
    Case("100,000 commits, 10 files a rank", "commit", {"files": FILES, "ranks": RANKS}, FILES, STEPS, RANKS, 2, RANKS),
    Case("`latest`, 100,000 steps", "latest", {"steps": STEPS, "dead": 0}, FILES),
    Case("`latest`, the newest 10 of 100,000 unfinished", "latest", {"steps": STEPS, "dead": 10}, FILES, at_once=1),
    Case("`latest`, 5 steps", "latest", {"steps": 5, "dead": 0}, FILES),
    Case("`committed`, 100,000 steps of 1,000 files", "committed", {"steps": STEPS}, RANKS),
    Case("`committed`, 100,000 steps", "committed", {"steps": STEPS}, FILES),
    Case(
        "`keep_last` removes 1 of 100,001 steps",
        "keep_last",
        {"steps": STEPS + 1, "removed": 1, "files": FILES},
        FILES,
        moves=3,
    ),
    Case("`keep_last` removes 1 of 6 steps", "keep_last", {"steps": 6, "removed": 1, "files": FILES}, FILES, moves=3),
    Case("the same, 10,000 files a rank", "keep_last", {"steps": 6, "removed": 1, "files": ALL}, ALL, moves=3),
    Case(
        "`sweep`, 100,000 complete steps",
        "sweep",
        {"steps": STEPS, "dead": 0, "files": FILES},
        FILES,
        at_once=sweeper._AT_ONCE,
    ),
    Case("`sweep`, 5 steps and 1 dead attempt", "sweep", {"steps": 6, "dead": 1, "files": FILES}, FILES, moves=3),
    Case(
        "take-over, and commit of as many",
        "take over",
        {"left": FILES, "files": FILES},
        FILES,
        ranks=RANKS,
        moves=3,
        waits=Environment.lease,
    ),
    Case(
        "the same, 10,000 files a rank",
        "take over",
        {"left": ALL, "files": ALL},
        ALL,
        ranks=RANKS,
        moves=3,
        waits=Environment.lease,
    ),
]


def measured() -> Manifest:
    """Write and read one large record on this machine."""
    files = tuple(
        FileEntry(
            name=f"rank_{number // FILES:04}/shard_{number % FILES:05}.safetensors",
            size=16_777_216,
            etag=f"{number:032x}",
        )
        for number in range(_MEASURED)
    )
    record = CommitRecord(state=State.COMMITTED, token="0" * 20, strategy="commit_file", started=1, files=files)
    begin = time.process_time()
    data = record.encode()
    encoded = time.process_time()
    CommitRecord.decode(data, where="the benchmark")
    decoded = time.process_time()
    tracemalloc.start()
    kept = CommitRecord.decode(data, where="the benchmark")
    memory = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept.files == files
    return Manifest(
        len(data) / _MEASURED,
        (encoded - begin) / _MEASURED,
        (decoded - encoded) / _MEASURED,
        *(one / _MEASURED for one in memory),
    )


def seconds(
    case: Case, requests: Mapping[str, int], store: str, manifest: Manifest, latency: float, bandwidth: float
) -> tuple[float, str]:
    """How long a case takes at least, one after the other if it is many; and what most of that is."""
    limits = LIMITS[store]
    at_once = {
        "create": FILES_AT_ONCE[store] * case.ranks,
        "swap": 1,
        "read": case.at_once,
        "list": 1,
        "delete": cleanup._AT_ONCE,
    }
    parts: dict[str, float] = {}
    for kind in KINDS:
        number = requests[kind] // case.times
        limited, own = limits.seconds(kind, number), number * latency / at_once[kind]
        parts[f"the store's rate of {kind}s" if limited > own else f"{kind}s, {at_once[kind]} at once"] = max(
            limited, own
        )
    parts["one write a second to a record"] = (case.moves - 1) * limits.same_object
    parts["the lease of the dead writer"] = case.waits
    written, read = (requests[what] // case.times * case.files for what in MANIFESTS)
    parts["the bytes of records"] = (written + read) * manifest.size / bandwidth
    parts["encoding and decoding records"] = written * manifest.encode + read * manifest.decode
    return sum(parts.values()) * case.times, max(parts, key=parts.__getitem__)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print("| " + " | ".join(head) + " |")
    print("|---" + "|---:" * (len(head) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def _number(number: float) -> str:
    return f"{number:,.0f}"


def _time(value: float) -> str:
    unit = max(unit for unit in _SECONDS_OF if unit == 1 or value >= 2 * unit)
    return f"{value / unit:,.1f} {_SECONDS_OF[unit]}"


def _bytes(value: float) -> str:
    power = min(4, max(1, int(math.log10(max(value, 1)) / 3)))
    return f"{value / 1000**power:,.1f} {('', 'kB', 'MB', 'GB', 'TB')[power]}"


def _money(value: float) -> str:
    return f"${value:,.2f}" if value >= 0.01 else f"${value:.5f}"


def _terms(terms: Mapping[str, int]) -> str:
    """A sum in words, what is subtracted last."""
    text = ""
    for name, number in sorted(terms.items(), key=lambda term: term[1] < 0):
        if number:
            sign = (" - " if number < 0 else " + ") if text else ""
            text += sign + (f"{abs(number)} × {name}" if abs(number) != 1 and name else name or str(abs(number)))
    return text or "0"


def print_formulas(found: Mapping[str, Mapping[str, Formula]]) -> None:
    """The formulas; those of a store on their own lines only where they differ."""
    rows = []
    for operation in OPERATIONS:
        by_store = {store: of[operation] for store, of in found.items()}
        same = len({repr(formula) for formula in by_store.values()}) == 1
        for store, formula in by_store.items():
            rows.append(
                [operation if same else f"{operation}, {store}", *(_terms(formula.of_kind[kind]) for kind in KINDS)]
            )
            if same:
                break
    table(["requests of", *(f"{kind}s" for kind in KINDS)], rows)


def print_costs(store: str, found: Mapping[str, Formula], manifest: Manifest, latency: float, bandwidth: float) -> None:
    """What each case costs on one store."""
    rows = []
    for case in CASES:
        requests = case.requests(found[case.operation])
        took, mostly = seconds(case, requests, store, manifest, latency, bandwidth)
        moved = sum(requests[what] for what in MANIFESTS) * case.files * manifest.size
        rows.append(
            [
                case.name,
                *(_number(requests[kind]) for kind in KINDS),
                _money(PRICES[store].of(requests)),
                _bytes(moved),
                _time(took),
                mostly,
            ]
        )  # fmt: skip
    table([f"on {store}", *(f"{kind}s" for kind in KINDS), "price", "bytes of records", "time", "most of it is"], rows)


def print_records(manifest: Manifest) -> None:
    """The record of a commit by the number of its files."""
    rows = []
    for files in (RANKS, FILES, 100_000, 1_000_000, ALL):
        size = files * manifest.size
        sent = [size / rate for rate in _RATES]
        rows.append(
            [
                _number(files),
                _bytes(size),
                f"{files * manifest.encode:,.2f} s",
                f"{files * manifest.decode:,.2f} s",
                _bytes(files * manifest.peak),
                *(f"{took:,.2f} s" if took < _PATIENCE else "**does not fit**" for took in sent),
            ]
        )
    head = [f"to send or fetch at {rate / 1e6:.0f} MB/s" for rate in _RATES]
    table(["files", "record", "to encode", "to decode", "memory at most", *head], rows)
    most = ", ".join(f"{_number(_PATIENCE * rate / manifest.size)} at {rate / 1e6:.0f} MB/s" for rate in _RATES)
    print(f"A record has {_PATIENCE:.0f} s to be sent or fetched. So many files are the most: {most}.")
    held = _bytes(STEPS * FILES * manifest.memory)
    print(f"A list of {STEPS:,} commits of {FILES:,} files each keeps {held} in memory.\n")


def main() -> None:
    """Count, check the formulas, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds for a small request (default 0.1)")
    parser.add_argument("--bandwidth", type=float, default=100e6, help="bytes a second of one request (default 100e6)")
    arguments = parser.parse_args()
    logging.getLogger("atomicpath").setLevel(logging.CRITICAL)  # the crashes are meant
    found, number = {}, 0
    with stores() as there:
        expect_late_records_to_be_withdrawn(there[0])
        for store in there:
            found[store.name], counts = formulas(store)
            number += counts
    print(f"Each of {number} calls on loopback made exactly the requests that these formulas give:\n")
    print_formulas(found)
    manifest = measured()
    for name in found:
        print_costs(name, found[name], manifest, arguments.latency, arguments.bandwidth)
    print_records(manifest)
    print(f"A small request takes {arguments.latency} s; one request moves {arguments.bandwidth / 1e6:.0f} MB/s.")
    for name in found:
        print(f"{name}: {PRICES[name].source}; {LIMITS[name].source}.")


if __name__ == "__main__":
    main()
