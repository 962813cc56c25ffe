"""The readers: what at a URL is complete, and what a root holds; all of them judge by `_examine`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from upath import UPath

from atomicpath._core.layout import HOUSEKEEPING, PROBE_PREFIX, RECORD_FILE, is_temporary
from atomicpath._core.liveness import is_tracked_here, proof_of_life
from atomicpath._core.record import CommitRecord, NewerFormatError, State
from atomicpath._core.step_order import DEFAULT, Moment, Order, in_order, moments
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.location import Location
from atomicpath._strategies.aliases import linked_name
from atomicpath._strategies.conflicts import is_committed, read_record, standing_at, when
from atomicpath._strategies.leftovers import Leftover, attempts_in, housekeeping_entries, record_in
from atomicpath.abc import Entry, EntryKind, NoBucketError, Storage
from atomicpath.errors import AtomicPathError, IntegrityError, NotCommittedError, ValidationError

from .completeness import Commit, Verification, compare, is_whole
from .meter import Progress

__all__ = [
    "Commit",
    "Survey",
    "UnfinishedCommit",
    "Verification",
    "attempts",
    "children",
    "committed",
    "find",
    "follow",
    "is_complete",
    "latest",
    "load",
    "survey",
    "survey_new",
    "verify",
]

R = TypeVar("R")

_LOG = logging.getLogger("atomicpath")
_READS_AT_ONCE = 16
_LOOKS = 10  # looks at a directory that is replaced during a look
_reported: set[str] = set()  # roots of which this process has said that attempts were left there
_UNMARKED = "it has neither a commit record nor a marker"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedCommit:
    """What is under way or was left behind at `path`, meant to become `final`.

    `alive`: True if its process runs on this host, False if it is provably gone, None if that cannot be
    told from here. `record` is None if it is damaged or was not yet written.
    """

    path: UPath
    final: UPath
    record: CommitRecord | None
    alive: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The complete directories below a root, oldest first, in series; and which of the names are links.

    `series` has, by what their names begin with, those whose names tell a step; under None are the others.
    """

    commits: tuple[Commit, ...]
    series: dict[str | None, list[Commit]]
    links: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Alias:
    """What is at a name is an alias for `target`, another name of the same root."""

    target: str


async def load(location: Location, *, whole: bool = True) -> Commit:
    """Return the complete directory at a location.

    Raise NotCommittedError, which says what is there instead, if there is none. Aliases are followed. With `whole`, a
    copy of a committed directory counts only if nothing of it is missing.
    """
    return (await find(location, whole=whole))[1]


async def find(location: Location, *, whole: bool = True) -> tuple[Location, Commit]:
    """Return the complete directory that a location, or the alias there, stands for, and its own location.

    Raise the same errors as `load`.
    """
    places, found = await follow(location, whole=whole)
    place = places[-1]
    if isinstance(found, Commit):
        return place, found
    if isinstance(found, IntegrityError):
        raise found
    through = "" if place.path == location.path else f" that the alias {location} leads to"
    raise NotCommittedError(f"{place}{through} is not a committed directory: {found or _UNMARKED}")


async def follow(location: Location, *, whole: bool = True) -> tuple[list[Location], Commit | IntegrityError | str]:
    """Follow aliases from a location on.

    Return the places on the way, and what is at the last one, as `_examine` returns it.
    """
    storage, places = location.open(), [location]
    while isinstance(found := await _examine(storage, places[-1], whole=whole), _Alias):
        place = location.parent.child(found.target)
        places.append(place)
        if place in places[:-1]:
            circle = " -> ".join(place.name for place in places)
            return places, IntegrityError(
                f"{location} leads nowhere: its aliases are in a circle ({circle}). Move one of them with alias(...),"
                " or remove(...) it"
            )
    return places, found


async def is_complete(location: Location) -> bool:
    """Tell whether a complete directory is at a location.

    Raise an error if the storage, or this version of atomicpath, cannot tell.
    """
    _, found = await follow(location)
    if isinstance(found, NewerFormatError):
        raise found
    return isinstance(found, Commit)


async def committed(root: Location, order: Order = DEFAULT) -> list[Commit]:
    """Return the complete directories directly below a root, oldest first.

    The log names what is incomplete.
    """
    return list((await survey(root, order)).commits)


