"""One root behind a relay: what is prepared past the relay, and what is there afterwards, past atomicpath."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._core.layout import COMMIT_SUCCESS_FILE, RECORD_FILE
from atomicpath._core.liveness import release
from atomicpath._core.record import CommitRecord, Writer
from tests.protocol.worlds import ALL, Quick, attempt, trust

from .places import Server

__all__ = ["CONTENT", "FOREIGN", "Scene"]

CONTENT = {"model.bin": b"weights by the new\n" * 20, "optimizer/state.bin": b"moments by the new\n" * 20}
FOREIGN = {"notes.txt": b"of the user\n"}
_DEAD = Writer(host="elsewhere", pid=4, boot="another boot", namespace="another", start=1)


class Scene:
    """A root of its own, with a clock that only sleeping moves."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server, self.directory = server, directory
        self.root = server.make()
        self.environment = Quick()
        self.direct = server.options(server.endpoint, True)
        trust(self.url("any"), self.direct, ALL)
        self.source = directory / "source"
        for name, data in CONTENT.items():
            (self.source / name).parent.mkdir(parents=True, exist_ok=True)
            (self.source / name).write_bytes(data)
        self.foreign: dict[str, bytes] = dict(FOREIGN)
        for name, data in FOREIGN.items():
            self.root.write(name, data)

    def url(self, name: str) -> str:
        return self.root / name

    async def committed(self, name: str) -> None:
        """Commit the content there, past the relay."""
        with use(self.environment):
            await aio.put(self.source, self.url(name), storage_options=self.direct)

    async def abandoned(self, name: str, *, here: bool) -> None:
        """Leave an attempt with one object, whose process is gone: on this host, where that shows, or on another."""
        old = attempt(self.url(name), self.direct, environment=self.environment)
        stale = self.directory / f"stale-{name}"
        stale.write_bytes(b"of the dead")
        with use(self.environment):
            await old.create()
            await old.add("model.bin", stale)
        release(old.token)
        record = self.record(name)
        assert record is not None
        writer = replace(record.writer, pid=_ended()) if here else _DEAD
        self.root.write(f"{name}/{RECORD_FILE}", replace(record, writer=writer).encode())

    # afterwards

    def record(self, name: str) -> CommitRecord | None:
        data = self.root.read_all(name).get(RECORD_FILE)
        return None if data is None else CommitRecord.decode(data, where=name)

    def is_committed(self, name: str) -> bool:
        """Whether the record there says so."""
        data = self.root.read_all(name).get(RECORD_FILE)
        return data is not None and json.loads(data)["state"] == "committed"

    def is_whole(self, name: str) -> bool:
        """Whether the content is there, committed."""
        found = self.root.read_all(name)
        return self.is_committed(name) and all(found.get(file) == data for file, data in CONTENT.items())

    def leftovers(self) -> list[str]:
        """What is stored and belongs neither to a committed directory nor to the user."""
        everything = self.root.read_all()
        whole: set[str] = set(self.foreign)
        for top in {name.partition("/")[0] for name in everything}:
            if self.is_committed(top):
                whole |= {f"{top}/{name}" for name in (*CONTENT, RECORD_FILE, COMMIT_SUCCESS_FILE)}
        return sorted(set(everything) - whole)

    def lost(self) -> list[str]:
        """What of the user's own is not as it was."""
        everything: Mapping[str, bytes] = self.root.read_all()
        return [name for name, data in self.foreign.items() if everything.get(name) != data]

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def _ended() -> int:
    """The number of a process that has been."""
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL) as process:
        pid: int = process.pid
    return pid
