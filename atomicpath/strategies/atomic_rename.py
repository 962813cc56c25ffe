"""The rename protocol: write in a tokened sibling, publish it by one directory rename that never replaces.

    create    parents · exclusive mkdir of the sibling, held · record "writing"
    add       a local file below the sibling; to a store by the storage's own upload
    finalize  marker · record "committed" with the manifest · sync files, then directories · rename · sync parent
    discard   rename to a discarded name · delete

Readers see nothing before the rename and everything after it. Of two attempts at one final path the
rename of the second fails, because it never replaces; no attempt ever touches another's sibling.

A store makes the directories that a write needs. So there a writer whose sibling was swept would make it
again with what it writes last; that is the record, which it swaps: what was swept has no version of it.

How the last step is made, over what, and what becomes of it if it fails: `publishing` and `replacing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from upath import UPath

from atomicpath.abc import FileOptions, Hold, MetadataStore, SnapshotType, StaleVersionError, TemporaryPath
from atomicpath.environment import cleaning_up, shielded
from atomicpath.errors import AbandonedError, AtomicPathError, CommitError, ValidationError
from atomicpath.guarantees import NONE, RENAMING, Guarantee
from atomicpath.layout import (
    COMMIT_SUCCESS_FILE,
    RECORD_FILE,
    TMP_DIR_SUFFIX,
    check_file_name,
    final_of,
    is_pending,
    pending_of,
    temporary_of,
)
from atomicpath.liveness import hold, release, this_process
from atomicpath.location import Location, locate
from atomicpath.manifest import digest, manifest_of
from atomicpath.record import CommitRecord, FileEntry, State, marker_of
from atomicpath.telemetry import creating, finalizing, observed

from .begin import expect_absolute, expect_directory, ready
from .copying import check_snapshot, has_copies, origin_at
from .held import foreign, standing_at
from .holding import KeptSnapshotError
from .joining import include, is_of, owner_of, twice
from .publishing import Publication
from .replacing import Way, publish
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
        """`source`: the committed directory to begin from, where it is not the final one."""
        self._final = final
        self._snapshot = snapshot_type
        self._source = final if snapshot_type else source
        self._temporary = temporary
        self.token = temporary.name.rpartition(TMP_DIR_SUFFIX)[2]
        self._mode = file_options.path_permission_mode if file_options else None
        self._storage = final.open()
        self._record: CommitRecord | None = None
        self._version: str | None = None
        self._added: dict[str, FileEntry] = {}
        self._hold: Hold | None = None
        self._over = False
        self._owner = self.token
        self._step_metadata = StepMetadataWriter(None, self._storage.environment)
        self._kept = False
        target = final.at(pending_of(final.path, self.token)) if snapshot_type is SnapshotType.EMPTY else final
        self._publication = Publication(self._storage, target, temporary, self.token)

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
        final = locate(final_path)
        environment = final.open().environment
        temporary = final.at(temporary_of(final.path, environment.token()))
        attempt = cls(final, temporary, file_options=file_options, snapshot_type=snapshot_type)
        attempt._step_metadata = StepMetadataWriter(checkpoint_metadata_store, environment)
        return attempt

    def get(self) -> UPath:
        return self._temporary.upath

    def get_final(self) -> UPath:
        return self._final.upath

    @observed(creating)
    async def create(self) -> UPath:
        if self._record is not None or self._over:
            raise CommitError(f"the attempt at {self._final} was created before: begin a new one")
        await self._prepare()
        origin = await origin_at(self._storage, self._source, self._snapshot) if self._source else None
        if self._snapshot is None and (kind := await self._storage.kind(self._final.path)):
            await self._check_way(kind)
        mode = origin.mode if origin and self._mode is None else self._mode
        environment = self._storage.environment
        try:
            self._hold = await self._storage.make_directory(
                self._temporary.path, mode=mode, durable=self.options.durable
            )
            hold(self.token, self._hold.release if self._hold else None, owner=self)
            self._record = CommitRecord(
                state=State.WRITING,
                token=self.token,
                strategy="atomic_rename",
                started=environment.wall_ns(),
                direct=self.options.direct,
                based_on=origin.base if origin else None,
                writer=this_process(environment),
                metadata=self.options.metadata,
            )
            self._version = await self._write_own(RECORD_FILE, self._record.encode())
        except FileExistsError as error:
            # Not ours, so it stays: tokens are random, but clocks and forks are not to be trusted.
            self._over = True
            raise CommitError(f"another attempt has the name {self._temporary}: begin a new one") from error
        except BaseException as error:
            await self._give_up(error, f"cannot begin to write {self._final}")
            raise
        try:
            if origin is not None:
                await origin.copy(self._storage, self._temporary)
            await self._step_metadata.begin(self, staged=self._staged)  # over what was copied
        except BaseException as error:
            await self._give_up(error, f"cannot copy {self._source}" if origin else f"cannot begin {self._final}")
            raise
        return self.get()

    async def add(self, name: str, source: Path) -> None:
        if self._storage.is_local:
            await super().add(name, source)
            return
        path = self._temporary.child(check_file_name(name)).path
        try:  # in parts without a guarantee that one completion wins: nobody else knows the temporary name
            entry = await self._storage.upload(source, path, owner=self._owner, multipart=True)
        except FileExistsError:
            there = await self._storage.stat(path)
            if there is None or not is_of(self.token, there.owner):
                raise
            if there.owner != self._owner:
                raise twice(name) from None
            entry = there  # the answer to our own retry
        environment = self._storage.environment
        sha256 = await environment.step(digest, environment, source) if self.options.checksums else None
        self._added[name] = FileEntry(name=name, size=entry.size, sha256=sha256)  # a rename may change the version

    async def join(self, rank: int, token: str) -> None:  # noqa: ARG002 - the name has the token in it
        self._record = await self._adopt()
        self._owner = owner_of(self.token, rank)

    def added(self) -> tuple[FileEntry, ...]:
        return tuple(self._added.values())

    def include(self, files: Sequence[FileEntry]) -> None:
        include(self._added, files)

    @observed(finalizing)
    async def finalize(self) -> None:
        if self._kept:
            raise CommitError(f"this snapshot could not be published at {self._final}: take from it, then discard()")
        record = self._record or await self._adopt()
        try:
            await self._step_metadata.finish(self, staged=self._staged)
            record = record.moved_to(
                State.COMMITTED, committed=self._storage.environment.wall_ns(), files=await self._manifest(record)
            )
            await self._write_own(COMMIT_SUCCESS_FILE, marker_of(self.token))
            await self._seal(record.encode())
            if self.options.durable and self._storage.is_local:
                await self._storage.sync_tree(self._temporary.path)
        except BaseException as error:
            await self._give_up(error, f"{self._final} was not committed")
            raise
        with shielded():
            durable = self.options.durable and self._storage.is_local
            way = Way(outer=self._final, base=record.based_on, replacing=self.options.replace, durable=durable)
            try:
                await publish(self._publication, way, settled=self._end)
            except KeptSnapshotError:
                self._kept = True
                raise

    async def is_published(self) -> bool:
        return await self._publication.arrived()

    async def discard(self) -> None:
        if self._over:
            return
        await self._step_metadata.rest()
        try:
            await self._publication.discard()
        finally:
            self._end()

    async def _adopt(self) -> CommitRecord:
        """The record of an attempt that another object or process created, for `from_temporary`."""
        if self._over:
            raise CommitError(f"the attempt at {self._final} is already over: begin a new one")
        await self._prepare()
        try:
            content = await self._storage.read(self._temporary.child(RECORD_FILE).path)
        except FileNotFoundError as error:
            raise CommitError(
                f"{self._temporary} was not created by atomicpath, is gone, or is not to be seen from this host, whose"
                " directory of that name is then not the one shared with it: call create first, on a shared file system"
            ) from error
        self._version = content.version
        record = CommitRecord.decode(content.data, where=str(self._temporary))
        check_snapshot(self._temporary, record.based_on, self._snapshot)
        return record

    async def _prepare(self) -> None:
        """Find out what may be relied on, and that it is enough."""
        replacing = "replace=True" if self.options.replace else None
        if self._snapshot is SnapshotType.IN_PLACE:
            replacing = str(self._snapshot)
        if self._snapshot is not None and self.options.replace:
            raise ValidationError(f"replace=True and {self._snapshot} exclude each other: leave one of them out")
        self.options = await ready(type(self), self._final, self.options, replacing=replacing)

    async def _check_way(self, kind: str) -> None:
        """Something is at the final path: the error that says so, unless it is what this attempt may replace."""
        standing = await standing_at(self._storage, self._final)
        gone = standing.kind is None
        if not (self.options.replace and (standing.committed or gone) and kind == "directory"):
            raise standing.conflict(self._final) if kind == "directory" else foreign(self._final, kind)

    async def _give_up(self, error: BaseException, what: str) -> None:
        """Discard after an error, and put an error of the storage in our own words."""
        with cleaning_up(self._final, error):
            await self.discard()
        if isinstance(error, OSError) and not isinstance(error, AtomicPathError):
            kind = AbandonedError if isinstance(error, FileNotFoundError | StaleVersionError) else CommitError
            raise kind(f"{what}: {error}; the attempt was discarded") from error

    @property
    def _staged(self) -> bool:
        """Whether every file comes by `add`."""
        return not (self.options.direct or self._storage.is_local)

    async def _manifest(self, record: CommitRecord) -> tuple[FileEntry, ...]:
        copied = has_copies(record.based_on)
        if self._staged and not copied:
            return tuple(entry for _, entry in sorted(self._added.items()))
        listing = await self._storage.list(self._temporary.path, recursive=True)
        written = next((entry.size for entry in listing if entry.name == RECORD_FILE), None)
        if written is None and await self._storage.kind(self._temporary.path) is None:
            raise AbandonedError(f"{self._final} was not committed: {self._temporary.name} was swept meanwhile")
        if written != len(record.encode()):
            raise ValidationError(f"{RECORD_FILE} in {self._temporary} was changed: give your own file another name")
        if copied:  # with what was added to the source, which stays by itself
            listing = [entry for entry in listing if not is_pending(entry.name)]
        directory, checksums = self._temporary.path, self.options.checksums
        return await manifest_of(self._storage, directory, listing, own=RECORD_FILE, checksums=checksums)

    async def _seal(self, data: bytes) -> None:
        """Write the record that will count, over the one that `create` wrote and nothing else."""
        path, version = self._temporary.child(RECORD_FILE).path, self._version
        if version is None or Guarantee.COMPARE_AND_SWAP not in (self.options.guarantees or NONE):
            await self._write_own(RECORD_FILE, data)  # where a write needs its directory, as on any file system
            return
        try:
            await self._storage.swap(path, data, version=version)
        except OSError:
            if (await self._storage.read(path)).data != data:
                raise  # else it is the answer to our own retry

    def _end(self) -> None:
        self._over = True
        self._record = None
        if self._hold is not None:
            self._hold.release()
        release(self.token)

    async def _write_own(self, name: str, data: bytes) -> str | None:
        return await self._storage.write(self._temporary.child(name).path, data, private=True)
