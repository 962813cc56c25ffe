"""What users read from: an fsspec file system over the same table, and its path. Most stores have one already."""

from __future__ import annotations

import io
import time
from contextlib import closing
from typing import Any

from fsspec.spec import AbstractFileSystem
from upath import UPath

from .storage import connect

__all__ = ["SqliteFileSystem", "SqlitePath"]


class SqliteFileSystem(AbstractFileSystem):
    """Reads and writes whole files."""

    protocol = "sqlite"

    def __init__(self, database: str, **options: Any) -> None:
        super().__init__(database=database, **options)
        self.database = database

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with closing(connect(self.database)) as connection:
            return connection.execute(statement, values).fetchall()

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        path = self._strip_protocol(path).strip("/")
        first = f"{path}/" if path else ""
        found: dict[str, dict[str, object]] = {}
        for name, size in self._rows("SELECT path, length(data) FROM objects"):
            child, deeper, _ = name.removeprefix(first).partition("/")
            if name == path:
                found[name] = {"name": name, "size": size, "type": "file"}
            elif name.startswith(first):
                kind = {"size": 0, "type": "directory"} if deeper else {"size": size, "type": "file"}
                found[first + child] = {"name": first + child, **kind}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:
        if mode == "rb":
            rows = self._rows("SELECT data FROM objects WHERE path = ?", path)
            if not rows:
                raise FileNotFoundError(path)
            return io.BytesIO(rows[0][0])
        return _Writer(self, path)

    def rm_file(self, path: str) -> None:
        self._rows("DELETE FROM objects WHERE path = ?", path)


class _Writer(io.BytesIO):
    def __init__(self, filesystem: SqliteFileSystem, path: str) -> None:
        super().__init__()
        self._filesystem, self._path = filesystem, path

    def close(self) -> None:
        if not self.closed:
            self._filesystem._rows(
                "INSERT OR REPLACE INTO objects (path, data, written) VALUES (?, ?, ?)",
                self._path,
                self.getvalue(),
                time.time(),
            )
        super().close()


class SqlitePath(UPath):
    """`UPath("sqlite://run/step_100", database="/data/store.db")`."""
