"""Strategies with a mistake each, of the kinds that the battery is there for: it has to find every one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from upath import UPath

from atomicpath import AtomicRenameTemporaryPath, CommitError, CommitFileTemporaryPath, TemporaryPath
from atomicpath._core.environment import current
from atomicpath._core.layout import TMP_DIR_SUFFIX

from .cells import Key
from .operations import OPERATIONS, Face
from .runner import Cell, Density, run_cell
from .scenes import Scene

__all__ = ["BUGS", "run"]

_COMMIT = next(operation for operation in OPERATIONS if operation.name == "commit")


class _SyncsTooLate(AtomicRenameTemporaryPath):
    """Says "not committed" of a sync that failed after the rename."""

    async def finalize(self) -> None:
        self.configure(replace(self.options, durable=False))
        await super().finalize()
        call = current().call
        try:
            fd = call(os.open, Path(self.get_final().path).parent, os.O_RDONLY)
            try:
                call(os.fsync, fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise CommitError("it was not committed: the directory could not be synced") from error


class _IgnoresSyncs(AtomicRenameTemporaryPath):
    """Takes a failed sync for a success."""

    async def finalize(self) -> None:
        self.configure(replace(self.options, durable=False))
        await super().finalize()
        fd = os.open(Path(self.get_final().path).parent, os.O_RDONLY)
        with suppress(OSError):
            current().call(os.fsync, fd)
        os.close(fd)


class _SwallowsErrors(AtomicRenameTemporaryPath):
    """Returns, though the storage has failed."""

    async def finalize(self) -> None:
        with suppress(Exception):
            await super().finalize()


class _IgnoresTheSwap(CommitFileTemporaryPath):
    """Returns, though the record could not be swapped."""

    async def finalize(self) -> None:
        with suppress(CommitError):
            await super().finalize()


class _DiscardsRivals(AtomicRenameTemporaryPath):
    """Takes every attempt but its own for abandoned."""

    async def create(self) -> UPath:
        path = await super().create()
        for other in Path(path.path).parent.rglob(f"*{TMP_DIR_SUFFIX}*"):
            if self.token not in other.name and other.is_dir():
                shutil.rmtree(other)
        return path


class _WritesAfterwards(AtomicRenameTemporaryPath):
    """Changes a file that readers see already."""

    async def finalize(self) -> None:
        await super().finalize()
        file = Path(self.get_final().path) / "model.bin"
        data = file.read_bytes()
        current().call(file.write_bytes, data[:10])
        current().call(file.write_bytes, data)


class _KeepsADescriptor(AtomicRenameTemporaryPath):
    """Opens its directory when it gives up, and never closes it."""

    async def discard(self) -> None:
        os.open(Path(self.get_final().path).parent, os.O_RDONLY)
        await super().discard()


class _KeepsTheDirectory(AtomicRenameTemporaryPath):
    """Leaves beside the target what nobody will know for a leftover."""

    async def discard(self) -> None:
        (Path(self.get_final().path).parent / "partial").mkdir(exist_ok=True)
        await super().discard()


async def _translated(scene: Scene, face: Face) -> None:
    """Report the caller's own exception as an error of the commit, as a face could."""
    try:
        await _COMMIT.act(scene, face)
    except BaseException as error:
        raise CommitError("it was not committed") from error


@dataclass(frozen=True)
class Bug:
    """A mistake, the fault that shows it, and a part of what the battery then says."""

    strategy: type[TemporaryPath]
    fault: str
    complaint: str
    setting: str = "rename, disk"
    act: Callable[[Scene, Face], Awaitable[Any]] = _COMMIT.act


BUGS: Mapping[str, Bug] = {
    "syncs too late": Bug(_SyncsTooLate, "EIO", "step_5 is new, and: CommitError"),
    "ignores syncs": Bug(_IgnoresSyncs, "EIO", "it returned, though a sync had failed"),
    "swallows errors": Bug(_SwallowsErrors, "EIO", "step_5 is nothing, and: it returned"),
    "ignores the swap": Bug(_IgnoresTheSwap, "EIO", "step_5 is nothing, and: it returned", "commit file, memory"),
    "discards rivals": Bug(_DiscardsRivals, "EIO", "the live attempt of another could not commit"),
    "writes afterwards": Bug(_WritesAfterwards, "kill", "step_5 is committed, and not whole"),
    "keeps a descriptor": Bug(_KeepsADescriptor, "EIO", "a descriptor of root is open"),
    "keeps a directory": Bug(_KeepsTheDirectory, "EIO", "a sweep leaves ['partial']"),
    "translates everything": Bug(
        AtomicRenameTemporaryPath, "SystemExit", "not the caller's own exception", act=_translated
    ),
}


def run(name: str) -> Cell:
    """Run a commit by the strategy that has this mistake."""
    bug = BUGS[name]
    operation, setting, fault = Key("commit", bug.setting, bug.fault).found()
    wrong = replace(setting, options={"temporary_path_class": bug.strategy})
    return run_cell(replace(operation, act=bug.act), wrong, fault, Density(12, 1, beyond=20), wanted=bug.complaint)