async def survey(root: Location, order: Order = DEFAULT) -> Survey:
    """Return all complete directories directly below a root, in order, and what is known of their names."""
    storage = root.open()
    listing = await children(storage, root)
    entries = _directories(listing)
    neighbours = _Neighbours(storage, root)
    found = await neighbours.complete((entry.name for entry in entries if order.takes(entry.name)), order)
    await neighbours.expect_answers()
    await _report_leftovers(storage, root, listing)
    return _arranged(found, order, frozenset(entry.name for entry in entries if entry.kind is EntryKind.LINK))


async def survey_new(
    root: Location, order: Order, known: AbstractSet[str], *, level: int
) -> tuple[tuple[Commit, ...], frozenset[str]]:
    """Return the complete directories directly below a root whose names are not in `known`, oldest first.

    Return all the names there as well. `level` is the level at which the log names what is incomplete.
    """
    storage = root.open()
    names = frozenset(entry.name for entry in _directories(await children(storage, root)))
    neighbours = _Neighbours(storage, root, level=level)
    found = await neighbours.complete((name for name in sorted(names - known) if order.takes(name)), order)
    await neighbours.expect_answers()
    return _arranged(found, order, frozenset()).commits, names


async def latest(root: Location, order: Order = DEFAULT) -> Commit | None:
    """Return the last directory of `committed`, with as few reads as possible.

    The log names what is incomplete among the newest. Names that tell a step are believed, newest first, unless the
    record of the newest says otherwise.
    """
    storage = root.open()
    listing = await children(storage, root)
    names = [entry.name for entry in _directories(listing)]
    neighbours = _Neighbours(storage, root)
    newest = await _newest(neighbours, [name for name in names if order.takes(name) and not is_temporary(name)], order)
    await neighbours.expect_answers()
    await _report_leftovers(storage, root, listing)
    return newest


async def _newest(neighbours: _Neighbours, names: list[str], order: Order) -> Commit | None:
    by_series: dict[str, list[str]] = {}
    for name in names:
        series = order.series(name)
        if series is not None:
            by_series.setdefault(series, []).append(name)
    found: list[Commit] = []
    for members in by_series.values():
        members.sort(key=lambda name: order.named_step(name) or 0, reverse=True)
        for step, same in groupby(members, key=order.named_step):
            complete = await neighbours.complete(same, order)
            if any(commit.step != step for commit in complete):  # the records decide
                return _last(await neighbours.complete(names, order), order)
            if complete:
                found += complete
                break
    if not found:
        found = await neighbours.complete((name for name in names if order.series(name) is None), order)
    return _last(found, order)


def _last(commits: list[Commit], order: Order) -> Commit | None:
    arranged = _arranged(commits, order, frozenset()).commits
    return arranged[-1] if arranged else None


def _arranged(commits: Iterable[Commit], order: Order, links: frozenset[str]) -> Survey:
    """Order commits: those without a step in their names first, then series by series.

    The series that was last committed to comes last.
    """
    by_name = {commit.name: commit for commit in commits}
    steps = {name: commit.step for name, commit in by_name.items()}
    times = moments({name: commit.record for name, commit in by_name.items()})
    series: dict[str | None, list[str]] = {}
    for name in by_name:
        series.setdefault(order.series(name), []).append(name)
    ordered = {key: in_order(names, steps, times) for key, names in series.items()}

    def age(key: str | None) -> tuple[bool, Moment]:
        return (key is not None, max(times[name] for name in ordered[key]))

    keys = sorted(ordered, key=age)
    return Survey(
        commits=tuple(by_name[name] for key in keys for name in ordered[key]),
        series={key: [by_name[name] for name in ordered[key]] for key in keys},
        links=links,
    )


async def attempts(root: Location) -> list[UnfinishedCommit]:
    """Return everything below a root that was begun and not committed: temporary paths and unfinished finals."""
    storage = root.open()
    listing = await children(storage, root)
    neighbours = _Neighbours(storage, root)

    async def unfinished(name: str) -> UnfinishedCommit | None:
        path = root.child(name)
        try:
            record = await read_record(storage, path)
        except NewerFormatError:
            raise
        except (IntegrityError, ValidationError):
            return UnfinishedCommit(path=path.upath, final=path.upath, record=None, alive=None)
        if record is None or record.state is State.ALIAS or await is_committed(storage, path, record):
            return None
        return UnfinishedCommit(
            path=path.upath, final=path.upath, record=record, alive=proof_of_life(storage.environment, record)
        )

    async def temporary(left: Leftover) -> UnfinishedCommit | None:
        try:
            record = await record_in(storage, left)
        except (IntegrityError, ValidationError):
            record = None
        if not left.has_directory and record is None:
            return None  # the lock of an attempt in place
        alive = proof_of_life(storage.environment, record) if record else None
        return UnfinishedCommit(path=left.path.upath, final=left.final(record).upath, record=record, alive=alive)

    lefts = {left.path.path: left for left in await _leftovers(storage, root, listing)}
    finals = [entry.name for entry in _directories(listing) if not is_temporary(entry.name)]
    begun = await neighbours.each(finals, unfinished)
    begun += await neighbours.each(lefts, lambda path: temporary(lefts[path]))
    await neighbours.expect_answers()
    return sorted((found for found in begun if found is not None), key=lambda found: found.path.path)


