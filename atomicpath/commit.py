"""The writer: from a URL to a committed directory, in two halves with the user's block between them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import cast

from upath import UPath

from . import telemetry
from .abc import TemporaryPath
from .commit_options import CommitOptions, check_agreement
from .environment import EventLoopNeeded, cleaning_up, current, need_event_loop, shielded
from .errors import AtomicPathError, CommitError, OutcomeUnknownError, ValidationError
from .failures import Document
from .group import Group
from .guarantees import NONE, Guarantee
from .location import Location, PathLike, locate
from .multiprocess import Team
from .multiprocessing_options import MultiprocessingOptions
from .record import JSONValue, check_metadata, file_document, file_entry
from .selection import STRATEGIES
from .staging import Staging, files_of, upload
from .strategies.atomic_rename import AtomicRenameTemporaryPath

__all__ = ["Writing", "put"]

_LOG = logging.getLogger("atomicpath")


class Writing:
    """One commit under way. `begin`, then the user's block, then exactly one of `finish` and `abandon`.

    In a job of several processes each has one, for one attempt, which the primary creates and finalizes.
    """

    def __init__(self, url: PathLike, options: CommitOptions) -> None:
        # first of all: one rank that is refused here is still as far in the job's rounds as the others
        self._team = Team(
            Group(MultiprocessingOptions(coordinator=options.coordinator)),
            current(),
            "commit",
            undone="nothing was committed",
        )
        self.location = options.final(url)
        self._options = options
        self._metadata = check_metadata(options.metadata)
        self.span = telemetry.CommitSpan(self.location.backend.protocols[0])
        self._storage = self.location.open()
        self._temporary: TemporaryPath | None = None
        self._staging: Staging | None = None
        self._staged: Path | None = None
        self._progress = options.callback()
        self._begun = False
        self._entered = False  # whether the other processes count on this one for the end
        self._pid = os.getpid()

    @property
    def is_local(self) -> bool:
        """Whether no step of this commit waits for a network or for another process."""
        return self._storage.is_local and self._team.is_alone

    @property
    def is_open(self) -> bool:
        """Whether this process has begun something that is neither committed nor given up."""
        mine = os.getpid() == self._pid
        return mine and (self._temporary is not None or self._staging is not None)

    @telemetry.observed(telemetry.opening)
    async def begin(self, *, source: bool = False) -> Path | UPath:
        """Create or join the attempt; where to write. `source`: the files are already somewhere on this host."""
        self.expect_new()
        direct = self._storage.is_local or (self._options.direct and not source)
        try:
            if not (direct or source):
                self._staging = Staging(self._storage.environment, self._options.staging_dir)
                self._staged = await self._staging.create()
            begun = await self._team.decide(
                "begin", self._options.view(self.location, direct=direct), partial(self._create, direct)
            )
            self._begun = self._entered = True
            if self._temporary is None:
                await self._join(begun, direct)
        except EventLoopNeeded:
            raise
        except BaseException as error:
            await self.abandon(error)
            raise
        if self._staged is not None:
            return self._staged
        path = self._own().get()
        return Path(cast("os.PathLike[str]", path)) if self._storage.is_local else path

    def expect_new(self) -> None:
        """Raise CommitError if this was entered before."""
        if self._begun:
            raise CommitError(f"this commit of {self.location} was entered before: call commit() again for another")

    async def end(self, error: BaseException | None) -> None:
        """Finish, or give up if the block raised `error`."""
        if error is None:
            await self.finish()
        else:
            await self.abandon(error)

    @telemetry.observed(telemetry.closing)
    async def finish(self, source: Path | None = None) -> None:
        """Commit what was written, or the local directory `source`."""
        temporary = self._own()
        try:
            files_from = source or self._staged
            if files_from is not None:
                environment = self._storage.environment
                files = await files_of(environment, files_from, source=source is not None)
                await upload(temporary, files, self._progress)
            offer: Document = {"files": [file_document(file) for file in temporary.added()]}
        except BaseException as error:
            await self.abandon(error)
            if isinstance(error, OSError) and not isinstance(error, AtomicPathError):
                raise CommitError(f"{self.location} was not committed: {error}; the attempt was discarded") from error
            raise
        try:
            await self._team.decide("finish", offer, self._finalize, happened=temporary.is_published)
        except OutcomeUnknownError:
            self._temporary = None  # nothing may be cleaned up
            raise
        except BaseException as error:
            # a user's strategy may fail, or be cancelled, before it has discarded anything
            alone = False
            try:
                alone = await self._part("finish", error)
            finally:  # whoever is cancelled while it waits for the others still gives up what it has
                await self._discard(error, alone=alone)
            raise
        finally:
            self._temporary = None
            await self._unstage()
        await self._team.part("finish")

    @telemetry.observed(telemetry.abandoning)
    async def abandon(self, error: BaseException) -> None:
        """Give up after `error`, which is the caller's to raise again.

        In a job of several processes the others are told, and RankFailedError is raised from it, here as there.
        """
        if os.getpid() != self._pid:
            return  # a forked child leaves the block: the attempt is its parent's
        # one that leaves while the others begin is missed by them at the end
        begins = not (self._entered or (self._team.has_said("begin") and not isinstance(error, Exception)))
        phase = "begin" if begins else "finish"
        failure: AtomicPathError | None = None
        with cleaning_up(self.location, error):
            alone = False
            try:
                failure = await self._team.fail(phase, error)
                alone = await self._part(phase, error)
            finally:
                await self._discard(error, alone=alone or begins)
        if failure is not None and isinstance(error, Exception):
            raise failure from error

    async def _create(self, direct: bool, views: Sequence[Document]) -> Document:
        """In the primary: begin the attempt, and say what the others need to join it."""
        check_agreement(views)
        strategy, profile = await self._options.strategy(self.location, is_local=self._storage.is_local)
        if strategy is not AtomicRenameTemporaryPath or not self._storage.is_local:
            need_event_loop()  # any other may wait for what it likes
        self._begun = True
        temporary = strategy.from_final(self.location.upath, file_options=self._options.file_options)
        temporary.configure(self._options.attempt(profile.effective, direct=direct, metadata=self._metadata))
        with telemetry.creating(temporary):
            await temporary.create()
        self._temporary = temporary
        if self._team.is_alone:
            return {}
        names: list[JSONValue] = [*profile.effective.names()]
        return {
            "strategy": strategy.__name__,
            "token": temporary.token,
            "path": locate(temporary.get()).path,
            "guarantees": names,
        }

    async def _join(self, begun: Document, direct: bool) -> None:
        """In the others: take part in the attempt that the primary has begun."""
        named = (strategy for strategy in STRATEGIES if strategy.__name__ == begun["strategy"])
        strategy = self._options.temporary_path_class or next(named)
        guarantees = reduce(or_, (Guarantee[str(name)] for name in cast("list[str]", begun["guarantees"])), NONE)
        temporary = strategy.from_temporary(
            self.location.at(str(begun["path"])).upath, file_options=self._options.file_options
        )
        temporary.configure(self._options.attempt(guarantees, direct=direct, metadata=self._metadata))
        await temporary.join(self._team.rank, str(begun["token"]))
        self._temporary = temporary

    async def _finalize(self, offers: Sequence[Document]) -> Document:
        """In the primary: commit what all have added."""
        temporary = self._own()
        for offer in offers[1:]:
            temporary.include([file_entry(file) for file in cast("list[Document]", offer["files"])])
        with telemetry.finalizing(temporary):
            await temporary.finalize()
        return {}

    def _own(self) -> TemporaryPath:
        if os.getpid() != self._pid:
            raise CommitError(f"{self.location} belongs to process {self._pid}: a forked child cannot commit it")
        if self._temporary is None:
            raise CommitError(f"the commit of {self.location} is over, or was never begun")
        return self._temporary

    async def _part(self, phase: str, error: BaseException) -> bool:
        """Whether the others do nothing any more; an interrupted primary does not wait for that."""
        if self._team.is_primary and not isinstance(error, Exception):
            return self._team.is_alone
        return await self._team.part(phase)

    async def _discard(self, cause: BaseException, *, alone: bool) -> None:
        """Give up what is this process's own; never raises, so that `cause`, which led here, is what is seen."""
        with cleaning_up(self.location, cause):
            temporary, self._temporary = self._temporary, None
            try:
                if temporary is not None and self._team.is_primary:
                    await (temporary.discard() if alone else temporary.retire())
            except Exception as error:  # noqa: BLE001 - a user's strategy may raise anything; the block's error counts
                _LOG.warning("%s was given up but could not be discarded: %s", self.location, error)
            finally:
                await self._unstage()

    async def _unstage(self) -> None:
        staging, self._staging = self._staging, None
        if staging is not None:
            with shielded():
                await staging.remove()


async def put(local_dir: str | os.PathLike[str], url: PathLike, options: CommitOptions) -> None:
    """Commit an existing local directory, which is left as it is."""
    source = Path(os.path.abspath(os.fspath(local_dir)))
    writing = Writing(url, options)
    try:
        await _check_source(source, writing.location)
    except BaseException as error:
        await writing.abandon(error)
        raise
    await writing.begin(source=True)
    await writing.finish(source)


async def _check_source(source: Path, target: Location) -> None:
    """Refuse before anything is begun."""
    if not os.path.isdir(source):
        raise ValidationError(
            f"{source} is not a directory, or not to be seen: put() commits an existing local directory"
        )
    storage = target.open()
    if storage.is_local and Path(target.path).is_relative_to(source):
        raise ValidationError(f"{target} is inside {source}, the directory to commit: use another place")
    await files_of(storage.environment, source, source=True)
