"""Classes of fsspec's as other people write them: honest, asynchronous, caching, slow and lying ones."""

from __future__ import annotations

import threading
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem

SECRET = "s3cr3t-d0-n0t-sh0w"
PATIENCE = 30.0


class Shelf(MemoryFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """fsspec's memory under other protocols, with files of its own; counts its instances."""

    protocol = ("shelf", "shelves")
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    cachable = False
    made = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        type(self).made += 1

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        for protocol in cls.protocol:
            path = path.removeprefix(f"{protocol}://")
        path = path.strip("/")
        return f"/{path}" if path else ""


class ChecksThenWrites(Shelf):
    """Takes `mode="create"` for a look and a write, with all others in between."""

    racing = threading.Barrier(6)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if mode == "create":
            if self.exists(path):
                raise FileExistsError(path)
            try:
                self.racing.wait(timeout=2)
            except threading.BrokenBarrierError:
                self.racing.reset()
        super().pipe_file(path, value)


class Stale(Shelf):
    """Answers `ls` and `info` from what it has seen once."""

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = listing = super().ls(path, detail=True)
        else:
            listing = self.dircache[path]
        return listing if detail else [info["name"] for info in listing]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any]
        for found in self._ls_from_cache(self._strip_protocol(path)) or ():
            return found
        found = super().info(path)
        return found


class StaleWithACacheOfItsOwn(Shelf):
    """As above, with no cache of fsspec's: it can only be dropped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: dict[str, list[Any]] = {}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if path not in self.seen:
            self.seen[path] = super().ls(path, detail=True)
        return self.seen[path]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.seen.clear()


class OneAtATime(Shelf):
    """Its instances may not be used by two threads at once, as those of FTP."""

    clashes = 0
    instances: set[int] = set()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.busy = threading.Lock()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if not self.busy.acquire(blocking=False):
            type(self).clashes += 1
            raise RuntimeError("two threads in one dialogue")
        try:
            self.instances.add(id(self))
            super().pipe_file(path, value, mode=mode)
        finally:
            self.busy.release()


class Silent(Shelf):
    """Never answers `info` until it is told to."""

    answers = threading.Event()

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        self.answers.wait(timeout=PATIENCE)
        found: dict[str, Any] = super().info(path)
        return found


class Odd(Shelf):
    """Raises what it is told to, from `info`."""

    error: Exception = ValueError(SECRET)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        raise self.error


class Torn(Shelf):
    """Stores and returns half of what is large, without an error."""

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **options: Any) -> None:
        with open(lpath, "rb") as file:
            data = file.read()
        super().pipe_file(rpath, data[: len(data) // 2])

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        data = self.cat_file(rpath)
        with open(lpath, "wb") as file:
            file.write(data[: len(data) // 2])


class AsyncShelf(AsyncFileSystem):  # type: ignore[misc]
    """An asynchronous one. Its `mode="create"` is one step of its event loop."""

    protocol = "ashelf"
    store: dict[str, bytes] = {}
    loops: set[int] = set()

    def _note(self) -> None:
        self.loops.add(threading.get_ident())

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        self._note()
        if mode == "create" and path in self.store:
            raise FileExistsError(path)
        self.store[path] = value

    async def _cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        self._note()
        if path not in self.store:
            raise FileNotFoundError(path)
        return self.store[path]

    async def _get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        data = await self._cat_file(rpath)
        with open(lpath, "wb") as file:
            file.write(data)

    async def _put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **options: Any) -> None:
        with open(lpath, "rb") as file:
            await self._pipe_file(rpath, file.read(), mode=mode)

    async def _rm_file(self, path: str, **options: Any) -> None:
        del self.store[path]

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        if path in self.store:
            return {"name": path, "size": len(self.store[path]), "type": "file"}
        if any(name.startswith(f"{path}/") for name in self.store):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        found: dict[str, dict[str, Any]] = {}
        for name, data in self.store.items():
            child, deeper, _ = name.removeprefix(f"{path}/").partition("/")
            if name.startswith(f"{path}/"):
                kind = {"type": "directory", "size": 0} if deeper else {"type": "file", "size": len(data)}
                found[child] = {"name": f"{path}/{child}", **kind}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values())
