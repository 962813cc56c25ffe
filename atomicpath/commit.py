"""The writer: from a URL to a committed directory, in two halves with the user's block between them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from upath import UPath

from .abc import AttemptOptions, FileOptions, TemporaryPath
from .environment import need_event_loop, shielded
from .errors import AtomicPathError, CommitError, OutcomeUnknownError, ValidationError
from .guarantees import NONE, Guarantee, Profile, check, check_replacing
from .layout import is_temporary
from .location import Location, PathLike, locate
from .probing import profile_of
from .progress import progress_bar
from .record import JSONValue, check_metadata
from .selection import select
from .staging import Progress, Staging, files_of, upload
from .strategies.atomic_rename import AtomicRenameTemporaryPath

__all__ = ["CommitOptions", "Writing", "put"]

_LOG = logging.getLogger("atomicpath")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOptions:
    """The keyword arguments of `commit`; their meaning stands there."""

    storage_options: Mapping[str, object] | None = field(default=None, repr=False)  # may hold credentials
    temporary_path_class: type[TemporaryPath] | None = None
    direct: bool = False
    replace: bool = False
    durable: bool = True
    coordinator: object | None = None
    file_options: FileOptions | None = None
    metadata: Mapping[str, JSONValue] | None = None
    checksums: bool = False
    staging_dir: str | os.PathLike[str] | None = None
    progress: Progress | bool | None = None
    guarantees: Guarantee | None = None
    unsafe_takeover: bool = False


class Writing:
    """One commit under way. `begin`, then the user's block, then exactly one of `finish` and `abandon`."""

    def __init__(self, url: PathLike, options: CommitOptions) -> None:
        self.location = _final(url, options)
        self._options = options
        self._metadata = check_metadata(options.metadata)
        self._storage = self.location.open()
        self._temporary: TemporaryPath | None = None
        self._staging: Staging | None = None
        self._staged: Path | None = None
        self._progress = _progress(options.progress)
        self._begun = False
        self._pid = os.getpid()

    @property
    def is_local(self) -> bool:
        """Whether no step of this commit waits for a network."""
        return self._storage.is_local

    async def begin(self, *, source: bool = False) -> Path | UPath:
        """Create the attempt; where to write. `source`: the files are already somewhere on this host."""
        if self._begun:
            raise CommitError(f"this commit of {self.location} was entered before: call commit() again for another")
        options = self._options
        direct = self._storage.is_local or (options.direct and not source)
        strategy, profile = await self._strategy()
        if strategy is not AtomicRenameTemporaryPath or not self._storage.is_local:
            need_event_loop()  # any other may wait for what it likes
        self._begun = True
        temporary = strategy.from_final(self.location.upath, file_options=options.file_options)
        temporary.configure(
            AttemptOptions(
                guarantees=profile.effective,
                durable=options.durable,
                direct=direct,
                checksums=options.checksums,
                unsafe_takeover=options.unsafe_takeover,
                replace=options.replace,
                metadata=self._metadata,
            )
        )
        if not (direct or source):
            self._staging = Staging(self._storage.environment, options.staging_dir)
            self._staged = await self._staging.create()
        try:
            path = await temporary.create()
        except BaseException:
            await self._unstage()
            raise
        self._temporary = temporary
        if self._staged is not None:
            return self._staged
        return Path(cast("os.PathLike[str]", path)) if self._storage.is_local else path

    async def finish(self, source: Path | None = None) -> None:
        """Commit what was written, or the local directory `source`."""
        temporary = self._own()
        try:
            files_from = source or self._staged
            if files_from is not None:
                environment = self._storage.environment
                files = await files_of(environment, files_from, source=source is not None)
                await upload(temporary, files, self._progress)
        except BaseException as error:
            await self.abandon()
            if isinstance(error, OSError) and not isinstance(error, AtomicPathError):
                raise CommitError(f"{self.location} was not committed: {error}; the attempt was discarded") from error
            raise
        try:
            await temporary.finalize()
        except OutcomeUnknownError:
            self._temporary = None  # nothing may be cleaned up
            raise
        except BaseException:
            await self.abandon()  # a user's strategy may fail, or be cancelled, before it has discarded anything
            raise
        finally:
            self._temporary = None
            await self._unstage()

    async def abandon(self) -> None:
        """Give up after the block failed: never raises, so that the block's own error is what is seen."""
        if os.getpid() != self._pid:
            return  # a forked child leaves the block: the attempt is its parent's
        with shielded():
            temporary, self._temporary = self._temporary, None
            if temporary is not None:
                try:
                    await temporary.discard()
                except Exception as error:  # noqa: BLE001 - a user's strategy may raise anything; the block's error counts
                    _LOG.warning("%s was given up but could not be discarded: %s", self.location, error)
            await self._unstage()

    def _own(self) -> TemporaryPath:
        if os.getpid() != self._pid:
            raise CommitError(f"{self.location} belongs to process {self._pid}: a forked child cannot commit it")
        if self._temporary is None:
            raise CommitError(f"the commit of {self.location} is over, or was never begun")
        return self._temporary

    async def _strategy(self) -> tuple[type[TemporaryPath], Profile]:
        options = self._options
        chosen = options.temporary_path_class
        needs = (chosen.requires if chosen else Guarantee.EXCLUSIVE_CREATE | Guarantee.LIST_AFTER_WRITE) | _WANTED
        asserted = options.guarantees or NONE  # put to the test too: what a probe refutes cannot be asserted
        profile = await profile_of(self.location, wanted=needs | asserted, asserted=asserted)
        if chosen is None:
            chosen = select(profile, replace=options.replace)
        else:
            check(chosen.__name__, chosen.requires, profile)
            if options.replace:
                check_replacing(chosen.__name__, chosen.replacing, "replace=True", profile)
        if options.durable and self._storage.is_local:
            check("durable=True (durable=False accepts less)", Guarantee.SYNC, profile)
        return chosen, profile

    async def _unstage(self) -> None:
        staging, self._staging = self._staging, None
        if staging is not None:
            with shielded():
                await staging.remove()


