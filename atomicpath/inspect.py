"""The reader: what at a URL is complete, what a root holds, and whether the files are what was committed."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from upath import UPath

from .abc import Entry, Storage
from .errors import AtomicPathError, IntegrityError, NotCommittedError, ValidationError
from .layout import HOUSEKEEPING, is_pending, is_reserved, is_temporary, is_unfinished, step_of
from .liveness import proof_of_life
from .location import Location
from .manifest import digest
from .record import CommitRecord, FileEntry, State, fingerprint
from .strategies.held import is_committed, read_record, standing_at, when
from .strategies.leftovers import Leftover, attempts_in, housekeeping_entries, record_in
from .tasks import for_each

__all__ = [
    "Attempt",
    "Commit",
    "Verification",
    "attempts",
    "children",
    "committed",
    "is_complete",
    "is_rewritten",
    "latest",
    "load",
    "verify",
]

_LOG = logging.getLogger("atomicpath")
_READS_AT_ONCE = 16
_reported: set[str] = set()  # roots of which this process has said that attempts were left there
_UNMARKED = "it has neither a commit record nor a marker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A complete directory. `record` is None if another tool committed it and left only its marker."""

    path: UPath
    name: str
    record: CommitRecord | None

    @property
    def step(self) -> int | None:
        """The integer at the end of the name, or None."""
        return step_of(self.name)

    @property
    def order(self) -> tuple[int, int]:
        """By step, then commit time; those without a step first."""
        step, record = self.step, self.record
        return (-1 if step is None else step, (record.committed or 0) if record else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is under way or was left behind at `path`, meant to become `final`.

    `alive`: True if its process runs on this host, False if it is provably gone, None if that cannot be
    told from here. `record` is None if it is damaged or was not yet written.
    """

    path: UPath
    final: UPath
    record: CommitRecord | None
    alive: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How a committed directory compares with its manifest, by file name; `altered` includes the truncated."""

    missing: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the directory is exactly what was committed."""
        return not (self.missing or self.altered or self.extra)

    def __str__(self) -> str:
        found = [(what, names) for what in ("missing", "altered", "extra") if (names := getattr(self, what))]
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in found) or "as committed"


async def load(location: Location) -> Commit:
    """The complete directory at a location; NotCommittedError, saying what is there instead, if there is none."""
    found = await _examine(location.open(), location)
    if isinstance(found, Commit):
        return found
    if isinstance(found, IntegrityError):
        raise found
    raise NotCommittedError(f"{location} is not a committed directory: {found or _UNMARKED}")


async def is_complete(location: Location) -> bool:
    """Whether a complete directory is there. Raises if the storage cannot say."""
    return isinstance(await _examine(location.open(), location), Commit)


async def committed(root: Location) -> list[Commit]:
    """The complete directories right below a root, oldest first; what is incomplete is named in the log."""
    storage = root.open()
    listing = await children(storage, root)
    names = [entry.name for entry in listing if entry.kind == "directory"]
    await _report_leftovers(storage, root, listing)
    return sorted(await _complete(storage, root, names), key=lambda commit: commit.order)


async def latest(root: Location) -> Commit | None:
    """The newest complete one: by step, else by commit time. Whatever newer is incomplete is named in the log."""
    storage = root.open()
    listing = await children(storage, root)
    names = [entry.name for entry in listing if entry.kind == "directory"]
    with_step = sorted((name for name in names if step_of(name) is not None), key=_step, reverse=True)
    found: list[Commit] = []
    for _, same_step in groupby((name for name in with_step if not is_temporary(name)), key=_step):
        found = await _complete(storage, root, same_step)
        if found:
            break
    else:
        found = await _complete(storage, root, [name for name in names if step_of(name) is None])
    newest = max(found, key=lambda commit: commit.order, default=None)
    await _report_leftovers(storage, root, listing)
    return newest


async def attempts(root: Location) -> list[Attempt]:
    """Everything below a root that has begun and not been committed: temporary paths and unfinished finals."""
    storage = root.open()
    listing = await children(storage, root)

    async def unfinished(name: str) -> Attempt | None:
        path = root.child(name)
        try:
            record = await read_record(storage, path)
        except IntegrityError:
            return Attempt(path=path.upath, final=path.upath, record=None, alive=None)
        if record is None or await is_committed(storage, path, record):
            return None
        return Attempt(
            path=path.upath, final=path.upath, record=record, alive=proof_of_life(storage.environment, record)
        )

    async def temporary(left: Leftover) -> Attempt | None:
        try:
            record = await record_in(storage, left)
        except IntegrityError:
            record = None
        if not left.has_directory and record is None:
            return None  # the lock of an attempt in place
        alive = proof_of_life(storage.environment, record) if record else None
        return Attempt(path=left.path.upath, final=left.final(record).upath, record=record, alive=alive)

    finals = [entry.name for entry in listing if entry.kind == "directory" and not is_temporary(entry.name)]
    begun = await for_each(finals, unfinished, at_once=_READS_AT_ONCE)
    begun += await for_each(await _leftovers(storage, root, listing), temporary, at_once=_READS_AT_ONCE)
    return sorted((found for found in begun if found is not None), key=lambda found: found.path.path)


async def verify(location: Location, *, checksums: bool) -> Verification:
    """Compare what is stored with the manifest: names, sizes, versions where they were given, checksums on request.

    A directory that was replaced meanwhile is compared afresh: its files are not those of the record that was read.
    """
    record = (await load(location)).record
    while True:
        found: Verification | FileNotFoundError
        try:
            found = await _compare(location, record, checksums=checksums)
        except FileNotFoundError as error:  # listed, and gone when it was read
            found = error
        else:
            if found.ok:
                return found
        before, record = record, (await load(location)).record
        if (before and before.token) == (record and record.token):
            if isinstance(found, FileNotFoundError):
                raise found
            return found


async def _compare(location: Location, record: CommitRecord | None, *, checksums: bool) -> Verification:
    if record is None:
        raise IntegrityError(
            f"{location} was committed by another tool, without a manifest: there is nothing to compare"
        )
    if checksums and any(entry.sha256 is None for entry in record.files):
        raise ValidationError(
            f"{location} was committed without checksums: commit with checksums=True, or compare sizes"
        )
    storage = location.open()
    listing = {entry.name: entry for entry in await storage.list(location.path, recursive=True)}
    wanted = {entry.name: entry for entry in record.files}
    same_place = record.place == fingerprint(record.token, location.place)
    altered = {name for name, entry in wanted.items() if name in listing and _differs(entry, listing[name], same_place)}
    if checksums:
        unread = [entry for name, entry in wanted.items() if name in listing and name not in altered]
        hashes = await for_each(unread, lambda entry: _sha256(storage, location.child(entry.name)), at_once=4)
        altered |= {entry.name for entry, found in zip(unread, hashes, strict=True) if found != entry.sha256}
    return Verification(
        missing=tuple(sorted(wanted.keys() - listing.keys())),
        altered=tuple(sorted(altered)),
        extra=tuple(
            sorted(
                name
                for name in listing.keys() - wanted.keys()
                if not (is_reserved(name) or name == record.marker or is_unfinished(name) or is_pending(name))
            )
        ),
    )


def _differs(wanted: FileEntry, found: Entry, same_place: bool) -> bool:
    return found.kind != "file" or found.size != wanted.size or is_rewritten(wanted, found, same_place)


def is_rewritten(wanted: FileEntry, found: Entry, same_place: bool) -> bool:
    """Whether a file has another version than was committed; versions tell only where they were given."""
    return same_place and None not in (wanted.etag, found.version) and wanted.etag != found.version


async def _sha256(storage: Storage, file: Location) -> str:
    environment = storage.environment
    if storage.is_local:
        return await environment.step(digest, environment, file.path)
    with tempfile.TemporaryDirectory(prefix="atomicpath-verify-") as directory:
        copy = Path(directory) / "file"
        await storage.download(file.path, copy)
        return await environment.step(digest, environment, copy)


async def _examine(storage: Storage, location: Location) -> Commit | IntegrityError | str:
    """The complete directory, or why it does not count as one; "" if nothing there claims to be one."""
    if is_temporary(location.path):
        return "it is below a temporary path, where nothing counts"
    try:
        standing = await standing_at(storage, location)
    except IntegrityError as error:
        return error
    except FileNotFoundError as error:  # not even its bucket is there
        return str(error)
    record = standing.record
    if standing.committed:
        return Commit(path=location.upath, name=location.name, record=record)
    if standing.orphaned:
        return "its commit record is missing, and the marker beside it counts for nothing without one"
    if record is None:
        return "" if standing.kind == "directory" else f"{standing.kind or 'nothing'} is there"
    verb = "is being removed" if record.state is State.DISCARDED else "has not finished"
    return f"the attempt of {record.writer}, begun at {when(record.started)}, {verb}"


async def _complete(storage: Storage, root: Location, names: Iterable[str]) -> list[Commit]:
    async def one(name: str) -> Commit | None:
        found = await _examine(storage, root.child(name))
        if isinstance(found, Commit):
            return found
        if found or step_of(name) is not None:
            _LOG.warning("skipping %s: %s", root.child(name), found or "it has no commit record")
        return None

    candidates = [name for name in names if not is_temporary(name)]
    return [found for found in await for_each(candidates, one, at_once=_READS_AT_ONCE) if found is not None]


async def children(storage: Storage, root: Location) -> list[Entry]:
    """What is right below a root; NotCommittedError if nothing can be there, ValidationError if it is a file."""
    try:
        listing = await storage.list(root.path, recursive=False)
    except FileNotFoundError as error:
        raise NotCommittedError(f"nothing can be listed at {root}: {error}") from error  # not even its bucket is there
    if not listing and await storage.kind(root.path) not in ("directory", None):
        raise ValidationError(f"{root} is a file: pass the directory that holds the committed ones")
    return listing


async def _report_leftovers(storage: Storage, root: Location, listing: list[Entry]) -> None:
    """Say once for each root and process how many attempts lie there that are not seen to be at work."""
    place = root.place
    if place in _reported:
        return
    count = 0
    for left in await _leftovers(storage, root, listing):
        try:
            record = await record_in(storage, left)
        except (OSError, AtomicPathError):
            record = None
        count += record is None or proof_of_life(storage.environment, record) is not True
    if count:
        _reported.add(place)
        _LOG.warning(
            "%s: %d unfinished attempt(s) of processes that have ended, or that run on other hosts, lie in %s;"
            " sweep(...) of this root removes what is abandoned",
            root,
            count,
            HOUSEKEEPING,
        )


async def _leftovers(storage: Storage, root: Location, listing: list[Entry]) -> list[Leftover]:
    kept = await housekeeping_entries(storage, root, listing)
    return attempts_in(root, listing) + attempts_in(root.child(HOUSEKEEPING), kept)


def _step(name: str) -> int:
    return step_of(name) or 0
