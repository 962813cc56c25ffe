"""Requests to an fsspec class, and what it tells of a path: never from a cache, and a walk of our own.

- `find` leaves out what it could not list, and so the walk is made here.
- `ls` and `info` may answer from a cache. It is turned off, and what a class keeps besides is dropped before each look.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from atomicpath.abc import Entry, EntryKind, Environment, Storage
from atomicpath.errors import ValidationError

from .fsspec_calls import DEFINITE, Allowance, Instances, in_instance
from .fsspec_errors import fsspec_answers, is_of_the_client

if TYPE_CHECKING:
    from .fsspec_backend import FsspecBackend

__all__ = ["WalkedStorage", "is_over", "look", "scan"]

T = TypeVar("T")

_KINDS = {"file": EntryKind.FILE, "directory": EntryKind.DIRECTORY, "link": EntryKind.LINK}


class WalkedStorage(Storage):
    """Base: makes requests by the methods of one class, and looks at paths. Subclasses write."""

    has_directories: ClassVar[bool] = False
    """Whether directories exist by themselves there, so that none comes into being by a write."""

    def __init__(
        self,
        backend: FsspecBackend,
        kind: type[Any],
        instances: Callable[[], Instances],
        environment: Environment,
    ) -> None:
        """`instances` gives the instances of this process, of the class `kind`."""
        super().__init__(environment)
        self.backend = backend
        self.filesystem_class = kind
        self._instances = instances

    async def stat(self, path: str) -> Entry | None:
        info = await self.ask("info", look, path)
        return None if info is None else self._entry("", info, path)

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        found: list[Entry] = []
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            for entry in await self.children(f"{path}/{prefix}".rstrip("/")):
                named = Entry(name=prefix + entry.name, size=entry.size, kind=entry.kind)
                if entry.kind is EntryKind.DIRECTORY and recursive:
                    waiting.append(f"{named.name}/")
                else:
                    found.append(named)
        return sorted(found, key=lambda entry: entry.name)

    async def expect_file(self, path: str) -> Entry:
        entry = await self.stat(path)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, f"nothing is at {self.url(path)}")
        if entry.kind is not EntryKind.FILE:
            raise ValidationError(f"{self.url(path)} is {entry.kind}, where a file is to be read")
        return entry

    async def children(self, path: str) -> Sequence[Entry]:
        plain = self.backend.plain(self.filesystem_class, path).strip("/")
        found: dict[str, Entry] = {}
        for info in await self.ask("ls", scan, path):
            full = str(info["name"]).strip("/")
            parent, _, name = full.rpartition("/")
            if full == plain:  # the directory's own entry, or the file that it is
                continue
            if parent != plain:
                raise OSError(errno.EIO, f"the listing of {self.url(path)} names {full!r}, which is not in it")
            found[name] = self._entry(name, info, f"{path}/{name}")
        if [*found] == [path.rpartition("/")[2]]:  # some classes list a file as if it were in itself
            itself = await self.stat(path)
            if itself is not None and itself.kind is EntryKind.FILE:
                return []
        return [*found.values()]

    def _entry(self, name: str, info: Mapping[str, Any], path: str) -> Entry:
        kind = EntryKind.LINK if info.get("islink") else _KINDS.get(str(info.get("type")), EntryKind.OTHER)
        size = info.get("size") if kind is EntryKind.FILE else 0
        if not isinstance(size, int):
            raise OSError(errno.EIO, f"{self.filesystem_class.__name__} does not tell the size of {self.url(path)}")
        return Entry(name=name, size=size, kind=kind)

    async def ask(
        self, what: str, work: Callable[..., T], *paths: str, writes: bool = False, allowance: Allowance | None = None
    ) -> T:
        """Call `work` with an instance and the paths, as the class spells them."""
        natives = [self.backend.native(self.filesystem_class, path) for path in paths]
        said = f"{self.filesystem_class.__name__}.{what} of {self.url(paths[-1])}"

        def asked(filesystem: Any) -> T:
            with fsspec_answers(said, about=natives, writes=writes, translated=self.backend.translated):
                return work(filesystem, *natives)

        return await in_instance(
            self.environment, self._instances(), asked, allowance or Allowance(0, self.environment.monotonic)
        )

    def taken(self, path: str) -> FileExistsError:
        return FileExistsError(errno.EEXIST, f"something is at {self.url(path)}; nothing of it was changed")

    def url(self, path: str) -> str:
        return self.backend.url(path)


def look(filesystem: Any, native: str) -> dict[str, Any] | None:
    """Return what `info` tells of a path now; None if nothing is there."""
    filesystem.invalidate_cache()
    try:
        info: dict[str, Any] = filesystem.info(native)
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_of_the_client(error, [native]):
            raise
        return None
    return info


def scan(filesystem: Any, native: str) -> list[dict[str, Any]]:
    """Return what `ls` tells of a directory now; nothing if there is none."""
    filesystem.invalidate_cache()
    try:
        listing: list[dict[str, Any]] = filesystem.ls(native, detail=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_of_the_client(error, [native]):
            raise
        return []
    return listing


def is_over(error: OSError) -> bool:
    """Tell whether the store has answered, without a reason: what stands in the way now may have been it."""
    return not isinstance(error, (*DEFINITE, TimeoutError, ConnectionError))
