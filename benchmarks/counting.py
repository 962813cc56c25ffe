"""Count the requests that atomicpath makes to a store, and find the formula that gives every count.

Two stores are asked, each on loopback: moto for S3, and the fake of the tests for Cloud Storage. Every request passes a
proxy that notes it. Pages of listings have `PAGE` names here, so that few objects make many pages. What an operation
costs is linear in what is there: a constant, and so much for each file, directory and page. `fit` finds these numbers
from more counts than it has unknowns, and raises if they do not give each count exactly.

The clock is one that only waiting moves, so that nothing here takes a lease.
"""

from __future__ import annotations

import contextvars
import itertools
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import numpy as np
import s3fs

import atomicpath
import atomicpath_s3.storage
from atomicpath._core.environment import use
from atomicpath._core.record import CommitRecord, State
from atomicpath._profile.location import Location, locate
from atomicpath.abc import Coordinator, Put
from tests.api.threads import Board
from tests.protocol.worlds import ALL, MARKER, RECORD, Quick, nothing_above, swaps_to, trust
from tests.support.proxy import Proxy, Reply, Request, Rule, Send
from tests.support.servers.fake_hns import FakeGcs

__all__ = [
    "KINDS",
    "MANIFESTS",
    "OPERATIONS",
    "PAGE",
    "Formula",
    "Store",
    "expect_late_records_to_be_withdrawn",
    "formulas",
    "pages",
    "stores",
]

PAGE = 5
KINDS = ("create", "swap", "read", "list", "delete")
"""The kinds of requests, of which each request is one."""

MANIFESTS = ("manifests written", "manifests read")
"""Counted beside them: the swaps that carry a manifest, and the reads that are answered with one."""
_NOT_EMPTY = b'"files": [\n{'  # of a record
HERE = Path(__file__).parent.parent

Sizes = Mapping[str, int]
Counts = Mapping[str, int]


@dataclass(frozen=True)
class Store:
    """A store on loopback: the URL of its bucket, how to reach it, and what has been asked of it."""

    name: str
    bucket: str
    options: dict[str, object]
    proxy: Proxy
    kind: Callable[[Request], str]
    clock: Quick
    manifests: Counter[str] = field(default_factory=Counter)

    def counted(self, act: Callable[[], object]) -> Counter[str]:
        """Count the requests of one call, by kind."""
        self.proxy.requests.clear()
        self.manifests.clear()
        act()
        return Counter(self.kind(request) for request in self.proxy.requests) + self.manifests

    def note(self, request: Request, send: Send) -> Reply:
        """Have a request carried out, and note whether a manifest went either way."""
        reply = send(request)
        for what, data in zip(MANIFESTS, (request.body, reply.body), strict=True):
            if _NOT_EMPTY in data:
                self.manifests[what] += 1
        return reply


@dataclass(frozen=True)
class Formula:
    """The requests of each kind: a constant under "", and so many for each of a size, by its name."""

    of_kind: Mapping[str, Mapping[str, int]]

    def requests(self, sizes: Sizes) -> dict[str, int]:
        """How many requests of each kind it takes at these sizes."""
        return {
            kind: sum(number * (sizes[name] if name else 1) for name, number in terms.items())
            for kind, terms in self.of_kind.items()
        }


@dataclass(frozen=True)
class Operation:
    """What is counted: the sizes that its cost depends on, the values to try, and how to make the call at them."""

    sizes: Callable[..., dict[str, int]]
    tries: Sequence[Mapping[str, int]]
    prepare: Callable[..., Callable[[], object]]


