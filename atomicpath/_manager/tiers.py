"""A root that a manager saves to, and how a fast local one follows up into a store."""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import SupportsFloat, SupportsIndex, cast

from atomicpath._cleaning import METRICS, TEMPORARY, Retained, Selection, retain
from atomicpath._commit.fetching import fetch_latest
from atomicpath._commit.options import CommitOptions, Exists
from atomicpath._commit.readers import Commit, committed, is_complete, latest
from atomicpath._commit.session import CommitSession, copy_and_commit
from atomicpath._core.record import JSONValue, check_metadata
from atomicpath._core.step_order import Order
from atomicpath._profile.location import Location, PathLike
from atomicpath._profile.storage_errors import reporting
from atomicpath.errors import AlreadyCommittedError, AtomicPathError, IntegrityError, ValidationError
from atomicpath.guarantees import NONE

__all__ = ["Follower", "Tier", "metadata_of", "step_number"]

_LASTING = (AlreadyCommittedError, IntegrityError, ValidationError)
_LOG = logging.getLogger("atomicpath")
_SOURCE = "atomicpath.source"
"""The key of the metadata that says, in a store, which commit of a local tier it is a copy of, and of when."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One root, what stays there, and how is committed there."""

    root: Location
    prefix: str
    selection: Selection
    protect: tuple[PathLike, ...]
    options: CommitOptions

    @property
    def order(self) -> Order:
        """Return the order of what the manager saves, and of nothing else: by the step."""
        return Order.of(None, self.prefix)

    def writing(self, name: str, metadata: Mapping[str, JSONValue], *, exists: Exists | None = None) -> CommitSession:
        """Return a commit that has not begun. No I/O. `exists` goes before what the manager was asked for."""
        place = self.root.child(name)
        with reporting("cannot begin to write {}", lambda: place):
            return CommitSession(
                str(place), replace(self.options, metadata=metadata, exists=exists or self.options.exists)
            )

    async def latest(self) -> Commit | None:
        """Return the newest complete commit."""
        with reporting("cannot find the latest below {}", lambda: self.root):
            return await latest(self.root, self.order)

    async def fetch(self, into: Path) -> Path | None:
        """A complete copy of the newest one below a directory of this host."""
        with reporting("cannot fetch the latest below {}", lambda: self.root):
            return await fetch_latest(self.root, into, self.order)

    async def committed(self) -> list[Commit]:
        """Return all complete commits, oldest first."""
        with reporting("cannot list what is committed below {}", lambda: self.root):
            return await committed(self.root, self.order)

    async def retain(
        self, *, by: Selection | None = None, protect: Iterable[PathLike] = (), dry_run: bool = False
    ) -> list[Retained]:
        """Remove what no rule keeps."""
        with reporting("cannot remove old directories below {}", lambda: self.root):
            done = await retain(
                self.root,
                by or self.selection,
                protect=(*self.protect, *protect),
                order=self.order,
                guarantees=self.options.guarantees or NONE,
                dry_run=dry_run,
            )
        return done.results