_WANTED = (
    Guarantee.ATOMIC_RENAME
    | Guarantee.RENAME_NOREPLACE
    | Guarantee.COMPARE_AND_SWAP
    | Guarantee.CONDITIONAL_DELETE
    | Guarantee.DIRECTORIES
)
"""What is always worth a probe before a commit; multi-part completion only once a large file comes."""


async def put(local_dir: str | os.PathLike[str], url: PathLike, options: CommitOptions) -> None:
    """Commit an existing local directory, which is left as it is."""
    source = Path(os.path.abspath(os.fspath(local_dir)))
    writing = Writing(url, options)
    if not os.path.isdir(source):
        raise ValidationError(
            f"{source} is not a directory, or not to be seen: put() commits an existing local directory"
        )
    if writing.is_local and Path(writing.location.path).is_relative_to(source):
        raise ValidationError(f"{writing.location} is inside {source}, the directory to commit: use another place")
    await files_of(writing.location.open().environment, source, source=True)  # refuse before anything is begun
    await writing.begin(source=True)
    await writing.finish(source)


def _final(url: PathLike, options: CommitOptions) -> Location:
    location = locate(url, options.storage_options)
    if is_temporary(location.path):
        raise ValidationError(
            f"{location} is below a temporary path, where nothing ever counts as committed: use another"
        )
    if "/" not in location.path:
        raise ValidationError(f"{location} is a whole bucket: add a directory's name, as in {location}/run/step_100")
    if options.coordinator is not None:
        raise ValidationError("coordinator= is not supported by this version of atomicpath: leave it out")
    return location


def _progress(progress: Progress | bool | None) -> Progress | None:
    if callable(progress):
        return progress
    return progress_bar() if progress else None
