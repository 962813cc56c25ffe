"""The writer: from a URL to a committed directory, in two halves with the user's block between them."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import cast

from upath import UPath

from atomicpath._core import telemetry
from atomicpath._core.environment import EventLoopNeeded, cleaning_up, current, need_event_loop, shielded
from atomicpath._core.failures import Document
from atomicpath._core.free_space import describe, expect_room, is_full, is_used_up
from atomicpath._core.record import CommitRecord, JSONValue, check_metadata, file_document, file_entry
from atomicpath._core.step_order import DEFAULT
from atomicpath._profile.location import Location, PathLike, local_directory, locate
from atomicpath._profile.storage_errors import is_the_callers, of_the_caller, reported
from atomicpath._strategies.atomic_rename import AtomicRenameTemporaryPath
from atomicpath.abc import TemporaryPath
from atomicpath.coordinators.collective import CollectiveCall
from atomicpath.coordinators.options import MultiprocessingOptions
from atomicpath.coordinators.process_group import ProcessGroup
from atomicpath.errors import AlreadyCommittedError, AtomicPathError, CommitError, OutcomeUnknownError, ValidationError
from atomicpath.guarantees import NONE, Guarantee

from .completeness import Commit
from .options import CommitOptions, check_agreement
from .readers import load
from .selection import STRATEGIES
from .shared_directory import expect_all, expect_visible, seen_by_this_rank
from .sources import Consumed, Own, Staged, copy_directories, say_what_is_dropped
from .staging import LocalFile, Staging, upload
from .staging_place import VARIABLE

__all__ = ["CommitSession", "copy_and_commit", "expect_room_at", "join_attempt", "put", "source_of"]

_LOG = logging.getLogger("atomicpath")


def _place(writing: CommitSession, *_: object, **__: object) -> Location:
    return writing.location


class CommitSession:
    """One commit under way. `begin`, then the user's block, then exactly one of `finish` and `abandon`.

    In a job of several processes each has one, for one attempt, which the primary creates and finalizes.
    """

    def __init__(self, url: PathLike, options: CommitOptions) -> None:
        # before all else: a rank that is refused here is still in the same round of the job as the others
        self._team = CollectiveCall(
            ProcessGroup(MultiprocessingOptions(coordinator=options.coordinator)),
            current(),
            "commit",
            failure_summary="nothing was committed",
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
        self.is_committed = False  # as far as this process knows
        self.is_kept = False  # whether what was committed before is the result, and what is written now is discarded
        self.joined: Sequence[Mapping[str, JSONValue]] = ()  # what processes have added that joined by a ticket
        self.was_kept = False  # the files of those processes, once this session has ended
        self._record: CommitRecord | None = None

    def result(self) -> Commit:
        """Return what was committed, as this process knows it.

        Raise CommitError if nothing was committed, or not yet.
        """
        if not self.is_committed:
            raise CommitError(f"{self.location} has no result: its block has not ended, or nothing was committed")
        name, record = self.location.name, self._record
        return Commit(path=self.location.upath, name=name, record=record, step=DEFAULT.step(name, record))

    @property
    def is_primary(self) -> bool:
        """Tell whether this process creates and finalizes the attempt."""
        return self._team.is_primary

    @property
    def is_local(self) -> bool:
        """True if no step of this commit waits for a network or for another process."""
        return self._storage.is_local and self._team.is_alone

    @property
    def is_alone(self) -> bool:
        """True if no other process takes part."""
        return self._team.is_alone

    @property
    def is_open(self) -> bool:
        """True if this process has begun something that is neither committed nor given up."""
        mine = os.getpid() == self._pid
        return mine and (self._temporary is not None or self._staging is not None)

    @reported("cannot begin to write {}", _place)
    @telemetry.observed(telemetry.opening)
    async def begin(self, *, source: bool = False) -> Path | UPath:
        """Create or join the attempt; return where to write.

        With `source`, the files are already somewhere on this host.
        """
        self.expect_new()
        direct = self._storage.is_local or (self._options.direct and not source)
        try:
            if not (direct or source):
                await self._stage()
            begun = await self._team.run_on_primary(
                "begin",
                {} if self._team.is_alone else self._options.view(self.location, direct=direct),
                partial(self._create, direct),
            )
            self._begun = self._entered = True
            self.is_kept = "kept" in begun
            if self.is_kept and direct and not source:
                await self._stage()
            if self._temporary is None and not self.is_kept:
                await self._join(begun, direct)
        except EventLoopNeeded:
            raise
        except BaseException as error:
            await self.abandon(error)
            raise
        if self._staged is not None:
            return UPath(self._staged) if self._options.direct and not self._storage.is_local else self._staged
        if self.is_kept:
            return self.location.upath  # the files of a source are not written anywhere
        temporary = self._own()
        if self._storage.is_local and type(temporary) is AtomicRenameTemporaryPath:
            return Path(temporary.directory.path)
        with of_the_caller():
            path = temporary.get()
        return Path(cast("os.PathLike[str]", path)) if self._storage.is_local else path

    async def add(self, name: str, source: Path) -> None:
        """Add a file of this host to what was begun with `source`."""
        await self._own().add(name, source)

    async def _stage(self) -> None:
        self._staging = Staging(self._storage.environment, self._options.staging_dir)
        self._staged = await self._staging.create()

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

    @reported("{} was not committed", _place)
    @telemetry.observed(telemetry.closing)
    async def finish(self, source: Own | Staged | None = None, *, copied: Callable[[], object] = lambda: None) -> None:
        """Commit what was written, or the local directory `source`; and what was `joined`.

        `copied` is called once nothing more is read from a local directory.
        """
        temporary = None if self.is_kept else self._own()
        try:
            self._expect_own_process()
            origin = source or (Staged(self._storage.environment, self._staged) if self._staged else None)
            if temporary is not None and origin is not None:
                await self._copy(origin, temporary, top=source is not None)
            copied()
            if temporary is not None and self.joined:
                await self._include(temporary, self.joined)
            offer: Document = {"files": [file_document(file) for file in temporary.added()] if temporary else []}
        except BaseException as error:
            await self.abandon(error)
            if isinstance(error, OSError) and not (isinstance(error, AtomicPathError) or is_the_callers(error)):
                raise self.failed(error) from error
            raise
        try:
            together = self._storage.is_local and not self._team.is_alone and temporary is not None
            result = await self._team.run_on_primary(
                "finish",
                offer,
                self._finalize,
                check_outcome=temporary.is_published if temporary else None,
                then=partial(seen_by_this_rank, self._storage, locate(self._own().get())) if together else None,
            )
        except OutcomeUnknownError:
            self._temporary = None  # nothing may be cleaned up
            raise
        except BaseException as error:
            # a user's strategy may fail, or be cancelled, before it has discarded anything
            alone = False
            try:
                alone = await self._part("finish", error)
            finally:  # a process that is cancelled while it waits for the others still gives up what it has
                await self._discard(error, alone=alone)
            raise
        finally:
            self._temporary = None
            await self._unstage()
        self.was_kept = self.is_kept or "kept" in result
        self.is_committed, self.is_kept = True, False
        await self._team.wait_for_acks("finish")

    async def _include(self, temporary: TemporaryPath, entries: Sequence[Mapping[str, JSONValue]]) -> None:
        try:
            files = [file_entry(entry) for entry in entries]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValidationError(f"entries= takes what upload() of joined processes returned: {error}") from error
        if self._storage.is_local:
            await expect_visible(self._storage, locate(temporary.get()), [{file.name: file.size for file in files}])
        else:
            temporary.include(files)

    async def _copy(self, origin: Own | Staged, temporary: TemporaryPath, *, top: bool) -> None:
        """Add the files of a local directory to the attempt, as they are at one moment."""
        files = await origin.files()
        target = Path(locate(temporary.get()).path) if self._storage.is_local else None
        linked = await origin.link_into(target) if target and isinstance(origin, Consumed) else set[str]()
        await upload(temporary, files, self._progress, at_once=self._storage.files_at_once, done=linked)
        if target is not None:
            mode = self._options.file_options.path_permission_mode if self._options.file_options else None
            await copy_directories(self._storage, origin.directory, target, top=top and mode is None)
        else:
            await self._storage.environment.step(say_what_is_dropped, files, origin.directory, str(self.location))
        await origin.expect_unchanged(files)

    @reported("{} was not committed, and could not be given up", _place)
    @telemetry.observed(telemetry.abandoning)
    async def abandon(self, error: BaseException) -> None:
        """Give up after `error`, which is the caller's to raise again.

        In a job of several processes the others are told, and RankFailedError is raised from it, here as there.
        """
        if os.getpid() != self._pid:
            return  # a forked child leaves the block: the attempt is its parent's
        await self._note_if_full(error)
        # the others notice only at the end that a process left while they began
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

    def failed(self, error: OSError) -> CommitError:
        """Turn an error of a file system or store into a CommitError that names what is full."""
        where, advice = self._written_to()
        reason = str(error) if where is None else describe(self._storage.environment, error, where, advice)
        return CommitError(f"{self.location} was not committed: {reason}; the attempt was discarded")

    def _written_to(self) -> tuple[str | None, str]:
        """Return the local directory that the files are written to, if any, and what to do if it is full."""
        if self._staged is not None:
            advice = f"Free some, or pass staging_dir=, or set {VARIABLE} to, a directory with more room"
            return str(self._staged), advice
        if self._storage.is_local:
            return self.location.parent.path, "Free some, or commit to another file system"
        return None, ""

    async def _note_if_full(self, error: BaseException) -> None:
        """Add to an error of the block that the file system it wrote to is full, if that is so.

        The error itself may not say it.
        """
        where, advice = self._written_to()
        if where is None or not isinstance(error, Exception) or isinstance(error, AtomicPathError):
            return
        environment = self._storage.environment
        if is_full(error) or await environment.step(is_used_up, environment, where):
            error.add_note(f"atomicpath: the file system of {where} takes no more. {advice}")

    async def _create(self, direct: bool, views: Sequence[Document]) -> Document:
        """Begin the attempt in the primary, and return what the other processes need to join it."""
        check_agreement(views)
        strategy, profile = await self._options.strategy(self.location, is_local=self._storage.is_local)
        if strategy is not AtomicRenameTemporaryPath or not self._storage.is_local:
            need_event_loop()  # any other strategy may wait for anything
        self._begun = True
        if strategy is AtomicRenameTemporaryPath:  # no need to make a path of the location, and to read that again
            own = strategy.new(self.location, file_options=self._options.file_options)
            temporary: TemporaryPath = own
            create: Callable[[], Awaitable[object]] = own.begin
        else:
            temporary = strategy.from_final(self.location.upath, file_options=self._options.file_options)
            create = temporary.create
        temporary.configure(self._options.attempt(profile.effective, direct=direct, metadata=self._metadata))
        try:
            with telemetry.creating(temporary), of_the_caller():
                await create()
        except AlreadyCommittedError as error:
            await self._keep(error)
            return {"kept": True}
        self._temporary = temporary
        return {} if self._team.is_alone else self._invitation()

    def _invitation(self) -> Document:
        """Say what another process needs to take part in the attempt."""
        temporary = self._own()
        names: list[JSONValue] = [*(temporary.options.guarantees or NONE).names()]
        return {
            "strategy": type(temporary).__name__,
            "token": temporary.token,
            "path": locate(temporary.get()).path,
            "guarantees": names,
        }

    def invitation(self) -> Document:
        """Return what processes that are no part of the job need to take part in the attempt.

        Raise ValidationError if nobody else can take part.
        """
        if not self._team.is_alone:
            raise ValidationError(
                f"every rank of this job takes part in the commit of {self.location} by its coordinator: call begin()"
                " in all of them, or pass coordinator=atomicpath.SingleProcess() here to hand out tickets"
            )
        told: Document = {
            "url": str(self.location),
            "direct": self._storage.is_local or self._options.direct,
            "durable": self._options.durable,
            "checksums": self._options.checksums,
        }
        if self.is_kept:
            return told | {"kept": True}
        temporary = self._own()
        if type(temporary) not in STRATEGIES:
            raise ValidationError(f"{type(temporary).__name__} is a strategy of the caller's: tickets cannot name it")
        return told | self._invitation()

    async def _join(self, begun: Document, direct: bool) -> None:
        """Join the attempt that the primary has begun; processes other than the primary call this."""
        self._temporary = await join_attempt(
            self.location, begun, self._options, direct=direct, rank=self._team.rank, metadata=self._metadata
        )

    async def _finalize(self, offers: Sequence[Document]) -> Document:
        """Commit in the primary what all processes have added."""
        if self.is_kept:
            return {}
        temporary = self._own()
        for offer in offers[1:]:
            temporary.include([file_entry(file) for file in cast("list[Document]", offer["files"])])
        if "seen" in offers[0]:
            await expect_all(self._storage, locate(temporary.get()), offers)
        try:
            with telemetry.finalizing(temporary), of_the_caller():
                await temporary.finalize()
        except AlreadyCommittedError as error:
            await self._keep(error)
            return {"kept": True}
        self._record = temporary.committed_record
        return {}

    async def _keep(self, error: AlreadyCommittedError) -> None:
        """Accept what is committed already as the result, if that is asked for and it is whole; else raise `error`."""
        if not self._options.keeps:
            raise error
        try:
            self._record = (await load(self.location)).record
        except AtomicPathError as reason:
            raise reason from error
        by = f"by {self._record.writer}" if self._record else "by another tool"
        _LOG.info("%s was committed before, %s, and is kept: what is written now is discarded", self.location, by)

    def _expect_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise CommitError(f"{self.location} belongs to process {self._pid}: a forked child cannot commit it")

    def _own(self) -> TemporaryPath:
        self._expect_own_process()
        if self._temporary is None:
            raise CommitError(f"the commit of {self.location} is over, or was never begun")
        return self._temporary

    async def _part(self, phase: str, error: BaseException) -> bool:
        """Return True once the other processes do nothing any more; False if that is not known.

        An interrupted primary does not wait for that.
        """
        if self._team.is_primary and not isinstance(error, Exception):
            return self._team.is_alone
        return await self._team.wait_for_acks(phase, stay=isinstance(error, Exception))

    async def _discard(self, cause: BaseException, *, alone: bool) -> None:
        """Give up what is this process's own.

        This never raises, so that `cause`, which led here, is what the caller sees.
        """
        with cleaning_up(self.location, cause):
            temporary, self._temporary = self._temporary, None
            self.is_kept = False
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
                await staging.remove()  # which never raises: after the commit point nothing may


async def join_attempt(
    location: Location,
    begun: Document,
    options: CommitOptions,
    *,
    direct: bool,
    rank: int,
    metadata: Mapping[str, JSONValue] | None = None,
) -> TemporaryPath:
    """Take part, as the process with the number `rank`, in an attempt that another process has begun."""
    named = (strategy for strategy in STRATEGIES if strategy.__name__ == begun["strategy"])
    strategy = options.temporary_path_class or next(named)
    guarantees = reduce(or_, (Guarantee[str(name)] for name in cast("list[str]", begun["guarantees"])), NONE)
    path = location.at(str(begun["path"]))
    if issubclass(strategy, AtomicRenameTemporaryPath):  # the name of its directory may not tell the final name
        temporary: TemporaryPath = strategy.resume(location, path, file_options=options.file_options)
    else:
        temporary = strategy.from_temporary(path.upath, file_options=options.file_options)
    temporary.configure(options.attempt(guarantees, direct=direct, metadata=metadata or {}))
    with of_the_caller():
        await temporary.join(rank, str(begun["token"]))
    return temporary


async def put(local_dir: PathLike, url: PathLike, options: CommitOptions, *, consume: bool = False) -> Commit:
    """Commit an existing local directory, which is left as it is; with `consume` its files are deleted afterwards."""
    directory = local_directory(local_dir, "local_dir")
    return await copy_and_commit(directory, CommitSession(url, options), consume=consume)


async def copy_and_commit(
    directory: Path,
    writing: CommitSession,
    *,
    seen: Sequence[LocalFile] | None = None,
    copied: Callable[[], object] = lambda: None,
    consume: bool = False,
) -> Commit:
    """Commit a copy of a local directory.

    Args:
        directory: The directory, which is left as it is, unless `consume` says otherwise.
        writing: A commit that has not begun.
        seen: The files as the caller saw them; ValidationError if they have changed since.
        copied: Called once nothing more is read from the directory.
        consume: Delete its files once they are committed.
    """
    try:
        source = await _check_source(directory, writing.location, Consumed if consume else Own, seen)
    except BaseException as error:
        await writing.abandon(error)
        raise
    await writing.begin(source=True)
    await writing.finish(source, copied=copied)
    if isinstance(source, Consumed) and not writing.was_kept:
        with shielded():
            await source.delete()
    return writing.result()


async def _check_source(directory: Path, target: Location, kind: type[Own], seen: Sequence[LocalFile] | None) -> Own:
    """Check the source before anything is begun, and return it."""
    source = await source_of(directory, target, seen, kind=kind)
    files = await source.files()
    if target.open().is_local and not isinstance(source, Consumed):
        await expect_room_at(target, sum(file.stored for file in files))
    return source


async def source_of(
    directory: Path, target: Location, seen: Sequence[LocalFile] | None = None, *, kind: type[Own] = Own
) -> Own:
    """Return the directory to copy.

    Raise ValidationError if it cannot be copied.
    """
    if not os.path.isdir(directory):
        raise ValidationError(
            f"{directory} is not a directory, or not to be seen: put() commits an existing local directory"
        )
    storage = target.open()
    if storage.is_local and Path(target.path).is_relative_to(directory):
        raise ValidationError(f"{target} is inside {directory}, the directory to commit: use another place")
    return kind(storage.environment, directory, seen)


async def expect_room_at(target: Location, needed: int) -> None:
    """Raise ValidationError if the file system of a local final path has less than `needed` bytes left.

    Call this before anything begins.
    """
    environment = target.open().environment
    advice = "Free some, or use another file system"
    await environment.step(expect_room, environment, Path(target.parent.path), needed, advice)
