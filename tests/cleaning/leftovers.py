"""What jobs that died leave behind, made by processes really killed; clocks and faults for who cleans it up."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

import atomicpath
from atomicpath._core import environment, liveness
from atomicpath._core.environment import Environment
from atomicpath._core.record import CommitRecord, Lease, Writer
from atomicpath._profile import probing
from tests.support.processes import Child, Killer, commit_files, content_of, known, write_tree
from tests.support.roots import Root

P = ParamSpec("P")
T = TypeVar("T")

RECORD, MARKER = "_commit_record.json", "commit_success.txt"
NOW = timedelta(0)
LOOKS_ABOVE = 2  # requests of a new process, which has not seen yet that its root is no place itself
IN_PLACE: dict[str, Any] = {"temporary_path_class": atomicpath.CommitFileTemporaryPath}
ELSEWHERE = Writer(host="elsewhere", pid=1, boot="another boot", namespace="another namespace", start=1)


class Later(Environment):
    """The local clocks are so many seconds ahead; every call of a function in `faults` fails if its arguments match."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.refused: Callable[[str], bool] = lambda path: False

    def wall_ns(self) -> int:
        return time.time_ns() + int(self.seconds * 1e9)

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is time.time_ns:
            return time.time_ns() + int(self.seconds * 1e9)  # type: ignore[return-value]
        if any(isinstance(argument, str) and self.refused(argument) for argument in args):
            raise OSError(errno.EIO, "as the test asked")
        return function(*args, **kwargs)


def options_of(place: Root) -> dict[str, Any]:
    return {"storage_options": place.storage_options or None}


def commit(place: Root, name: str, **options: Any) -> None:
    with atomicpath.commit(f"{place.url}/{name}", **options_of(place), **options) as path:
        write_tree(path, content_of(name))


def killed(place: Root, name: str, **options: Any) -> None:
    """Begin to commit in a process that is killed: in the block, or at the number of a request."""
    at = options.pop("at_request", None)
    killer = Killer(of="request", at=None if at is None else at + LOOKS_ABOVE)
    everything = {**options_of(place), "die": killer.at is None, **options}
    assert Child(commit_files, f"{place.url}/{name}", name, killer, known(), **everything).result() is None


def rewrite(place: Root, name: str, **changes: Any) -> None:
    """Change the record of that name, past the protocol."""
    record = CommitRecord.decode(place.read_all()[name], where="the test")
    place.write(name, replace(record, **changes).encode())


def from_elsewhere(place: Root, name: str, lease: float = 0.0) -> None:
    """As if an attempt were of another host, with a lease of so many seconds."""
    rewrite(place, name, writer=ELSEWHERE, lease=Lease(seconds=lease))


def sweep(place: Root, older_than: timedelta = NOW, **options: Any) -> list[atomicpath.SweepResult]:
    return atomicpath.sweep(place.url, older_than=older_than, **options_of(place), **options)


def told(swept: list[atomicpath.SweepResult]) -> list[tuple[str, str, str, bool]]:
    return [(one.path.name, one.found.value, one.action.value, one.done) for one in swept]


# what runs in other processes


def wait_in_the_block(url: str, replies: Connection, wait: Connection, *, elsewhere: bool, **options: Any) -> str:
    """Commit, with a pause in the block until something comes; `elsewhere`: as a process of another host."""
    if elsewhere:
        liveness._identities[os.getpid()] = ELSEWHERE
        fcntl.flock = lambda *arguments: None  # another host's lock is not seen here
    probing._known.update(options.pop("findings"))
    try:
        with atomicpath.commit(url, **options) as path:
            write_tree(path, content_of("the sleeper"))
            replies.send("in the block")
            wait.recv()
    except atomicpath.AtomicPathError as error:
        return type(error).__name__
    return "committed"


def sweep_until_killed(url: str, killer: Killer, findings: Any, storage_options: Any) -> int:
    """Sweep; how many calls or requests it took."""
    probing._known.update(findings)
    with environment.use(killer):
        atomicpath.sweep(url, older_than=NOW, storage_options=storage_options)
    return len(killer.begun)  # type: ignore[attr-defined]


def remove_until_killed(url: str, killer: Killer, findings: Any, storage_options: Any) -> int:
    probing._known.update(findings)
    with environment.use(killer):
        atomicpath.remove(url, storage_options=storage_options)
    return len(killer.begun)  # type: ignore[attr-defined]
