"""Looking through a root for what was left behind, and cleaning up what is provably ours and abandoned."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

from atomicpath._commit.readers import children
from atomicpath._core.layout import HOUSEKEEPING, LOCK_SUFFIX, PROBE_PREFIX, TMP_DIR_SUFFIX, is_probe
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.abilities import remove_empty
from atomicpath._profile.location import Location
from atomicpath._strategies.leftovers import Leftover, attempts_in, housekeeping_entries
from atomicpath.abc import Entry, EntryKind, Storage
from atomicpath.errors import AtomicPathError, ValidationError

from .finals import examine_final
from .results import Action, Finding, KeepError, LeftoverKind, SweepResult
from .temporaries import examine_attempt, examine_lock, examine_probe

__all__ = ["sweep"]

_LOG = logging.getLogger("atomicpath")
_AT_ONCE = 8


async def sweep(root: Location, *, older_than: timedelta, dry_run: bool) -> list[SweepResult]:
    """Sweep what was left behind directly below a root, and return what became of each, by name.

    An error about one of them does not keep the others from being looked at. The error is in the result, and in the
    log.
    """
    if not isinstance(older_than, timedelta) or older_than < timedelta(0):
        raise ValidationError(f"older_than must be a timedelta of zero or more, not {older_than!r}")
    seconds = older_than.total_seconds()
    storage = root.open()

    async def one(found: tuple[Location, Entry | Leftover]) -> SweepResult | None:
        path, what = found
        try:
            if isinstance(what, Leftover):
                finding = await examine_attempt(storage, what, seconds)
            else:
                finding = await _examine(storage, path, what, seconds, probe=not dry_run)
        except (OSError, AtomicPathError) as error:
            _LOG.warning("cannot look at %s: %s", path, error)
            return SweepResult(
                path=path.upath, found=LeftoverKind.UNKNOWN, action=Action.KEEP, reason=str(error), error=error
            )
        if finding is None:
            return None
        return finding.swept if dry_run else await _acted(finding)

    result = [swept for swept in await map_concurrently(await _found(storage, root), one, at_once=_AT_ONCE) if swept]
    if not dry_run:
        await remove_empty(storage, root.child(HOUSEKEEPING).path)  # which a process that was killed may have left
    return result


async def _found(storage: Storage, root: Location) -> list[tuple[Location, Entry | Leftover]]:
    """List what is directly below a root and in its house-keeping directory.

    Each attempt is listed once, and the rest as it is.
    """
    listing = await children(storage, root)
    kept = await housekeeping_entries(storage, root, listing)
    found: list[tuple[Location, Entry | Leftover]] = []
    for directory, entries in ((root, listing), (root.child(HOUSEKEEPING), kept)):
        attempts = attempts_in(directory, entries)
        found += [(attempt.path, attempt) for attempt in attempts]
        found += [(directory.child(entry.name), entry) for entry in entries if TMP_DIR_SUFFIX not in entry.name[1:]]
    return sorted(found, key=lambda item: item[0].path)


async def _examine(storage: Storage, path: Location, entry: Entry, older_than: float, *, probe: bool) -> Finding | None:
    if is_probe(entry.name) and (entry.kind in (EntryKind.FILE, EntryKind.LINK) or entry.name.startswith(PROBE_PREFIX)):
        return await examine_probe(storage, path, entry, older_than)
    if entry.name.endswith(LOCK_SUFFIX) and entry.kind is EntryKind.FILE:
        return await examine_lock(storage, path, older_than)
    if entry.kind is not EntryKind.DIRECTORY or entry.name == HOUSEKEEPING:
        return None
    return await examine_final(storage, path, older_than, probe=probe)


async def _acted(finding: Finding) -> SweepResult:
    if finding.act is None:
        return finding.swept
    swept = finding.swept
    try:
        more = await finding.act()
    except KeepError as kept:
        return replace(swept, action=Action.KEEP, reason=str(kept))
    except (OSError, AtomicPathError) as error:
        _LOG.warning("%s could not be cleaned up, and can be swept again: %s", swept.path, error)
        return replace(swept, error=error)
    # a warning if only age spoke for it: whoever wonders where an attempt went has to find this line
    _LOG.log(logging.WARNING if finding.by_age_only else logging.INFO, "swept %s: %s", swept.path, swept.reason)
    return replace(swept, done=True, reason=f"{swept.reason}; {more}" if more else swept.reason)