class Follower:
    """Copies what a local tier has and its store lacks, oldest first.

    What has to be copied is what the rules of the store would keep. What was copied in an earlier run is known by the
    store: its commits say when their originals were made, and copies are made in that order.
    """

    def __init__(self, local: Tier, store: Tier) -> None:
        self._local = local
        self._store = store
        self._there: set[str] | None = None  # names of local commits that the store has or had

    async def due(self) -> list[Commit]:
        """Return the commits that are still to be copied, oldest first."""
        try:
            looked_at = await self._local.retain(by=self._store.selection, protect=self._store.protect, dry_run=True)
            kept = [one.commit for one in looked_at if one.kept]
        except ValidationError as error:  # the rules cannot decide, so no commit is left out
            _LOG.debug("every commit of %s goes to the store: %s", self._local.root, error)
            kept = await self._local.committed()
        return [commit for commit in kept if commit.record is not None and commit.name not in (self._there or ())]

    async def follow(self) -> None:
        """Copy what is due.

        Raises:
            AtomicPathError: The store failed: the next call begins again where this one ended. Or something else is in
                the store by that name, or a commit of the local tier is damaged: then the others are copied first, and
                it is not tried again.
        """
        if self._there is None:
            self._there = await self._copied_before()
        failure: AtomicPathError | None = None
        for commit in await self.due():
            try:
                await self._copy(commit)
            except AtomicPathError as error:
                there = await is_complete(self._local.root.child(commit.name))
                if there and not isinstance(error, _LASTING):
                    raise
                failure = failure or (error if there else None)  # else no rule needs it any more, and it was removed
            self._there.add(commit.name)
        if failure is not None:
            raise failure

    async def _copied_before(self) -> set[str]:
        there = await self._store.committed()
        until = max((_made(commit) for commit in there), default=-1)
        return {commit.name for commit in await self._local.committed() if _made(commit) <= until}

    async def _copy(self, commit: Commit) -> None:
        record = commit.record
        assert record is not None  # noqa: S101 - for the type checkers
        source: dict[str, JSONValue] = {"token": record.token, "committed": record.committed}
        writing = self._store.writing(commit.name, {**record.metadata, _SOURCE: source}, exists="error")
        place = self._store.root.child(commit.name)
        try:
            with reporting("cannot commit a copy at {}", lambda: place):
                await copy_and_commit(Path(self._local.root.child(commit.name).path), writing)
        except AlreadyCommittedError as error:
            there = error.record.metadata.get(_SOURCE) if error.record is not None else None
            if not isinstance(there, dict) or there.get("token") != record.token:
                raise


def _made(commit: Commit) -> int:
    """Return when a commit was made, in nanoseconds of the clock there.

    For a copy in a store, that is when the local commit was made that it is a copy of.
    """
    if commit.record is None:
        return -1
    source = commit.record.metadata.get(_SOURCE)
    made = source.get("committed") if isinstance(source, dict) else commit.record.committed
    return made if isinstance(made, int) else -1


def step_number(step: SupportsIndex) -> int:
    """Return the step as a name can tell it; ValidationError if it cannot."""
    try:
        number = operator.index(step)
    except TypeError:
        number = -1
    if isinstance(step, bool) or number < 0:
        raise ValidationError(f"a step is an integer of 0 or more, not {step!r}")
    return number


def metadata_of(
    step: int,
    *,
    temporary: bool,
    metadata: Mapping[str, JSONValue] | None,
    metrics: Mapping[str, SupportsFloat] | None,
) -> dict[str, JSONValue]:
    """Return the metadata of a save.

    Raise ValidationError, before anything is written, if the metadata cannot be recorded.
    """
    found = check_metadata(metadata)
    reserved = [key for key in (TEMPORARY, _SOURCE) if key in found]
    if found.get("step", step) != step or reserved or (metrics is not None and METRICS in found):
        raise ValidationError(
            f"metadata= has {', '.join(reserved) or 'another step, or metrics'}, which the manager writes by itself:"
            " pass the step and metrics= as arguments"
        )
    found["step"] = step
    if metrics is not None:
        if not isinstance(metrics, Mapping):
            raise ValidationError(f"metrics= is a mapping from names to numbers, not {metrics!r}")
        found[METRICS] = {str(name): _number(str(name), value) for name, value in metrics.items()}
    if temporary:
        found[TEMPORARY] = True
    return found


def _number(name: str, value: object) -> JSONValue:
    """Return a metric as JSON holds it. NaN and the infinities, which JSON lacks, become their names."""
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        number = float(cast("SupportsFloat", value))
    except Exception as error:
        raise ValidationError(
            f"the metric {name!r} is no number: {value!r}. Pass a float, or anything that float() makes one of; nothing"
            " was saved"
        ) from error
    if number != number:
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(number, number)