async def verify(location: Location, *, checksums: bool, progress: Progress | None = None) -> Verification:
    """Compare what is stored with the manifest: names, sizes, versions where they were given, checksums on request.

    A directory that was replaced meanwhile is compared afresh, because its files are not those of the record that was
    read.
    """
    location, commit = await find(location, whole=False)
    record = commit.record
    while True:
        found: Verification | FileNotFoundError
        try:
            found = await compare(location.open(), location, record, checksums=checksums, progress=progress)
        except FileNotFoundError as error:  # listed, and gone when it was read
            found = error
        else:
            if found.ok:
                return found
        before, record = record, (await load(location, whole=False)).record
        if (before and before.token) == (record and record.token):
            if isinstance(found, FileNotFoundError):
                raise found
            return found


async def _examine(
    storage: Storage, location: Location, order: Order = DEFAULT, *, whole: bool = True
) -> Commit | IntegrityError | _Alias | str:
    """Return the complete directory, or the reason why the directory does not count as complete.

    The reason is "" if nothing there claims to be a committed directory.

    An alias is not followed: whoever lists a root finds the target of the alias anyway.

    Raise NotCommittedError if nothing can be there, not even for a while: the name of a missing bucket may be misspelt.
    A link to a directory is followed. A directory that is replaced during the look is looked at again.
    """
    if is_temporary(location.path):
        return "it is below a temporary path, where nothing counts"
    if target := await linked_name(storage, location):
        return _Alias(target)
    reason, token = "", None
    for _ in range(_LOOKS):
        try:
            standing = await standing_at(storage, location)
        except IntegrityError as error:
            return error
        except (FileNotFoundError, NoBucketError) as error:
            raise NotCommittedError(f"{location} is not a committed directory: {error}") from error
        record = standing.record
        if standing.committed:
            if token is not None and standing.token == token:
                return reason
            try:
                reason = await is_whole(storage, location, record) if whole and record is not None else ""
            except FileNotFoundError:
                continue  # it was removed or replaced since the record was read
            if not reason:
                step = order.step(location.name, record)
                return Commit(path=location.upath, name=location.name, record=record, step=step)
            token = standing.token
            continue  # the record may be of a directory that was replaced before the listing
        if standing.orphaned:
            return "its commit record is missing, and the marker beside it counts for nothing without one"
        if record is None:
            return "" if standing.kind is EntryKind.DIRECTORY else f"{standing.kind or 'nothing'} is there"
        if record.state is State.ALIAS:
            return _Alias(record.target)
        verb = "is being removed" if record.state is State.DISCARDED else "has not finished"
        reason = f"the attempt of {record.writer}, begun at {when(record.started)}, {verb}"
        return _UnderWay(reason) if is_tracked_here(record.token) else reason
    return reason or "it is replaced or removed again and again"


class _UnderWay(str):
    """Why a directory does not count: this very process is at work on it."""