def pages(names: int, page: int = PAGE) -> int:
    """The requests that a listing of so many names takes."""
    return max(1, -(-names // page))


@contextmanager
def stores() -> Iterator[list[Store]]:
    """S3 and Cloud Storage, empty, behind proxies that count."""
    server = [sys.executable, str(HERE / "examples" / "s3_server.py")]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        assert process.stdin
        assert process.stdout
        stack.callback(process.stdin.close)
        proxy = stack.enter_context(Proxy(process.stdout.readline().strip()))
        fake = stack.enter_context(FakeGcs())
        options: dict[str, object] = {"key": "key", "secret": "secret", "endpoint_url": proxy.url}
        s3fs.S3FileSystem(**options).mkdir("bench")
        proxy.rules.append(Rule(match=_lists_on_s3, action=partial(_paged, "max-keys"), times=None))
        fake.rules.append(Rule(match=_lists_on_gcs, action=partial(_paged, "maxResults"), times=None))
        clock = Quick()
        s3 = Store("S3", "s3://bench", options, proxy, _kind_on_s3, clock)
        on_gcs: dict[str, object] = {"endpoint_url": fake.url, "token": "anon"}
        gcs = Store("GCS", f"gs://{fake.make_bucket(hierarchical=False)}", on_gcs, fake, _kind_on_gcs, clock)
        stack.enter_context(use(clock))
        for store in (s3, gcs):
            store.proxy.rules.append(Rule(match=lambda _: True, action=store.note, times=None))
            # what a process asks once for each bucket is not of one call
            _commit(_place(store), store, {"files": 1})
        yield [s3, gcs]


def _lists_on_s3(request: Request) -> bool:
    return "list-type" in request.query


def _lists_on_gcs(request: Request) -> bool:
    return request.method == "GET" and request.path.endswith("/o")


def _paged(name: str, request: Request, send: Send) -> Reply:
    if name in request.query:
        return send(request)
    return send(replace(request, target=f"{request.target}&{name}={PAGE}"))


def _kind_on_s3(request: Request) -> str:
    if _lists_on_s3(request):
        return "list"
    if request.method == "PUT":
        return {"if-none-match": "create", "if-match": "swap"}[next(iter(request.conditions))]
    return {"GET": "read", "HEAD": "read", "DELETE": "delete"}[request.method]


def _kind_on_gcs(request: Request) -> str:
    if _lists_on_gcs(request):
        return "list"
    if request.method == "POST":
        return "create" if request.query["ifGenerationMatch"] == "0" else "swap"
    return {"GET": "read", "DELETE": "delete"}[request.method]


# places

_numbers = itertools.count()


def _place(store: Store) -> str:
    """A new root, of which everything is known that a process learns at its first commit there."""
    root = f"{store.bucket}/run{next(_numbers)}"
    trust(f"{root}/step_1", store.options, ALL)
    nothing_above(f"{root}/step_1", store.options)
    return root


def _files(folder: Path, count: int, *, first: int = 0) -> None:
    for number in range(first, first + count):
        (folder / f"file{number:06}").write_bytes(b"x")


def _commit(root: str, store: Store, sizes: Sizes, *, step: int = 1) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _files(Path(folder), sizes["files"])
        atomicpath.put(folder, f"{root}/step_{step}", storage_options=store.options)
    store.clock.move(1)  # so that the next one is seen to be later


def _complete(root: str, store: Store, *, steps: int, files: int) -> None:
    for step in range(1, steps + 1):
        _commit(root, store, {"files": files}, step=step)


def _crash(store: Store, url: str, *, elsewhere: bool) -> None:
    """Make a committed directory what a crash leaves just before its commit: all files, and a record that says writing.

    `elsewhere`: its writer was on another host. Else it was a process of this one, which has ended.
    """
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    async def rewrite(final: Location) -> None:
        storage = final.open()
        path = final.child(RECORD).path
        record = CommitRecord.decode((await storage.get(path)).data, where=url)
        writer = replace(record.writer, pid=ended.pid, start=1)
        if elsewhere:
            writer = replace(writer, host="elsewhere", boot="another", namespace="another")
        unfinished = record.moved_to(State.WRITING, committed=None, files=(), writer=writer)
        await storage.put(path, unfinished.encode(), mode=Put.OVERWRITE)
        await storage.delete(final.child(MARKER).path)

    anyio.run(rewrite, locate(url, store.options))


# what is counted


def _of_commit(store: Store, *, files: int, ranks: int) -> Callable[[], object]:
    root, board = _place(store), Board(ranks)

    def write(coordinator: Coordinator | None, count: int, first: int) -> None:
        with atomicpath.commit(
            f"{root}/step_1", storage_options=store.options, coordinator=coordinator, allow_empty=True
        ) as path:
            _files(Path(str(path)), count, first=first)

    def act() -> None:
        if ranks == 1:
            write(None, files, 0)
            return
        shares = [files // ranks + (rank < files % ranks) for rank in range(ranks)]
        threads = [
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(write, board.member(rank), share, sum(shares[:rank])),
            )
            for rank, share in enumerate(shares)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return act


def _of_latest(store: Store, *, steps: int, dead: int) -> Callable[[], object]:
    root = _place(store)
    _complete(root, store, steps=steps, files=1)
    for step in range(steps - dead + 1, steps + 1):
        _crash(store, f"{root}/step_{step}", elsewhere=True)
    return lambda: atomicpath.latest(root, storage_options=store.options)


def _of_committed(store: Store, *, steps: int) -> Callable[[], object]:
    root = _place(store)
    _complete(root, store, steps=steps, files=1)
    return lambda: atomicpath.committed(root, storage_options=store.options)


def _of_keep_last(store: Store, *, steps: int, removed: int, files: int) -> Callable[[], object]:
    root = _place(store)
    _complete(root, store, steps=steps, files=files)
    return lambda: atomicpath.keep_last(root, steps - removed, storage_options=store.options)


def _of_sweep(store: Store, *, steps: int, dead: int, files: int) -> Callable[[], object]:
    root = _place(store)
    _complete(root, store, steps=steps, files=files)
    for step in range(1, dead + 1):
        _crash(store, f"{root}/step_{step}", elsewhere=False)
    return lambda: atomicpath.sweep(root, older_than=timedelta(0), storage_options=store.options)


def _of_take_over(store: Store, *, left: int, files: int) -> Callable[[], object]:
    root = _place(store)
    _commit(root, store, {"files": left})
    _crash(store, f"{root}/step_1", elsewhere=True)
    return lambda: _commit(root, store, {"files": files})


# Pages of a directory: "whole" with the record and the marker beside the files, "data" with the record alone.
OPERATIONS = {
    "commit": Operation(
        lambda files, ranks, page=PAGE: {"files": files, "ranks": ranks},  # noqa: ARG005 - all take a page
        [{"files": files, "ranks": ranks} for files, ranks in ((1, 1), (4, 1), (9, 1), (3, 2), (8, 3), (11, 2))],
        _of_commit,
    ),
    "latest": Operation(
        lambda steps, dead, page=PAGE: {"pages": pages(steps, page), "dead": dead},
        [{"steps": steps, "dead": dead} for steps, dead in ((1, 0), (4, 0), (7, 0), (12, 2), (16, 1))],
        _of_latest,
    ),
    "committed": Operation(
        lambda steps, page=PAGE: {"pages": pages(steps, page), "steps": steps},
        [{"steps": steps} for steps in (1, 4, 7, 12, 16)],
        _of_committed,
    ),
    "keep_last": Operation(
        lambda steps, removed, files, page=PAGE: {
            "pages": pages(steps, page),
            "steps": steps,
            "removed": removed,
            "files": removed * files,
            "data pages": removed * pages(files + 1, page),
            "whole pages": removed * pages(files + 2, page),
        },
        [
            {"steps": steps, "removed": removed, "files": files}
            for steps, removed, files in (
                (2, 1, 1),
                (2, 1, 3),
                (2, 1, 8),
                (4, 1, 1),
                (7, 1, 4),
                (12, 1, 2),
                (4, 2, 6),
                (7, 3, 1),
                (11, 2, 9),
            )
        ],
        _of_keep_last,
    ),
    "sweep": Operation(
        lambda steps, dead, files, page=PAGE: {
            "pages": pages(steps, page),
            "complete": steps - dead,
            "dead": dead,
            "files": dead * files,
            "data pages": dead * pages(files + 1, page),
        },
        [
            {"steps": steps, "dead": dead, "files": files}
            for steps, dead, files in (
                (1, 0, 1),
                (4, 0, 1),
                (7, 0, 1),
                (12, 0, 1),
                (2, 1, 1),
                (2, 1, 3),
                (3, 1, 8),
                (4, 2, 6),
                (7, 3, 2),
                (6, 2, 9),
            )
        ],
        _of_sweep,
    ),
    "take over": Operation(
        lambda left, files, page=PAGE: {"left": left, "files": files, "data pages": pages(left + 1, page)},
        [{"left": left, "files": files} for left, files in ((1, 1), (3, 1), (3, 4), (8, 2), (12, 1), (15, 6))],
        _of_take_over,
    ),
}


def formulas(store: Store) -> tuple[dict[str, Formula], int]:
    """The formula of each operation, and how many counts they were made of."""
    found, number = {}, 0
    for name, operation in OPERATIONS.items():
        counts = [
            (operation.sizes(**sizes), store.counted(operation.prepare(store, **sizes))) for sizes in operation.tries
        ]
        found[name] = fit(f"{name} on {store.name}", counts)
        number += len(counts)
    return found, number


def expect_late_records_to_be_withdrawn(s3: Store) -> None:
    """Let no record of a commit be sent in time: the commit must fail, and leave nothing at its place."""
    root = _place(s3)

    def late(request: Request, send: Send) -> None:  # noqa: ARG001 - it is never carried out
        time.sleep(4 * short)

    s3.proxy.rules.insert(0, Rule(match=swaps_to("committed"), action=late, times=None))
    patience, short = atomicpath_s3.storage._PATIENCE, 0.5
    atomicpath_s3.storage._PATIENCE = short
    said = ""
    try:
        _commit(root, s3, {"files": 3})
    except atomicpath.CommitError as error:
        said = str(error)
    finally:
        atomicpath_s3.storage._PATIENCE = patience
        del s3.proxy.rules[0]
    assert "withdrawn" in said, said
    assert not s3fs.S3FileSystem(**s3.options).find(root)


def fit(what: str, counts: Sequence[tuple[Sizes, Counts]]) -> Formula:
    """The whole numbers that give every count; AssertionError if there are none, or if the counts leave them open."""
    names = ["", *counts[0][0]]
    matrix = np.array([[sizes[name] if name else 1 for name in names] for sizes, _ in counts])
    assert len(counts) > len(names), f"{what}: {len(counts)} counts do not check {len(names)} numbers"
    assert np.linalg.matrix_rank(matrix) == len(names), f"{what}: the sizes tried leave the formula open"
    kinds = (*KINDS, *MANIFESTS)
    unknown = {kind for _, count in counts for kind in count} - set(kinds)
    assert not unknown, f"{what}: {unknown}"
    of_kind = {}
    for kind in kinds:
        numbers = np.rint(np.linalg.lstsq(matrix, np.array([count.get(kind, 0) for _, count in counts]), rcond=None)[0])
        of_kind[kind] = {name: int(number) for name, number in zip(names, numbers, strict=True)}
    formula = Formula(of_kind)
    for sizes, count in counts:
        expected = formula.requests(sizes)
        assert expected == {kind: count.get(kind, 0) for kind in kinds}, f"{what} at {sizes}: {count}, not {expected}"
    return formula
