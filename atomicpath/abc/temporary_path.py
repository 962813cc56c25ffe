"""The port of commit strategies: one attempt to produce a final directory, and what it is told."""

from __future__ import annotations

import abc
import enum
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType
from typing import ClassVar, Self

from upath import UPath

from atomicpath._core.environment import current
from atomicpath._core.record import CommitRecord, FileEntry, JSONValue
from atomicpath.guarantees import NONE, Guarantee

from .metadata_store import MetadataStore

__all__ = ["AttemptOptions", "FileOptions", "SnapshotType", "TemporaryPath"]


class SnapshotType(enum.Enum):
    """How a temporary path relates to a final directory that already exists."""

    IN_PLACE = "in_place"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """`path_permission_mode`: the mode of the created directory; needs a storage that has modes."""

    path_permission_mode: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOptions:
    """What `commit` tells a strategy beyond the paths, before `create`.

    `guarantees` are those effective at the location; `direct` says that the user writes on the target
    itself; `metadata` is his own, JSON, kept in the record. `replace`: a committed directory at the final
    path is not in the way, but makes room in the same step in which the attempt takes its place. `marker` names the
    file that says to other tools that the directory is complete; None is none, and `...` is what the strategy does.
    Without `allow_empty` a directory without files is refused. With `allow_unfinished` files count even if their names
    are those of another tool's unfinished ones, since they come from a directory that was committed with them.
    `copied_from` is the token of the directory that they are a copy of.
    """

    guarantees: Guarantee | None = None
    durable: bool = True
    direct: bool = True
    checksums: bool = False
    unsafe_takeover: bool = False
    replace: bool = False
    allow_empty: bool = True
    allow_unfinished: bool = False
    marker: str | EllipsisType | None = ...
    copied_from: str = ""
    metadata: Mapping[str, JSONValue] = field(default_factory=dict[str, JSONValue])


class TemporaryPath(abc.ABC):
    """One attempt to produce a final directory; a commit strategy is a subclass.

    The obligation: whatever is written below `get()` becomes visible at `get_final()` whole, by one
    storage operation inside `finalize`, or not at all; of many attempts at one final path at most one
    `finalize` returns. `from_final` is called in every process; `create`, `finalize` and `discard` only
    in the primary, each possibly under another event loop, never concurrently with one another.
    """

    requires: ClassVar[Guarantee] = NONE
    """What the location must guarantee for the obligation to be kept."""

    replacing: ClassVar[Guarantee | None] = None
    """What it must guarantee besides for `AttemptOptions.replace`; None if the strategy cannot replace."""

    options: AttemptOptions = AttemptOptions()

    token: str = ""
    """What tells this attempt from every other at the same path, where the strategy has such a thing."""

    committed_record: CommitRecord | None = None
    """The record as committed, once `finalize` has returned, where the strategy writes one."""

    @classmethod
    @abc.abstractmethod
    async def validate(cls, temporary_path: UPath) -> None:
        """Check that an existing path can be this strategy's temporary path; ValidationError says what is wrong."""

    @classmethod
    @abc.abstractmethod
    async def validate_final(cls, final_path: UPath) -> None:
        """Check that an existing path was finished by this strategy; ValidationError says what is wrong."""

    @classmethod
    @abc.abstractmethod
    def from_temporary(
        cls,
        temporary_path: UPath,
        *,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        """Return the attempt that a temporary path belongs to. No I/O."""

    @classmethod
    @abc.abstractmethod
    def from_final(
        cls,
        final_path: UPath,
        *,
        checkpoint_metadata_store: MetadataStore | None = None,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        """Return a new attempt at a final path. No I/O."""

    def configure(self, options: AttemptOptions) -> None:
        """Take what `commit` was told; called once, before `create`. The default keeps it as `options`."""
        self.options = options

    @abc.abstractmethod
    def get(self) -> UPath:
        """Return the path to write to, which is stable, and known before `create`. No I/O."""

    @abc.abstractmethod
    def get_final(self) -> UPath:
        """Return the path at which readers will find the result. No I/O."""

    @abc.abstractmethod
    async def create(self) -> UPath:
        """Begin: afterwards `get()` can be written to, and is returned.

        AlreadyCommittedError or ConflictError if the final path is taken; other errors: nothing began.
        """

    async def add(self, name: str, source: Path) -> None:
        """Publish a local file as `name` of this attempt; between `create` and `finalize`, concurrently."""
        target = self.get() / name
        await current().step(_copy, source, target)

    async def join(self, rank: int, token: str) -> None:  # noqa: B027 - where the name alone tells the attempt, there is nothing to do
        """Take part in the attempt, in the other processes of a job, instead of `create` and after it.

        From then on these processes can write and `add` too.

        Called on what `from_temporary` made of the primary's `get()`; `token` is that of the primary's attempt.
        AbandonedError if that is no longer the one there.
        """

    def added(self) -> tuple[FileEntry, ...]:
        """Return what `add` has published from this process, to be handed to the primary's `include`."""
        return ()

    def include(self, files: Sequence[FileEntry]) -> None:  # noqa: B027 - a listing finds them
        """Take note, in the primary and before `finalize`, of what other processes have added.

        ValidationError if two of them added one name.
        """

    @abc.abstractmethod
    async def finalize(self) -> None:
        """Commit. Returns only if readers now see the whole; the errors say which of the other outcomes it is.

        After any error but OutcomeUnknownError the attempt is over and has been discarded as far as possible.
        """

    async def is_published(self) -> bool | None:
        """Tell whether readers see this very attempt at `get_final()`; None if that cannot be told."""
        return None

    @abc.abstractmethod
    async def discard(self) -> None:
        """Give the attempt up and delete what is provably its own. Once it is over, does nothing."""

    async def retire(self) -> None:
        """Give the attempt up while other processes of the job may still write: what they leave must stay its own."""
        await self.discard()


def _copy(source: Path, target: UPath) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer)
