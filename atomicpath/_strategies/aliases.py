"""Aliases: a second name, in the same root, for a committed directory.

On a disk an alias is a symbolic link that says nothing but the name of its target. On a store it is a record in the
state `alias` at its own name, made by an exclusive creation and moved by compare-and-swap: an alias and a commit
exclude each other there. A note in the house-keeping directory, made before the record and never deleted, tells those
who remove a directory which names to look at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from atomicpath._core.environment import cleaning_up
from atomicpath._core.layout import ALIAS_SUFFIX, HOUSEKEEPING, RECORD_FILE, alias_of, is_temporary
from atomicpath._core.liveness import this_process
from atomicpath._core.record import CommitRecord, State
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.location import Location
from atomicpath.abc import Content, EntryKind, LinkingStorage, Put, Storage
from atomicpath.errors import (
    AbandonedError,
    AccessError,
    AtomicPathError,
    ConflictError,
    GuaranteeError,
    OutcomeUnknownError,
)

from .attempt_files import in_housekeeping
from .attempt_record import SwappedAttemptRecord
from .conflicts import foreign, taken
from .fences import Fence

__all__ = ["aliases_of", "expect_no_alias_to", "linked_name", "set_alias"]

Undo: TypeAlias = Callable[[], Awaitable[None]]

_AT_ONCE = 16
_TRIES = 200  # each lost to somebody who moved or removed the same alias at that moment
_PAUSE, _LONGEST = 0.01, 0.2  # seconds between tries


async def linked_name(storage: Storage, location: Location) -> str | None:
    """Return the name that a link at a location leads to, if that is right beside the link; else None.

    The link is never followed.
    """
    target = await storage.link_target(location.path) if isinstance(storage, LinkingStorage) else None
    return target if target and "/" not in target and target not in (".", "..") else None


async def aliases_of(storage: Storage, root: Location) -> dict[str, str]:
    """Return all aliases right below a root, each with the name that it leads to. A link may lead to nothing."""
    found: dict[str, str] = {}
    if storage.is_local:
        for entry in await storage.list(root.path, recursive=False):
            if is_temporary(entry.name):
                continue  # a link on its way to its name
            if entry.kind is EntryKind.LINK and (name := await linked_name(storage, root.child(entry.name))):
                found[entry.name] = name
        return found
    listing = await storage.list(root.child(HOUSEKEEPING).path, recursive=False)
    notes = [entry.name for entry in listing if entry.name.endswith(ALIAS_SUFFIX)]

    async def one(note: str) -> None:
        try:
            content = await storage.get(root.child(HOUSEKEEPING).child(note).path)
            name = content.data.decode("utf-8", "surrogateescape")
            seen = await storage.get(root.child(name).child(RECORD_FILE).path)
        except FileNotFoundError:
            return
        record = CommitRecord.decode(seen.data, where=str(root.child(name)))
        if record.state is State.ALIAS:
            found[name] = record.target

    await map_concurrently(notes, one, at_once=_AT_ONCE)
    return found


async def expect_no_alias_to(storage: Storage, location: Location) -> None:
    """Raise ConflictError, which names the alias, if one leads to a directory that is to be removed."""
    aliases = await aliases_of(storage, location.parent)
    names = sorted(name for name, target in aliases.items() if target == location.name)
    if names:
        raise ConflictError(
            f"{location} is not removed: the alias {location.parent.child(names[0])} leads to it. Move the alias first"
            " with alias(...), or remove the alias, which leaves its target alone"
        )


async def set_alias(storage: Storage, location: Location, target: str, *, fence: Fence) -> Undo:
    """Make a location an alias for the directory `target` beside it.

    Return what undoes it, if nobody has moved the alias since.

    Concurrent callers move the alias one after the other; readers see one of their targets at every moment.
    """
    if storage.is_local:
        return await _set_link(storage, location, target)
    environment = storage.environment
    record = CommitRecord(
        state=State.ALIAS,
        token=environment.token(),
        final=location.name,
        strategy="alias",
        marker=None,
        started=environment.wall_ns(),
        writer=this_process(environment),
        target=target,
    )
    path = location.child(RECORD_FILE).path
    for again in range(_TRIES):
        register = AliasRegister(storage, location, record, conditional_delete=fence.conditional)
        try:
            seen = await storage.get(path)
        except FileNotFoundError:
            if await _created(storage, location, register):
                return register.withdraw
        else:
            before = CommitRecord.decode(seen.data, where=str(location))
            if before.state is not State.ALIAS:
                raise await taken(storage, location)
            if await register.moved_from(seen):
                return partial(register.move_back, before)
        await environment.sleep(min(_PAUSE * again, _LONGEST))
    raise ConflictError(f"{location} is moved by others again and again: call alias(...) again when they have ended")


async def _set_link(storage: Storage, location: Location, target: str) -> Undo:
    if not isinstance(storage, LinkingStorage):
        raise GuaranteeError(f"{type(storage).__name__} has no links that an alias could be")
    before = await linked_name(storage, location)
    if before is None and (kind := await storage.kind(location.path)) is not None:
        raise await taken(storage, location) if kind is EntryKind.DIRECTORY else foreign(location, kind)
    try:
        await storage.set_link(location.path, target)
    except FileExistsError as error:
        raise await taken(storage, location) from error

    async def undo() -> None:
        if await linked_name(storage, location) != target:
            return
        if before is not None:
            await storage.set_link(location.path, before)
        else:
            await storage.delete(location.path)

    return undo


async def _created(storage: Storage, location: Location, register: AliasRegister) -> bool:
    """Create the note, then the record; return False if somebody else made a record.

    Raise ConflictError if foreign files are there.
    """
    note = location.at(alias_of(location.path))
    name = location.name.encode("utf-8", "surrogateescape")
    with suppress(FileExistsError):  # of an alias that is, or was, there
        await in_housekeeping(storage, note, lambda: storage.put(note.path, name, mode=Put.CREATE))
    with cleaning_up(location):
        if await register.acquire() is not None:
            return False
        names = tuple(entry.name for entry in await storage.list(location.path, recursive=True))
        if foreign_names := tuple(name for name in names if name != RECORD_FILE):
            await register.withdraw()
            raise foreign(location, EntryKind.DIRECTORY, foreign_names)
    return True


class AliasRegister(SwappedAttemptRecord):
    """The record of an alias, which takes the place of whatever alias was seen there."""

    async def moved_from(self, seen: Content) -> bool:
        """Replace the record `seen` by this one; return False if that record has moved meanwhile."""
        return await self._take(seen)

    async def move_back(self, before: CommitRecord) -> None:
        """Replace this record by the one from before, unless somebody has moved it meanwhile."""
        with suppress(AbandonedError):
            await self._move(before)

    def _is_still_ours(self, seen: Content, renewals: int, version: str | None) -> bool:  # noqa: ARG002 - it has no lease
        return seen.version == version

    def _lost(self, seen: Content | None) -> AbandonedError:  # noqa: ARG002 - whoever moved it
        return AbandonedError(f"{self._final} was moved by somebody else meanwhile")

    def _refused(self, error: AccessError) -> AtomicPathError:
        return AccessError(f"{self._final} was left as it is: {error}")

    def _unknown(self, target: State, failure: Exception | None) -> OutcomeUnknownError:  # noqa: ARG002 - always `alias`
        return OutcomeUnknownError(
            f"the store does not say whether {self._final} leads to {self.record.target!r} now ({failure}): look with"
            " resolve(...), or call alias(...) again"
        )
