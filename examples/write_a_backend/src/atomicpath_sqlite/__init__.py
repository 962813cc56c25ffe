"""A backend for `sqlite://` URLs: what the entry point names. Directories are published in a SQLite database."""

from __future__ import annotations

from collections.abc import Mapping

import fsspec

from atomicpath.abc import Backend, Environment
from atomicpath.errors import ValidationError
from atomicpath.storage import flaw_of_key, unusable

from .storage import SqliteStorage

__all__ = ["SqliteBackend"]


class SqliteBackend(Backend):
    """`sqlite://run/step_100`, with the file in `storage_options={"database": "/data/store.db"}`."""

    protocols = ("sqlite",)

    def parse_url(self, url: str) -> str:
        path = super().parse_url(url)
        if flaw := flaw_of_key(path, longest=1000):
            raise unusable(url, flaw)
        return path

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> SqliteStorage:
        fsspec.get_filesystem_class("sqlite")  # universal-pathlib warns of a protocol whose class is not loaded yet
        return SqliteStorage(_database(storage_options), environment)

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:
        return f"{self.url(path)} in {_database(storage_options)}"


def _database(storage_options: Mapping[str, object]) -> str:
    database = storage_options.get("database")
    if not isinstance(database, str):
        raise ValidationError("sqlite:// needs to know the file: storage_options={'database': '/data/store.db'}")
    return database
