"""Environments for tests: a clock that only sleeping moves, steps that fail on a plan; and what goes with them."""

from __future__ import annotations

import errno
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import anyio.lowlevel
from upath import UPath

from atomicpath._core.environment import Environment, use
from atomicpath._core.record import CommitRecord
from atomicpath._profile import probing
from atomicpath._profile.location import locate
from atomicpath._strategies import borders
from atomicpath._strategies.commit_file import CommitFileTemporaryPath
from atomicpath.abc import AttemptOptions
from atomicpath.guarantees import NONE, Guarantee
from tests.support.proxy import Request

P = ParamSpec("P")
T = TypeVar("T")

ALL = (
    Guarantee.ATOMIC_WRITE
    | Guarantee.LIST_AFTER_WRITE
    | Guarantee.EXCLUSIVE_CREATE
    | Guarantee.EXCLUSIVE_MULTIPART
    | Guarantee.COMPARE_AND_SWAP
    | Guarantee.CONDITIONAL_DELETE
)
"""What a good object store promises."""

RECORD, MARKER = "_commit_record.json", "commit_success.txt"


class Quick(Environment):
    """Sleeping takes no time, but the monotonic clock moves by it. `on_sleep` is awaited with the clock's new time."""

    def __init__(self, lease: float = 60.0) -> None:
        self.lease = lease
        self.now = 1000.0
        self.slept: list[float] = []
        self.on_sleep: Callable[[float], Awaitable[object]] | None = None
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        """Let time pass, as while a request has no answer."""
        with self._lock:
            self.now += seconds

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()
        if seconds:
            self.move(seconds)
            with self._lock:
                self.slept.append(seconds)
            if self.on_sleep is not None:
                await self.on_sleep(self.now)


class Failing(Quick):
    """Steps of the memory store meet the fate that `fate` gives for their number: "", "refused" or "lost".

    A refused one is not carried out, a lost one is; both say EIO, which means that nobody knows.
    """

    def __init__(self, fate: Callable[[int], str]) -> None:
        super().__init__()
        self.fate = fate
        self.steps = 0

    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await anyio.lowlevel.checkpoint()
        if "MemoryStorage" not in getattr(function, "__qualname__", ""):
            return function(*args, **kwargs)
        fate, self.steps = self.fate(self.steps), self.steps + 1
        if fate == "refused":
            raise OSError(errno.EIO, "not done, as the test asked")
        result = function(*args, **kwargs)
        if fate == "lost":
            raise OSError(errno.EIO, "done, but not said so, as the test asked")
        return result


class Hooked(Quick):
    """Calls `hook` with the number of every request, before it is sent."""

    def __init__(self, hook: Callable[[int], object]) -> None:
        super().__init__()
        self.hook = hook
        self.requests = 0

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        number, self.requests = self.requests, self.requests + 1
        self.hook(number)
        return await function(*args, **kwargs)


def trust(url: str, options: Mapping[str, object] | None, guarantees: Guarantee, refuted: Guarantee = NONE) -> None:
    """As if probes at the parent of `url` had found this and nothing else."""
    everything = ~NONE
    probing._known[locate(url, options).parent.identity] = probing._Findings(
        tried=everything, observed=guarantees, refuted=refuted
    )


def nothing_above(url: str, options: Mapping[str, object] | None = None) -> None:
    """As if this process had looked above the parent of `url`, and seen no place there."""
    borders._free.add(locate(url, options).parent.identity)


def attempt(
    url: str,
    options: Mapping[str, Any] | None = None,
    *,
    environment: Environment,
    guarantees: Guarantee = ALL,
    **more: Any,
) -> CommitFileTemporaryPath:
    """One attempt, to be driven by hand."""
    with use(environment):
        made = CommitFileTemporaryPath.from_final(UPath(url, **(options or {})))
    made.configure(AttemptOptions(**{"guarantees": guarantees, "direct": False, **more}))
    return made


def files_below(memory: Mapping[str, Any], path: str) -> dict[str, bytes]:
    """The files of the memory store below `path`, by their names there."""
    return {name[len(path) + 1 :]: file.getvalue() for name, file in memory.items() if name.startswith(f"{path}/")}


def decoded(data: bytes) -> CommitRecord:
    return CommitRecord.decode(data, where="the test")


def written(tmp_path: Path, name: str, data: bytes) -> Path:
    """A local file to add."""
    path = tmp_path / name
    path.write_bytes(data)
    return path


def creates(name: str) -> Callable[[Request], bool]:
    """Requests that create an object of this name, which must not exist."""
    return lambda request: (
        request.method == "PUT" and request.path.endswith(f"/{name}") and "if-none-match" in request.headers
    )


def swaps_to(state: str) -> Callable[[Request], bool]:
    """Requests that swap the record to a state."""
    wanted = f'"state": "{state}"'.encode()
    return lambda request: (
        request.method == "PUT"
        and request.path.endswith(RECORD)
        and "if-match" in request.headers
        and wanted in request.body
    )


def anything(request: Request) -> bool:
    return True
