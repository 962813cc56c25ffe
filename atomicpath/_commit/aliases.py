"""Making, moving and removing an alias: a second name, in the same root, for a committed directory."""

from __future__ import annotations

from atomicpath._core.environment import shielded
from atomicpath._core.layout import RECORD_FILE
from atomicpath._core.record import CommitRecord, State
from atomicpath._profile.location import Location, PathLike, name_in
from atomicpath._profile.probing import profile_of
from atomicpath._strategies.aliases import linked_name, set_alias
from atomicpath._strategies.discard import CleaningAttemptRecord, delete_below
from atomicpath._strategies.fences import NEEDED, WANTED, Fence
from atomicpath._strategies.ownership import Ownership
from atomicpath.abc import SyncingStorage
from atomicpath.errors import IntegrityError, NotCommittedError, ValidationError
from atomicpath.guarantees import NONE, Guarantee, check

from .readers import Commit, find, follow

__all__ = ["remove_alias", "set_alias_at"]

_NEEDED = NEEDED | Guarantee.EXCLUSIVE_CREATE | Guarantee.LIST_AFTER_WRITE


async def set_alias_at(location: Location, target: PathLike, *, guarantees: Guarantee = NONE) -> None:
    """Make `location` lead to the committed directory `target` from now on, in one step."""
    name = name_in(location.parent, target, "target")
    await _expect_target(location, location.parent.child(name))
    storage = location.open()
    fence = Fence.of(NONE)
    if not storage.is_local:
        profile = await profile_of(location, wanted=_NEEDED | WANTED | guarantees, asserted=guarantees)
        check("alias", _NEEDED, profile)
        fence = Fence.of(profile.effective)
    with shielded():
        undo = await set_alias(storage, location, name, fence=fence)
        try:
            await find(location)  # the target may have been removed, or an alias moved, since it was looked at
        except (NotCommittedError, IntegrityError) as error:
            await undo()
            error.add_note(f"{location} is what it was before")
            raise


async def remove_alias(location: Location, *, guarantees: Guarantee = NONE) -> bool:
    """Remove the alias at a location, and leave its target alone.

    Return False, with nothing done, if there is no alias.
    """
    storage = location.open()
    if storage.is_local:
        if await linked_name(storage, location) is None:
            return False
        await storage.delete(location.path)
        if isinstance(storage, SyncingStorage):  # where nothing can be synced, nothing was promised
            await storage.sync_directory(location.parent.path)
        return True
    try:
        seen = await storage.get(location.child(RECORD_FILE).path)
        record = CommitRecord.decode(seen.data, where=str(location))
    except (FileNotFoundError, IntegrityError):
        return False
    if record.state is not State.ALIAS:
        return False
    profile = await profile_of(location, wanted=WANTED | guarantees, asserted=guarantees)
    check("remove", NEEDED, profile)
    conditional = Fence.of(profile.effective).conditional
    register = CleaningAttemptRecord(storage, location, seen, record, conditional_delete=conditional)
    ownership = Ownership.of(storage, location, record)
    await delete_below(storage, location, register, ownership=ownership, was_committed=False)
    return True


async def _expect_target(location: Location, target: Location) -> None:
    places, found = await follow(target)
    if location in places:
        way = " -> ".join(place.name for place in [location, *places[: places.index(location) + 1]])
        raise ValidationError(f"{location} cannot be an alias for {target}, which leads back to it ({way})")
    if not isinstance(found, Commit):
        await find(target)  # which raises, and says why
