"""What is ours under a final name without being whole: unfinished attempts, missing markers, interrupted renames."""

from __future__ import annotations

from dataclasses import replace

from atomicpath._core.environment import cleaning_up
from atomicpath._core.layout import RECORD_FILE, is_unfinished, temporary_of
from atomicpath._core.liveness import proof_of_life
from atomicpath._core.record import CommitRecord, DecidedBy, Lease, State, marker_of
from atomicpath._profile.abilities import need
from atomicpath._profile.location import Location
from atomicpath._profile.probing import profile_of
from atomicpath._strategies.attempt_files import delete_record
from atomicpath._strategies.attempt_record import AttemptRecord
from atomicpath._strategies.borders import inside_error
from atomicpath._strategies.cleanup import NotClearedError
from atomicpath._strategies.conflicts import is_committed, read_marker
from atomicpath._strategies.discard import CleaningAttemptRecord, delete_below, delete_own_tree
from atomicpath._strategies.fences import WANTED, Fence
from atomicpath._strategies.marker_record import MarkedAttemptRecord
from atomicpath._strategies.ownership import Ownership
from atomicpath.abc import Content, DirectoryStorage, Put, ReservingStorage, Storage
from atomicpath.errors import AbandonedError, ConflictError, IntegrityError
from atomicpath.guarantees import NONE, Guarantee

from .ages import age_of_attempt, older
from .observation import expect_unchanged, final_held, is_held, lock_to_delete, seen_record, writers_lock
from .results import Action, Finding, KeepError, LeftoverKind, SweepResult, Verdict, judge

__all__ = ["examine_final"]


async def examine_final(storage: Storage, path: Location, older_than: float, *, probe: bool) -> Finding | None:
    """Examine a directory that has a final name; return None if there is nothing to report.

    With `probe`, what holds here may be found out by a trial.
    """
    seen = await seen_record(storage, path)
    if seen is None:
        return await _interrupted(storage, path, older_than)
    try:
        record = CommitRecord.decode(seen.data, where=str(path))
    except IntegrityError as error:
        swept = SweepResult(
            path=path.upath, found=LeftoverKind.DAMAGED, action=Action.KEEP, age=seen.age, reason=str(error)
        )
        return Finding(swept=swept)
    if record.state is State.ALIAS:
        return None
    if await is_committed(storage, path, record):
        return await _unmarked(storage, path, seen, record)
    found = LeftoverKind.DISCARDED if record.state is State.DISCARDED else LeftoverKind.ATTEMPT
    age = await age_of_attempt(storage, path, seen, discarded=False)
    swept = SweepResult(path=path.upath, found=found, action=Action.REMOVE, writer=record.writer, age=age)
    alive = proof_of_life(storage.environment, record)
    verdict = judge(alive=alive, age=age, older_than=older_than, lease=record.lease.seconds)
    if verdict.clean and await is_held(storage, writers_lock(path, record.token)):
        verdict = Verdict(clean=False, reason="another process holds it")
    if not verdict.clean:
        return Finding(swept=swept).keeping(verdict.reason)
    foreign = await _older_files(storage, path, seen, record)
    if foreign is None or foreign:
        which = f"{', '.join(foreign[:3])} …" if foreign else "which, cannot be told"
        return Finding(swept=swept).keeping(
            f"files may have been there before the attempt ({which}): remove them by hand"
        )
    fence = Fence.of(NONE if storage.is_local else (await profile_of(path, wanted=WANTED, probe=probe)).effective)
    # rule *settled*: a delete of an attempt may still be under way even if the attempt is provably dead
    settles = 0.0 if storage.is_local else fence.settles_after(record)
    verdict = judge(alive=alive, age=age, older_than=max(older_than, settles), lease=record.lease.seconds)
    if not verdict.clean:
        return Finding(swept=swept).keeping(verdict.reason)
    why = verdict.reason
    by_age_only = alive is not False and not fence.stops_writer_of(record)
    if by_age_only:
        why += "; nothing here could stop its writer, should it wake: age is the only protection"
    ending = _Ending(storage, path, seen, record, fence)
    act = ending.move_away if storage.is_local else ending.clear
    return Finding(swept=replace(swept, reason=why), act=act, by_age_only=by_age_only)


async def _older_files(storage: Storage, path: Location, seen: Content, record: CommitRecord) -> list[str] | None:
    """Return the files that were there before an attempt claimed the place; None if that cannot be told.

    This is needed where no file says whose it is, and only for an attempt that may have been interrupted before it
    looked at what was there. Once it has renewed its lease, or has ended, it had seen that there was nothing.
    """
    if record.committed is not None or record.cleaner:
        return []
    if not (record.direct or storage.is_local):
        return []
    if record.state is State.WRITING and record.lease.renewals == 0:
        listing = await storage.list(path.path, recursive=True)
        files = [entry for entry in listing if entry.name != RECORD_FILE and not is_unfinished(entry.name)]
        return await older(storage, path, files, seen.age)
    return []


