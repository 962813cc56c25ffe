"""Giving an attempt's directory its final name by one rename that never replaces, and settling what became of it.

    parent    opened before, links followed, so that it can be synced whatever happens to its name
    rename    temporary → final; an error is believed only after a look at both names
    sync      of that parent, by its descriptor
    discard   rename to a discarded name · delete

Only a kernel has ended what it answers with an error. Over a network a rename may yet be carried out, until
its source was moved away.
"""

from __future__ import annotations

import errno
import logging

from atomicpath._core.layout import DISCARDED_SUFFIX
from atomicpath._profile.location import Location
from atomicpath.abc import DirectoryStorage, EntryKind
from atomicpath.errors import (
    AbandonedError,
    AtomicPathError,
    CommitError,
    GuaranteeError,
    OutcomeUnknownError,
)

from .borders import refuse_mounts
from .conflicts import read_record, taken
from .parent_directory import FinalParent

__all__ = ["Publisher"]

_LOG = logging.getLogger("atomicpath")
_TRIES = 5
_PAUSE = 0.5  # seconds
_REFUSALS = (FileExistsError, FileNotFoundError, PermissionError)  # errors that say that nothing was done


class Publisher:
    """The directory of the attempt `token`, on its way from `temporary` to `final`."""

    def __init__(self, storage: DirectoryStorage, final: Location, temporary: Location, token: str) -> None:
        self.storage = storage
        self.final = final
        self.temporary = temporary
        self.token = token
        self.doomed = temporary.path + DISCARDED_SUFFIX
        self.parent = FinalParent(storage, final)

    async def rename(self, *, give_way: bool = False) -> bool:
        """Rename our directory to the final path; return True once it is the final one.

        An error of the rename is believed only after a look. With `give_way`, return False, with nothing done, if
        something was there. After any other failure the attempt is discarded, and AlreadyCommittedError, ConflictError,
        AbandonedError or CommitError says why. OutcomeUnknownError is raised if the outcome is not known.
        """
        try:
            await self.storage.rename_directory(self.temporary.path, self.final.path)
        except GuaranteeError:
            await self.discard()
            raise
        except OSError as error:
            try:
                if give_way and isinstance(error, FileExistsError) and not await self.arrived():
                    return False
                lost = await self._settle(error)
            except (OSError, AtomicPathError) as second:
                raise self.unknown("rename", error, second) from error
            if lost:
                raise lost from error
        return True

    async def sync(self) -> None:
        """Make the final name durable.

        Raise OutcomeUnknownError if that fails, because the name is visible already.
        """
        try:
            await self.parent.sync()
        except (OSError, AtomicPathError) as error:
            raise OutcomeUnknownError(
                f"{self.final} is visible, but its directory could not be synced ({error}): a power cut may still"
                " undo the commit. Nothing was removed; check the disk, then is_committed(...)"
            ) from error

    async def discard(self) -> bool:
        """Move the directory out of any late writer's reach and delete it.

        Return True once nothing is left of it. What cannot be done is logged, and left for `sweep`.
        """
        try:
            await refuse_mounts(self.storage, self.temporary)
            await self.storage.rename_directory(self.temporary.path, self.doomed)
            await self.storage.remove_tree(self.doomed)
        except FileNotFoundError:
            _LOG.debug("%s had gone before it was discarded", self.temporary)
        except (OSError, AtomicPathError) as error:
            _LOG.warning("%s was given up but could not be removed: %s", self.temporary, error)
            return False
        return True

    async def arrived(self) -> bool:
        """Tell whether the final directory belongs to this attempt."""
        return await self.is_ours(self.final)

    async def is_ours(self, location: Location) -> bool:
        """Tell whether a directory with the record of this attempt is at `location`."""
        there = await self.storage.kind(location.path)
        record = await read_record(self.storage, location) if there == EntryKind.DIRECTORY else None
        return record is not None and record.token == self.token

    def unknown(self, what: str, error: Exception, second: Exception) -> OutcomeUnknownError:
        """Return the error for a commit whose outcome neither the storage's answer nor a look can tell."""
        return OutcomeUnknownError(
            f"the {what} to {self.final} failed ({error}), and so did looking whether it happened ({second})."
            " Nothing was cleaned up; look again with is_committed(...)"
        )

    async def _settle(self, error: OSError) -> CommitError | None:
        """Return the error for a failed rename; None if the rename happened all the same.

        A rename that was retransmitted fails because it finds no source.

        Raise `OSError` if the rename may still happen and could not be prevented.
        """
        if await self.arrived():
            return None
        swept = await self.storage.kind(self.temporary.path) is None
        if not (self.storage.is_local or isinstance(error, _REFUSALS)):
            swept = not await self._withdraw()
            if await self.arrived():
                return None
        there = await self.storage.kind(self.final.path)
        await self.discard()
        if there:
            return await taken(self.storage, self.final)
        if swept:
            return AbandonedError(f"{self.final} was not committed: {self.temporary.name} was swept meanwhile")
        return CommitError(f"{self.final} was not committed: {error}; the attempt was discarded")

    async def _withdraw(self) -> bool:
        """Move the source of a rename that may be under way out of its reach.

        Return False if the source had gone elsewhere.
        """
        failure: OSError | None = None
        for again in range(_TRIES):
            await self.storage.environment.sleep(_PAUSE * 2 ** (again - 1) if again else 0.0)
            try:
                await self.storage.rename_directory(self.temporary.path, self.doomed)
            except OSError as error:
                failure = error
            if await self.storage.kind(self.temporary.path) is None:
                gone = await self.storage.kind(self.doomed) is None
                if not gone:
                    await self._remove_doomed()
                return not gone
        raise failure or OSError(errno.EBUSY, f"{self.temporary} cannot be moved away")

    async def _remove_doomed(self) -> None:
        try:
            await self.storage.remove_tree(self.doomed)
        except (OSError, AtomicPathError) as error:
            _LOG.warning("%s was given up but could not be removed: %s", self.temporary, error)
