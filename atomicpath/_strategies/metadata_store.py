"""Checkpoint metadata: what `_CHECKPOINT_METADATA` says, and the store that keeps it as JSON files."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from upath import UPath

from atomicpath._core.concurrency import Lock
from atomicpath._core.environment import Environment, current
from atomicpath._core.layout import TMP_DIR_SUFFIX
from atomicpath._core.record import JSONValue, check_metadata
from atomicpath._profile.location import locate, upath_of
from atomicpath._profile.storage_errors import reporting
from atomicpath.errors import IntegrityError

__all__ = ["JsonMetadataStore", "StepMetadata"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetadata:
    """When a step was begun and committed, in nanoseconds since the epoch by the writer's clock, and the user's own.

    The names of the fields in the file are those that Orbax reads and writes, so that either reads the other's.
    `unknown` keeps the fields this version does not know.
    """

    init_timestamp_nsecs: int | None = None
    commit_timestamp_nsecs: int | None = None
    custom_metadata: Mapping[str, JSONValue] = field(default_factory=dict[str, JSONValue], hash=False)
    unknown: Mapping[str, JSONValue] = field(default_factory=dict[str, JSONValue], hash=False)

    def to_json(self) -> dict[str, JSONValue]:
        """Return the fields of the file.

        A time that is not known yet is left out.
        """
        times: dict[str, JSONValue] = {name: getattr(self, name) for name in _TIMES if getattr(self, name) is not None}
        return {**self.unknown, **times, "custom_metadata": dict(self.custom_metadata)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], *, where: str = "the metadata") -> StepMetadata:
        """Return the metadata that the fields of a file describe.

        Raise IntegrityError, which names `where`, if a field cannot be used.
        """
        for name in _TIMES:
            value = fields.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise IntegrityError(
                    f"{where} cannot be used: {name!r} is {value!r}, not a whole number of nanoseconds"
                )
        custom = fields.get("custom_metadata")
        if custom is not None and not isinstance(custom, Mapping):
            raise IntegrityError(f"{where} cannot be used: 'custom_metadata' is not a JSON object")
        return cls(
            init_timestamp_nsecs=fields.get("init_timestamp_nsecs"),
            commit_timestamp_nsecs=fields.get("commit_timestamp_nsecs"),
            custom_metadata=dict(custom or {}),
            unknown={name: value for name, value in fields.items() if name not in (*_TIMES, "custom_metadata")},
        )


_TIMES = ("init_timestamp_nsecs", "commit_timestamp_nsecs")


class JsonMetadataStore:
    """A `MetadataStore` of JSON files, on any file system that UPath reaches.

    With `background` writes and updates return at once and are made in order by one worker thread, which
    lives while there is work; what goes wrong there is raised by `wait_until_finished`, once. Readers of a
    local file see the old content or the new; elsewhere what the store itself promises of a write.
    Safe to call from many threads: updates are made one after the other. It holds no credentials, which
    are in the paths it is called with, and can be pickled; what is under way stays behind.
    """

    def __init__(self, *, background: bool = False) -> None:
        self._background = background
        self._begin()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(background={self._background})"

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()], dict[str, bool]]:
        return type(self), (), {"_background": self._background}

    def write(self, file_path: UPath, metadata: Mapping[str, JSONValue]) -> None:
        """Write a file whose directory exists, over what is there.

        Raise ValidationError for what JSON cannot hold.
        """
        path, fields = upath_of(file_path), check_metadata(metadata)

        def work(environment: Environment) -> None:
            self._failed.pop(str(path), None)
            with _reporting("write", path):
                _write(environment, path, fields)

        self._do(path, work)

    def read(self, file_path: UPath) -> Mapping[str, Any] | None:
        """Return the content of the file once all earlier requests are done; None if there is no file.

        Raise IntegrityError if the file is damaged.
        """
        self._rest()
        path = upath_of(file_path)
        with self._turn, _reporting("read", path):
            return _read(current(), path)

    def update(self, file_path: UPath, **fields: JSONValue) -> None:
        """Set some fields of a file and keep all others; it is created if it is missing."""
        path, changes = upath_of(file_path), check_metadata(fields)

        def work(environment: Environment) -> None:
            if str(path) in self._failed:  # what is to be kept was never written; another's wait may have been told
                raise self._failed[str(path)]
            with _reporting("update", path):
                _write(environment, path, {**(_read(environment, path) or {}), **changes})

        self._do(path, work)

    def wait_until_finished(self) -> None:
        """Wait until all earlier requests are done; raise the first error since the last call."""
        self._rest()
        with self._changed:
            failures = self._failures[:1]
            self._failures.clear()
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Wait for what is under way."""
        self.wait_until_finished()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._turn = Lock()  # one write at a time
        self._changed = threading.Condition()
        self._pending: deque[tuple[UPath, Callable[[], None]]] = deque()
        self._failed: dict[str, BaseException] = {}  # by file; touched by the worker thread only
        self._working = False
        self._failures: list[BaseException] = []  # since the last wait

    def _own(self) -> None:
        if self._pid != os.getpid():
            self._begin()  # a forked child: the thread, the locks and what they guard are its parent's

    def _rest(self) -> None:
        self._own()
        with self._changed:
            self._changed.wait_for(lambda: not self._working)

    def _do(self, path: UPath, action: Callable[[Environment], None]) -> None:
        self._own()
        environment = current()

        def work() -> None:
            with self._turn:
                action(environment)

        if not self._background:
            work()
            return
        with self._changed:
            self._pending.append((path, work))
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="atomicpath-metadata").start()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._pending:
                    self._working = False
                    self._changed.notify_all()
                    return
                path, work = self._pending.popleft()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised by wait_until_finished
                self._failed[str(path)] = error
                with self._changed:
                    self._failures.append(error)


def _reporting(doing: str, path: UPath) -> AbstractContextManager[None]:
    return reporting(f"cannot {doing} the metadata file {{}}", partial(locate, path))


def _read(environment: Environment, path: UPath) -> dict[str, Any] | None:
    try:
        if not _is_local(path):
            path.fs.invalidate_cache(path.parent.path)  # a listing from before would hide a file that was written since
        data: bytes = environment.call(path.read_bytes)
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"the metadata file {path.path} is not readable JSON ({len(data)} bytes): it is truncated or was"
            " overwritten; restore it, or delete it"
        ) from error
    if not isinstance(fields, dict):
        raise IntegrityError(f"the metadata file {path.path} holds no JSON object: restore it, or delete it")
    return fields


def _write(environment: Environment, path: UPath, fields: Mapping[str, JSONValue]) -> None:
    data = (json.dumps(fields) + "\n").encode("ascii")
    if not _is_local(path):
        environment.call(path.write_bytes, data)
        return
    # a name that never counts as content, should it be left behind
    unfinished = Path(path.path).with_name(f"{TMP_DIR_SUFFIX}{environment.token()}")
    try:
        environment.call(unfinished.write_bytes, data)
        environment.call(os.replace, unfinished, path.path)
    except BaseException:
        environment.call(unfinished.unlink, missing_ok=True)
        raise


def _is_local(path: UPath) -> bool:
    return path.protocol in ("", "file", "local")
