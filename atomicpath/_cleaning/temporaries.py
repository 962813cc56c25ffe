"""What a sweep finds in the house-keeping directory or under a temporary name: attempts, locks, probes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from atomicpath._core.layout import is_attempt_at, is_discarded, token_of
from atomicpath._core.liveness import proof_of_life
from atomicpath._core.record import CommitRecord, State, is_torn
from atomicpath._profile.location import Location
from atomicpath._profile.trials import has_directories
from atomicpath._strategies.attempt_files import tidy
from atomicpath._strategies.borders import foreign_below, refuse_mounts
from atomicpath._strategies.conflicts import is_committed
from atomicpath._strategies.discard import delete_moved, nested_in, take_away
from atomicpath._strategies.leftovers import Leftover, seen_in
from atomicpath.abc import Content, Entry, StaleVersionError, Storage
from atomicpath.errors import ConflictError, IntegrityError

from .ages import age_of_attempt, youngest
from .observation import is_held, lock_to_delete, seen_record
from .results import Action, Finding, Found, Kept, Swept, Verdict, judge

__all__ = ["examine_attempt", "examine_lock", "examine_probe"]

_SHOWN = 3


async def examine_attempt(storage: Storage, left: Leftover, older_than: float) -> Finding | None:
    """Judge an attempt of the rename strategy, or a lock that has no attempt any more.

    None for the lock of an attempt in place that has not committed: it is judged, and deleted, with that.
    """
    path, discarded = left.path, is_discarded(left.path.name)
    seen = await seen_in(storage, left)
    found = Found.DISCARDED if discarded else Found.ATTEMPT
    swept = Swept(path=(path if left.has_directory else left.record).upath, found=found, action=Action.REMOVE)
    record = None
    if seen is not None and seen.data and not discarded:  # of an empty one nothing was written before a kill
        try:
            record = await _decoded(storage, left, seen)
        except IntegrityError as error:
            return Finding(swept=replace(swept, found=Found.DAMAGED, age=seen.age)).kept(str(error))
    if record is None and not left.has_directory and not discarded:  # made before all else, and empty until then
        if await _is_of_an_attempt_in_place(storage, left):
            return None
        swept = replace(swept, found=Found.LOCK)
    if record is not None:
        swept = replace(swept, writer=record.writer)
        if record.token != token_of(path.name):
            if record.state is not State.COMMITTED:
                return Finding(swept=swept).kept("its record is of another attempt: it was copied or renamed by hand")
            swept = replace(swept, found=Found.REPLACED)
    if seen and not left.has_directory:
        age = seen.age
    else:
        age = await age_of_attempt(storage, path, seen, discarded=discarded)
    swept = replace(swept, age=age)
    if left.has_directory and not has_directories(storage, await storage.declare(path.path)):
        return Finding(swept=swept).kept("there are no directories to rename here: it is a copy from elsewhere")
    verdict = await _judged(storage, left, swept, record, older_than)
    if not verdict.clean:
        return Finding(swept=swept).kept(verdict.why)

    async def act() -> str:
        async with lock_to_delete(storage, left.record):
            await _delete(storage, left, seen, record)
        return ""

    return Finding(swept=replace(swept, why=verdict.why), act=act)


async def _decoded(storage: Storage, left: Leftover, seen: Content) -> CommitRecord | None:
    """The record of an attempt. On a disk one that a power cut has torn counts as none, as an empty one does.

    What lies beside an attempt's directory is never synced, and never was the record of something committed: that is
    inside, and decides if it is there. That nobody holds the lock on the torn one, and its age, are looked at as ever.
    """
    try:
        return CommitRecord.decode(seen.data, where=str(left.path))
    except IntegrityError:
        if not (storage.is_local and left.has_record and is_torn(seen.data)):
            raise
    inside = await seen_in(storage, replace(left, has_record=False))
    return CommitRecord.decode(inside.data, where=str(left.path)) if inside is not None and inside.data else None


async def _delete(storage: Storage, left: Leftover, seen: Content | None, record: CommitRecord | None) -> None:
    """Move the directory away, then delete it and the record; `Kept` if it is not as it was judged."""
    now = await seen_in(storage, left)
    if (now and now.data) != (seen and seen.data):
        raise Kept("it has changed meanwhile")
    final, doomed = left.final(record), left.path
    if record is not None and seen is not None and seen.version is not None and left.has_record:
        await _fence(storage, left, seen, record)
    if left.has_directory:
        within = await seen_record(storage, left.path)
        manifest = _readable(within, str(left.path))
        if is_discarded(left.path.name):
            await refuse_mounts(storage, left.path)
            if places := await nested_in(storage, left.path, manifest):
                raise Kept(_not_its_own(f"{place}/" for place in places))
        else:
            if manifest is not None and manifest.token != token_of(left.path.name):  # what was replaced
                names = await foreign_below(storage, left.path, manifest)
                if names:
                    raise Kept(_not_its_own(names))
            try:
                doomed = await take_away(storage, left.path, final, manifest)
            except ConflictError as error:
                raise Kept(str(error)) from error
        await delete_moved(storage, doomed, final)
    if left.has_record:
        await storage.delete(left.record.path)
        await tidy(storage, left.path)


async def _is_of_an_attempt_in_place(storage: Storage, left: Leftover) -> bool:
    """Tell whether a lock is of an attempt that stands at its final path and has not committed, or that may be there.

    The lock is named after both, its final name being shortened if it is long: then every name beside it is compared.
    """
    token, root = token_of(left.path.name), left.final(None).parent
    for entry in await storage.list(root.path, recursive=False):
        final = root.child(entry.name)
        if entry.kind != "directory" or not is_attempt_at(left.path.path, entry.name):
            continue
        seen = await seen_record(storage, final)
        if seen is None:
            continue
        try:
            record = CommitRecord.decode(seen.data, where=str(final))
        except IntegrityError:
            return True  # a damaged record may be that attempt's
        if record.token == token and not await is_committed(storage, final, record):
            return True
    return False


def _readable(seen: Content | None, where: str) -> CommitRecord | None:
    """The record inside of a directory, for what its manifest names; None if there is none that can be read."""
    if seen is None or not seen.data:
        return None
    try:
        return CommitRecord.decode(seen.data, where=where)
    except IntegrityError:
        return None


def _not_its_own(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return (
        f"what is in it is not all its own ({', '.join(shown[:_SHOWN])}{more}). A name that ends in '/' is another"
        " place, committed or under way: move these away, and sweep again"
    )


async def _fence(storage: Storage, left: Leftover, seen: Content, record: CommitRecord) -> None:
    """Swap the record, where it has versions, before anything is moved: its writer then cannot publish any more."""
    try:
        await storage.swap(left.record.path, record.moved_to(State.DISCARDED).encode(), version=seen.version or "")
    except (StaleVersionError, FileNotFoundError):
        raise Kept("it has changed meanwhile") from None


async def _judged(
    storage: Storage, left: Leftover, swept: Swept, record: CommitRecord | None, older_than: float
) -> Verdict:
    lease = record.lease.seconds if record else storage.environment.lease
    if swept.found is Found.DISCARDED:
        verdict = judge(alive=False, age=swept.age, older_than=older_than, lease=lease)
        if verdict.clean:
            verdict = replace(verdict, why="it was given up, as its name says")
    else:
        # the writer of what was replaced is not who holds it: only a lock tells that somebody is at work there
        alive = proof_of_life(storage.environment, record) if record and swept.found is Found.ATTEMPT else None
        verdict = judge(alive=alive, age=swept.age, older_than=older_than, lease=lease)
    if verdict.clean and await is_held(storage, left.record):
        return Verdict(clean=False, why="another process holds it")
    return verdict


async def examine_lock(storage: Storage, path: Location, older_than: float) -> Finding:
    """Judge the file that is locked while a directory is replaced or removed: nobody needs it once it is not locked."""
    found = await storage.stat(path.path)
    swept = Swept(path=path.upath, found=Found.LOCK, action=Action.REMOVE, age=found.age if found else None)
    if await is_held(storage, path):
        return Finding(swept=swept).kept("another process holds it")
    verdict = judge(alive=False, age=swept.age, older_than=older_than, lease=storage.environment.lease)
    if not verdict.clean:
        return Finding(swept=swept).kept(verdict.why)

    async def act() -> str:
        async with lock_to_delete(storage, path):
            await storage.delete(path.path)
            await tidy(storage, path)
        return ""

    return Finding(swept=replace(swept, why="nobody has locked it"), act=act)


async def examine_probe(storage: Storage, path: Location, entry: Entry, older_than: float) -> Finding:
    """Judge what a probe that was killed has left: it is nobody's, unless one is at work."""
    age = await youngest(storage, path)
    swept = Swept(path=path.upath, found=Found.PROBE, action=Action.REMOVE, age=age)
    verdict = judge(alive=None, age=age, older_than=older_than, lease=storage.environment.lease)
    if not verdict.clean:
        return Finding(swept=swept).kept(verdict.why)
    as_tree = entry.kind == "directory" and has_directories(storage, await storage.declare(path.path))

    async def act() -> str:
        if as_tree:
            await storage.remove_tree(path.path)
        else:
            for below in await storage.list(path.path, recursive=True):
                await storage.delete(path.child(below.name).path)
            await storage.delete(path.path)
        await tidy(storage, path)
        return ""

    return Finding(swept=replace(swept, why=verdict.why), act=act)