class _Neighbours:
    """The children of a root, each looked at on its own: what is wrong with one never hides the others.

    It is logged, and the child is left out. But if nothing at all could be looked at, a name that is nobody's tells
    whether the storage answers: if it does not, that is the error of the root, as it is where a store gave an answer
    of no use to each of them.
    """

    def __init__(self, storage: Storage, root: Location, *, level: int = logging.WARNING) -> None:
        """Use `level` as the level at which the log says what is left out."""
        self.storage = storage
        self.root = root
        self._level = level
        self._answered = False
        self._failed: dict[str, Exception] = {}

    async def each(self, names: Iterable[str], look: Callable[[str], Awaitable[R]]) -> list[R]:
        """Call `look` with each name; return the results, without those of the names for which it failed."""
        failed: dict[str, Exception] = {}

        async def one(name: str) -> list[R]:
            try:
                found = [await look(name)]
            except (OSError, AtomicPathError) as error:
                failed[name] = error
                return []
            self._answered = True
            return found

        asked = list(names)
        found = [result for results in await map_concurrently(asked, one, at_once=_READS_AT_ONCE) for result in results]
        again = [name for name in asked if name in failed and not isinstance(failed[name], AtomicPathError)]
        for name in again:  # no answer: ask once more after the others
            del failed[name]
            found += await one(name)
        for name, error in failed.items():
            if name not in self._failed:
                _LOG.log(self._level, "skipping %s, which cannot be looked at: %s", self.root.child(name), error)
        self._failed |= failed
        return found

    async def complete(self, names: Iterable[str], order: Order) -> list[Commit]:
        """Return the complete directories among `names`.

        The log says why others are not complete that might be taken for complete ones.
        """

        async def one(name: str) -> Commit | None:
            found = await _examine(self.storage, self.root.child(name), order)
            if isinstance(found, Commit):
                return found
            if isinstance(found, _Alias):
                if order.named_step(name) is None:
                    return None
                found = (await follow(self.root.child(name)))[1]  # report it: it has a step's name
                if isinstance(found, Commit):
                    return None
            if found or order.named_step(name) is not None:
                level = min(logging.INFO, self._level) if isinstance(found, _UnderWay) else self._level
                _LOG.log(level, "skipping %s: %s", self.root.child(name), found or "it has no commit record")
            return None

        found = await self.each((name for name in names if not is_temporary(name)), one)
        return [commit for commit in found if commit is not None]

    async def expect_answers(self) -> None:
        """Raise the first failure if there were only failures, and the storage does not answer elsewhere either.

        On a disk, one directory may be damaged. On a store, the same failure for all of them means that the store does
        not answer.
        """
        if self._answered or not self._failed:
            return
        if not self.storage.is_local and not any(isinstance(one, AtomicPathError) for one in self._failed.values()):
            raise next(iter(self._failed.values()))
        nobody = self.root.child(f"{PROBE_PREFIX}{self.storage.environment.token()}").child(RECORD_FILE)
        try:
            await self.storage.get(nobody.path)
        except FileNotFoundError:
            return
        except (OSError, AtomicPathError) as error:
            raise next(iter(self._failed.values())) from error


async def children(storage: Storage, root: Location) -> list[Entry]:
    """List what is directly below a root.

    Raise NotCommittedError if nothing can be there, and ValidationError if the root is a file.
    """
    try:
        listing = await storage.list(root.path, recursive=False)
    except FileNotFoundError as error:
        raise NotCommittedError(f"nothing can be listed at {root}: {error}") from error  # not even its bucket is there
    if not listing and await storage.kind(root.path) not in (EntryKind.DIRECTORY, None):
        raise ValidationError(f"{root} is a file: pass the directory that holds the committed ones")
    return listing


def _directories(listing: Iterable[Entry]) -> list[Entry]:
    """Return the directories, and the links, which may lead to a directory.

    Names of a store that no path can have are left out.
    """
    return [entry for entry in listing if entry.name and entry.kind in (EntryKind.DIRECTORY, EntryKind.LINK)]


async def _report_leftovers(storage: Storage, root: Location, listing: list[Entry]) -> None:
    """Say once for each root and process how many attempts lie there that are not seen to be at work.

    On a store their records are not read, and it is looked at once: `latest` has a budget of requests.
    """
    place = root.identity
    if place in _reported:
        return
    left = await _leftovers(storage, root, listing)
    count = len(left)
    if storage.is_local:
        count = sum([await _is_left_behind(storage, attempt) for attempt in left])
    if not storage.is_local and HOUSEKEEPING in (entry.name for entry in listing):
        _reported.add(place)
    if count:
        _reported.add(place)
        _LOG.warning(
            "%s: %d unfinished attempt(s) of processes that have ended, or that run on other hosts, lie in %s;"
            " sweep(...) of this root removes what is abandoned",
            root,
            count,
            HOUSEKEEPING,
        )


async def _is_left_behind(storage: Storage, attempt: Leftover) -> bool:
    """Tell whether an attempt is not seen to be at work; a lock of one in place is found under its final name."""
    try:
        record = await record_in(storage, attempt)
    except (OSError, AtomicPathError):
        return True
    if record is None:
        return attempt.has_directory
    return proof_of_life(storage.environment, record) is not True


async def _leftovers(storage: Storage, root: Location, listing: list[Entry]) -> list[Leftover]:
    try:
        kept = await housekeeping_entries(storage, root, listing)
    except (OSError, AtomicPathError) as error:  # the committed directories are there all the same
        _LOG.warning("%s/%s cannot be looked at: %s", root, HOUSEKEEPING, error)
        kept = []
    return attempts_in(root, listing) + attempts_in(root.child(HOUSEKEEPING), kept)
