"""Making a final path one attempt's own: claimed if free, taken over if abandoned, or refused."""

from __future__ import annotations

import logging
from dataclasses import replace

from atomicpath._core.environment import cleaning_up, safe_point
from atomicpath._core.layout import COMMIT_SUCCESS_FILE, RECORD_FILE, is_unfinished
from atomicpath._core.liveness import proof_of_life
from atomicpath._core.record import CommitRecord, State, token_in_marker
from atomicpath._core.tasks import run_both
from atomicpath._profile.location import Location
from atomicpath.abc import Content, Entry, EntryKind, Storage
from atomicpath.errors import AlreadyCommittedError, ConflictError
from atomicpath.guarantees import Guarantee

from .attempt_record import AttemptRecord
from .borders import inside_error, refuse_nested
from .cleanup import NotClearedError, clear
from .conflicts import aliased, already_committed, conflict_error, foreign, is_committed, read_marker, unsettled
from .fences import Fence, by_user
from .ownership import Ownership, chain_of

__all__ = ["claim"]

_LOG = logging.getLogger("atomicpath")
_TRIES = 5
_LOOKS_PER_LEASE = 12


async def claim(
    storage: Storage, final: Location, register: AttemptRecord, *, guarantees: Guarantee, unsafe: bool
) -> None:
    """Claim the final path; return once the register is held and only the record is there.

    Raise AlreadyCommittedError or ConflictError if the path is another's, or if foreign files are there. These are not
    touched, and the register is not held. For any other error, `register.held` tells whether it is held.
    """

    fence = Fence.of(guarantees)

    async def listing() -> list[Entry]:
        return await storage.list(final.path, recursive=True)

    async def above() -> None:
        await refuse_nested(storage, final)

    async def look() -> tuple[list[Entry], OSError | None]:
        try:
            return (await run_both(listing, above))[0], None
        except OSError as error:
            return [], error  # returned, not raised: raising it would cancel the concurrent claim half-way

    for _ in range(_TRIES):
        with cleaning_up(final):  # cancelled on its way, the record might be made after we have looked for it
            in_the_way, (there, failure) = await run_both(register.acquire, look)
        await safe_point()
        if isinstance(failure, ConflictError):
            if in_the_way is None:
                with cleaning_up(final):
                    await register.withdraw()
            raise failure
        if in_the_way is None:
            if failure is not None:
                raise failure
            # an unfinished record file of a rival, or of a process that was killed, is nobody's content
            names = tuple(e.name for e in there if e.name != RECORD_FILE and not is_unfinished(e.name))
            if names and not await _cleared_of_late_marker(storage, final, register, there, names, fence):
                raise await _withdrawn(storage, final, register, there, names)
            return
        if await _take_over(storage, final, register, in_the_way, there, fence=fence, unsafe=unsafe):
            return
    raise ConflictError(f"{final} keeps changing hands: somebody else commits there too. Use another name")


async def _cleared_of_late_marker(
    storage: Storage, final: Location, register: AttemptRecord, there: list[Entry], names: tuple[str, ...], fence: Fence
) -> bool:
    """Delete a late marker if nothing else is there; return True if it was deleted.

    The marker is one of ours that arrived after its directory had been removed. Without its record it counts for
    nothing, and it would keep everybody from the path forever.
    """
    if names != (COMMIT_SUCCESS_FILE,) or not (fence.swaps or fence.conditional):
        return False
    marker = await read_marker(storage, final)
    if marker is not None and token_in_marker(marker) is None:
        return False
    await register.confirm_to_delete()  # rule *confirm*: after the look, before acting on it
    version = next(entry.version for entry in there if entry.name == COMMIT_SUCCESS_FILE)
    # if it was written again meanwhile the next attempt sees whose it is now
    return await register.delete(final.child(COMMIT_SUCCESS_FILE).path, version=version)


