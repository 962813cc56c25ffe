"""The storage port on one table of a SQLite database. Each method is one transaction."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from atomicpath.abc import Content, Declaration, Entry, EntryKind, Environment, Put, StaleVersionError, Storage, Update
from atomicpath.guarantees import Guarantee
from atomicpath.storage import receive

__all__ = ["SqliteStorage", "connect"]

T = TypeVar("T")

_DECLARED = (
    Guarantee.ATOMIC_WRITE
    | Guarantee.LIST_AFTER_WRITE
    | Guarantee.EXCLUSIVE_CREATE
    | Guarantee.COMPARE_AND_SWAP
    | Guarantee.CONDITIONAL_DELETE
)
_EVIDENCE = "SQLite's transactions are serializable, whichever process makes them (sqlite.org, 'Isolation In SQLite')"
_TABLE = """CREATE TABLE IF NOT EXISTS objects (
    version INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, not even after a delete
    path TEXT NOT NULL UNIQUE, data BLOB NOT NULL, owner TEXT, written REAL NOT NULL)"""

_PUT = """INSERT OR REPLACE INTO objects (path, data, owner, written) SELECT ?1, ?2, ?3, ?4
    WHERE (?5 IS NULL OR EXISTS (SELECT 1 FROM objects WHERE path = ?1 AND version = ?5))
    AND (NOT ?6 OR NOT EXISTS (SELECT 1 FROM objects WHERE path = ?1)) RETURNING version"""


def connect(database: str) -> sqlite3.Connection:
    """A connection that waits for others instead of failing; every statement is a transaction of its own."""
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    connection.execute(_TABLE)
    return connection


class SqliteStorage(Storage):
    """Flat, like an object store: a directory is what has something below it."""

    def __init__(self, database: str, environment: Environment) -> None:
        super().__init__(environment)
        self._database = database

    async def declare(self, path: str) -> Declaration:
        return Declaration(declared=_DECLARED, evidence=dict.fromkeys(_DECLARED, _EVIDENCE))

    async def get(self, path: str) -> Content:
        row = await self._row("SELECT data, version, written FROM objects WHERE path = ?", path)
        if row is None:
            raise FileNotFoundError(errno.ENOENT, f"nothing is at sqlite://{path}")
        return Content(data=row[0], version=str(row[1]), age=max(time.time() - row[2], 0.0))

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str:
        version = int(mode.version) if isinstance(mode, Update) else None
        row = await self._row(_PUT, path, data, owner or None, time.time(), version, mode is Put.CREATE)
        if row is None and mode is Put.CREATE:
            raise FileExistsError(errno.EEXIST, f"something is at sqlite://{path}")
        if row is None:
            raise StaleVersionError(errno.ESTALE, f"sqlite://{path} does not have version {version} any more")
        return str(row[0])

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        data = await self.environment.step(source.read_bytes)
        return Entry(name="", size=len(data), version=await self.put(path, data, mode=Put.CREATE, owner=owner))

    async def download(self, path: str, target: Path) -> Entry:
        async def fetch(file: BinaryIO) -> Entry:
            content = await self.get(path)
            await self.environment.step(file.write, content.data)
            return Entry(name="", size=len(content.data), version=content.version)

        return await receive(self.environment, target, fetch)

    async def stat(self, path: str) -> Entry | None:
        row = await self._row("SELECT length(data), version, owner FROM objects WHERE path = ?", path)
        return Entry(name="", size=row[0], version=str(row[1]), owner=row[2]) if row else None

    async def delete(self, path: str, *, version: str | None = None) -> None:
        if version is None:
            await self._row("DELETE FROM objects WHERE path = ?", path)
        elif not await self._row(
            "DELETE FROM objects WHERE path = ? AND version = ? RETURNING path", path, int(version)
        ) and await self.stat(path):
            raise StaleVersionError(errno.ESTALE, f"sqlite://{path} does not have version {version} any more")

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        found: dict[str, Entry] = {}
        for name, size, version in await self._below(path):
            child, deeper, _ = name.partition("/")
            if deeper and not recursive:
                found[child] = Entry(name=child, kind=EntryKind.DIRECTORY)
            else:
                found.setdefault(name, Entry(name=name, size=size, version=str(version)))
        return [found[name] for name in sorted(found)]

    async def _below(self, path: str) -> Sequence[tuple[str, int, int]]:
        first, after = f"{path}/", f"{path}0"  # "0" comes after "/"
        statement = "SELECT substr(path, ?), length(data), version FROM objects WHERE path >= ? AND path < ?"
        return await self._run(lambda cursor: cursor.execute(statement, (len(first) + 1, first, after)).fetchall())

    async def _row(self, statement: str, *values: object) -> Any:
        return await self._run(lambda cursor: cursor.execute(statement, values).fetchone())

    async def _run(self, function: Callable[[sqlite3.Cursor], T]) -> T:
        def transaction() -> T:
            with closing(connect(self._database)) as connection, closing(connection.cursor()) as cursor:
                return self.environment.call(function, cursor)

        try:
            return await self.environment.step(transaction)
        except sqlite3.OperationalError as error:  # locked for too long, disk full: who knows what was done
            raise OSError(errno.EIO, f"{self._database}: {error}") from error
