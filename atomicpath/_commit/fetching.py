"""The newest committed directory below a root as a complete local copy, made once for each host."""

from __future__ import annotations

import logging
from pathlib import Path

from atomicpath._core.step_order import Order
from atomicpath._profile.abilities import make_parents
from atomicpath._profile.location import Location, locate
from atomicpath._strategies.directory_lock import DirectoryLock, hold_final
from atomicpath.errors import AlreadyCommittedError, AtomicPathError, ConflictError, NotCommittedError, ValidationError

from .fetch import get
from .readers import Commit, latest, load, verify

__all__ = ["fetch_latest"]

_LOG = logging.getLogger("atomicpath")
_TRIES = 10  # each lost to the removal of what was the newest, or to another process that made the same copy
_FIRST, _LONGEST = 0.05, 1.0  # seconds between looks at a lock that another process holds
_PATIENCE = 30.0  # seconds after which the log says what this process waits for
_TOLD = 8  # characters of a token in a name


async def fetch_latest(root: Location, into: Path, order: Order) -> Path | None:
    """Return a complete copy, below `into`, of the newest committed directory below a root; None if there is none."""
    failure: AtomicPathError | None = None
    for _ in range(_TRIES):
        newest = await latest(root, order)
        if newest is None:
            return None
        try:
            return await _copy_of(root, newest, into)
        except (NotCommittedError, AlreadyCommittedError) as error:
            failure = error
    raise ConflictError(
        f"the newest directory below {root} changes faster than it can be copied: {failure}"
    ) from failure


async def _copy_of(root: Location, newest: Commit, into: Path) -> Path:
    if newest.record is None:
        raise ValidationError(
            f"{newest.path} was committed by another tool and has no record, by which its copy would be known again:"
            " get(...) it instead"
        )
    token = newest.record.token
    for name in (newest.name, f"{newest.name}-{token[:_TOLD]}"):
        target = locate(into / name)
        if await _is_copy(target, token):
            return Path(target.path)
        if await _is_taken(target):
            continue
        lock = await _locked(target)  # whoever waited for another process finds its copy
        try:
            if await _is_copy(target, token):
                return Path(target.path)
            if await _is_taken(target):
                continue
            return await get(root.child(newest.name), Path(target.path), verify=True)
        finally:
            await lock.release()
    raise ConflictError(
        f"{into} has something else, or a damaged copy, at {newest.name!r} and at {name!r}: move or delete one of them"
    )


async def _is_copy(target: Location, token: str) -> bool:
    """Tell whether a whole copy of the directory with that token is there."""
    try:
        record = (await load(target)).record
        if record is None or token not in (record.copied_from, record.token):
            return False
        found = await verify(target, checksums=False)
    except NotCommittedError:
        return False
    if found.missing or found.altered:
        _LOG.warning("%s was a copy of that directory, and is not whole any more: %s", target, found)
        return False
    return True


async def _is_taken(target: Location) -> bool:
    return await target.open().kind(target.path) is not None


async def _locked(target: Location) -> DirectoryLock:
    """Lock a name against the other processes of this host; wait for as long as one of them holds it.

    The lock of a dead process is released by itself.
    """
    storage = target.open()
    environment = storage.environment
    began, pause, is_said = environment.monotonic(), _FIRST, False
    await make_parents(storage, target.path, durable=False)
    while True:
        try:
            return await hold_final(storage, target)
        except BlockingIOError:
            await environment.sleep(pause)
        pause = min(2 * pause, _LONGEST)
        if not is_said and environment.monotonic() - began > _PATIENCE:
            is_said = True
            _LOG.warning("waiting for another process of this host that is making %s", target)
