"""The data objects of an attempt that writes in place: created exclusively under its token, told for the manifest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from atomicpath._core.environment import looking_ahead
from atomicpath._core.record import FileEntry
from atomicpath._profile.location import Location
from atomicpath.abc import Entry, Storage
from atomicpath.errors import CommitError, ConflictError, OutcomeUnknownError

from .attempt_record import AttemptRecord
from .borders import inside_error
from .conflicts import not_its_own
from .joint_manifest import duplicate_file_error, include, is_of, owner_of
from .manifest import digest
from .ownership import Ownership, below

__all__ = ["Additions"]

_LOG = logging.getLogger("atomicpath")
_TRIES = 5
_CONFIRMATIONS = 60  # in one lease, at most


class Additions:
    """What one process adds to the attempt `token`, and, in the primary, what the others have added."""

    def __init__(self, storage: Storage, final: Location, token: str) -> None:
        self._storage = storage
        self._final = final
        self._token = self._owner = token
        self._files: dict[str, FileEntry | None] = {}
        self._joined = False  # whether the lease is another process's to renew
        self._looking = anyio.Lock()  # one look is enough for all files that wait for it

    def join(self, rank: int) -> None:
        """Mark the objects of this process, to tell them from those of the others."""
        self._owner = owner_of(self._token, rank)
        self._joined = True

    def versions(self) -> dict[str, str | None]:
        """Return the names that this process created, with the versions that the store gave; no further look.

        Where a store gives no versions, its answer to the creation is the only proof of ownership.
        """
        is_proof = not self._storage.is_local
        return {name: entry.etag for name, entry in self._files.items() if entry and (entry.etag or is_proof)}

    def entries(self) -> tuple[FileEntry, ...]:
        """Return the entries of all files that are there, sorted by name."""
        return tuple(entry for _, entry in sorted(self._files.items()) if entry is not None)

    def include(self, files: Sequence[FileEntry]) -> None:
        """Add what other processes have added."""
        include(self._files, files)

    async def add(self, register: AttemptRecord, name: str, source: Path, *, multipart: bool, checksums: bool) -> None:
        """Create one object from a local file; a late writer's object in its place is deleted."""
        self._files[name] = None  # from here on it may be there
        target = self._final.child(name)
        for _ in range(_TRIES):
            await self._expect_lease(register)
            try:
                # rule *exclusive*: data is created, never overwritten
                with looking_ahead(partial(self._expect_lease, register)):  # before each part of a large one, too
                    entry = await self._storage.upload(source, target.path, owner=self._owner, multipart=multipart)
            except FileExistsError:
                there = await self._storage.stat(target.path)
                if there is None:
                    continue
                if there.owner != self._owner:
                    if is_of(self._token, there.owner):
                        raise duplicate_file_error(name) from None
                    await register.confirm_to_delete()  # rule *confirm*: after the look, before acting on it
                    await self._remove_late(register, name, there)
                    continue
                entry = there  # the answer to our own retry
            environment = self._storage.environment
            sha256 = await environment.step(digest, environment, source) if checksums else None
            self._files[name] = FileEntry(name=name, size=entry.size, etag=entry.version, sha256=sha256)
            return
        raise ConflictError(f"{target} cannot be written: somebody else keeps writing it. Stop it, or use another name")

    async def _remove_late(self, register: AttemptRecord, name: str, there: Entry) -> None:
        """Delete what a late writer of an attempt that was taken over has written.

        Raise ConflictError if the object is of no such attempt.
        """
        target, ownership = self._final.child(name), Ownership.of(self._storage, self._final, register.record)
        if places := await self._places_around(name, ownership):
            raise await inside_error(self._storage, self._final, places)
        if not ownership.owns(there.owner):  # rule *owner*
            raise not_its_own(self._final, (name,))
        if not await register.delete(target.path, version=there.version):  # rule *conditional*: the very version seen
            _LOG.debug("%s changed again before it was deleted", target)

    async def _expect_lease(self, register: AttemptRecord) -> None:
        """Return only if the attempt stands.

        A process that slept past its lease may not add to a path that may be another's by now.

        The primary renews a lease of which too much has passed. A process that joined cannot renew it: it reads the
        record.
        """
        if self._is_safe(register):
            return
        async with self._looking:
            if self._is_safe(register):
                return
            try:
                await (register.confirm() if self._joined else register.renew())
            except OutcomeUnknownError as error:  # of the renewal; the commit was not even tried
                raise CommitError(
                    f"{self._final} was not committed: its lease could not be renewed: {error}"
                ) from error

    def _is_safe(self, register: AttemptRecord) -> bool:
        if not self._joined:
            return register.is_well_within_lease()
        passed = self._storage.environment.monotonic() - register.seen_at
        return passed <= register.record.lease.patience / _CONFIRMATIONS

    async def _places_around(self, name: str, ownership: Ownership) -> tuple[str, ...]:
        """Return the other places between the final path and one of its files, if any.

        There are some if two claims crossed.
        """
        top, deeper, _ = name.partition("/")
        if not deeper:
            return ()
        listing = await self._storage.list(self._final.child(top).path, recursive=True)
        named = [replace(entry, name=f"{top}/{entry.name}") for entry in listing]
        return tuple(place for place in await ownership.places(named) if below(name, (place,)))
