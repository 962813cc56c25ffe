"""The whole of what a backend has to show: the conformance kit, with a look at the store past the backend."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import atomicpath
from atomicpath.testing import Factory, Place
from atomicpath.testing.suite import ConformanceTests


class SqlitePlace(Place):
    """A directory in a new database, looked at with `sqlite3` itself."""

    url = "sqlite://bench/run"

    def __init__(self, database: Path) -> None:
        self.storage_options = {"database": str(database)}
        atomicpath.is_committed(self.url, storage_options=self.storage_options)  # makes the table

    def _run(self, statement: str, *values: object) -> list[tuple[str, bytes]]:
        with closing(sqlite3.connect(self.storage_options["database"], timeout=60)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def read_all(self, below: str = "") -> dict[str, bytes]:
        prefix = f"bench/run/{below}".rstrip("/") + "/"
        rows = self._run("SELECT path, data FROM objects")
        return {path.removeprefix(prefix): data for path, data in rows if path.startswith(prefix)}

    def write(self, name: str, data: bytes) -> None:
        self._run("INSERT OR REPLACE INTO objects (path, data, written) VALUES (?, ?, 0)", f"bench/run/{name}", data)

    def delete(self, name: str) -> None:
        self._run("DELETE FROM objects WHERE path = ?", f"bench/run/{name}")


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path / "store.db")


class TestSqlite(ConformanceTests):
    @pytest.fixture
    def make_place(self, place: SqlitePlace) -> Factory:
        return lambda: place


_COMMIT = """
import sys
import atomicpath
url, database, writer = sys.argv[1:]
try:
    with atomicpath.commit(url, storage_options={"database": database}) as path:
        (path / "who").write_text(writer)
except (atomicpath.AlreadyCommittedError, atomicpath.ConflictError):
    print("lost")
else:
    print("won")
"""


def test_of_eight_processes_one_wins(place: SqlitePlace) -> None:
    command = [sys.executable, "-c", _COMMIT, place / "step_1", place.storage_options["database"]]
    writers = [subprocess.Popen([*command, str(writer)], stdout=subprocess.PIPE, text=True) for writer in range(8)]
    outcomes = [writer.communicate(timeout=100)[0].strip() for writer in writers]
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]
    final = atomicpath.resolve(place / "step_1", storage_options=place.storage_options)
    assert (final / "who").read_text() == str(outcomes.index("won"))


def test_it_is_found_and_explained(place: SqlitePlace) -> None:
    words = str(atomicpath.explain(place / "step_1", storage_options=place.storage_options))
    assert "CommitFileTemporaryPath" in words
    assert "Isolation In SQLite" in " ".join(words.split())  # it may be broken into lines


def test_a_block_may_write_on_the_store_itself(place: SqlitePlace) -> None:
    with atomicpath.commit(place / "step_1", storage_options=place.storage_options, direct=True) as path:
        (path / "a").write_bytes(b"direct")
    assert place.read_all("step_1")["a"] == b"direct"
    assert atomicpath.verify(place / "step_1", storage_options=place.storage_options).ok
