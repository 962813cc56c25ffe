"""The storage port on the methods that every fsspec class has, for `FsspecBackend`.

Nothing is relied on that fsspec does not promise (fsspec 2026.9.0, spec.py and asyn.py):

- `mv` copies and deletes, and so is never called. `mkdir` may do nothing.
- `pipe_file(mode="create")` of the base class asks `exists`, which takes every error for absence, and then writes.
  Where a class has none of its own, `open(mode="xb")` is used, which some classes pass on to their store.
- `find` leaves out what it could not list, and so the walk is made here.
- `ls` and `info` may answer from a cache. It is turned off, and what a class keeps besides is dropped before each look.
- A transfer that failed may leave part of a file; so sizes are compared after it.
"""

from __future__ import annotations

import errno
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from atomicpath.abc import Content, Declaration, Entry, Environment, Storage
from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath.guarantees import NONE, Guarantee

from .budget import memory_for
from .fsspec_calls import DEFINITE, Allowance, Instances, in_instance
from .fsspec_errors import fsspec_answers, is_of_the_client
from .names import UNFINISHED
from .source import Source
from .target import check_length, receive

if TYPE_CHECKING:
    from .fsspec_backend import FsspecBackend

__all__ = ["MethodStorage"]

T = TypeVar("T")

_LARGEST_SINGLE = 16 * 2**20  # bytes: what is created from memory, and so by `pipe_file`
_LARGEST_READ = 256 * 2**20  # bytes: a record of a million files is smaller
_PIECE = 2**20  # bytes
_PIPE, _PUT, _OPEN = 'pipe_file(mode="create")', 'put_file(mode="create")', 'open(mode="xb")'
_KINDS = {"file": "file", "directory": "directory", "link": "a symbolic link"}
_ADAPTED = {
    Guarantee.DIRECTORIES: ("mkdir", "fsspec's mkdir may make nothing, or take what is there for made"),
    Guarantee.ATOMIC_RENAME: ("rename", "fsspec's mv copies"),
    Guarantee.RENAME_NOREPLACE: ("rename", "fsspec's mv overwrites, or moves into what is there"),
}
_NEVER = {
    Guarantee.COMPARE_AND_SWAP: "fsspec has no write that names a version",
    Guarantee.CONDITIONAL_DELETE: "fsspec has no delete that names a version",
    Guarantee.RENAME_EXCHANGE: "fsspec has no exchange",
    Guarantee.SYNC: "fsspec syncs nothing",
}


