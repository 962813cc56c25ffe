"""What is under a temporary name: attempts of the rename strategy, discarded and replaced directories, probes."""

from __future__ import annotations

from dataclasses import replace

from atomicpath.abc import Entry, Storage
from atomicpath.errors import IntegrityError
from atomicpath.layout import final_of, is_discarded, token_of
from atomicpath.liveness import proof_of_life
from atomicpath.location import Location
from atomicpath.record import CommitRecord, State
from atomicpath.strategies.discarding import delete_moved, move_away
from atomicpath.trials import has_directories

from .ages import age_of_attempt, youngest
from .findings import Action, Finding, Found, Swept, Verdict, judge
from .looking import expect_unchanged, held_to_delete, is_held, seen_record

__all__ = ["examine_probe", "examine_temporary"]


async def examine_temporary(storage: Storage, path: Location, older_than: float) -> Finding:
    """A directory whose name carries an attempt's token."""
    discarded = is_discarded(path.name)
    seen = await seen_record(storage, path)
    swept = Swept(path=path.upath, found=Found.DISCARDED if discarded else Found.ATTEMPT, action=Action.REMOVE)
    record = None
    if seen is not None and seen.data and not discarded:  # of an empty one nothing was written before a kill
        try:
            record = CommitRecord.decode(seen.data, where=str(path))
        except IntegrityError as error:
            return Finding(swept=replace(swept, found=Found.DAMAGED, age=seen.age)).kept(str(error))
    if record is not None:
        swept = replace(swept, writer=record.writer)
        if record.token != token_of(path.name):
            if record.state is not State.COMMITTED:
                return Finding(swept=swept).kept("its record is of another attempt: it was copied or renamed by hand")
            swept = replace(swept, found=Found.REPLACED)
    swept = replace(swept, age=await age_of_attempt(storage, path, seen, discarded=discarded))
    if not has_directories(storage, await storage.declare(path.path)):
        return Finding(swept=swept).kept("there are no directories to rename here: it is a copy from elsewhere")
    verdict = await _judged(storage, path, swept, record, older_than)
    if not verdict.clean:
        return Finding(swept=swept).kept(verdict.why)

    async def act() -> str:
        async with held_to_delete(storage, path):
            doomed = path
            if not discarded:
                await expect_unchanged(storage, path, seen)
                doomed = await move_away(storage, path, path.at(final_of(path.path)))
            await delete_moved(storage, doomed)
        return ""

    return Finding(swept=replace(swept, why=verdict.why), act=act)


async def _judged(
    storage: Storage, path: Location, swept: Swept, record: CommitRecord | None, older_than: float
) -> Verdict:
    lease = record.lease.patience if record else storage.environment.lease
    if swept.found is Found.DISCARDED:
        verdict = judge(alive=False, age=swept.age, older_than=older_than, lease=lease)
        if verdict.clean:
            verdict = replace(verdict, why="it was given up, as its name says")
    else:
        # the writer of what was replaced is not who holds it: only a lock tells that somebody is at work there
        alive = proof_of_life(storage.environment, record) if record and swept.found is Found.ATTEMPT else None
        verdict = judge(alive=alive, age=swept.age, older_than=older_than, lease=lease)
    if verdict.clean and await is_held(storage, path):
        return Verdict(clean=False, why="another process holds it")
    return verdict


async def examine_probe(storage: Storage, path: Location, entry: Entry, older_than: float) -> Finding:
    """What a probe that was killed has left: it is nobody's, unless one is at work."""
    age = await youngest(storage, path)
    swept = Swept(path=path.upath, found=Found.PROBE, action=Action.REMOVE, age=age)
    verdict = judge(alive=None, age=age, older_than=older_than, lease=storage.environment.lease)
    if not verdict.clean:
        return Finding(swept=swept).kept(verdict.why)
    as_tree = entry.kind == "directory" and has_directories(storage, await storage.declare(path.path))

    async def act() -> str:
        if as_tree:
            await storage.remove_tree(path.path)
            return ""
        for below in await storage.list(path.path, recursive=True):
            await storage.delete(path.child(below.name).path)
        await storage.delete(path.path)
        return ""

    return Finding(swept=replace(swept, why=verdict.why), act=act)
