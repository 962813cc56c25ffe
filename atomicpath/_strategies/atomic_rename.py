"""The rename protocol: write in a directory of its own, publish it by one directory rename that never replaces.

    create    parent made and opened · record beside the directory, locked · exclusive mkdir of it, left empty
    add       a local file below the directory; to a store by the storage's own upload
    finalize  marker if one is asked for · record "committed" with the manifest · sync files, then directories ·
              rename · sync parent · delete the record beside
    discard   rename to a discarded name · delete

The directory lies in the house-keeping directory beside the final path, or, on mounts that cannot rename out of that,
is a hidden sibling. Readers see nothing before the rename and everything after it. Of two attempts at one final path
the rename of the second fails, because it never replaces; no attempt ever touches a living one's directory.

The record beside the directory, its lock, and what fences off a sweep on stores: `attempt_files`. How the last step is
made, over what, and what becomes of it if it fails: `publishing` and `replacing`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self, cast

from upath import UPath

from atomicpath._core.environment import cleaning_up, current, shielded
from atomicpath._core.layout import (
    RECORD_FILE,
    TMP_DIR_SUFFIX,
    check_file_name,
    final_of,
    is_pending,
    pending_of,
    temporary_of,
)
from atomicpath._core.liveness import boot_clock, this_process
from atomicpath._core.record import CommitRecord, FileEntry, State, marker_of
from atomicpath._core.telemetry import creating, finalizing, observed
from atomicpath._profile.abilities import make_parents, need
from atomicpath._profile.fingerprint import place_of
from atomicpath._profile.location import Location, locate
from atomicpath._profile.probing import are_beside, attempts_beside
from atomicpath._profile.storage_errors import at_final, reported
from atomicpath.abc import (
    DirectoryStorage,
    EntryKind,
    FileOptions,
    MetadataStore,
    Put,
    SnapshotType,
    StaleVersionError,
    SyncingStorage,
    TemporaryPath,
)
from atomicpath.errors import AbandonedError, AtomicPathError, CommitError, ValidationError
from atomicpath.guarantees import NONE, RENAMING, Guarantee

from .aliases import linked_name
from .attempt_files import AttemptFiles
from .borders import refuse_nested
from .conflicts import aliased, foreign, standing_at
from .copy_source import SnapshotSource, check_snapshot, has_copies, origin_at
from .directory_lock import KeptSnapshotError
from .joint_manifest import duplicate_file_error, include, is_of, owner_of
from .manifest import Stamps, digest, expect_content, expect_settled, manifest_of, stamps_of
from .predecessors import clear_dead
from .publish import Publisher
from .replace import PublishPlan, publish
from .requirements import expect_absolute, expect_directory, in_words, resolve_guarantees
from .step_metadata import StepMetadataWriter

__all__ = ["AtomicRenameTemporaryPath"]


class AtomicRenameTemporaryPath(TemporaryPath):
    """One attempt by the rename protocol."""

    requires = RENAMING
    replacing = Guarantee.RENAME_EXCHANGE

    def __init__(
        self,
        final: Location,
        temporary: Location,
        *,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
        source: Location | None = None,
    ) -> None:
        """Take in `source` the committed directory to begin from, where it is not the final one."""
        self._final = final
        self._snapshot = snapshot_type
        self._source = final if snapshot_type else source
        self.token = temporary.name.rpartition(TMP_DIR_SUFFIX)[2]
        self._mode = file_options.path_permission_mode if file_options else None
        # `begin` refuses a storage without directories. Until then nothing is asked of it.
        self._storage = cast("DirectoryStorage", final.open())
        self._record: CommitRecord | None = None
        self._added: dict[str, FileEntry] = {}
        self._over = False
        self._owner = self.token
        self._step_metadata = StepMetadataWriter(None, self._storage.environment)
        self._kept = False
        self._stamps: Stamps = {}
        self._path: UPath | None = None  # made once, because making it takes longer than a system call
        self._lie_at(temporary)

    @classmethod
    async def validate(cls, temporary_path: UPath) -> None:
        location = locate(temporary_path)
        await expect_directory(location)
        final_of(location.name)

    @classmethod
    async def validate_final(cls, final_path: UPath) -> None:
        location = locate(final_path)
        if TMP_DIR_SUFFIX in location.name:
            raise ValidationError(f"{location} is a temporary path: expected a final one, without {TMP_DIR_SUFFIX!r}")
        await expect_directory(location)

    @classmethod
    def from_temporary(
        cls,
        temporary_path: UPath,
        *,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        expect_absolute(temporary_path, snapshot_type)
        temporary = locate(temporary_path)
        final = temporary.at(final_of(temporary.path))
        return cls(final, temporary, file_options=file_options, snapshot_type=snapshot_type)

    @classmethod
    def from_final(
        cls,
        final_path: UPath,
        *,
        checkpoint_metadata_store: MetadataStore | None = None,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        expect_absolute(final_path, snapshot_type)
        return cls.new(
            locate(final_path), store=checkpoint_metadata_store, file_options=file_options, snapshot_type=snapshot_type
        )

    @classmethod
    def new(
        cls,
        final: Location,
        *,
        store: MetadataStore | None = None,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        """Return a new attempt at `final`, with its metadata in `store` if there is one. No I/O."""
        environment = current()
        temporary = final.at(temporary_of(final.path, environment.token(), hidden=are_beside(final)))
        attempt = cls(final, temporary, file_options=file_options, snapshot_type=snapshot_type)
        if store is not None:
            attempt._step_metadata = StepMetadataWriter(store, environment)
        return attempt

    def get(self) -> UPath:
        if self._path is None:
            self._path = self._temporary.upath
        return self._path

    def get_final(self) -> UPath:
        return self._final.upath

    @classmethod
    def resume(cls, final: Location, temporary: Location, *, file_options: FileOptions | None = None) -> Self:
        """Return the attempt at `final` that another process began at `temporary`. No I/O."""
        return cls(final, temporary, file_options=file_options)

    async def create(self) -> UPath:
        await self.begin()
        return self.get()

    @property
    def directory(self) -> Location:
        """The location whose path `get` returns."""
        return self._temporary

    @reported("cannot begin to write {}", at_final)
    @observed(creating)
    async def begin(self) -> None:
        """Do what `create` does, without a UPath, which takes longer to make than a directory."""
        if self._record is not None or self._over:
            raise CommitError(f"the attempt at {self._final} was created before: begin a new one")
        await self._prepare()
        need(self._storage, DirectoryStorage, Guarantee.ATOMIC_RENAME)
        if await attempts_beside(self._final):
            self._lie_at(self._final.at(temporary_of(self._final.path, self.token, hidden=True)))
        await refuse_nested(self._storage, self._final)
        origin = await origin_at(self._storage, self._source, self._snapshot) if self._source else None
        if self._snapshot is None and (kind := await self._storage.kind(self._final.path)):
            await self._check_way(kind)
        try:
            await self._begin(origin)
        except FileExistsError as error:
            # Not ours, so it stays: tokens are random, but clocks and forks are not to be trusted.
            await self._end(keep_record=True)
            raise CommitError(f"another attempt has the name {self._temporary}: begin a new one") from error
        except BaseException as error:
            await self._give_up(error, f"cannot begin to write {self._final}")
            raise
        try:
            if self._storage.is_local and not self._files.came_first:
                await clear_dead(self._storage, self._final, self._temporary)
            if origin is not None:
                await origin.copy(self._storage, self._temporary)
            await self._step_metadata.begin(self, staged=self._staged)  # overwrites what was copied
        except BaseException as error:
            await self._give_up(error, f"cannot copy {self._source}" if origin else f"cannot begin {self._final}")
            raise

    async def _begin(self, origin: SnapshotSource | None) -> None:
        """Open the final path's parent, then make the attempt's record and its empty directory."""
        storage, environment = self._storage, self._storage.environment
        await make_parents(storage, self._publication.final.path, durable=self.options.durable)
        if self.options.durable:
            await self._publication.parent.open()
        record = CommitRecord(
            state=State.WRITING,
            token=self.token,
            final=self._final.name,
            strategy="atomic_rename",
            marker=self._marker,
            started=environment.wall_ns(),
            direct=self.options.direct,
            based_on=origin.base if origin else None,
            writer=this_process(environment),
            copied_from=self.options.copied_from,
            metadata=self.options.metadata,
        )
        mode = origin.mode if origin and self._mode is None else self._mode
        await self._files.begin(record, mode=mode, known=self.options.guarantees or NONE)
        self._record = record

    async def add(self, name: str, source: Path) -> None:
        path = self._temporary.child(check_file_name(name)).path
        if self._storage.is_local:
            await self._storage.environment.step(_make_parent, Path(path))
            followed = await self._storage.environment.step(os.path.realpath, source)  # `put` follows links to files
            await self._storage.download(followed, Path(path))  # synced with all the others, at the end
            return
        try:  # in parts without a guarantee that one completion wins: nobody else knows the temporary name
            entry = await self._storage.upload(source, path, owner=self._owner, multipart=True)
        except FileExistsError:
            there = await self._storage.stat(path)
            if there is None or not is_of(self.token, there.owner):
                raise
            if there.owner != self._owner:
                raise duplicate_file_error(name) from None
            entry = there  # it answers our own retry
        environment = self._storage.environment
        sha256 = await environment.step(digest, environment, source) if self.options.checksums else None
        self._added[name] = FileEntry(name=name, size=entry.size, sha256=sha256)  # a rename may change the version

    @reported("cannot take part in writing {}", at_final)
    async def join(self, rank: int, token: str) -> None:  # noqa: ARG002 - the name has the token in it
        self._record = await self._adopt()
        self._owner = owner_of(self.token, rank)

    def added(self) -> tuple[FileEntry, ...]:
        return tuple(self._added.values())

    def include(self, files: Sequence[FileEntry]) -> None:
        include(self._added, files)

    @reported("{} was not committed", at_final)
    @observed(finalizing)
    async def finalize(self) -> None:
        if self._kept:
            raise CommitError(f"this snapshot could not be published at {self._final}: take from it, then discard()")
        record = self._record
        if record is None:
            record = await self._adopt()
            if self.options.durable:  # who joins does not sync the parent, and would keep it open
                await self._publication.parent.open()
        try:
            await self._step_metadata.finish(self, staged=self._staged)
            record = record.moved_to(
                State.COMMITTED,
                committed=self._storage.environment.wall_ns(),
                boot_clock=boot_clock(self._storage.environment),
                files=await self._manifest(record),
                place=await place_of(self._storage, self._temporary, self._publication.final, self.token),
            )
            if marker := self._marker:
                await self._write_own(marker, marker_of(self.token))
            await self._write_own(RECORD_FILE, record.encode())
            await self._files.seal(record, self.options.guarantees or NONE)
            if self.options.durable and self._storage.is_local:
                await need(self._storage, SyncingStorage, Guarantee.SYNC).sync_tree(self._temporary.path)
            if self._storage.is_local:
                await self._expect_settled()
        except BaseException as error:
            await self._give_up(error, f"{self._final} was not committed")
            raise
        with shielded():
            durable = self.options.durable and self._storage.is_local
            way = PublishPlan(outer=self._final, base=record.based_on, replacing=self.options.replace, durable=durable)
            try:
                await publish(self._publication, way)
            except KeptSnapshotError:
                self._kept = True
                raise
            except BaseException:
                await self._end(keep_record=await self._is_left())
                raise
            self.committed_record = record
            await self._end()

    @reported("cannot say whether {} is committed", at_final)
    async def is_published(self) -> bool:
        return await self._publication.arrived()

    @reported("the attempt at {} could not be given up", at_final)
    async def discard(self) -> None:
        if self._over:
            return
        await self._step_metadata.rest()
        gone = False
        try:
            gone = await self._publication.discard()
        finally:
            await self._end(keep_record=not gone)

    async def _adopt(self) -> CommitRecord:
        """Read the record of an attempt that another object or process created, for `from_temporary`."""
        if self._over:
            raise CommitError(f"the attempt at {self._final} is already over: begin a new one")
        await self._prepare()
        record = await self._files.adopt()
        if record is None:
            raise CommitError(
                f"{self._temporary} was not created by atomicpath, is gone, or is not to be seen from this host, whose"
                " directory of that name is then not the one shared with it: call create first, on a shared file system"
            )
        check_snapshot(self._temporary, record.based_on, self._snapshot)
        return record

    async def _prepare(self) -> None:
        """Find out what may be relied on, and that it is enough."""
        replacing = "replace=True" if self.options.replace else None
        if self._snapshot is SnapshotType.IN_PLACE:
            replacing = str(self._snapshot)
        if self._snapshot is not None and self.options.replace:
            raise ValidationError(f"replace=True and {self._snapshot} exclude each other: leave one of them out")
        self.options = await resolve_guarantees(type(self), self._final, self.options, replacing=replacing)

    def _lie_at(self, temporary: Location) -> None:
        self._temporary = temporary
        self._path = None
        final, snapshot = self._final, self._snapshot
        target = final.at(pending_of(final.path, self.token)) if snapshot is SnapshotType.EMPTY else final
        self._publication = Publisher(self._storage, target, temporary, self.token)
        self._files = AttemptFiles(self._storage, temporary, self.token)

    async def _check_way(self, kind: EntryKind) -> None:
        """Raise the error for what is at the final path, unless this attempt may replace it."""
        standing = await standing_at(self._storage, self._final)
        gone = standing.kind is None
        if not (self.options.replace and (standing.committed or gone) and kind is EntryKind.DIRECTORY):
            if target := await linked_name(self._storage, self._final):
                raise aliased(self._final, target)
            raise standing.conflict(self._final) if kind is EntryKind.DIRECTORY else foreign(self._final, kind)

    async def _give_up(self, error: BaseException, what: str) -> None:
        """Discard after an error, and put an error of the storage in our own words."""
        with cleaning_up(self._final, error):
            await self.discard()
        if isinstance(error, OSError) and not isinstance(error, AtomicPathError):
            kind = AbandonedError if isinstance(error, FileNotFoundError | StaleVersionError) else CommitError
            reason = in_words(self._storage, self._final, error)
            raise kind(f"{what}: {reason}; the attempt was discarded") from error

    @property
    def _staged(self) -> bool:
        """True if every file is added with `add`."""
        return not (self.options.direct or self._storage.is_local)

    @property
    def _marker(self) -> str | None:
        """The marker file that the caller asked for, or None: this strategy writes no marker by itself."""
        return None if self.options.marker is ... else self.options.marker

    async def _manifest(self, record: CommitRecord) -> tuple[FileEntry, ...]:
        files = await self._listed(record)
        expect_content(files, str(self._final), allow_empty=self.options.allow_empty)
        return files

    async def _expect_settled(self) -> None:
        try:
            await expect_settled(self._storage, self._temporary.path, self._stamps, besides=self._marker)
        except ValidationError as error:
            if await self._storage.kind(self._temporary.path) is None:
                raise AbandonedError(
                    f"{self._final} was not committed: {self._temporary.name} was swept meanwhile"
                ) from error
            raise

    async def _listed(self, record: CommitRecord) -> tuple[FileEntry, ...]:
        copied = has_copies(record.based_on)
        if self._staged and not copied:
            return tuple(entry for _, entry in sorted(self._added.items()))
        listing = await self._storage.list(self._temporary.path, recursive=True)
        # where an empty directory may be committed, the next step fails if there is none
        needs_look = not (listing or (self._storage.is_local and self.options.allow_empty))
        if needs_look and await self._storage.kind(self._temporary.path) is None:
            raise AbandonedError(f"{self._final} was not committed: {self._temporary.name} was swept meanwhile")
        if copied:  # with what was added to the source, which stays by itself
            listing = [entry for entry in listing if not is_pending(entry.name)]
        self._stamps = stamps_of(listing, besides=self._marker)
        return await manifest_of(
            self._storage,
            self._temporary.path,
            listing,
            reserved=(RECORD_FILE, self._marker),
            checksums=self.options.checksums,
            allow_unfinished=self.options.allow_unfinished,
        )

    async def _is_left(self) -> bool:
        """Tell whether the attempt's directory may still be there, so that its record has to stay with it."""
        try:
            return await self._storage.kind(self._temporary.path) is not None
        except (OSError, AtomicPathError):
            return True

    async def _end(self, *, keep_record: bool = False) -> None:
        self._over = True
        self._record = None
        self._publication.parent.close()
        with shielded():
            await self._files.end(keep_record=keep_record)

    async def _write_own(self, name: str, data: bytes) -> None:
        await self._storage.put(self._temporary.child(name).path, data, mode=Put.PRIVATE)


def _make_parent(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
