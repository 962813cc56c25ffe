"""Taking the place of an attempt that is in the way: on proof of death, after a silent lease, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from atomicpath.abc import Content, Entry, Storage
from atomicpath.guarantees import Guarantee
from atomicpath.layout import COMMIT_SUCCESS_FILE
from atomicpath.liveness import proof_of_life
from atomicpath.location import Location
from atomicpath.record import CommitRecord, DecidedBy, State, token_in_marker

from .held import already_committed, held, is_committed, read_marker
from .register import Register

__all__ = ["take_over"]

_LOG = logging.getLogger("atomicpath")
_LOOKS_PER_LEASE = 12


async def take_over(
    storage: Storage, final: Location, register: Register, seen: Content, *, guarantees: Guarantee, unsafe: bool
) -> Callable[[Entry], Awaitable[bool]] | None:
    """Move the register from the record `seen` to our own; None if that record has moved meanwhile.

    The answer tells which files at the final path are the old attempt's, and so ours to delete.
    AlreadyCommittedError or ConflictError if the record stands, see below.
    """
    there = CommitRecord.decode(seen.data, where=str(final))
    if await is_committed(storage, final, there):
        raise already_committed(final, there)
    fence = Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE
    abandoned = await _wait_until_abandoned(
        storage,
        final,
        register.path,
        seen,
        can_fence=fence in guarantees and there.decided_by is DecidedBy.RECORD,
        unsafe=unsafe,
    )
    if abandoned is None or not await register.take(abandoned):
        return None
    _LOG.warning("took over %s from %s, which left it unfinished", final, there.writer)

    async def left_behind(entry: Entry) -> bool:
        if there.direct:
            return True  # only ever with unsafe_takeover: the user says that all of it is the old attempt's
        if entry.name == COMMIT_SUCCESS_FILE:  # may have been overwritten, and then has no owner
            marker = await read_marker(storage, final)
            return marker is None or token_in_marker(marker) is not None
        found = await storage.stat(final.child(entry.name).path)
        return found is None or bool(found.owner)

    return left_behind


async def _wait_until_abandoned(
    storage: Storage, final: Location, path: str, seen: Content, *, can_fence: bool, unsafe: bool
) -> Content | None:
    """The content of the record to swap from, once its holder is known to be gone; None if it moved meanwhile.

    ConflictError if the holder lives, or if nothing here could stop it from writing on. On this host
    the system tells at once; elsewhere the holder must renew its lease, and one lease is waited for
    that. `can_fence`: the store refuses a late writer (COMPARE_AND_SWAP and CONDITIONAL_DELETE hold).
    """
    record = CommitRecord.decode(seen.data, where=str(final))
    alive = proof_of_life(storage.environment, record)
    if alive:
        raise held(final, record, "a live attempt" if record.state is State.WRITING else "a live clean-up")
    if unsafe:
        return seen
    if record.direct or not can_fence:
        why = (
            "whose user wrote on the target itself"
            if record.direct
            else "which this store could not stop, should it wake"
        )
        raise held(final, record, f"an attempt {why}")
    if alive is None:
        return await _wait_a_lease(storage, final, path, seen, record)
    return seen


async def _wait_a_lease(
    storage: Storage, final: Location, path: str, seen: Content, record: CommitRecord
) -> Content | None:
    environment = storage.environment
    lease = record.lease.seconds
    end = environment.monotonic() + lease - (seen.age or 0.0)
    while (left := end - environment.monotonic()) > 0:
        await environment.sleep(min(left, lease / _LOOKS_PER_LEASE))
        try:
            now = await storage.read(path)
        except FileNotFoundError:
            return None
        if now.data != seen.data:
            there = CommitRecord.decode(now.data, where=str(final))
            if (there.token, there.state) == (record.token, State.WRITING):
                raise held(final, there, "a live attempt, which has just renewed its lease")
            return None
    return seen
