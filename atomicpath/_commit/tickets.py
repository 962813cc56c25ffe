"""Taking part, by a ticket, in a commit that another process has begun and will finish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self, cast

from upath import UPath

from atomicpath._core.environment import current, shielded
from atomicpath._core.failures import Document
from atomicpath._core.record import file_document
from atomicpath._profile.location import Location, locate
from atomicpath._profile.storage_errors import reporting
from atomicpath._strategies.manifest import stamps_of
from atomicpath.abc import TemporaryPath
from atomicpath.errors import CommitError, ValidationError

from .options import CommitOptions
from .session import join_attempt
from .sources import Staged
from .staging import Staging, upload

__all__ = ["JoinedCommit", "ticket_of"]

_KIND = "atomicpath.ticket"
_FORMAT = 1


def ticket_of(invitation: Document) -> bytes:
    """Return an invitation in a form that can be sent. It has no credentials in it."""
    return json.dumps({"kind": _KIND, "format": _FORMAT} | invitation).encode("ascii")


class JoinedCommit:
    """What one process adds to a commit of another one."""

    def __init__(
        self, location: Location, temporary: TemporaryPath | None, staging: Staging | None, path: Path | UPath
    ):
        self.location = location
        self.path = path
        self._temporary = temporary
        self._staging = staging
        self._is_over = False

    @classmethod
    async def join(cls, ticket: bytes, rank: int, storage_options: Mapping[str, object] | None) -> Self:
        """Take part under the number `rank`, which no other process that joins has."""
        begun = _read(ticket)
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 0:
            raise ValidationError(f"rank= is a number of zero or more that no other process has, not {rank!r}")
        location = locate(str(begun["url"]), storage_options)
        options = CommitOptions(durable=begun["durable"] is True, checksums=begun["checksums"] is True)
        direct, is_kept = begun["direct"] is True, "kept" in begun
        with reporting("cannot take part in writing {}", lambda: location):
            temporary = None
            if not is_kept:
                temporary = await join_attempt(location, begun, options, direct=direct, rank=rank)
            if temporary is not None and direct:
                path = temporary.get()
                is_local = location.open().is_local
                return cls(location, temporary, None, Path(locate(path).path) if is_local else path)
            staging = Staging(current(), None)
            return cls(location, temporary, staging, await staging.create())

    async def upload(self) -> list[Document]:
        """Add what was written; return what the process that finishes needs of it.

        Call this only once.
        """
        if self._is_over:
            raise CommitError(f"what this process adds to {self.location} was uploaded, or given up, before")
        self._is_over = True
        storage, temporary = self.location.open(), self._temporary
        try:
            with reporting("cannot add to {}", lambda: self.location):
                if temporary is None:
                    return []
                if self._staging is not None:
                    source = Staged(storage.environment, Path(str(self.path)))
                    files = await source.files()
                    await upload(temporary, files, None, at_once=storage.files_at_once)
                    await source.expect_unchanged(files)
                    return [file_document(file) for file in temporary.added()]
                if not storage.is_local:
                    return []  # the process that finishes lists what is there
                listing = await storage.list(locate(temporary.get()).path, recursive=True)
                return [{"name": name, "size": size} for name, (size, _) in stamps_of(listing).items()]
        finally:
            await self._unstage()

    async def abandon(self) -> None:
        """End without adding anything more.

        What was added already belongs to the attempt, and is discarded if the attempt is given up.
        """
        self._is_over = True
        await self._unstage()

    async def _unstage(self) -> None:
        staging, self._staging = self._staging, None
        if staging is not None:
            with shielded():
                await staging.remove()


def _read(ticket: bytes) -> Document:
    try:
        found = json.loads(ticket)
        is_ticket = found["kind"] == _KIND and isinstance(found["format"], int)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise ValidationError("this is no ticket: pass what Handle.ticket() returned") from error
    if not is_ticket:
        raise ValidationError("this is no ticket: pass what Handle.ticket() returned")
    if found["format"] > _FORMAT:
        raise ValidationError("this ticket was made by a newer atomicpath: pip install -U atomicpath")
    return cast("Document", found)
