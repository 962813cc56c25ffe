"""Retention below a root: decide by the rules, and remove what no rule keeps, but never the last complete one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeAlias

from upath import UPath

from atomicpath._commit.readers import Commit, Survey, is_complete, survey
from atomicpath._core.record import JSONValue
from atomicpath._core.step_order import DEFAULT, Moment, Order, moments
from atomicpath._profile.location import Location, PathLike, name_in
from atomicpath._strategies.aliases import aliases_of
from atomicpath.errors import (
    AtomicPathError,
    ConflictError,
    GuaranteeError,
    NotCommittedError,
    OutcomeUnknownError,
    ValidationError,
)
from atomicpath.guarantees import NONE, Guarantee

from .policies import Candidate, Mode, Rules, decide
from .removal import remove

__all__ = ["METRICS", "TEMPORARY", "Metric", "Retained", "Selection", "Wanted", "is_temporary", "keep_last", "retain"]

_LOG = logging.getLogger("atomicpath")

METRICS = "metrics"
"""The key of the metadata under which the metrics of a commit are, by name."""

TEMPORARY = "atomicpath.temporary"
"""The key of the metadata that is True in a commit which the next one supersedes."""

Metric: TypeAlias = str | Callable[[Commit], float | None]
"""How a commit tells the value of a metric: by a name in its metadata, or a function of the commit."""

Wanted: TypeAlias = Callable[[Commit], bool]
"""A function that says whether a commit is to stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """One complete directory that retention has looked at.

    Attributes:
        commit: The directory, as it was before.
        kept: Whether it stays; of one that could not be removed, too.
        reason: Why it stays or goes, in words.
    """

    commit: Commit
    kept: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.commit.name}: {'kept' if self.kept else 'removed'}; {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a caller asks to keep: the rules, and what they take from a commit by the caller's own means."""

    rules: Rules
    metric: Metric | None = None
    wanted: Wanted | None = None

    @classmethod
    def of(
        cls,
        *,
        keep_last: int | None,
        keep_every_n_steps: int | None,
        keep_every: timedelta | None,
        keep_within: timedelta | None,
        keep_best: int | None,
        metric: Metric | None,
        mode: Mode,
        keep: Wanted | None,
    ) -> Selection:
        """Make a selection from the caller's arguments.

        Raise ValidationError if they cannot be used.
        """
        if not (metric is None or isinstance(metric, str) or callable(metric)):
            raise ValidationError(f"metric= is a name in the metadata, or a function of the commit, not {metric!r}")
        if not (keep is None or callable(keep)):
            raise ValidationError(f"keep= is a function of the commit that returns True or False, not {keep!r}")
        rules = Rules(
            keep_last=keep_last,
            keep_every_n_steps=keep_every_n_steps,
            keep_every=keep_every,
            keep_within=keep_within,
            keep_best=keep_best,
            metric=metric if metric is None or isinstance(metric, str) else getattr(metric, "__name__", "metric"),
            mode=mode,
            by_function=keep is not None,
        )
        return cls(rules=rules, metric=metric, wanted=keep)

    def value(self, commit: Commit) -> float | None:
        """Return the metric of a commit; None if it has none."""
        if self.metric is None:
            return None
        if isinstance(self.metric, str):
            return _noted(commit.record.metadata if commit.record else {}, self.metric)
        found = _asked(self.metric, commit, "metric=")
        if found is None or (isinstance(found, int | float) and not isinstance(found, bool)):
            return found
        raise ValidationError(f"metric= returned {found!r} for {commit.name}: return a float, or None without one")

    def wants(self, commit: Commit) -> bool:
        """Tell whether the caller's own function keeps a commit."""
        if self.wanted is None:
            return False
        found = _asked(self.wanted, commit, "keep=")
        if not isinstance(found, bool):
            raise ValidationError(f"keep= returned {found!r} for {commit.name}: return True to keep it, else False")
        return found


@dataclass(slots=True, kw_only=True)
class Retention:
    """What came of one call: each directory with its reason, oldest first; and which of them this very call removed."""

    results: list[Retained] = field(default_factory=list)
    removed: list[Commit] = field(default_factory=list)


async def keep_last(
    root: Location,
    n: int | None,
    *,
    protect: Iterable[PathLike],
    order: Order = DEFAULT,
    guarantees: Guarantee = NONE,
) -> list[Commit]:
    """Keep the newest `n` by the one rule of that name; return what this very call removed."""
    if n is None:
        raise ValidationError("keep_last keeps at least one: n must be an integer of 1 or more, not None")
    selection = Selection(rules=Rules(keep_last=n))
    return (await retain(root, selection, protect=protect, order=order, guarantees=guarantees)).removed


async def retain(
    root: Location,
    selection: Selection,
    *,
    protect: Iterable[PathLike],
    order: Order = DEFAULT,
    guarantees: Guarantee = NONE,
    dry_run: bool = False,
) -> Retention:
    """Remove, oldest first, the committed directories below a root that neither a rule nor a protection keeps.

    Where names tell a step, they are the series: a `best` beside them is neither counted nor removed. The rules hold
    for each of several series by itself: their steps say nothing about one another, and what is kept too long can still
    be removed. Each directory is removed only while a newer one of its series is seen to be complete, so the newest is
    never removed, whatever other processes do. Nothing is removed where the order itself is in doubt.
    """
    if isinstance(protect, str | bytes | os.PathLike | UPath):
        raise ValidationError(f"protect is a list of names or URLs, not one: pass protect=[{str(protect)!r}]")
    names = {name_in(root, one, "protect") for one in protect}
    found = await survey(root, order)
    all_series = _series(found, root)
    pointed_at = all_series.pointed_at | frozenset((await aliases_of(root.open(), root)).values())
    decided = {
        commit.name: Retained(commit=commit, kept=True, reason="its name tells no step, as those of the others do")
        for commit in found.commits
    } | {
        commit.name: Retained(commit=commit, kept=True, reason="it is a link to a directory of the same root")
        for commit in all_series.second_names
    }
    for series in all_series.members:
        for one in _decided(root, series, selection, names, pointed_at, order):
            decided[one.commit.name] = one
    cleaner = _Cleaner(root, all_series.links, guarantees, dry_run=dry_run)
    for series in all_series.members:
        await cleaner.clean(series, decided)
    if cleaner.failures and not cleaner.removed:
        raise cleaner.failures[0]
    return Retention(results=[decided[commit.name] for commit in found.commits], removed=cleaner.removed)


def is_temporary(commit: Commit) -> bool:
    """Tell whether the next commit supersedes this one."""
    return commit.record is not None and commit.record.metadata.get(TEMPORARY) is True


def _noted(metadata: Mapping[str, JSONValue], name: str) -> float | None:
    """Return a number in the metadata of a commit, or None.

    JSON has no numbers for NaN and infinity, so their names in a text count as numbers.
    """
    metrics = metadata.get(METRICS)
    value = metrics[name] if isinstance(metrics, dict) and name in metrics else metadata.get(name)
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer that no float can hold
        return None


def _asked(function: Callable[[Commit], object], commit: Commit, argument: str) -> object:
    try:
        return function(commit)
    except Exception as error:
        raise ValidationError(
            f"{argument} failed for {commit.name} ({type(error).__name__}: {error}). Nothing was removed"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """What is counted, by series; links, which of them are second names, and what those lead to."""

    members: list[list[Commit]]
    links: AbstractSet[str]
    second_names: list[Commit]
    pointed_at: AbstractSet[str]


def _series(found: Survey, root: Location) -> _Series:
    """Return the series to count.

    A link to another directory of the root is a second name for that directory, so it counts for nothing.
    """
    tokens = {
        commit.record.token: commit.name for commit in found.commits if commit.record and commit.name not in found.links
    }
    second = {
        commit.name: tokens[commit.record.token]
        for commit in found.commits
        if commit.name in found.links and commit.record and commit.record.token in tokens
    }
    for name, target in second.items():
        _LOG.info("%s stays, since the link %s leads to the same commit", root.child(target), name)
    everything = {
        key: [commit for commit in series if commit.name not in second] for key, series in found.series.items()
    }
    numbered = [series for key, series in everything.items() if key is not None and series]
    if not numbered:
        rest = everything.get(None, [])
        numbered = [[commit for commit in rest if commit.step is not None] or rest]
    return _Series(
        members=numbered,
        links=found.links,
        second_names=[commit for commit in found.commits if commit.name in second],
        pointed_at=frozenset(second.values()),
    )


def _decided(
    root: Location,
    series: Sequence[Commit],
    selection: Selection,
    protected: AbstractSet[str],
    pointed_at: AbstractSet[str],
    order: Order,
) -> list[Retained]:
    """Decide what the rules say of one series, and what no rule may remove."""
    records = {commit.name: commit.record for commit in series}
    times = [moments(records), moments(records, trust_later=True)]
    candidates = [
        Candidate(
            name=commit.name,
            step=commit.step,
            time=times[0][commit.name][0] if commit.record is not None else None,
            metric=selection.value(commit),
            is_wanted=selection.wants(commit),
            is_pinned=commit.name in protected,
            is_alias_target=commit.name in pointed_at,
            is_temporary=is_temporary(commit),
        )
        for commit in series
    ]
    if order.rule is None:
        going = {one.name for one in decide(candidates, selection.rules) if not one.kept}
        for when in times:
            _expect_one_order(root, series, selection.rules.keep_last or 1, going, when)
        last = {max(when, key=lambda name: when[name]) for when in times if when}
        candidates = [replace(one, is_last_committed=one.name in last) for one in candidates]
    by_name = {commit.name: commit for commit in series}
    return [
        Retained(commit=by_name[one.name], kept=one.kept, reason=one.reason)
        for one in decide(candidates, selection.rules)
    ]


def _expect_one_order(
    root: Location, series: Sequence[Commit], n: int, going: AbstractSet[str], times: Mapping[str, Moment]
) -> None:
    """Raise an error if a directory to remove may be newer than one of the newest `n`, which would stay."""
    kept = [commit for commit in series[-n:] if commit.record is not None]
    if not kept:
        return
    oldest = min(kept, key=lambda commit: times[commit.name])
    for commit in series[:-n]:
        if commit.record is None or commit.name not in going:
            continue
        if times[commit.name] > times[oldest.name]:
            by = "step" if commit.step is not None else "the clocks of their writers"
            raise ValidationError(
                f"{root.child(commit.name)} would be removed and {oldest.name} kept, by {by}; but {commit.name} may"
                f" have been committed later than {oldest.name}: a run was rolled back, or a clock was set. Nothing was"
                " removed. Pass step= (a pattern or a function of the name) to say which order counts,"
                f" protect=[{commit.name!r}] to keep it, or prefix= to leave other runs out; or"
                f" remove({oldest.name!r}) first, if it is of a run that was given up"
            )


class _Cleaner:
    """Removes what a series no longer needs, and remembers what went and what could not go."""

    def __init__(self, root: Location, links: AbstractSet[str], guarantees: Guarantee, *, dry_run: bool) -> None:
        self._root = root
        self._links = links
        self._guarantees = guarantees
        self._dry_run = dry_run
        self.removed: list[Commit] = []
        self.failures: list[Exception] = []

    async def clean(self, series: Sequence[Commit], decided: dict[str, Retained]) -> None:
        """Remove what is not kept.

        What stays all the same gets its reason in `decided`.
        """
        for index, commit in enumerate(series):
            if decided[commit.name].kept:
                continue
            stays = await self._why_it_stays(commit, series[index + 1 :])
            if stays is None and not self._dry_run:
                stays = await self._remove(commit)
            if stays is not None:
                decided[commit.name] = Retained(commit=commit, kept=True, reason=stays)

    async def _why_it_stays(self, commit: Commit, newer: Sequence[Commit]) -> str | None:
        """Return why a commit stays whatever the rules say; None if it may go."""
        path = self._root.child(commit.name)
        if commit.name in self._links:
            _LOG.warning("%s is a link, and is not removed: remove the link, and its target, yourself", path)
            return "it is a link: remove the link, and its target, yourself"
        if commit.record is None:
            _LOG.warning("%s was committed by another tool, and is not removed", path)
            return "another tool committed it"
        if not await self._one_is_complete(newer):
            _LOG.warning("%s is not removed: nothing newer is complete any more", path)
            return "nothing newer is complete any more"
        return None

    async def _remove(self, commit: Commit) -> str | None:
        """Remove one commit; return why it is not removed, if it is not."""
        path = self._root.child(commit.name)
        removed: list[Commit] = []
        try:
            await remove(path, guarantees=self._guarantees, on_removed=lambda: removed.append(commit))
        except NotCommittedError as error:
            _LOG.info("%s is not removed here: %s", path, error)
        except ConflictError as error:
            what = "removed for readers, but something of it stays" if removed else "not removed"
            _LOG.warning("%s is %s: %s", path, what, error)
            if not removed:
                return f"it could not be removed: {error}"
        except (GuaranteeError, OutcomeUnknownError):
            raise  # the first is the same for all of them, the second has to be looked at
        except (OSError, AtomicPathError) as error:
            error.add_note(f"retention could not remove {path}, or not wholly")
            _LOG.warning("%s is not removed: %s", path, error)
            self.failures.append(error)
            return f"it could not be removed: {error}"
        self.removed += removed
        return None

    async def _one_is_complete(self, newer: Sequence[Commit]) -> bool:
        for commit in reversed(newer):
            try:
                if await is_complete(self._root.child(commit.name)):
                    return True
            except AtomicPathError as error:
                _LOG.warning("%s cannot be looked at any more: %s", self._root.child(commit.name), error)
        return False
