"""Processes of their own for tests: forked from a server with everything imported, killed at a chosen call.

The functions that run in such a process are here too, because it has to import them by name.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, ParamSpec, TypeVar

import anyio

import atomicpath
from atomicpath._core import environment
from atomicpath._core.environment import Environment
from atomicpath._profile import probing
from tests.support.trees import write_tree
from tests.support.waiting import PATIENCE

__all__ = [
    "CONTEXT",
    "FILES",
    "Child",
    "Killer",
    "commit_files",
    "content_of",
    "edit_in_place",
    "known",
    "race",
    "replace_again_and_again",
    "write_tree",
]

P = ParamSpec("P")
T = TypeVar("T")

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "pytest", "tests.support.preload"])

FILES = ("model.bin", "optimizer/state.bin")


def content_of(writer: object) -> dict[str, bytes]:
    """The small tree that a writer commits; other writers write other bytes, and other lengths."""
    return {name: f"{name} by {writer}\n".encode() * 50 for name in FILES}


@dataclass(frozen=True)
class Killer(Environment):
    """Kills its own process at the call or request of that number: before it is made, or after it was.

    `of` says which are counted: "call" or "request". Counting needs no lock for requests, which are
    made from one thread; the calls of a commit by the blocking face are as well.
    """

    of: str
    at: int | None
    after: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "begun", [])
        object.__setattr__(self, "ended", [])

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.of != "call":
            return function(*args, **kwargs)
        self._reach(self.begun, after=False)  # type: ignore[attr-defined]
        try:
            return function(*args, **kwargs)
        finally:
            self._reach(self.ended, after=True)  # type: ignore[attr-defined]

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.of != "request":
            return await function(*args, **kwargs)
        self._reach(self.begun, after=False)  # type: ignore[attr-defined]
        try:
            return await function(*args, **kwargs)
        finally:
            self._reach(self.ended, after=True)  # type: ignore[attr-defined]

    def _reach(self, counted: list[None], *, after: bool) -> None:
        if self.after == after and self.at == len(counted):
            os.kill(os.getpid(), signal.SIGKILL)
        counted.append(None)


class Child:
    """A process that calls a function of this module and sends back what it returned or raised."""

    def __init__(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        self._replies, theirs = CONTEXT.Pipe(duplex=False)
        self.process: ForkServerProcess = CONTEXT.Process(
            target=_call, args=(theirs, function, args, kwargs), daemon=True
        )
        self.process.start()
        theirs.close()

    def result(self) -> Any:
        """What it returned; None if it was killed. Any error of it is raised."""
        try:
            ok, value = self._replies.recv()
        except EOFError:
            self.process.join()
            assert self.process.exitcode == -signal.SIGKILL, f"the process ended with {self.process.exitcode}"
            return None
        finally:
            self._replies.close()
        self.process.join()
        if not ok:
            raise value
        return value

    def receive(self) -> Any:
        """What it sent on its way."""
        return self._replies.recv()


def _call(
    replies: Connection, function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> None:
    try:
        answer = (True, function(*args, **kwargs))
    except Exception as error:
        answer = (False, AssertionError(f"in the other process: {type(error).__name__}: {error}"))
    replies.send(answer)


def known() -> dict[str, Any]:
    """What this process has learnt by probing, to hand to others: a probe costs a hundred requests."""
    return dict(probing._known)


# What runs in those processes


def commit_files(
    url: str, writer: object, killer: Killer, findings: Mapping[str, Any], *, die: bool = False, **options: Any
) -> int:
    """Commit the tree of `writer`; how many calls or requests it took. `die`: be killed in the block."""
    probing._known.update(findings)
    with environment.use(killer), atomicpath.commit(url, **options) as path:
        write_tree(path, content_of(writer))
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
    return len(killer.begun)  # type: ignore[attr-defined]


def edit_in_place(url: str, killer: Killer, findings: Mapping[str, Any]) -> int:
    """Add a file to a committed directory by a snapshot; how many calls it took."""
    probing._known.update(findings)

    async def edit() -> None:
        snapshot = atomicpath.Snapshot(url)
        with environment.in_this_thread():
            path = await snapshot.create_snapshot()
            (path / "edited").write_bytes(b"x")
            await snapshot.replace_source()

    with environment.use(killer):
        anyio.run(edit)
    return len(killer.begun)  # type: ignore[attr-defined]


def race(
    writer: int,
    url: str,
    rounds: int,
    barrier: threading.Barrier,
    findings: Mapping[str, Any],
    *,
    inside: bool,
    **options: Any,
) -> list[str]:
    """Commit one path a round, at the same moment as the others; what came of each round.

    `inside`: wait for the others in the block too, where no one's success keeps another from entering.
    """
    probing._known.update(findings)
    outcomes = []
    for number in range(rounds):
        barrier.wait(PATIENCE)
        try:
            with atomicpath.commit(f"{url}/step_{number}", metadata={"writer": writer}, **options) as path:
                write_tree(path, content_of(writer))
                if inside:
                    barrier.wait(PATIENCE)
        except Exception as error:
            expected = isinstance(error, atomicpath.AlreadyCommittedError | atomicpath.ConflictError)
            outcomes.append("lost" if expected else repr(error))
        else:
            outcomes.append("won")
    return outcomes


def replace_again_and_again(
    writer: int, url: str, rounds: int, barrier: threading.Barrier, findings: Mapping[str, Any], **options: Any
) -> int:
    """Replace one committed directory `rounds` times; how often another was found to be replacing it for too long."""
    probing._known.update(findings)
    refused = 0
    barrier.wait(PATIENCE)
    for number in range(rounds):
        name = f"{writer}-{number}"
        try:
            with atomicpath.commit(url, replace=True, metadata={"writer": name}, **options) as path:
                write_tree(path, content_of(name))
        except atomicpath.ConflictError:
            refused += 1
    return refused


def fork_in_the_block(url: str, leave: str, **options: Any) -> int:
    """Fork in the block; the child leaves it as `leave` says, then the parent commits. The child's exit code.

    11: it ended by the exception; 12: by sys.exit; 13: at the end of the block it was told that it cannot commit.
    """
    parent, status = os.getpid(), 0
    try:
        with atomicpath.commit(url, **options) as path:
            write_tree(path, content_of("the parent"))
            child = os.fork()
            if child == 0 and leave == "exception":
                raise ZeroDivisionError
            if child == 0 and leave == "sys.exit":
                sys.exit("as the test asked")
            if child:
                _, status = os.waitpid(child, 0)
                assert {name: (path / name).read_bytes() for name in FILES} == content_of("the parent")
    except BaseException as error:
        if os.getpid() == parent:
            raise
        os._exit({ZeroDivisionError: 11, SystemExit: 12, atomicpath.CommitError: 13}.get(type(error), 1))
    if os.getpid() != parent:
        os._exit(0)
    return os.waitstatus_to_exitcode(status)
