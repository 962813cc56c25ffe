"""Files to and from an fsspec class: small ones from memory, large ones by its own transfer, both created exclusively.

- `pipe_file(mode="create")` of the base class asks `exists`, which takes every error for absence, and then writes.
  Where a class has none of its own, `open(mode="xb")` is used, which some classes pass on to their store.
- A transfer that failed may leave part of a file; so sizes are compared after it.
"""

from __future__ import annotations

import abc
import errno
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from atomicpath.abc import Content, Entry, MultipartStorage, Put, Update, lacking
from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath.guarantees import Guarantee

from .budget import memory_for
from .fsspec_calls import Allowance
from .fsspec_walk import WalkedStorage, is_over, look
from .names import UNFINISHED
from .source import Source
from .target import check_length, receive

__all__ = ["TransferringStorage"]

_LARGEST_SINGLE = 16 * 2**20  # bytes: files up to this size are created from memory, by `pipe_file`
_LARGEST_READ = 256 * 2**20  # bytes: a record of a million files is smaller
_PIECE = 2**20  # bytes
_PIPE, _PUT, _OPEN = 'pipe_file(mode="create")', 'put_file(mode="create")', 'open(mode="xb")'


class TransferringStorage(WalkedStorage, MultipartStorage):
    """Base: reads and writes files. Nothing has a version, an owner or an age here."""

    largest_single = _LARGEST_SINGLE

    @abc.abstractmethod
    async def make_ancestors(self, path: str) -> None:
        """Make the directories above a path that are missing; another process may make them at the same time."""

    async def get(self, path: str) -> Content:
        entry = await self.expect_file(path)
        if entry.size > _LARGEST_READ:
            raise ValidationError(f"{self.url(path)} is too large to be one of ours")
        data = await self.ask("cat_file", _cat, path)
        if len(data) != entry.size:  # the file was shortened or rewritten meanwhile
            check_length(len(data), (await self.expect_file(path)).size)
        return Content(data=data, version=None)

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> None:  # noqa: ARG002 - nothing keeps one
        if isinstance(mode, Update):
            raise lacking(self, Guarantee.COMPARE_AND_SWAP)

        def write(filesystem: Any, native: str) -> None:
            if mode is Put.CREATE:
                self._create(filesystem, native, data)
            else:
                filesystem.pipe_file(native, data)

        if mode is Put.PRIVATE and self.has_directories:  # if the directory is gone, the attempt was swept
            await self.ask("pipe_file", write, path, writes=True)
        else:
            await self._put("pipe_file", path, write)

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:  # noqa: ARG002 - nothing keeps one
        seen = await self.environment.step(Source.look, source)
        if seen.size <= self.largest_single:
            async with memory_for(seen.size):
                data = await self.environment.step(seen.read, 0, seen.size)
                await self.put(path, data, mode=Put.CREATE)
        elif multipart or self.large == self.small:
            await self._send(seen, path)
        else:
            raise GuaranteeError(
                f"{source} has {seen.size} bytes, more than the {self.largest_single} that are sent from memory, and"
                f" {Guarantee.EXCLUSIVE_MULTIPART} is not known at {self.url(path)}: if {self.large} there never"
                " overwrites what is there, assert it with guarantees="
            )
        return Entry(name="", size=seen.size)

    async def create_in_parts(self, path: str, data: bytes) -> None:
        def keep() -> Path:
            descriptor, name = tempfile.mkstemp(prefix=UNFINISHED)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            return Path(name)

        source = await self.environment.step(keep)
        try:
            await self._send(await self.environment.step(Source.look, source), path)
        finally:
            source.unlink(missing_ok=True)

    async def download(self, path: str, target: Path) -> Entry:
        entry = await self.expect_file(path)
        allowance = Allowance(entry.size, self.environment.monotonic)

        async def fetch(_: BinaryIO) -> None:
            # Into a temporary directory: an abandoned call that still runs must not write to the user's file.
            scratch = await self.environment.step(tempfile.mkdtemp, prefix=UNFINISHED, dir=target.parent)
            try:
                copy = os.path.join(scratch, "file")
                await self.ask(
                    "get_file",
                    lambda filesystem, native: filesystem.get_file(native, copy, callback=allowance),
                    path,
                    allowance=allowance,
                )
                check_length(await self.environment.step(os.path.getsize, copy), entry.size)
                await self.environment.step(os.replace, copy, target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

        await receive(self.environment, target, fetch)
        return Entry(name="", size=entry.size)

    @property
    def small(self) -> str:
        """Return the method that creates a small file, as the class spells it."""
        if self.backend.has("create"):
            return "create"
        return self._created_by("pipe_file", _PIPE)

    @property
    def large(self) -> str:
        """Return the method that creates a file that is too large to be held in memory."""
        return self._created_by("put_file", _PUT)

    def _created_by(self, method: str, exclusively: str) -> str:
        """Return how the class creates a file.

        A method that overwrites is returned only where renames publish, because nothing has to be exclusive there.
        """
        if _creates(self.filesystem_class, method):
            return exclusively
        return method if self.backend.has("rename") else _OPEN

    def _create(self, filesystem: Any, native: str, data: bytes) -> None:
        if self.small == "create":
            self.backend.create(filesystem, native, data)
        elif self.small == _PIPE:
            filesystem.pipe_file(native, data, mode="create")
        elif self.small == "pipe_file":
            _expect_free(filesystem, native)
            filesystem.pipe_file(native, data)
        else:
            with filesystem.open(native, "xb") as file:
                file.write(data)

    async def _send(self, seen: Source, path: str) -> None:
        allowance = Allowance(seen.size, self.environment.monotonic)

        def send(filesystem: Any, native: str) -> None:
            if self.large == _OPEN:
                with seen.open() as source, filesystem.open(native, "xb") as file:
                    while piece := source.read(_PIECE):
                        file.write(piece)
                        allowance.relative_update(len(piece))
                return
            options = {"mode": "create"} if self.large == _PUT else {}
            if not options:
                _expect_free(filesystem, native)
            filesystem.put_file(str(seen.path), native, callback=allowance, **options)

        await self._put("put_file", path, send, allowance)
        await self.environment.step(_expect_same, seen)
        check_length((await self.expect_file(path)).size, seen.size)

    async def _put(
        self, what: str, path: str, work: Callable[[Any, str], None], allowance: Allowance | None = None
    ) -> None:
        try:
            await self.ask(what, work, path, writes=True, allowance=allowance)
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            if not is_missing and is_over(error):  # not every class raises this for a missing parent
                is_missing = await self.stat(path.rpartition("/")[0]) is None
            if not is_missing:
                raise
            await self.make_ancestors(path)
            await self.ask(what, work, path, writes=True, allowance=allowance)


def _creates(kind: type[Any], method: str) -> bool:
    """Tell whether a class has a method of its own that takes `mode="create"`."""
    own = getattr(kind, f"_{method}", None) if getattr(kind, "async_impl", False) else None
    own = own or getattr(kind, method)
    bases = [getattr(AbstractFileSystem, method), getattr(AsyncFileSystem, f"_{method}")]
    return own not in bases and "mode" in inspect.signature(own).parameters


def _cat(filesystem: Any, native: str) -> bytes:
    return bytes(filesystem.cat_file(native))


def _expect_free(filesystem: Any, native: str) -> None:
    if look(filesystem, native) is not None:
        raise FileExistsError(errno.EEXIST, "something is there", native)


def _expect_same(source: Source) -> None:
    source.open().close()
