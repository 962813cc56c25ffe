"""One prepared root: what an operation is to change, and beside it what belongs to others."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from upath import UPath

import atomicpath
from atomicpath._core.environment import Environment, use
from atomicpath._core.layout import COMMIT_SUCCESS_FILE, RECORD_FILE, TMP_DIR_SUFFIX
from tests.support.roots import LocalRoot, Root
from tests.support.trees import write_tree

from .places import Setting
from .seam import Point, Seam

__all__ = ["EMERGENCY", "FOREIGN", "LIVE", "NEIGHBOUR", "Content", "Scene", "Target", "content_of"]

P = ParamSpec("P")
T = TypeVar("T")
Content = Mapping[str, bytes]

NEIGHBOUR, LIVE, EMERGENCY = "neighbour", "live", "emergency"
FOREIGN = {"logs/train.log": b"epoch 1\n", "notes.txt": b"of the user\n"}
_OURS = (RECORD_FILE, COMMIT_SUCCESS_FILE)


def content_of(writer: str) -> dict[str, bytes]:
    """The small tree that a writer commits; other writers write other bytes, and other lengths."""
    return {name: f"{name} by {writer}\n".encode() * 20 for name in ("model.bin", "optimizer/state.bin")}


@dataclass(frozen=True)
class Target:
    """A name that an operation may change: what was committed there before, and what is there afterwards, if anything.

    `local`: it is below the scene's local directory, not in the root.
    """

    name: str
    old: Content | None
    new: Content | None
    local: bool = False

    @property
    def changes(self) -> bool:
        return self.old != self.new


class Scene:
    """A root in a setting, with a local directory beside it for staging, sources and copies."""

    def __init__(self, setting: Setting, base: Path) -> None:
        self.setting = setting
        self.base = base
        self.place: Root = setting.make(base)
        self.staging = base / "staging"
        self.staging.mkdir()
        (base / "local").mkdir()
        self.local: Root = LocalRoot(base / "local")
        self.targets: list[Target] = []

    @property
    def access(self) -> dict[str, Any]:
        """The arguments of every function for this storage."""
        return {"storage_options": self.place.storage_options}

    @property
    def writing(self) -> dict[str, Any]:
        """The arguments of `commit` and `put`."""
        return {**self.access, **self.setting.options, "staging_dir": str(self.staging)}

    @property
    def of_another(self) -> dict[str, Any]:
        """The same for the live attempt that belongs to somebody else."""
        return {**self.writing, "staging_dir": str(self.base)}

    def url(self, target: Target | str) -> str:
        if isinstance(target, Target) and target.local:
            return self.local / target.name
        return self.place / (target if isinstance(target, str) else target.name)

    def root_of(self, target: Target) -> Root:
        return self.local if target.local else self.place

    def commit(self, name: str, writer: str, **options: Any) -> dict[str, bytes]:
        """Commit the tree of a writer; what is there then."""
        content = content_of(writer)
        with self._committing(name, **options) as path:
            write_tree(path, content)
        return content

    def _committing(self, name: str, **options: Any) -> AbstractContextManager[Path | UPath]:
        return atomicpath.commit(self.url(name), **{**self.writing, **options})

    def plant(self) -> None:
        """Put beside the targets what belongs to others, but for the live attempt."""
        for name, data in FOREIGN.items():
            self.place.write(name, data)
        self.commit(NEIGHBOUR, NEIGHBOUR)

    # past the code under test

    def is_marked(self, target: Target) -> bool:
        """Return whether a record there says that it is committed."""
        data = self.root_of(target).read_all(target.name).get(RECORD_FILE)
        try:
            return data is not None and json.loads(data)["state"] == "committed"
        except ValueError:
            return False

    def content(self, target: Target) -> dict[str, bytes]:
        """Return the user's files there."""
        found = self.root_of(target).read_all(target.name)
        return {
            name: data
            for name, data in found.items()
            if name not in _OURS and not name.rpartition("/")[2].startswith(TMP_DIR_SUFFIX)
        }

    # what was left behind

    def leave_attempt(self, name: str) -> None:
        """Leave an attempt whose process was killed in the block, or whose storage fell silent there."""
        if self.setting.survives:
            self._killed(partial(self._die_in_block, name))
            return
        outage = _Outage()
        with suppress(atomicpath.AtomicPathError), use(outage), self._committing(name, **self.of_another) as path:
            write_tree(path, content_of("killed"))
            outage.silent = True

    def leave_removed(self, name: str) -> None:
        """Leave a committed directory whose removal was cut short right after readers lost it."""
        self.commit(name, "removed")
        target = Target(name, None, None)

        def watch(point: Point) -> None:
            if not self.is_marked(target):
                if self.setting.survives:
                    os.kill(os.getpid(), signal.SIGKILL)
                outage.silent = True

        outage = _Outage(watch)
        if self.setting.survives:
            self._killed(partial(self._remove, name, outage))
            return
        with suppress(atomicpath.AtomicPathError, OSError):
            self._remove(name, outage)

    def _remove(self, name: str, environment: Environment) -> None:
        with use(environment):
            atomicpath.remove(self.url(name), **self.access)

    def _die_in_block(self, name: str) -> None:
        with self._committing(name) as path:
            write_tree(path, content_of("killed"))
            os.kill(os.getpid(), signal.SIGKILL)

    def _killed(self, function: Callable[[], None]) -> None:
        child = os.fork()
        if not child:
            try:
                function()
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "it was to be killed before it came to an end"


class _Outage(Seam):
    """A storage that does not answer any more once it is told to."""

    def __init__(self, watch: Callable[[Point], object] | None = None) -> None:
        super().__init__(watch=watch)
        self.silent = False

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check()
        return super().call(function, *args, **kwargs)

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check()
        return await super().request(function, *args, **kwargs)

    def _check(self) -> None:
        if self.silent:
            raise OSError(errno.EIO, "the storage does not answer, says the test")
