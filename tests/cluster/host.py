"""One host of a cluster: a process that sees the shared file system at the path that every host has it at.

The process has a mount namespace of its own, in which one mount of the volume lies at that path. It does what it is
asked for, one line of JSON after the other: `Host` is the side that asks, `serve` the one that answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from multiprocessing.managers import BaseManager
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio

import atomicpath
from atomicpath import aio
from atomicpath._core.layout import HOUSEKEEPING
from atomicpath.abc import Coordinator
from atomicpath.coordinators import KeyValueCoordinator, KeyValues
from tests.coordination.threads import DictValues
from tests.support.waiting import PATIENCE

__all__ = ["FACES", "Host", "values_server"]

FACES = ("blocking", "asyncio", "trio")
_ENTER = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


class Host:
    """A host, started with the block and killed with it."""

    def __init__(self, mount: Path, shared: Path) -> None:
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        serve = [sys.executable, "-c", "from tests.cluster.host import serve; serve()"]
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(mount), str(shared), *serve],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def ask(self, what: str, *args: Any) -> None:
        """Begin something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, *args]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for what has begun."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the host ended with {self._process.wait()}"
        return json.loads(line)

    def do(self, what: str, *args: Any) -> Any:
        self.ask(what, *args)
        return self.answer()

    def kill(self) -> None:
        """As a power cut of the host does to its processes."""
        self._process.kill()
        self._process.communicate()


def serve() -> None:
    """Answer until nobody asks any more."""
    for line in sys.stdin:
        what, *args = json.loads(line)
        print(json.dumps(_DEEDS[what](*args)), flush=True)


def commit(face: str, url: str, files: Mapping[str, str], coordinator: Coordinator | None = None) -> str:
    """Commit the files; "won", or the class of the error and its words."""

    async def main() -> None:
        async with aio.commit(url, coordinator=coordinator) as path:
            for name, text in files.items():
                (Path(path) / name).write_text(text)

    try:
        if face == "blocking":
            with atomicpath.commit(url, coordinator=coordinator) as path:
                for name, text in files.items():
                    (Path(path) / name).write_text(text)
        else:
            anyio.run(main, backend=face)
    except atomicpath.AtomicPathError as error:
        return f"{type(error).__name__}: {error}"
    return "won"


def race(face: str, url: str, names: Sequence[str], at: float) -> list[str]:
    """Several writers of one final path, which begin at a moment that every host knows."""

    def one(name: str) -> str:
        time.sleep(max(0.0, at - time.time()))
        return commit(face, url, {"who": name})

    return _in_threads([partial(one, name) for name in names])


def rank(face: str, url: str, server: Sequence[str], ranks: Sequence[int], size: int) -> list[str]:
    """Some ranks of a job, each of which writes a file."""
    values = _Remote(*server)
    return _in_threads(
        [
            partial(commit, face, url, {f"rank-{number}": str(number)}, KeyValueCoordinator(values, number, size))
            for number in ranks
        ]
    )


def begin(url: str, files: Mapping[str, str]) -> str:
    """Write the files into an attempt that is never finished."""
    context = atomicpath.commit(url)
    path = context.__enter__()
    _begun.append(context)
    for name, text in files.items():
        (Path(path) / name).write_text(text)
    return str(path)


def finish() -> bool:
    """Commit what was begun."""
    _begun.pop().__exit__(None, None, None)
    return True


def read(url: str) -> dict[str, str] | None:
    """The files of a committed directory but the record; None if it is not committed."""
    try:
        path = atomicpath.resolve(url)
    except atomicpath.NotCommittedError:
        return None
    assert atomicpath.verify(url).ok
    return {item.name: item.read_text() for item in Path(str(path)).iterdir() if not item.name.startswith("_")}


def read_until(root: str, last: str) -> list[str]:
    """Read the latest again and again, until it is `last`; the names seen, each complete."""
    seen: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while (not seen or seen[-1] != last) and time.monotonic() < deadline:
        found = atomicpath.latest(root)
        if found is not None and (not seen or seen[-1] != found.name):
            content = read(str(found.path))
            assert content == {f"file-{number}": found.name for number in range(5)}, content
            seen.append(found.name)
    return seen


def committed(root: str) -> list[str]:
    return [commit.name for commit in atomicpath.committed(root)]


def sweep(root: str) -> list[str]:
    return [str(swept) for swept in atomicpath.sweep(root, older_than=timedelta(0))]


def listed(root: str) -> list[str]:
    """What is directly in a directory, and below its house-keeping directory."""
    kept = [str(path.relative_to(root)) for path in (Path(root) / HOUSEKEEPING).rglob("*")]
    return sorted({*os.listdir(root), *kept})


_begun: list[Any] = []
_DEEDS: Mapping[str, Callable[..., Any]] = {
    deed.__name__: deed for deed in (begin, commit, committed, finish, listed, race, rank, read, read_until, sweep)
}


def _in_threads(work: Sequence[Callable[[], str]]) -> list[str]:
    answers = ["still running"] * len(work)

    def run(index: int) -> None:
        answers[index] = work[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return answers


class _Manager(BaseManager):
    """Serves a dictionary to the processes of a job."""


_shared = DictValues()
_Manager.register("values", callable=lambda: _shared)


def values_server() -> _Manager:
    """Start a key-value store that processes share; to be shut down."""
    manager = _Manager(address=("127.0.0.1", 0), authkey=b"tests")
    manager.start()
    return manager


class _Remote(KeyValues):
    """That store, from another process; a connection for each thread is the manager's own."""

    def __init__(self, host: str, port: int) -> None:
        manager = _Manager(address=(host, int(port)), authkey=b"tests")
        manager.connect()
        self._values: Any = manager.values()  # type: ignore[attr-defined]

    def create(self, key: str, value: bytes) -> bytes:
        found: bytes = self._values.create(key, value)
        return found

    def put(self, key: str, value: bytes) -> None:
        self._values.put(key, value)

    def collect(self, keys: Sequence[str], seconds: float, waited: float) -> Mapping[str, bytes]:
        found: Mapping[str, bytes] = self._values.collect(list(keys), seconds, waited)
        return found

    def count(self, key: str) -> int:
        number: int = self._values.count(key)
        return number

    def delete(self, key: str) -> None:
        self._values.delete(key)
