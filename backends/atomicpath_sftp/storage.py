"""Files and directories on an SFTP server: each operation of `Storage` as the requests that carry it."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, ParamSpec, TypeVar

import anyio

from atomicpath.abc import Content, Declaration, DirectoryStorage, Entry, EntryKind, Environment, Put, Update, lacking
from atomicpath.errors import AtomicPathError, ValidationError
from atomicpath.guarantees import Guarantee
from atomicpath.storage import UNFINISHED, FsspecStorage, PerProcess, Source, receive

from . import files, requests
from .address import split
from .connection import Channel, Sessions
from .errors import Failure, translate_errors
from .server import Server, declaration_of
from .settings import Settings

__all__ = ["SftpStorage", "open_sftp"]

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE = 40.0  # seconds for one small operation, the making of a connection included
_PATIENT = (files.send, files.fetch)  # these have a time limit for each piece instead


def open_sftp(settings: Settings, environment: Environment) -> SftpStorage:
    """Return access under options that were resolved."""
    return SftpStorage(PerProcess(Sessions, settings.options, under=settings.surroundings), environment)


class SftpStorage(FsspecStorage[Sessions], DirectoryStorage):
    """SFTP servers. Nothing has a version here, and no directory can be held over the wire."""

    async def declare(self, path: str) -> Declaration:
        return declaration_of(*await self._volume(path))

    async def get(self, path: str) -> Content:
        return Content(data=await self.ask(path, files.read), version=None)

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> None:  # noqa: ARG002 - no file keeps one
        if isinstance(mode, Update):
            raise lacking(self, Guarantee.COMPARE_AND_SWAP)
        if mode is Put.PRIVATE:
            await self.ask(path, files.overwrite, data)
            return
        if mode is Put.CREATE and await self.kind(path) is not None:
            raise _taken(path)  # so that a late writer leaves no trace beside the file of another one
        hidden = self._private(path)
        async with self._removed_after_failure(hidden):
            await self.ask(hidden, files.write, data)
            if mode is Put.CREATE:
                await self._publish(hidden, path)
            else:
                await self.ask(hidden, requests.posix_rename, _remote(path))

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:  # noqa: ARG002 - no file keeps one, none is sent in parts
        seen = await self.environment.step(Source.look, source)
        private = self._private(path)
        async with self._removed_after_failure(private):
            for again in (True, False):
                try:
                    await self.ask(private, files.send, seen, self.filesystem.loop)
                    break
                except FileNotFoundError:
                    if not again:
                        raise
                    await self._make_ancestors(path)
            await self._publish(private, path)
        return Entry(name="", size=seen.size)

    async def download(self, path: str, target: Path) -> Entry:
        async def fetch(file: BinaryIO) -> int:
            return await self.ask(path, files.fetch, file, self.filesystem.loop)

        return Entry(name="", size=await receive(self.environment, target, fetch))

    async def stat(self, path: str) -> Entry | None:
        try:
            found = await self.ask(path, requests.look)
        except FileNotFoundError:
            return None
        return Entry(name="", size=found.size or 0, kind=files.kind_of(found))

    async def delete(self, path: str, *, version: str | None = None) -> None:
        if version is not None:
            raise lacking(self, Guarantee.CONDITIONAL_DELETE)
        with suppress(FileNotFoundError):
            await self.ask(path, requests.remove)

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        found: list[Entry] = []
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            for entry in await self._scan(path, prefix):
                if entry.kind is EntryKind.DIRECTORY and recursive:
                    waiting.append(f"{entry.name}/")
                else:
                    found.append(entry)
        return sorted(found, key=lambda entry: entry.name)

    async def make_directory(self, path: str, *, mode: int | None, durable: bool) -> None:  # noqa: ARG002 - nothing syncs one
        try:
            await self._make_directory(path)
        except FileNotFoundError:
            await self._make_ancestors(path)
            await self._make_directory(path)
        if mode is None:
            return
        try:
            await self.ask(path, requests.chmod, mode)
        except BaseException:
            with anyio.CancelScope(shield=True), suppress(OSError, AtomicPathError):
                await self.ask(path, requests.rmdir)
            raise

    async def rename_directory(self, source: str, target: str) -> None:
        if split(source)[0] != split(target)[0]:
            raise ValidationError(f"sftp://{source} and sftp://{target} are on different servers")
        try:
            await self.ask(source, requests.rename, _remote(target))
        except (Failure, FileNotFoundError) as error:  # servers send the latter also for a link or file in the way
            if await self.kind(target) is not None:
                raise _taken(target) from error
            raise

    async def remove_tree(self, path: str) -> None:
        directories = [""]
        for prefix in directories:  # the list grows during the loop: parents stay before their children
            for entry in await self._scan(path, prefix):
                if entry.kind is EntryKind.DIRECTORY:
                    directories.append(f"{entry.name}/")
                else:
                    await self.delete(f"{path}/{entry.name}")
        for prefix in reversed(directories):
            with suppress(FileNotFoundError):
                await self.ask(f"{path}/{prefix}".rstrip("/"), requests.rmdir)

    async def ask(
        self,
        path: str,
        function: Callable[Concatenate[Channel, str, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Make one request about a path."""
        address, _ = split(path)
        bound = nullcontext() if function in _PATIENT else anyio.fail_after(_PATIENCE)
        try:
            with translate_errors(path), bound:
                return await self.request(self._call, path, function, args, kwargs)
        except TimeoutError:
            with anyio.CancelScope(shield=True):
                await self.there(self.filesystem.drop, address)
            raise

    async def _volume(self, path: str) -> tuple[Server, int | None]:
        """Return who answers, and the id of the file system that the parent is on, or will be."""
        above = path
        while True:
            above = above.rpartition("/")[0] or above
            try:
                return await self.ask(above, requests.volume)
            except FileNotFoundError:
                if "/" not in above:
                    raise

    async def _scan(self, top: str, prefix: str) -> Sequence[Entry]:
        try:
            names = await self.ask(f"{top}/{prefix}".rstrip("/"), requests.scan)
        except FileNotFoundError:  # nothing is there, nothing any more, or no directory
            return []
        return [
            Entry(
                name=prefix + str(name.filename),
                size=(name.attrs.size or 0) if files.kind_of(name.attrs) is EntryKind.FILE else 0,
                kind=files.kind_of(name.attrs),
            )
            for name in names
            if name.filename not in (".", "..")
        ]

    async def _make_directory(self, path: str) -> None:
        try:
            await self.ask(path, requests.mkdir)
        except Failure as error:
            if await self.kind(path) is not None:
                raise _taken(path) from error
            raise

    async def _make_ancestors(self, path: str) -> None:
        """Create the directories above a path that are missing; another process may make them at the same time."""
        missing: list[str] = []
        above = path.rpartition("/")[0]
        while "/" in above:
            try:
                await self._make_directory(above)
                break
            except FileNotFoundError:
                missing.append(above)
                above = above.rpartition("/")[0]
            except FileExistsError:
                if await self.kind(above) is EntryKind.FILE:
                    raise ValidationError(
                        f"sftp://{above} is a file, not a directory: choose another path, or move the file"
                    ) from None
                break
        for directory in reversed(missing):
            with suppress(FileExistsError):
                await self._make_directory(directory)

    def _private(self, path: str) -> str:
        """Return a name beside `path` for a file that is not finished."""
        return f"{path.rpartition('/')[0]}/{UNFINISHED}{self.environment.token()}"

    async def _publish(self, private: str, path: str) -> None:
        """Give a finished file its name, which must not exist."""
        try:
            linked = await self.ask(private, requests.publish, _remote(path))
        except Failure as error:
            if await self.kind(path) is not None:
                raise _taken(path) from error
            raise
        if linked:
            await self.ask(private, requests.remove)

    @asynccontextmanager
    async def _removed_after_failure(self, path: str) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            with anyio.CancelScope(shield=True), suppress(OSError, AtomicPathError):  # another error is being raised
                await self.delete(path)
            raise

    # the methods below run in the file system's own event loop

    async def _call(
        self,
        path: str,
        function: Callable[..., Coroutine[Any, Any, T]],
        args: Sequence[object],
        kwargs: Mapping[str, object],
    ) -> T:
        address, remote = split(path)
        sessions = self.filesystem  # a reference is kept, because the connections end with the file system
        with await sessions.channel(address) as channel:
            return await function(channel, f"/{remote}", *args, **kwargs)


def _remote(path: str) -> str:
    return f"/{split(path)[1]}"


def _taken(path: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, f"something is at sftp://{path}; nothing of it was changed")
