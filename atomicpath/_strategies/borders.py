"""The borders between places: a directory with a record of its own, or an attempt's, is another place wherever it lies.

A claim inside another place, or around one, is refused here where the ancestors or a listing show it. Two claims can
still cross, each having looked before the other's record was there: so nothing is ever deleted, replaced or moved below
another place's directory, whatever was seen when the attempt began.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from dataclasses import replace

from atomicpath._core.layout import HOUSEKEEPING, TMP_DIR_SUFFIX, is_pending, is_unfinished
from atomicpath._core.record import CommitRecord, State
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.location import Location
from atomicpath.abc import MOUNT_POINT, Entry, Storage
from atomicpath.errors import AccessError, ConflictError, IntegrityError, ValidationError

from .conflicts import when
from .ownership import RECORDS, Ownership, Whose, outside, record_at

__all__ = ["foreign_below", "inside_error", "listed", "refuse_mounts", "refuse_nested"]

_LOG = logging.getLogger("atomicpath")
_AT_ONCE = 16
_TRIES = 4
_PAUSE = 0.2  # seconds before the second try, doubled before each further one
_REMEMBERED = 10_000

# Parents, by the place they name, above which this process has seen no other place.
_free: set[str] = set()


async def inside_error(storage: Storage, final: Location, places: tuple[str, ...]) -> ConflictError:
    """Return the error for a final path below which other places are: it names the first, its state and its writer."""
    place = final.child(places[0])
    record, described = None, "where attempts are under way or were left behind"
    if not (place.name == HOUSEKEEPING or TMP_DIR_SUFFIX in place.name):
        for name in RECORDS:
            try:
                record = record or await record_at(storage, place.child(name))
            except IntegrityError as error:
                described = str(error)
        described = _described(record) if record else described
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return ConflictError(
        f"{final} cannot be one place: {place}{more}, inside it, is another ({described}). What is there was left as it"
        f" is. Use another name, or move or remove(...) what is inside first; sweep({str(place.parent)!r}) ends what"
        " was abandoned",
        record,
    )


async def refuse_nested(storage: Storage, final: Location) -> None:
    """Refuse a final path that lies inside another place.

    The records of all ancestors are looked at, but for the root or bucket, all at once. What this costs, two small
    reads for each ancestor, it costs once for each parent and process: afterwards it is remembered that nothing was
    there, as of a claim that crossed another.

    Raises:
        ConflictError: An ancestor has a record, committed or not; it names the ancestor, its state and its writer.
        OSError: The storage does not say what is there.
    """
    known = final.parent.identity
    if known in _free:
        return

    async def look(path: tuple[Location, str]) -> tuple[Location, CommitRecord | IntegrityError | None]:
        ancestor, name = path
        return ancestor, await _seen(storage, ancestor, name)

    looks = [(ancestor, name) for ancestor in _ancestors(final) for name in RECORDS]
    if storage.is_local:  # a look is one system call: no need of an event loop, which a local commit can do without
        answers = [await look(path) for path in looks]
    else:
        answers = await map_concurrently(looks, look, at_once=_AT_ONCE) if looks else []
    for ancestor, seen in answers:
        if seen is not None:
            raise ConflictError(
                f"{final} lies inside another place, {ancestor} ({_described(seen)}), and nothing was written there."
                f" Use a name outside of it, or remove({str(ancestor)!r}) or sweep({str(ancestor.parent)!r}) first",
                seen if isinstance(seen, CommitRecord) else None,
            )
    if len(_free) >= _REMEMBERED:
        _free.clear()
    _free.add(known)


def _ancestors(final: Location) -> list[Location]:
    """Return the directories above a final path, nearest first, without the root, or on a store the bucket.

    The names of a house-keeping directory, and of additions to a committed directory, are that directory's own.
    """
    found: list[Location] = []
    inner, ancestor = final, final.parent
    while ancestor.path.strip("/") and ancestor.path != inner.path:
        if not (is_pending(inner.name) or inner.name == HOUSEKEEPING):
            found.append(ancestor)
        inner, ancestor = ancestor, ancestor.parent
    return found if final.path.startswith("/") else found[:-1]


async def _seen(storage: Storage, ancestor: Location, name: str) -> CommitRecord | IntegrityError | None:
    path = ancestor.child(name)
    failure: OSError | None = None
    for again in range(_TRIES):
        if again:
            await storage.environment.sleep(_PAUSE * 2 ** (again - 1))
        try:
            if storage.is_local and await storage.kind(path.path) is None:
                return None
            return await record_at(storage, path)
        except IntegrityError as damaged:
            return damaged
        except AccessError as error:  # who may write at a prefix need not be allowed to look above it
            _LOG.debug("whether %s is a place of its own cannot be seen: %s", ancestor, error)
            return None
        except OSError as error:
            failure = error
    raise failure or OSError(f"{path} cannot be looked at")


def _described(seen: CommitRecord | IntegrityError) -> str:
    if isinstance(seen, IntegrityError):
        return str(seen)
    if seen.state is State.ALIAS:
        return f"an alias for {seen.target!r}"
    if seen.state is State.COMMITTED:
        return f"committed by {seen.writer} at {when(seen.committed)}"
    if seen.state is State.DISCARDED:
        return f"given up or removed by {seen.writer}, and not yet cleaned up"
    return f"an attempt of {seen.writer}, begun at {when(seen.started)}, that has not committed"


async def foreign_below(storage: Storage, location: Location, record: CommitRecord) -> list[str]:
    """Return what is below a committed directory that neither its manifest nor an owner of its chain names.

    Other places, whole or under way, come first, each as its directory with a "/" after it. What was added to the
    directory (PENDING_PREFIX), and files that a local write has yet to finish, belong to it.

    Args:
        location: Where the directory is now, under its final name or, moved away, under any other.
    """
    ownership = Ownership.of(storage, location, record)
    listing = await storage.list(location.path, recursive=True)
    places = await ownership.places(listing)
    rest = [entry for entry in outside(listing, places) if not (is_unfinished(entry.name) or is_pending(entry.name))]
    verdicts = await _judged(storage, rest, ownership)
    foreign = [entry.name for entry, whose in zip(rest, verdicts, strict=True) if whose is Whose.FOREIGN]
    return [f"{place}/" for place in places] + foreign


async def _judged(storage: Storage, entries: Sequence[Entry], ownership: Ownership) -> list[Whose]:
    """Judge entries: one after the other on a disk, where that is a system call and no event loop may be there."""
    if storage.is_local or not entries:
        return [await ownership.judge(entry) for entry in entries]
    return await map_concurrently(entries, ownership.judge, at_once=_AT_ONCE)


async def listed(storage: Storage, directory: Location) -> list[Entry]:
    """List a whole tree on a disk, also one that is too deep for a path.

    What no path reaches is left out: no place can be there, since places are made by their path.
    """
    try:
        return await storage.list(directory.path, recursive=True)
    except ValidationError as error:
        _LOG.debug("%s is listed step by step: %s", directory, error)
    found: list[Entry] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            entries = await storage.list(f"{directory.path}/{prefix}".rstrip("/"), recursive=False)
        except ValidationError:
            if not prefix:
                raise
            continue  # too long for a path
        for entry in entries:
            name = prefix + entry.name
            if entry.kind == "directory":
                waiting.append(f"{name}/")
            else:
                found.append(replace(entry, name=name))
    return found


async def refuse_mounts(storage: Storage, directory: Location) -> None:
    """Raise an `OSError` with EBUSY if something is mounted below a directory that is to be moved away and deleted.

    Nothing is deleted across a mount. So that is seen before the directory loses the name by which its owner knows it.
    """
    if not storage.is_local:
        return
    for entry in await listed(storage, directory):
        if entry.kind == MOUNT_POINT:
            reason = (
                "something is mounted there, and nothing is moved or deleted across a mount: umount it, and try again"
            )
            raise OSError(errno.EBUSY, reason, directory.child(entry.name).path)
