"""The rename protocol: write in a tokened sibling, publish it by one directory rename that never replaces.

    create    parents · exclusive mkdir of the sibling, held · record "writing"
    add       a local file below the sibling; to a store by the storage's own upload
    finalize  marker · record "committed" with the manifest · sync files, then directories · rename · sync parent
    discard   rename to a discarded name · delete

Readers see nothing before the rename and everything after it. Of two attempts at one final path the
rename of the second fails, because it never replaces; no attempt ever touches another's sibling.

A store makes the directories that a write needs. So there a writer whose sibling was swept would make it
again with what it writes last; that is the record, which it swaps: what was swept has no version of it.

Longer than other modules, because the steps and what becomes of each that fails are to be read together.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from upath import UPath

from atomicpath.abc import FileOptions, Hold, MetadataStore, SnapshotType, StaleVersionError, TemporaryPath
from atomicpath.environment import shielded
from atomicpath.errors import (
    AbandonedError,
    AtomicPathError,
    CommitError,
    GuaranteeError,
    OutcomeUnknownError,
    ValidationError,
)
from atomicpath.guarantees import NONE, RENAMING, Guarantee
from atomicpath.layout import (
    COMMIT_SUCCESS_FILE,
    DISCARDED_SUFFIX,
    RECORD_FILE,
    TMP_DIR_SUFFIX,
    check_file_name,
    final_of,
    temporary_of,
)
from atomicpath.liveness import hold, release, this_process
from atomicpath.location import Location, locate
from atomicpath.manifest import digest, manifest_of
from atomicpath.record import CommitRecord, FileEntry, State, marker_of
from atomicpath.telemetry import creating, finalizing, observed

from .begin import expect_directory, ready, refuse
from .held import read_record, taken
from .joining import include, is_of, owner_of, twice
from .step_metadata import StepMetadataWriter

__all__ = ["AtomicRenameTemporaryPath"]

_LOG = logging.getLogger("atomicpath")
_TRIES = 5
_PAUSE = 0.5  # seconds
_REFUSALS = (FileExistsError, FileNotFoundError, PermissionError)  # by which a storage says that nothing was done


class AtomicRenameTemporaryPath(TemporaryPath):
    """One attempt by the rename protocol."""

    requires = RENAMING

    def __init__(self, final: Location, temporary: Location, *, file_options: FileOptions | None = None) -> None:
        self._final = final
        self._temporary = temporary
        self._token = temporary.name.rpartition(TMP_DIR_SUFFIX)[2]
        self._mode = file_options.path_permission_mode if file_options else None
        self._storage = final.open()
        self._record: CommitRecord | None = None
        self._version: str | None = None
        self._added: dict[str, FileEntry] = {}
        self._hold: Hold | None = None
        self._over = False
        self._owner = self._token
        self._doomed = temporary.path + DISCARDED_SUFFIX
        self._step_metadata = StepMetadataWriter(None, self._storage.environment)

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
        refuse(snapshot_type, "snapshot_type")
        temporary = locate(temporary_path)
        return cls(temporary.at(final_of(temporary.path)), temporary, file_options=file_options)

    @classmethod
    def from_final(
        cls,
        final_path: UPath,
        *,
        checkpoint_metadata_store: MetadataStore | None = None,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        refuse(snapshot_type, "snapshot_type")
        final = locate(final_path)
        environment = final.open().environment
        temporary = final.at(temporary_of(final.path, environment.token()))
        attempt = cls(final, temporary, file_options=file_options)
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
        self.options = await ready(type(self), self._final, self.options)
        if await self._storage.kind(self._final.path):
            raise await taken(self._storage, self._final)
        environment = self._storage.environment
        try:
            self._hold = await self._storage.make_directory(
                self._temporary.path, mode=self._mode, durable=self.options.durable
            )
            hold(self._token)
            self._record = CommitRecord(
                state=State.WRITING,
                token=self._token,
                strategy="atomic_rename",
                started=environment.wall_ns(),
                direct=self.options.direct,
                writer=this_process(environment),
                metadata=self.options.metadata,
            )
            self._version = await self._write_own(RECORD_FILE, self._record.encode())
            await self._step_metadata.begin(self, staged=self._staged)
        except FileExistsError as error:
            # Not ours, so it stays: tokens are random, but clocks and forks are not to be trusted.
            self._over = True
            raise CommitError(f"another attempt has the name {self._temporary}: begin a new one") from error
        except BaseException as error:
            await self._give_up(error, f"cannot begin to write {self._final}")
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
            if there is None or not is_of(self._token, there.owner):
                raise
            if there.owner != self._owner:
                raise twice(name) from None
            entry = there  # the answer to our own retry
        environment = self._storage.environment
        sha256 = await environment.step(digest, environment, source) if self.options.checksums else None
        self._added[name] = FileEntry(name=name, size=entry.size, sha256=sha256)  # a rename may change the version

    async def join(self, rank: int) -> None:
        self._record = await self._adopt()
        self._owner = owner_of(self._token, rank)

    def added(self) -> tuple[FileEntry, ...]:
        return tuple(self._added.values())

    def include(self, files: Sequence[FileEntry]) -> None:
        include(self._added, files)

    @observed(finalizing)
    async def finalize(self) -> None:
        record = self._record or await self._adopt()
        try:
            await self._step_metadata.finish(self, staged=self._staged)
            record = record.moved_to(
                State.COMMITTED, committed=self._storage.environment.wall_ns(), files=await self._manifest(record)
            )
            await self._write_own(COMMIT_SUCCESS_FILE, marker_of(self._token))
            await self._seal(record.encode())
            if self.options.durable and self._storage.is_local:
                await self._storage.sync_tree(self._temporary.path)
        except BaseException as error:
            await self._give_up(error, f"{self._final} was not committed")
            raise
        with shielded():
            await self._publish()

    async def is_published(self) -> bool:
        return await self._arrived()

    async def discard(self) -> None:
        if self._over:
            return
        await self._step_metadata.rest()
        try:
            await self._storage.rename_directory(self._temporary.path, self._doomed)
            await self._storage.remove_tree(self._doomed)
        except FileNotFoundError:
            _LOG.debug("%s had gone before it was discarded", self._temporary)
        except (OSError, AtomicPathError) as error:
            _LOG.warning("%s was given up but could not be removed: %s", self._temporary, error)
        finally:
            self._end()

    async def _adopt(self) -> CommitRecord:
        """The record of an attempt that another object or process created, for `from_temporary`."""
        if self._over:
            raise CommitError(f"the attempt at {self._final} is already over: begin a new one")
        self.options = await ready(type(self), self._final, self.options)
        try:
            content = await self._storage.read(self._temporary.child(RECORD_FILE).path)
        except FileNotFoundError as error:
            raise CommitError(
                f"{self._temporary} was not created by atomicpath, is gone, or is not to be seen from this host, whose"
                " directory of that name is then not the one shared with it: call create first, on a shared file system"
            ) from error
        self._version = content.version
        return CommitRecord.decode(content.data, where=str(self._temporary))

    async def _give_up(self, error: BaseException, what: str) -> None:
        """Discard after an error, and put an error of the storage in our own words."""
        with shielded():
            await self.discard()
        if isinstance(error, OSError) and not isinstance(error, AtomicPathError):
            kind = AbandonedError if isinstance(error, FileNotFoundError | StaleVersionError) else CommitError
            raise kind(f"{what}: {error}; the attempt was discarded") from error

    @property
    def _staged(self) -> bool:
        """Whether every file comes by `add`."""
        return not (self.options.direct or self._storage.is_local)

    async def _manifest(self, record: CommitRecord) -> tuple[FileEntry, ...]:
        if self._staged:
            return tuple(entry for _, entry in sorted(self._added.items()))
        listing = await self._storage.list(self._temporary.path, recursive=True)
        written = next((entry.size for entry in listing if entry.name == RECORD_FILE), None)
        if written is None and await self._storage.kind(self._temporary.path) is None:
            raise AbandonedError(f"{self._final} was not committed: {self._temporary.name} was swept meanwhile")
        if written != len(record.encode()):
            raise ValidationError(f"{RECORD_FILE} in {self._temporary} was changed: give your own file another name")
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

    async def _publish(self) -> None:
        """The commit: rename, and settle what became of it. Everything after it can only say so."""
        try:
            await self._rename()
        finally:
            self._end()
        if self.options.durable and self._storage.is_local:
            try:
                await self._storage.sync_directory(self._final.parent.path)
            except OSError as error:
                raise OutcomeUnknownError(
                    f"{self._final} is visible, but its directory could not be synced ({error}): a power cut may still"
                    " undo the commit. Nothing was removed; check the disk, then is_committed(...)"
                ) from error

    async def _rename(self) -> None:
        """Returns once our directory is the final one. An error of the rename is believed only after a look."""
        try:
            await self._storage.rename_directory(self._temporary.path, self._final.path)
        except GuaranteeError:
            await self.discard()
            raise
        except OSError as error:
            try:
                lost = await self._settle(error)
            except (OSError, AtomicPathError) as second:
                raise OutcomeUnknownError(
                    f"the rename to {self._final} failed ({error}), and so did looking whether it happened ({second})."
                    " Nothing was cleaned up; look again with is_committed(...)"
                ) from error
            if lost:
                raise lost from error

    async def _settle(self, error: OSError) -> CommitError | None:
        """What a failed rename came to; None if it happened all the same: a retransmitted one finds no source.

        Only a kernel has ended what it answers with an error. Over a network the rename may yet happen, until
        its source was moved away; an `OSError` from here says that this could not be done.
        """
        if await self._arrived():
            return None
        swept = await self._storage.kind(self._temporary.path) is None
        if not (self._storage.is_local or isinstance(error, _REFUSALS)):
            swept = not await self._withdraw()
            if await self._arrived():
                return None
        there = await self._storage.kind(self._final.path)
        await self.discard()
        if there:
            return await taken(self._storage, self._final)
        if swept:
            return AbandonedError(f"{self._final} was not committed: {self._temporary.name} was swept meanwhile")
        return CommitError(f"{self._final} was not committed: {error}; the attempt was discarded")

    async def _arrived(self) -> bool:
        """Whether the final directory is this attempt's."""
        there = await self._storage.kind(self._final.path)
        record = await read_record(self._storage, self._final) if there == "directory" else None
        return record is not None and record.token == self._token

    async def _withdraw(self) -> bool:
        """Move the source of a rename that may be under way out of its reach; False if it had gone elsewhere."""
        failure: OSError | None = None
        for again in range(_TRIES):
            await self._storage.environment.sleep(_PAUSE * 2 ** (again - 1) if again else 0.0)
            try:
                await self._storage.rename_directory(self._temporary.path, self._doomed)
            except OSError as error:
                failure = error
            if await self._storage.kind(self._temporary.path) is None:
                gone = await self._storage.kind(self._doomed) is None
                if not gone:
                    await self._remove_doomed()
                return not gone
        raise failure or OSError(errno.EBUSY, f"{self._temporary} cannot be moved away")

    async def _remove_doomed(self) -> None:
        try:
            await self._storage.remove_tree(self._doomed)
        except (OSError, AtomicPathError) as error:
            _LOG.warning("%s was given up but could not be removed: %s", self._temporary, error)

    def _end(self) -> None:
        self._over = True
        self._record = None
        if self._hold is not None:
            self._hold.release()
        release(self._token)

    async def _write_own(self, name: str, data: bytes) -> str | None:
        return await self._storage.write(self._temporary.child(name).path, data, private=True)
