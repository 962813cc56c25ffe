"""The table of operations: what is prepared, what is done, and what it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from upath import UPath

import atomicpath
from atomicpath import aio
from tests.support.trees import write_tree

from .places import Setting
from .scenes import Scene, Target, content_of

__all__ = ["OPERATIONS", "Asynchronous", "Blocking", "Face", "Operation", "drive"]


class Face(Protocol):
    """One of the two faces of atomicpath, so that an operation is written once."""

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function of that name."""

    def commit(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Path | UPath]:
        """Enter and leave `commit`."""

    async def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run what has no blocking form."""


class Blocking:
    """The top level. Nothing here waits, so that `drive` needs no event loop."""

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(atomicpath, name)(*args, **kwargs)

    @asynccontextmanager
    async def commit(self, *args: Any, **kwargs: Any) -> AsyncIterator[Path | UPath]:
        with atomicpath.commit(*args, **kwargs) as path:
            yield path

    async def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        async def main() -> None:
            await coroutine
            await asyncio.sleep(0)  # a Ctrl-C that came at the very end cancels here

        asyncio.run(main())


class Asynchronous:
    """`atomicpath.aio`."""

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        return await getattr(aio, name)(*args, **kwargs)

    def commit(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Path | UPath]:
        return aio.commit(*args, **kwargs)

    async def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        await coroutine


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


@dataclass(frozen=True)
class Operation:
    """`prepare` makes what it starts from and returns its targets, `act` does it by one of the faces."""

    name: str
    prepare: Callable[[Scene], list[Target]]
    act: Callable[[Scene, Face], Awaitable[Any]]
    needs_replacing: bool = False

    def runs_in(self, setting: Setting) -> bool:
        return setting.replaces or not self.needs_replacing


def _nothing_there(scene: Scene) -> list[Target]:
    return [Target("step_5", None, content_of("new"))]


def _left_by_a_crash(scene: Scene) -> list[Target]:
    scene.leave_attempt("step_5")
    return [Target("step_5", None, content_of("new"))]


def _replaced(scene: Scene) -> list[Target]:
    return [Target("step_5", scene.commit("step_5", "old"), content_of("new"))]


def _edited(scene: Scene) -> list[Target]:
    old = scene.commit("step_5", "old")
    return [Target("step_5", old, {**old, "edited.txt": b"by the snapshot"})]


def _removed(scene: Scene) -> list[Target]:
    return [Target("step_5", scene.commit("step_5", "old"), None)]


def _series(scene: Scene) -> list[Target]:
    first, second, third = (scene.commit(name, name) for name in ("step_1", "step_2", "step_3"))
    return [Target("step_1", first, None), Target("step_2", second, None), Target("step_3", third, third)]


def _leftovers(scene: Scene) -> list[Target]:
    scene.leave_removed("step_6")
    scene.leave_attempt("step_7")
    return [Target("step_6", None, None), Target("step_7", None, None)]


def _fetched(scene: Scene) -> list[Target]:
    old = scene.commit("step_5", "old")
    return [Target("step_5", old, old), Target("copy", None, old, local=True)]


def _source(scene: Scene) -> list[Target]:
    new = content_of("new")
    write_tree(scene.base / "source", new)
    return [Target("step_5", None, new)]


async def _commit(scene: Scene, face: Face, **options: Any) -> None:
    async with face.commit(scene.url("step_5"), **{**scene.writing, **options}) as path:
        write_tree(path, content_of("new"))


async def _take_over(scene: Scene, face: Face) -> None:
    await _commit(scene, face, **scene.setting.takes_over)


async def _put(scene: Scene, face: Face) -> None:
    await face.call("put", scene.base / "source", scene.url("step_5"), **scene.writing)


async def _get(scene: Scene, face: Face) -> None:
    await face.call("get", scene.url("step_5"), Path(scene.local / "copy"), **scene.access)


async def _replace(scene: Scene, face: Face) -> None:
    await _commit(scene, face, replace=True)


async def _remove(scene: Scene, face: Face) -> None:
    await face.call("remove", scene.url("step_5"), **scene.access)


async def _keep_last(scene: Scene, face: Face) -> list[str]:
    return [commit.name for commit in await face.call("keep_last", scene.place.url, 1, **scene.access)]


async def _sweep(scene: Scene, face: Face) -> list[str]:
    found = await face.call("sweep", scene.place.url, older_than=timedelta(0), **scene.access)
    return [swept.path.name for swept in found if swept.done and swept.action == "remove"]


async def _snapshot(scene: Scene, face: Face) -> None:
    async def edit() -> None:
        snapshot = atomicpath.Snapshot(scene.url("step_5"), **scene.access)
        path = await snapshot.create_snapshot()
        try:
            (path / "edited.txt").write_bytes(b"by the snapshot")
            await snapshot.replace_source()
        except BaseException:
            with suppress(atomicpath.ValidationError):  # it is over already
                await snapshot.release_snapshot()
            raise

    await face.run(edit())


OPERATIONS = (
    Operation("commit", _nothing_there, _commit),
    Operation("put", _source, _put),
    Operation("get", _fetched, _get),
    Operation("replace", _replaced, _replace, needs_replacing=True),
    Operation("snapshot", _edited, _snapshot, needs_replacing=True),
    Operation("remove", _removed, _remove),
    Operation("keep_last", _series, _keep_last),
    Operation("sweep after crashes", _leftovers, _sweep),
    Operation("commit after a crash", _left_by_a_crash, _take_over),
)
