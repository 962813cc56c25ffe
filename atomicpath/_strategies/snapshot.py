"""A private copy of a committed directory, which takes its place, becomes another one, or is given up."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from upath import UPath

from atomicpath._core.environment import cleaning_up
from atomicpath._core.layout import temporary_of
from atomicpath._core.runner import protected, run_detached, run_protected
from atomicpath._profile.location import Location, PathLike, locate
from atomicpath._profile.probing import are_beside
from atomicpath._profile.storage_errors import reported
from atomicpath.abc import AttemptOptions, SnapshotType
from atomicpath.errors import CommitError, OutcomeUnknownError, ValidationError

from .atomic_rename import AtomicRenameTemporaryPath
from .directory_lock import KeptSnapshotError
from .requirements import expect_absolute

__all__ = ["Snapshot"]


class _Phase(enum.Enum):
    NEW = "was not created yet: call create_snapshot() first"
    CREATED = "was created already: write to its path, then replace_source(), publish() or release_snapshot()"
    PUBLISHED = "has been published and is no copy any more: make a new Snapshot"
    OVER = "is over, and its copy was deleted: make a new Snapshot"
    KEPT = "could not be published: take from the copy what you need, then release_snapshot()"
    UNKNOWN = "may have been published, or not: look with is_committed(...), then make a new Snapshot"


class Snapshot:
    """A copy of the committed directory at `source`, to be edited where nobody sees it.

        snapshot = Snapshot("/runs/step_100")
        path = await snapshot.create_snapshot()
        (path / "notes.txt").write_text("...")
        await snapshot.replace_source()

    With a `destination` the copy becomes a new directory there, by `publish`, and the source stays as it is. Paths are
    absolute, and both on one storage. The copy lies beside the path that it is meant for, under an attempt's temporary
    name; a process that dies leaves it behind for `sweep`. Files are copied by the storage itself, and on file
    systems with shared extents (btrfs, xfs, bcachefs) share their blocks with the source until they are written to.
    """

    def __init__(
        self,
        source: PathLike,
        destination: PathLike | None = None,
        *,
        storage_options: Mapping[str, object] | None = None,
        durable: bool = True,
    ) -> None:
        """Take the two paths, without I/O.

        Raise ValidationError for a relative path, or for a destination on another storage.
        """
        for path in (source, destination or source):
            expect_absolute(path, SnapshotType.IN_PLACE)
        self._source = locate(source, storage_options)
        self._final = locate(destination, storage_options) if destination is not None else self._source
        if not _same_storage(self._source, self._final):
            raise ValidationError(
                f"{self._source} and {self._final} are on different storages, between which nothing can be copied in"
                " place: get(...) the one and put(...) it to the other"
            )
        self._attempt = _attempt(self._source, self._final)
        self._attempt.configure(AttemptOptions(durable=durable))
        self._phase = _Phase.NEW

    @property
    def path(self) -> UPath:
        """The path of the copy once it is created; it never changes. No I/O."""
        return self._attempt.get()

    async def create_snapshot(self) -> UPath:
        """Copy the source; return the path of the copy, to be written to.

        Raise NotCommittedError if no committed directory is at the source. Raise AlreadyCommittedError or ConflictError
        if something is at the destination. Raise GuaranteeError, with nothing copied, if RENAME_EXCHANGE is missing.
        Raise ConflictError if the source was replaced while it was being copied. After an error there is no copy, and
        the call can be tried again.
        """
        self._expect(_Phase.NEW)
        try:
            return await run_protected(self._create)
        except GeneratorExit:  # the coroutine is dropped, and may not wait
            run_detached(self._forget)
            raise
        except BaseException:
            await run_protected(self._forget)
            raise

    @reported("cannot make a snapshot of {}", lambda self: self._source)
    async def _create(self) -> UPath:
        path = await self._attempt.create()
        self._phase = _Phase.CREATED
        return path

    async def _forget(self) -> None:
        """Begin anew after an error.

        A caller that was interrupted may never see a copy that was made.
        """
        with cleaning_up(self._final):
            if self._phase is _Phase.CREATED:
                await self._attempt.discard()
        options = self._attempt.options
        self._attempt = _attempt(self._source, self._final)
        self._attempt.configure(options)
        self._phase = _Phase.NEW

    @protected
    @reported("{} was not replaced", lambda self: self._source)
    async def replace_source(self) -> None:
        """Put the copy in the place of the source, in one step.

        Raise ConflictError, with the source and the copy as they are, if the source is no longer what was copied: take
        from the copy what is needed, then release it. Other errors are those of `TemporaryPath.finalize`.
        """
        if self._final != self._source:
            raise ValidationError(f"this snapshot is to become {self._final}: call publish()")
        await self._finalize()

    @protected
    @reported("{} was not committed", lambda self: self._final)
    async def publish(self) -> None:
        """Commit the copy at the destination; the errors are those of `TemporaryPath.finalize`."""
        if self._final == self._source:
            raise ValidationError(f"this snapshot is of {self._source} and has no destination: call replace_source()")
        await self._finalize()

    @protected
    @reported("the copy of {} could not be given up", lambda self: self._source)
    async def release_snapshot(self) -> None:
        """Delete the copy; the source is as it was.

        Raise CommitError if the copy could not be deleted, and was left behind.
        """
        if self._phase is not _Phase.KEPT:
            self._expect(_Phase.CREATED)
        self._phase = _Phase.OVER
        await self._attempt.discard()
        if await self._final.open().kind(locate(self.path).path) is not None:
            raise CommitError(f"{self.path} could not be deleted, as the log says: sweep(...) of its parent removes it")

    async def _finalize(self) -> None:
        self._expect(_Phase.CREATED)
        self._phase = _Phase.OVER
        try:
            await self._attempt.finalize()
        except OutcomeUnknownError:
            self._phase = _Phase.UNKNOWN
            raise
        except KeptSnapshotError:
            self._phase = _Phase.KEPT
            raise
        self._phase = _Phase.PUBLISHED

    def _expect(self, phase: _Phase) -> None:
        if self._phase is not phase:
            raise ValidationError(f"the snapshot of {self._source} {self._phase.value}")


def _attempt(source: Location, final: Location) -> AtomicRenameTemporaryPath:
    temporary = final.at(temporary_of(final.path, final.open().environment.token(), hidden=are_beside(final)))
    if source == final:
        return AtomicRenameTemporaryPath(final, temporary, snapshot_type=SnapshotType.IN_PLACE)
    return AtomicRenameTemporaryPath(final, temporary, source=source)


def _same_storage(first: Location, second: Location) -> bool:
    return type(first.backend) is type(second.backend) and first.storage_options == second.storage_options