class MethodStorage(Storage):
    """What an `FsspecBackend` opens. Nothing has a version, an owner or an age here."""

    largest_single = _LARGEST_SINGLE

    def __init__(
        self,
        backend: FsspecBackend,
        kind: type[Any],
        instances: Callable[[], Instances],
        environment: Environment,
    ) -> None:
        """`instances` gives those of this process, of the class `kind`."""
        super().__init__(environment)
        self._backend = backend
        self._kind = kind
        self._instances = instances
        self._has_directories = _overrides(backend, "mkdir")

    async def declare(self, path: str) -> Declaration:  # noqa: ARG002 - the same everywhere
        backend = self._backend
        impossible = self._impossible()
        declared = backend.declared.keys() - impossible.keys()
        return Declaration(
            declared=_all(declared),
            observable=backend.observable & ~_all(impossible),
            refutable=_all(set(Guarantee) - impossible.keys()) & ~backend.observable,
            impossible=_all(impossible),
            evidence={
                Guarantee.EXCLUSIVE_CREATE: f"it would have to be kept by {self._small} of {self._kind.__name__}",
                Guarantee.EXCLUSIVE_MULTIPART: f"it would have to be kept by {self._large} of {self._kind.__name__}",
                **backend.declared,
                **impossible,
            },
            renames_between_directories=backend.renames_between_directories,
            is_tried_if_asserted=not (backend.declared or backend.observable),
        )

    async def read(self, path: str) -> Content:
        entry = await self._expect_file(path)
        if entry.size > _LARGEST_READ:
            raise ValidationError(f"{self._url(path)} is too large to be one of ours")
        data = await self._ask("cat_file", _cat, path)
        if len(data) != entry.size:  # shortened, or written anew meanwhile
            check_length(len(data), (await self._expect_file(path)).size)
        return Content(data=data, version=None)

    async def create(self, path: str, data: bytes, *, owner: str = "") -> None:  # noqa: ARG002 - nothing keeps one
        await self._put("pipe_file", path, lambda filesystem, native: self._create(filesystem, native, data))

    async def write(self, path: str, data: bytes, *, private: bool = False) -> None:
        def write(filesystem: Any, native: str) -> None:
            filesystem.pipe_file(native, data)

        if private and self._has_directories:  # whose directory has gone was swept: it is not made again
            await self._ask("pipe_file", write, path, writes=True)
        else:
            await self._put("pipe_file", path, write)

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:  # noqa: ARG002 - nothing keeps one
        seen = await self.environment.step(Source.look, source)
        if seen.size <= self.largest_single:
            async with memory_for(seen.size):
                data = await self.environment.step(seen.read, 0, seen.size)
                await self.create(path, data)
        elif multipart or self._large == self._small:
            await self._send(seen, path)
        else:
            raise GuaranteeError(
                f"{source} has {seen.size} bytes, more than the {self.largest_single} that are sent from memory, and"
                f" {Guarantee.EXCLUSIVE_MULTIPART} is not known at {self._url(path)}: if {self._large} there never"
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
        entry = await self._expect_file(path)
        allowance = Allowance(entry.size, self.environment.monotonic)

        async def fetch(_: BinaryIO) -> None:
            # Into a directory that goes afterwards: a call that was left behind must not write to the user's file.
            scratch = await self.environment.step(tempfile.mkdtemp, prefix=UNFINISHED, dir=target.parent)
            try:
                copy = os.path.join(scratch, "file")
                await self._ask(
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

    async def stat(self, path: str) -> Entry | None:
        info = await self._ask("info", _look, path)
        return None if info is None else self._entry("", info, path)

    async def kind(self, path: str) -> str | None:
        found = await self.stat(path)
        if found is None or found.kind != "directory" or self._has_directories:
            return found.kind if found else None
        return "directory" if await self.list(path, recursive=True) else None

    async def delete(self, path: str, *, version: str | None = None) -> None:
        if version is not None:
            raise GuaranteeError(f"{self._url(path)}: {_NEVER[Guarantee.CONDITIONAL_DELETE]}")

        def delete(filesystem: Any, native: str) -> None:
            info = _look(filesystem, native)
            if info is None:
                return
            if info.get("type") != "directory":
                filesystem.rm_file(native)
            elif self._has_directories:  # some classes would delete all that is in it
                raise IsADirectoryError(errno.EISDIR, "it is a directory", native)
            elif not _scan(filesystem, native):  # made for what was written in it
                filesystem.rmdir(native)

        with suppress(FileNotFoundError):
            await self._ask("rm_file", delete, path, writes=True)

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        found: list[Entry] = []
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            for entry in await self._children(f"{path}/{prefix}".rstrip("/")):
                named = Entry(name=prefix + entry.name, size=entry.size, kind=entry.kind)
                if entry.kind == "directory" and recursive:
                    waiting.append(f"{named.name}/")
                else:
                    found.append(named)
        return sorted(found, key=lambda entry: entry.name)

    async def identity(self, path: str) -> str:  # noqa: ARG002 - the same everywhere
        return ""  # the place depends on options that may be secret: nothing derived from them is published

    async def make_directory(self, path: str, *, mode: int | None, durable: bool) -> None:
        if mode is not None:
            raise ValidationError(
                f"path_permission_mode cannot be honoured at {self._url(path)}: fsspec sets no modes. Leave it out"
            )
        if not self._has_directories:
            await super().make_directory(path, mode=mode, durable=durable)
        try:
            await self._mkdir(path)
        except FileNotFoundError:
            await self._make_ancestors(path)
            await self._mkdir(path)

    async def _mkdir(self, path: str) -> None:
        try:
            await self._ask("mkdir", self._backend.mkdir, path, writes=True)
        except OSError as error:
            if _is_over(error) and await self.kind(path) is not None:
                raise self._taken(path) from error
            raise

    async def rename_directory(self, source: str, target: str) -> None:
        if not _overrides(self._backend, "rename"):
            await super().rename_directory(source, target)
        try:
            await self._ask("rename", self._backend.rename, source, target, writes=True)
        except OSError as error:
            if _is_over(error) and await self.kind(source) is not None and await self.kind(target) is not None:
                raise self._taken(target) from error
            raise

    async def remove_tree(self, path: str) -> None:
        directories = [path]
        for directory in directories:  # grows meanwhile: parents stay before their children
            for entry in await self._children(directory):
                if entry.kind == "directory":
                    directories.append(f"{directory}/{entry.name}")
                else:
                    await self.delete(f"{directory}/{entry.name}")
        for directory in reversed(directories):
            with suppress(FileNotFoundError):
                await self._ask("rmdir", lambda filesystem, native: filesystem.rmdir(native), directory, writes=True)

    @property
    def _small(self) -> str:
        """By what a small file is created, in the class's words."""
        if _overrides(self._backend, "create"):
            return "create"
        return self._created_by("pipe_file", _PIPE)

    @property
    def _large(self) -> str:
        """By what a file is created that is too large to be held in memory."""
        return self._created_by("put_file", _PUT)

    def _created_by(self, method: str, exclusively: str) -> str:
        """The method alone if it overwrites: only where renames publish, and so nothing has to be exclusive."""
        if _creates(self._kind, method):
            return exclusively
        return method if _overrides(self._backend, "rename") else _OPEN

    def _create(self, filesystem: Any, native: str, data: bytes) -> None:
        if self._small == "create":
            self._backend.create(filesystem, native, data)
        elif self._small == _PIPE:
            filesystem.pipe_file(native, data, mode="create")
        elif self._small == "pipe_file":
            _expect_free(filesystem, native)
            filesystem.pipe_file(native, data)
        else:
            with filesystem.open(native, "xb") as file:
                file.write(data)

    async def _send(self, seen: Source, path: str) -> None:
        allowance = Allowance(seen.size, self.environment.monotonic)

        def send(filesystem: Any, native: str) -> None:
            if self._large == _OPEN:
                with seen.open() as source, filesystem.open(native, "xb") as file:
                    while piece := source.read(_PIECE):
                        file.write(piece)
                        allowance.relative_update(len(piece))
                return
            options = {"mode": "create"} if self._large == _PUT else {}
            if not options:
                _expect_free(filesystem, native)
            filesystem.put_file(str(seen.path), native, callback=allowance, **options)

        await self._put("put_file", path, send, allowance)
        await self.environment.step(_expect_same, seen)
        check_length((await self._expect_file(path)).size, seen.size)

    async def _put(
        self, what: str, path: str, work: Callable[[Any, str], None], allowance: Allowance | None = None
    ) -> None:
        try:
            await self._ask(what, work, path, writes=True, allowance=allowance)
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            if not is_missing and _is_over(error):  # not every class says so of a parent that is missing
                is_missing = await self.stat(path.rpartition("/")[0]) is None
            if not is_missing:
                raise
            await self._make_ancestors(path)
            await self._ask(what, work, path, writes=True, allowance=allowance)

    async def _make_ancestors(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if not self._has_directories:
            await self._ask(
                "makedirs", lambda filesystem, native: filesystem.makedirs(native, exist_ok=True), parent, writes=True
            )
        elif await self.kind(parent) is None:
            if "/" in parent:
                await self._make_ancestors(parent)
            with suppress(FileExistsError):
                await self._mkdir(parent)

    async def _expect_file(self, path: str) -> Entry:
        entry = await self.stat(path)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, f"nothing is at {self._url(path)}")
        if entry.kind != "file":
            raise ValidationError(f"{self._url(path)} is {entry.kind}, where a file is to be read")
        return entry

    async def _children(self, path: str) -> Sequence[Entry]:
        plain = self._backend.plain(self._kind, path).strip("/")
        found: dict[str, Entry] = {}
        for info in await self._ask("ls", _scan, path):
            full = str(info["name"]).strip("/")
            parent, _, name = full.rpartition("/")
            if full == plain:  # the directory's own entry, or the file that it is
                continue
            if parent != plain:
                raise OSError(errno.EIO, f"the listing of {self._url(path)} names {full!r}, which is not in it")
            found[name] = self._entry(name, info, f"{path}/{name}")
        if [*found] == [path.rpartition("/")[2]]:  # some classes list a file as if it were in itself
            itself = await self.stat(path)
            if itself is not None and itself.kind == "file":
                return []
        return [*found.values()]

    def _entry(self, name: str, info: Mapping[str, Any], path: str) -> Entry:
        kind = "a symbolic link" if info.get("islink") else _KINDS.get(str(info.get("type")), "a special file")
        size = info.get("size") if kind == "file" else 0
        if not isinstance(size, int):
            raise OSError(errno.EIO, f"{self._kind.__name__} does not tell the size of {self._url(path)}")
        return Entry(name=name, size=size, kind=kind)

    async def _ask(
        self, what: str, work: Callable[..., T], *paths: str, writes: bool = False, allowance: Allowance | None = None
    ) -> T:
        """Call `work` with an instance and the paths, as the class spells them."""
        natives = [self._backend.native(self._kind, path) for path in paths]
        said = f"{self._kind.__name__}.{what} of {self._url(paths[-1])}"

        def asked(filesystem: Any) -> T:
            with fsspec_answers(said, about=natives, writes=writes, translated=self._backend.translated):
                return work(filesystem, *natives)

        return await in_instance(
            self.environment, self._instances(), asked, allowance or Allowance(0, self.environment.monotonic)
        )

    def _impossible(self) -> Mapping[Guarantee, str]:
        """What no class of fsspec can keep by its own methods, and this backend has nothing of its own for."""
        found = dict(_NEVER)
        for guarantee, (adapter, reason) in _ADAPTED.items():
            if not _overrides(self._backend, adapter):
                found[guarantee] = (
                    f"{reason}: it takes a plug-in with a {adapter} of its own, docs/writing-a-backend.md"
                )
        overwriting = {Guarantee.EXCLUSIVE_CREATE: self._small, Guarantee.EXCLUSIVE_MULTIPART: self._large}
        for guarantee, by in overwriting.items():
            if by in ("pipe_file", "put_file"):
                found[guarantee] = f"{by} of {self._kind.__name__} overwrites what is there"
        return found

    def _taken(self, path: str) -> FileExistsError:
        return FileExistsError(errno.EEXIST, f"something is at {self._url(path)}; nothing of it was changed")

    def _url(self, path: str) -> str:
        return self._backend.url(path)


def _overrides(backend: FsspecBackend, adapter: str) -> bool:
    from .fsspec_backend import FsspecBackend

    return getattr(type(backend), adapter) is not getattr(FsspecBackend, adapter)


def _creates(kind: type[Any], method: str) -> bool:
    """Whether a class has a method of its own that takes `mode="create"`."""
    own = getattr(kind, f"_{method}", None) if getattr(kind, "async_impl", False) else None
    own = own or getattr(kind, method)
    bases = [getattr(AbstractFileSystem, method), getattr(AsyncFileSystem, f"_{method}")]
    return own not in bases and "mode" in inspect.signature(own).parameters


def _look(filesystem: Any, native: str) -> dict[str, Any] | None:
    """Return what `info` tells of a path now; None if nothing is there."""
    filesystem.invalidate_cache()
    try:
        info: dict[str, Any] = filesystem.info(native)
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_of_the_client(error, [native]):
            raise
        return None
    return info


def _scan(filesystem: Any, native: str) -> list[dict[str, Any]]:
    """Return what `ls` tells of a directory now; nothing if there is none."""
    filesystem.invalidate_cache()
    try:
        listing: list[dict[str, Any]] = filesystem.ls(native, detail=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_of_the_client(error, [native]):
            raise
        return []
    return listing


def _cat(filesystem: Any, native: str) -> bytes:
    return bytes(filesystem.cat_file(native))


def _is_over(error: OSError) -> bool:
    """Tell whether the store has answered, without a reason: what stands in the way now may have been it."""
    return not isinstance(error, (*DEFINITE, TimeoutError, ConnectionError))


def _expect_free(filesystem: Any, native: str) -> None:
    if _look(filesystem, native) is not None:
        raise FileExistsError(errno.EEXIST, "something is there", native)


def _expect_same(source: Source) -> None:
    source.open().close()


def _all(guarantees: Any) -> Guarantee:
    found = NONE
    for guarantee in guarantees:
        found |= guarantee
    return found