class _Ending:
    """One attempt at a final path that is to be ended."""

    def __init__(self, storage: Storage, path: Location, seen: Content, record: CommitRecord, fence: Fence) -> None:
        self._storage = storage
        self._path = path
        self._seen = seen
        self._record = record
        self._fence = fence

    async def move_away(self) -> str:
        """Move the directory away, under its lock, before anything is deleted.

        This is done where files have no versions.
        """
        storage, path = self._storage, self._path
        async with final_held(storage, path), lock_to_delete(storage, writers_lock(path, self._record.token)):
            await expect_unchanged(storage, path, self._seen)
            ownership = Ownership.of(storage, path, self._record)
            if places := await ownership.places(await storage.list(path.path, recursive=True)):
                raise KeepError(str(await inside_error(storage, path, places)))
            left = await delete_own_tree(need(storage, DirectoryStorage, Guarantee.DIRECTORIES), path)
            await delete_record(storage, path.at(temporary_of(path.path, self._record.token)))
        return left

    async def clear(self) -> str:
        """Swap to discarded, list, confirm, delete the versions listed, delete the record."""
        register = self._register()
        record = self._record
        # files that the user of a direct attempt wrote have no owner: only their age says that nobody needs them
        by_user = record.committed is None and record.direct and bool(record.state is State.WRITING or record.cleaner)
        ownership = Ownership.of(self._storage, self._path, record, unowned=by_user)
        try:
            await delete_below(
                self._storage,
                self._path,
                register,
                ownership=ownership,
                was_committed=record.committed is not None,
            )
        except AbandonedError as moved:
            raise KeepError(str(moved)) from moved
        except NotClearedError:
            raise  # the record stays, discarded: the next sweep goes on
        except ConflictError as foreign:
            with cleaning_up(self._path):
                await register.withdraw()  # as before the attempt: what is left is not ours
            return f"what is not the attempt's stays: {foreign}"
        return ""

    def _register(self) -> AttemptRecord:
        conditional = self._fence.conditional
        if self._fence.swaps and self._record.decided_by is DecidedBy.RECORD:
            return CleaningAttemptRecord(
                self._storage, self._path, self._seen, self._record, conditional_delete=conditional
            )
        lease = Lease(
            seconds=self._storage.environment.lease
        )  # deletes end well within it: it is this sweep's own, not the attempt's
        record = replace(self._record, lease=lease)
        return MarkedAttemptRecord(self._storage, self._path, record, conditional_delete=conditional)


async def _unmarked(storage: Storage, path: Location, seen: Content, record: CommitRecord) -> Finding | None:
    """Return a finding for a committed directory that lacks its marker.

    The marker is written after the commit. If a crash came between the two, the marker is added.
    """
    if record.decided_by is not DecidedBy.RECORD or record.marker is None:
        return None
    marker = record.marker
    if await read_marker(storage, path, marker) is not None:
        return None

    async def act() -> str:
        try:
            await storage.put(path.child(marker).path, marker_of(record.token), mode=Put.CREATE, owner=record.token)
        except FileExistsError:
            return "somebody else has added it"
        return ""

    swept = SweepResult(
        path=path.upath,
        found=LeftoverKind.UNMARKED,
        action=Action.MARK,
        reason="its record says committed: scripts that look for the marker would miss it",
        writer=record.writer,
        age=seen.age,
    )
    return Finding(swept=swept, act=act)


async def _interrupted(storage: Storage, path: Location, older_than: float) -> Finding | None:
    if not isinstance(storage, ReservingStorage):
        return None
    least = max(older_than, storage.environment.lease)
    age = await storage.remove_interrupted(path.path, older_than=least, dry_run=True)
    if age is None:
        return None
    swept = SweepResult(path=path.upath, found=LeftoverKind.INTERRUPTED, action=Action.REMOVE, age=age)
    verdict = judge(alive=None, age=age, older_than=least, lease=least)
    if not verdict.clean:
        return Finding(swept=swept).keeping(verdict.reason)

    async def act() -> str:
        if await storage.remove_interrupted(path.path, older_than=least, dry_run=False) is None:
            raise KeepError("it is not empty, or not there, any more")
        return ""

    return Finding(swept=replace(swept, reason=verdict.reason), act=act)
