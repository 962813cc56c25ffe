"""The commit-file protocol: write in place; a conditional write of the record is the commit, the marker follows.

    create    claim the record ("writing", must not exist), beside it one listing that shows nothing foreign
    add       create each data object, must not exist
    finalize  swap the record from our own "writing" to "committed" with the manifest · marker
    discard   swap to "discarded" · list · confirm · delete the versions listed · delete the record
    take over swap another's "writing" to our own · list · confirm · delete the versions listed

Which of its two forms the register has follows from the guarantees, see `register`. docs/model checks the
protocol, and that each of the five rules that comments name here is needed, in every interleaving.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from upath import UPath

from atomicpath._core.environment import cleaning_up, shielded
from atomicpath._core.layout import COMMIT_SUCCESS_FILE, RECORD_FILE, check_file_name, record_of, temporary_of
from atomicpath._core.liveness import boot_clock, this_process, track_attempt, untrack_attempt
from atomicpath._core.record import CommitRecord, DecidedBy, FileEntry, Lease, State, marker_of, token_in_marker
from atomicpath._core.telemetry import creating, finalizing, observed
from atomicpath._profile.abilities import lock_file, make_parents, need
from atomicpath._profile.fingerprint import place_of
from atomicpath._profile.location import Location, locate
from atomicpath._profile.probing import profile_of
from atomicpath._profile.storage_errors import at_final, reported
from atomicpath.abc import (
    DirectoryStorage,
    EntryKind,
    FileLock,
    FileOptions,
    MetadataStore,
    MultipartStorage,
    Put,
    SnapshotType,
    SyncingStorage,
    TemporaryPath,
)
from atomicpath.errors import (
    AbandonedError,
    AlreadyCommittedError,
    AtomicPathError,
    CommitError,
    ConflictError,
    GuaranteeError,
    OutcomeUnknownError,
    ValidationError,
)
from atomicpath.guarantees import NONE, WRITING, Guarantee

from .attempt_files import end_lock, in_housekeeping
from .attempt_record import AttemptRecord, SwappedAttemptRecord
from .borders import inside_error, refuse_nested
from .cleanup import clear
from .conflicts import foreign, is_committed, read_marker, read_record, taken
from .data_objects import Additions
from .discard import delete_own_tree
from .fences import Fence
from .manifest import Stamps, expect_content, expect_settled, manifest_of, stamps_of
from .marker_record import MarkedAttemptRecord
from .outcome import after_commit_point
from .ownership import Ownership, chain_of
from .parent_directory import FinalParent
from .requirements import expect_directory, in_words, resolve_guarantees
from .retention_policy import expect_overwriting
from .step_metadata import StepMetadataWriter
from .takeover import claim

__all__ = ["CommitFileTemporaryPath"]

_LOG = logging.getLogger("atomicpath")
_MARKS = 2  # tries, the second after an earlier attempt's was deleted
_MULTIPART = Guarantee.EXCLUSIVE_MULTIPART


class CommitFileTemporaryPath(TemporaryPath):
    """One attempt by the commit-file protocol; the temporary path is the final one."""

    requires = WRITING

    def __init__(self, final: Location, *, file_options: FileOptions | None = None) -> None:
        self._final = final
        self._mode = file_options.path_permission_mode if file_options else None
        self._storage = final.open()
        self.token = self._storage.environment.token()
        self._register: AttemptRecord | None = None
        self._added = Additions(self._storage, final, self.token)
        self._hold: FileLock | None = None
        self._parent = FinalParent(self._storage, final)
        self._alone = False  # whether only files of this attempt are at the final path
        self._over = False
        self._stamps: Stamps | None = None
        self._step_metadata = StepMetadataWriter(None, self._storage.environment)

    @classmethod
    async def validate(cls, temporary_path: UPath) -> None:
        await _expect(locate(temporary_path), finished=False)

    @classmethod
    async def validate_final(cls, final_path: UPath) -> None:
        await _expect(locate(final_path), finished=True)

    @classmethod
    def from_temporary(
        cls,
        temporary_path: UPath,
        *,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        return cls.from_final(temporary_path, file_options=file_options, snapshot_type=snapshot_type)

    @classmethod
    def from_final(
        cls,
        final_path: UPath,
        *,
        checkpoint_metadata_store: MetadataStore | None = None,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        if snapshot_type is not None:
            raise ValidationError("a snapshot needs a second directory, and the commit-file strategy writes in place")
        attempt = cls(locate(final_path), file_options=file_options)
        attempt._step_metadata = StepMetadataWriter(checkpoint_metadata_store, attempt._storage.environment)
        return attempt

    def get(self) -> UPath:
        return self._final.upath

    def get_final(self) -> UPath:
        return self._final.upath

    @reported("cannot begin to write {}", at_final)
    @observed(creating)
    async def create(self) -> UPath:
        if self._register is not None or self._over:
            raise CommitError(f"the attempt at {self._final} was created before: begin a new one")
        self.options = await resolve_guarantees(type(self), self._final, self.options)
        register = self._new_register()
        try:
            await self._make_directory()
            await self._lock()
        except BaseException:
            self._parent.close()
            raise
        self._register = register
        let_go = self._hold.release if self._hold else None
        # before anybody can read the record: a thread of ours would take it for left behind
        track_attempt(self.token, let_go, owner=self)
        try:
            await claim(
                self._storage,
                self._final,
                register,
                guarantees=self._guarantees,
                unsafe=self.options.unsafe_takeover,
            )
            self._alone = True
            await expect_overwriting(self._storage, self._final, register)
            register.keep_alive()
            await self._step_metadata.begin(self, staged=not self.options.direct)
        except BaseException as error:
            with cleaning_up(self._final, error):
                if not isinstance(error, AtomicPathError):
                    await register.recover()
            await self._give_up(error, f"cannot begin to write {self._final}")
            raise
        return self.get()

    async def add(self, name: str, source: Path) -> None:
        register = self._claimed()
        check_file_name(name)
        multipart, checksums = await self._multipart(source), self.options.checksums
        await self._added.add(register, name, source, multipart=multipart, checksums=checksums)

    @reported("cannot take part in writing {}", at_final)
    async def join(self, rank: int, token: str) -> None:
        await self._adopt(token)
        self._added.join(rank)

    def added(self) -> tuple[FileEntry, ...]:
        return self._added.entries()

    def include(self, files: Sequence[FileEntry]) -> None:
        self._added.include(files)

    @reported("cannot say whether {} is committed", at_final)
    async def is_published(self) -> bool:
        record = await read_record(self._storage, self._final)
        return (
            record is not None and record.token == self.token and await is_committed(self._storage, self._final, record)
        )

    @reported("{} was not committed", at_final)
    @observed(finalizing)
    async def finalize(self) -> None:
        register = self._register or await self._adopt()
        try:
            await self._step_metadata.finish(self, staged=not self.options.direct)
            files = await self._manifest()
            if self.options.durable and self._storage.is_local:
                await self._sync()
            await self._expect_settled()
            place = await place_of(self._storage, self._final, self._final, self.token)
            await register.stop_renewal()
        except BaseException as error:
            await self._give_up(error, f"{self._final} was not committed")
            raise
        committed = register.record.moved_to(
            State.COMMITTED,
            committed=self._storage.environment.wall_ns(),
            boot_clock=boot_clock(self._storage.environment),
            files=files,
            place=place,
        )
        with shielded():
            await self._commit(register, committed)
        self.committed_record = committed

    async def retire(self) -> None:
        await self._withdraw(free=False)  # keep the record: files that arrive late are then found and deleted with it

    @reported("the attempt at {} could not be given up", at_final)
    async def discard(self) -> None:
        await self._withdraw(free=True)

    async def _withdraw(self, *, free: bool) -> None:
        register, self._register = self._register, None
        if register is None or not register.held or self._over:
            await self._end()
            return
        await self._step_metadata.rest()
        try:
            await register.stop_renewal()
            await register.discard()
            if self._alone and self._storage.is_local:
                await self._delete_tree()
            else:
                if self._alone or register.inherits:  # otherwise only the record can be ours
                    await self._clear_own(register)
                if free:
                    await register.withdraw()
        except (AbandonedError, AlreadyCommittedError) as error:
            _LOG.debug("nothing to discard: %s", error)
        except (OSError, AtomicPathError) as error:
            _LOG.warning("%s was given up but could not be cleared: %s", self._final, error)
        finally:
            await self._end()

    # create

    async def _make_directory(self) -> None:
        if not self._has(Guarantee.DIRECTORIES):
            if self._mode is not None:
                raise GuaranteeError(
                    f"path_permission_mode cannot be honoured at {self._final}: DIRECTORIES, which have modes, is not"
                    " known to hold there. Leave it out"
                )
            return
        directories = need(self._storage, DirectoryStorage, Guarantee.DIRECTORIES)
        await refuse_nested(self._storage, self._final)  # before anything is made in another's directory
        await self._open_parent()
        try:
            await directories.make_directory(self._final.path, mode=self._mode, durable=self.options.durable)
        except FileExistsError:
            kind = await self._storage.kind(self._final.path)
            if kind not in (EntryKind.DIRECTORY, None):
                raise foreign(self._final, kind) from None

    async def _open_parent(self) -> None:
        """Open the final path's parent, which is made durable and synced by that descriptor at the end."""
        if self.options.durable and self._storage.is_local:
            await make_parents(self._storage, self._final.path, durable=True)
            await self._parent.open()

    async def _lock(self) -> None:
        """Lock a file in the house-keeping directory.

        On other hosts of a file system, the lock proves that this process lives.
        """
        if self._storage.is_local:
            lock = self._final.at(record_of(self._attempt.path))
            self._hold, _ = await in_housekeeping(self._storage, lock, lambda: lock_file(self._storage, lock.path))

    @property
    def _attempt(self) -> Location:
        return self._final.at(temporary_of(self._final.path, self.token))

    def _new_register(self) -> AttemptRecord:
        environment = self._storage.environment
        record = CommitRecord(
            state=State.WRITING,
            token=self.token,
            final=self._final.name,
            strategy="commit_file",
            marker=COMMIT_SUCCESS_FILE if self.options.marker is ... else self.options.marker,
            started=environment.wall_ns(),
            direct=self.options.direct,
            lease=Lease(seconds=environment.lease),
            writer=this_process(environment),
            copied_from=self.options.copied_from,
            metadata=self.options.metadata,
        )
        fence = Fence.of(self._guarantees)
        if not fence.swaps:
            if record.marker is None:
                raise ValidationError(
                    f"marker=None cannot be had at {self._final}: without COMPARE_AND_SWAP the marker is the commit"
                    " itself. Leave marker= out, or name another file"
                )
            return MarkedAttemptRecord(self._storage, self._final, record, conditional_delete=fence.conditional)
        return SwappedAttemptRecord(self._storage, self._final, record, conditional_delete=fence.conditional)

    def _claimed(self) -> AttemptRecord:
        if self._register is None or not self._register.held:
            raise CommitError(f"the attempt at {self._final} was not created, or is already over: begin a new one")
        return self._register

    # add and finalize

    async def _multipart(self, source: Path) -> bool:
        """Tell whether a large file may be uploaded in parts.

        The location is asked for this only once such a file comes.
        """
        if not isinstance(self._storage, MultipartStorage):
            return False
        if (await self._storage.environment.step(os.stat, source)).st_size <= self._storage.largest_single:
            return False
        declaration = await self._storage.declare(self._final.path)
        # what its documentation says of a store is put to the test once, before it is relied on
        unsure = declaration.observable & ~self._guarantees | declaration.declared & declaration.refutable
        if _MULTIPART in unsure:
            profile = await profile_of(self._final, wanted=_MULTIPART)
            known = self._guarantees & ~_MULTIPART | profile.effective & _MULTIPART
            self.options = replace(self.options, guarantees=known)
        return self._has(_MULTIPART)

    async def _manifest(self) -> tuple[FileEntry, ...]:
        files = await self._listed()
        try:
            expect_content(files, str(self._final), allow_empty=self.options.allow_empty)
        except ValidationError:
            await self._claimed().confirm()  # nothing may be there because somebody has swept it
            raise
        return files

    async def _listed(self) -> tuple[FileEntry, ...]:
        if not self.options.direct:
            return self._added.entries()
        listing = await self._storage.list(self._final.path, recursive=True)
        if places := await self._ownership(self._claimed()).places(listing):
            raise await inside_error(self._storage, self._final, places)
        if self._storage.is_local:
            self._stamps = stamps_of(listing)
        try:
            return await manifest_of(
                self._storage,
                self._final.path,
                listing,
                own=RECORD_FILE,
                reserved=(self._claimed().record.marker,),
                checksums=self.options.checksums,
                allow_unfinished=self.options.allow_unfinished,
            )
        except ValidationError:
            await self._claimed().confirm()  # a marker may be there because another has taken over and committed
            raise

    async def _expect_settled(self) -> None:
        if self._stamps is None:
            return
        try:
            await expect_settled(self._storage, self._final.path, self._stamps)
        except ValidationError:
            await self._claimed().confirm()  # as above
            raise

    async def _sync(self) -> None:
        try:
            await need(self._storage, SyncingStorage, Guarantee.SYNC).sync_tree(self._final.path)
            await self._parent.sync()
        except FileNotFoundError:
            await self._claimed().confirm()  # it may be gone because somebody has swept it
            raise

    async def _commit(self, register: AttemptRecord, committed: CommitRecord) -> None:
        try:
            await register.commit(committed)
        except (AbandonedError, AlreadyCommittedError, OutcomeUnknownError):
            await self._end()  # it is not ours any more, or nobody knows: nothing may be cleaned up
            raise
        except (CommitError, OSError) as error:
            await self._give_up(error, f"{self._final} was not committed")
            raise
        with after_commit_point(self._final):
            await self._end()
            if committed.decided_by is DecidedBy.RECORD and committed.marker is not None:
                await self._mark(register, committed.marker)

    async def _mark(self, register: AttemptRecord, name: str) -> None:
        """Write the marker after the commit; without the marker the directory is committed all the same."""
        committed = register.record
        path, marker = self._final.child(name).path, marker_of(committed.token)
        try:
            for _ in range(_MARKS):
                try:
                    await self._storage.put(path, marker, mode=Put.CREATE, owner=committed.token)
                except FileExistsError:
                    if await self._make_room(path, register):
                        continue
                return
        except (OSError, AtomicPathError) as error:
            _LOG.warning("%s is committed, but its marker could not be written: %s", self._final, error)

    async def _make_room(self, path: str, register: AttemptRecord) -> bool:
        """Delete the marker of an attempt that was taken over.

        Return False if our own marker is there, or somebody else's.
        """
        found, there = await self._storage.stat(path), await read_marker(self._storage, self._final)
        if found is None or there is None:
            return True
        if (named := token_in_marker(there)) == register.record.token:
            return False  # the answer to our own retry
        if named not in chain_of(register.record):  # rule *owner*
            _LOG.warning("%s is committed, and the %s there is not its own: left as it is", self._final, path)
            return False
        if not await register.delete(path, version=found.version):  # rule *conditional*
            _LOG.debug("%s changed again before it was deleted", path)
        return True

    async def _adopt(self, token: str | None = None) -> AttemptRecord:
        """Return the register of an attempt that another object or process created, for `from_temporary`.

        With `token`, raise AbandonedError if the path now belongs to an attempt with another token.
        """
        if self._over:
            raise CommitError(f"the attempt at {self._final} is already over: begin a new one")
        self.options = await resolve_guarantees(type(self), self._final, self.options)
        register = self._new_register()
        began = self._storage.environment.monotonic()
        seen = await register.look()
        if seen is None:
            raise CommitError(f"{self._final} was not created by atomicpath, or is gone: call create first")
        record = CommitRecord.decode(seen.data, where=str(self._final))
        if record.state is not State.WRITING:
            raise await taken(self._storage, self._final)
        if token not in (None, record.token):
            raise AbandonedError(f"{self._final} was taken over by {record.writer} before this rank could write there")
        register.record, register.version, register.held, register.seen_at = record, seen.version, True, began
        self.token = record.token
        self._added = Additions(self._storage, self._final, record.token)
        self._register, self._alone = register, True
        return register

    # the end

    async def _clear_own(self, register: AttemptRecord) -> None:
        try:
            await clear(self._storage, self._final, register, self._ownership(register))
        except ConflictError as error:
            if not self._alone:
                raise  # an interrupted take-over: the discarded record stays, so that the next attempt can go on
            _LOG.warning("what this attempt wrote is deleted, but not all: %s", error)

    def _ownership(self, register: AttemptRecord) -> Ownership:
        """Return what this attempt may delete.

        It may delete what it created, what its chain of attempts created, and what its user wrote without an owner.
        """
        by_user = self.options.direct and self._alone
        proven = Ownership.of(self._storage, self._final, register.record, unowned=by_user)
        return replace(proven, manifest={**proven.manifest, **self._added.versions()})

    async def _delete_tree(self) -> None:
        """Delete the directory that this attempt made, on a disk; what lies below another place stays."""
        left = await delete_own_tree(need(self._storage, DirectoryStorage, Guarantee.DIRECTORIES), self._final)
        if left:
            _LOG.warning("what this attempt wrote is deleted, but not all: %s", left)

    async def _give_up(self, error: BaseException, what: str) -> None:
        """Discard after an error, and put an error of the storage in our own words."""
        with cleaning_up(self._final, error):
            await self.discard()
        if isinstance(error, OSError) and not isinstance(error, AtomicPathError):
            raise CommitError(
                f"{what}: {in_words(self._storage, self._final, error)}; the attempt was discarded"
            ) from error

    async def _end(self) -> None:
        self._over = True
        self._register = None
        self._parent.close()
        if self._storage.is_local:
            with shielded():
                await end_lock(self._storage, self._attempt, self._hold)
        untrack_attempt(self.token)

    @property
    def _guarantees(self) -> Guarantee:
        return self.options.guarantees or NONE

    def _has(self, guarantee: Guarantee) -> bool:
        return guarantee in self._guarantees


async def _expect(location: Location, *, finished: bool) -> None:
    await expect_directory(location)
    marked = await read_marker(location.open(), location) is not None
    if marked != finished:
        there, wanted = ("is there", "a directory without it") if marked else ("is missing", "a finished directory")
        raise ValidationError(f"{COMMIT_SUCCESS_FILE} {there} in {location}: expected {wanted}")
