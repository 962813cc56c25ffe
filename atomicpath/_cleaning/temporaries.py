"""What a sweep finds in the house-keeping directory or under a temporary name: attempts, locks, probes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from atomicpath._core.layout import is_attempt_at, is_discarded, token_of
from atomicpath._core.liveness import proof_of_life
from atomicpath._core.record import CommitRecord, State, is_torn
from atomicpath._core.text import few_of
from atomicpath._profile.abilities import directories_at, need
from atomicpath._profile.location import Location
from atomicpath._strategies.attempt_files import tidy
from atomicpath._strategies.borders import foreign_below, refuse_mounts
from atomicpath._strategies.conflicts import is_committed
from atomicpath._strategies.discard import delete_moved, nested_in, take_away
from atomicpath._strategies.leftovers import Leftover, seen_in
from atomicpath.abc import Content, DirectoryStorage, Entry, EntryKind, StaleVersionError, Storage, Update
from atomicpath.errors import ConflictError, IntegrityError
from atomicpath.guarantees import Guarantee

from .ages import age_of_attempt, youngest
from .observation import is_held, lock_to_delete, seen_record
from .results import Action, Finding, KeepError, LeftoverKind, SweepResult, Verdict, judge

__all__ = ["examine_attempt", "examine_lock", "examine_probe"]


async def examine_attempt(storage: Storage, left: Leftover, older_than: float) -> Finding | None:
    """Judge an attempt of the rename strategy, or a lock that has no attempt any more.

    Return None for the lock of an attempt in place that has not committed: the lock is judged, and deleted, with that
    attempt.
    """
    path, discarded = left.path, is_discarded(left.path.name)
    seen = await seen_in(storage, left)
    found = LeftoverKind.DISCARDED if discarded else LeftoverKind.ATTEMPT
    swept = SweepResult(path=(path if left.has_directory else left.record).upath, found=found, action=Action.REMOVE)
    record = None
    if seen is not None and seen.data and not discarded:  # empty: the process was killed before it wrote anything
        try:
            record = await _decoded(storage, left, seen)
        except IntegrityError as error:
            return Finding(swept=replace(swept, found=LeftoverKind.DAMAGED, age=seen.age)).keeping(str(error))
    if record is None and not left.has_directory and not discarded:  # made before all else, and empty until then
        if await _is_of_an_attempt_in_place(storage, left):
            return None
        swept = replace(swept, found=LeftoverKind.LOCK)
    if record is not None:
        swept = replace(swept, writer=record.writer)
        if record.token != token_of(path.name):
            if record.state is not State.COMMITTED:
                return Finding(swept=swept).keeping(
                    "its record is of another attempt: it was copied or renamed by hand"
                )
            swept = replace(swept, found=LeftoverKind.REPLACED)
    if seen and not left.has_directory:
        age = seen.age
    else:
        age = await age_of_attempt(storage, path, seen, discarded=discarded)
    swept = replace(swept, age=age)
    if left.has_directory and await directories_at(storage, path.path) is None:
        return Finding(swept=swept).keeping("there are no directories to rename here: it is a copy from elsewhere")
    verdict = await _judged(storage, left, swept, record, older_than)
    if not verdict.clean:
        return Finding(swept=swept).keeping(verdict.reason)

    async def act() -> str:
        async with lock_to_delete(storage, left.record):
            await _delete(storage, left, seen, record)
        return ""

    return Finding(swept=replace(swept, reason=verdict.reason), act=act)


async def _decoded(storage: Storage, left: Leftover, seen: Content) -> CommitRecord | None:
    """Decode the record of an attempt.

    On a disk, a record that a power cut has torn counts as none, as an empty one does.

    What lies beside an attempt's directory is never synced, and never was the record of something committed. That
    record is inside the directory, and decides if it is there. As always, the caller checks the age of the torn record,
    and that nobody holds its lock.
    """
    try:
        return CommitRecord.decode(seen.data, where=str(left.path))
    except IntegrityError:
        if not (storage.is_local and left.has_record and is_torn(seen.data)):
            raise
    inside = await seen_in(storage, replace(left, has_record=False))
    return CommitRecord.decode(inside.data, where=str(left.path)) if inside is not None and inside.data else None


async def _delete(storage: Storage, left: Leftover, seen: Content | None, record: CommitRecord | None) -> None:
    """Move the directory away, then delete it and the record.

    Raise `KeepError` if it is not as it was judged.
    """
    now = await seen_in(storage, left)
    if (now and now.data) != (seen and seen.data):
        raise KeepError("it has changed meanwhile")
    final, doomed = left.final(record), left.path
    if record is not None and seen is not None and seen.version is not None and left.has_record:
        await _fence(storage, left, seen, record)
    if left.has_directory:
        directories = need(storage, DirectoryStorage, Guarantee.DIRECTORIES)
        within = await seen_record(storage, left.path)
        manifest = _readable(within, str(left.path))
        if is_discarded(left.path.name):
            await refuse_mounts(storage, left.path)
            if places := await nested_in(storage, left.path, manifest):
                raise KeepError(_not_its_own(f"{place}/" for place in places))
        else:
            if manifest is not None and manifest.token != token_of(left.path.name):  # what was replaced
                names = await foreign_below(storage, left.path, manifest)
                if names:
                    raise KeepError(_not_its_own(names))
            try:
                doomed = await take_away(directories, left.path, final, manifest)
            except ConflictError as error:
                raise KeepError(str(error)) from error
        await delete_moved(directories, doomed, final)
    if left.has_record:
        await storage.delete(left.record.path)
        await tidy(storage, left.path)


async def _is_of_an_attempt_in_place(storage: Storage, left: Leftover) -> bool:
    """Tell whether a lock is, or may be, of an attempt that stands at its final path and has not committed.

    The name of the lock has the final name and the token. If the final name is long, it is shortened in it: then every
    name beside it is compared.
    """
    token, root = token_of(left.path.name), left.final(None).parent
    for entry in await storage.list(root.path, recursive=False):
        final = root.child(entry.name)
        if entry.kind is not EntryKind.DIRECTORY or not is_attempt_at(left.path.path, entry.name):
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
    """Return the record inside a directory, for what its manifest names; None if no record can be read."""
    if seen is None or not seen.data:
        return None
    try:
        return CommitRecord.decode(seen.data, where=where)
    except IntegrityError:
        return None


def _not_its_own(names: Iterable[str]) -> str:
    return (
        f"what is in it is not all its own ({few_of(list(names))}). A name that ends in '/' is another"
        " place, committed or under way: move these away, and sweep again"
    )


async def _fence(storage: Storage, left: Leftover, seen: Content, record: CommitRecord) -> None:
    """Swap the record, where it has versions, before anything is moved.

    The writer of the record then cannot publish any more.
    """
    try:
        await storage.put(left.record.path, record.moved_to(State.DISCARDED).encode(), mode=Update(seen.version or ""))
    except (StaleVersionError, FileNotFoundError):
        raise KeepError("it has changed meanwhile") from None


async def _judged(
    storage: Storage, left: Leftover, swept: SweepResult, record: CommitRecord | None, older_than: float
) -> Verdict:
    lease = record.lease.seconds if record else storage.environment.lease
    if swept.found is LeftoverKind.DISCARDED:
        verdict = judge(alive=False, age=swept.age, older_than=older_than, lease=lease)
        if verdict.clean:
            verdict = replace(verdict, reason="it was given up, as its name says")
    else:
        # the writer of a replaced directory does not hold it: only a lock tells that somebody is at work
        alive = proof_of_life(storage.environment, record) if record and swept.found is LeftoverKind.ATTEMPT else None
        verdict = judge(alive=alive, age=swept.age, older_than=older_than, lease=lease)
    if verdict.clean and await is_held(storage, left.record):
        return Verdict(clean=False, reason="another process holds it")
    return verdict


async def examine_lock(storage: Storage, path: Location, older_than: float) -> Finding:
    """Judge the file that is locked while a directory is replaced or removed.

    Nobody needs the file once it is not locked.
    """
    found = await storage.stat(path.path)
    swept = SweepResult(
        path=path.upath, found=LeftoverKind.LOCK, action=Action.REMOVE, age=found.age if found else None
    )
    if await is_held(storage, path):
        return Finding(swept=swept).keeping("another process holds it")
    verdict = judge(alive=False, age=swept.age, older_than=older_than, lease=storage.environment.lease)
    if not verdict.clean:
        return Finding(swept=swept).keeping(verdict.reason)

    async def act() -> str:
        async with lock_to_delete(storage, path):
            await storage.delete(path.path)
            await tidy(storage, path)
        return ""

    return Finding(swept=replace(swept, reason="nobody has locked it"), act=act)


async def examine_probe(storage: Storage, path: Location, entry: Entry, older_than: float) -> Finding:
    """Judge what a probe that was killed has left.

    It is nobody's, unless a probe is at work.
    """
    age = await youngest(storage, path)
    swept = SweepResult(path=path.upath, found=LeftoverKind.PROBE, action=Action.REMOVE, age=age)
    verdict = judge(alive=None, age=age, older_than=older_than, lease=storage.environment.lease)
    if not verdict.clean:
        return Finding(swept=swept).keeping(verdict.reason)
    directories = await directories_at(storage, path.path) if entry.kind is EntryKind.DIRECTORY else None

    async def act() -> str:
        if directories is not None:
            await directories.remove_tree(path.path)
        else:
            for below in await storage.list(path.path, recursive=True):
                await storage.delete(path.child(below.name).path)
            await storage.delete(path.path)
        await tidy(storage, path)
        return ""

    return Finding(swept=replace(swept, reason=verdict.reason), act=act)
