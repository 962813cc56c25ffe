"""Deleting what an attempt left at its final path, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from atomicpath.abc import Entry, StaleVersionError, Storage
from atomicpath.errors import ConflictError
from atomicpath.layout import COMMIT_SUCCESS_FILE, RECORD_FILE
from atomicpath.location import Location
from atomicpath.record import token_in_marker
from atomicpath.tasks import for_each

from .held import foreign, read_marker
from .register import Register

__all__ = ["NotClearedError", "clear", "is_an_attempts"]

_AT_ONCE = 16
_PASSES = 5
_BETWEEN_LOOKS = 256  # entries that are judged before the clock is looked at


class NotClearedError(ConflictError):
    """What is left after many passes may be an attempt's: the record has to stay with it."""


async def clear(
    storage: Storage,
    final: Location,
    register: Register,
    *,
    is_ours: Callable[[Entry], Awaitable[bool]],
    conditional: bool,
) -> None:
    """Delete every file below `final` that is ours; the record stays. The register must have been moved before.

    ConflictError, naming them, if other files are there too: they are not touched. NotClearedError if
    there is always something new. AbandonedError as soon as the register is not ours any more.
    """
    for _ in range(_PASSES):
        listing = [entry for entry in await storage.list(final.path, recursive=True) if entry.name != RECORD_FILE]
        if not listing:
            return
        verdicts = await _judged(storage, register, listing, is_ours)
        ours = [entry for entry, verdict in zip(listing, verdicts, strict=True) if verdict]
        if not ours:
            raise foreign(final, "directory", tuple(entry.name for entry in listing))
        await _delete(storage, final, register, ours, conditional=conditional)
    raise NotClearedError(
        f"{final} cannot be cleared: somebody keeps writing there. Stop it, or commit under another name"
    )


async def _judged(
    storage: Storage, register: Register, listing: list[Entry], is_ours: Callable[[Entry], Awaitable[bool]]
) -> list[bool]:
    """The verdict on each entry. However many there are, the lease is renewed meanwhile, so that nobody takes over."""
    environment = storage.environment
    verdicts: list[bool] = []
    renewed = environment.monotonic()
    for start in range(0, len(listing), _BETWEEN_LOOKS):
        if environment.monotonic() - renewed > register.record.lease.patience / 3:
            await register.renew()
            renewed = environment.monotonic()
        verdicts += await for_each(listing[start : start + _BETWEEN_LOOKS], is_ours, at_once=_AT_ONCE)
    return verdicts


async def is_an_attempts(storage: Storage, final: Location, entry: Entry) -> bool:
    """Whether a file below `final` is provably of an attempt, this or an earlier one; also if it has gone again."""
    if entry.name == COMMIT_SUCCESS_FILE:  # may have been written twice, and then does not tell its owner
        marker = await read_marker(storage, final)
        return marker is None or token_in_marker(marker) is not None
    found = await storage.stat(final.child(entry.name).path)
    return found is None or bool(found.owner)


async def _delete(
    storage: Storage, final: Location, register: Register, entries: list[Entry], *, conditional: bool
) -> None:
    environment = storage.environment
    await register.renew()  # rule *confirm*: after the listing, before acting on it
    # On plain S3 equal bytes have equal versions, so a delete that sleeps past the lease could hit the
    # next attempt's object: deletes begin only well inside the lease that was just renewed.
    ends = environment.monotonic() + register.record.lease.patience / 4

    async def one(entry: Entry) -> None:
        if environment.monotonic() > ends:
            return  # the next pass renews and goes on
        try:
            # rule *conditional*: the very version that was listed
            await storage.delete(final.child(entry.name).path, version=entry.version if conditional else None)
        except StaleVersionError:
            return  # written again since it was listed: the next pass looks at it afresh

    await for_each(entries, one, at_once=_AT_ONCE)