async def _withdrawn(
    storage: Storage, final: Location, register: AttemptRecord, listing: list[Entry], names: tuple[str, ...]
) -> AlreadyCommittedError | ConflictError:
    """Take only our record away again after something foreign was found; return the error for it."""
    with cleaning_up(final):
        await register.withdraw()
    marker = await read_marker(storage, final) if COMMIT_SUCCESS_FILE in names else None
    if marker is not None and token_in_marker(marker) is None:
        return already_committed(final, None)
    places = await Ownership.of(storage, final, register.record).places(listing)
    return await inside_error(storage, final, places) if places else foreign(final, EntryKind.DIRECTORY, names)


async def _take_over(
    storage: Storage,
    final: Location,
    register: AttemptRecord,
    seen: Content,
    listing: list[Entry],
    *,
    fence: Fence,
    unsafe: bool,
) -> bool:
    """Swap the record `seen` for our own and clear what its attempt left.

    Return False if the record has moved meanwhile.
    """
    there = CommitRecord.decode(seen.data, where=str(final))
    if await is_committed(storage, final, there):
        raise already_committed(final, there)
    if there.state is State.ALIAS:
        raise aliased(final, there.target)
    abandoned = await _wait_until_abandoned(storage, final, register.path, seen, there, fence=fence, unsafe=unsafe)
    if abandoned is None:
        return False
    if places := await Ownership.of(storage, final, there).places(listing):
        raise await inside_error(storage, final, places)
    with cleaning_up(final):  # as for a claim
        is_taken = await register.take_over(abandoned, there)
    await safe_point()
    if not is_taken:
        return False
    _LOG.warning("took over %s from %s, which left it unfinished", final, there.writer)
    # unowned: only ever with unsafe_takeover, where the user says that the old attempt's user wrote it
    ownership = replace(Ownership.of(storage, final, there, unowned=by_user(there)), tokens=chain_of(register.record))
    try:
        await clear(storage, final, register, ownership)
    except NotClearedError:
        raise  # what is left may be the old attempt's: the record has to stay with it
    except ConflictError:
        with cleaning_up(final):
            await register.withdraw()
        raise
    register.forget_manifest()
    return True


async def _wait_until_abandoned(
    storage: Storage, final: Location, path: str, seen: Content, record: CommitRecord, *, fence: Fence, unsafe: bool
) -> Content | None:
    """Return the content of the record to swap from, once its holder is known to be gone.

    Return None if the record moved meanwhile.

    Raise ConflictError if the holder lives, or if nothing here could stop it from writing on. On this host the system
    tells at once whether the holder lives. Elsewhere the holder must renew its lease, and this function waits one lease
    for that. It waits as well where deletes of the holder, dead or not, may still be under way: rule *settled*.
    """
    alive = proof_of_life(storage.environment, record)
    if alive:
        raise conflict_error(final, record, "a live attempt" if record.state is State.WRITING else "a live clean-up")
    if unsafe:
        return seen
    if not fence.stops_writer_of(record):
        by_its_user = "whose user wrote on the target itself"
        why = by_its_user if by_user(record) else "which this store could not stop, should it wake"
        raise conflict_error(final, record, f"an attempt {why}")
    settles = fence.settles_after(record)
    if settles and record.state is State.DISCARDED and seen.age is not None and seen.age < settles:
        raise unsettled(final, record, settles - seen.age)
    if alive is None or settles:
        return await _wait_a_lease(storage, final, path, seen, record)
    return seen


async def _wait_a_lease(
    storage: Storage, final: Location, path: str, seen: Content, record: CommitRecord
) -> Content | None:
    """Watch the record for one whole lease on our own clock.

    The age of the record does not shorten that wait. The age is the difference of two times that a store, or whatever
    answers in its place, states, and one of them may be wrong by more than a lease.
    """
    environment = storage.environment
    lease = record.lease.patience
    end = environment.monotonic() + lease
    while (left := end - environment.monotonic()) > 0:
        await environment.sleep(min(left, lease / _LOOKS_PER_LEASE))
        try:
            now = await storage.get(path)
        except FileNotFoundError:
            return None
        if now.data != seen.data:
            there = CommitRecord.decode(now.data, where=str(final))
            if (there.token, there.state) == (record.token, State.WRITING):
                raise conflict_error(final, there, "a live attempt, which has just renewed its lease")
            return None
    return seen
