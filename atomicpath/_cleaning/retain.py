"""Which of the committed directories below a root stay: the newest, the protected, and always a complete one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from upath import UPath

from atomicpath._commit.readers import Commit, Survey, is_complete, survey
from atomicpath._core.step_order import DEFAULT, Order, moments
from atomicpath._profile.location import Location, PathLike, locate
from atomicpath.errors import (
    AtomicPathError,
    ConflictError,
    GuaranteeError,
    NotCommittedError,
    OutcomeUnknownError,
    ValidationError,
)
from atomicpath.guarantees import NONE, Guarantee

from .remove import remove

__all__ = ["keep_last"]

_LOG = logging.getLogger("atomicpath")


async def keep_last(
    root: Location,
    n: int,
    *,
    protect: Iterable[PathLike],
    order: Order = DEFAULT,
    guarantees: Guarantee = NONE,
) -> list[Commit]:
    """Remove, oldest first, the committed directories below a root but the newest `n` and the protected; which went.

    Where names tell a step, they are the series: a `best` beside them is neither counted nor removed. Of several series
    each keeps its own newest `n`: their steps say nothing about one another, and what is kept too long can still be
    removed. Each directory goes only while a newer one of its series is seen to be complete, so that the newest never
    goes, whoever else is at it. Nothing goes where the order itself is in doubt.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValidationError(f"keep_last keeps at least one: n must be an integer of 1 or more, not {n!r}")
    if isinstance(protect, str | bytes | os.PathLike | UPath):
        raise ValidationError(f"protect is a list of names or URLs, not one: pass protect=[{str(protect)!r}]")
    names = {_name_of(root, one) for one in protect}
    all_series = _series(await survey(root, order), root)
    names |= all_series.pointed_at
    for series in all_series.members:
        if order.rule is None:
            _expect_one_order(root, series, n, names)
    cleaner = _Cleaner(root, names, all_series.links, guarantees)
    for series in all_series.members:
        await cleaner.clean(series, n)
    if cleaner.failures and not cleaner.removed:
        raise cleaner.failures[0]
    return cleaner.removed


class _Series:
    """What is counted, by series; links, and what links in the root point at."""

    def __init__(self, members: list[list[Commit]], links: AbstractSet[str], pointed_at: AbstractSet[str]) -> None:
        self.members = members
        self.links = links
        self.pointed_at = pointed_at


def _series(found: Survey, root: Location) -> _Series:
    """The series to count. A link to another directory of the root is a second name for it: it counts for nothing."""
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
    return _Series(numbered, found.links, frozenset(second.values()))


def _expect_one_order(root: Location, series: Sequence[Commit], n: int, protected: AbstractSet[str]) -> None:
    """Refuse where a directory that would go may have been committed after one that would stay."""
    records = {commit.name: commit.record for commit in series}
    for times in (moments(records), moments(records, trust_later=True)):
        kept = [commit for commit in series[-n:] if commit.record is not None]
        if not kept:
            continue
        oldest = min(kept, key=lambda commit: times[commit.name])
        for commit in series[:-n]:
            if commit.record is None or commit.name in protected:
                continue
            if times[commit.name] > times[oldest.name]:
                by = "step" if commit.step is not None else "the clocks of their writers"
                raise ValidationError(
                    f"keep_last({n}) would remove {root.child(commit.name)} and keep {oldest.name}, by {by}; but"
                    f" {commit.name} may have been committed later than {oldest.name}: a run was rolled back, or a"
                    " clock was set. Nothing was removed. Pass step= (a pattern or a function of the name) to say"
                    f" which order counts, protect=[{commit.name!r}] to keep it, or prefix= to leave other runs out; or"
                    f" remove({oldest.name!r}) first, if it is of a run that was given up"
                )


class _Cleaner:
    """Removes what a series no longer needs, and remembers what went and what could not go."""

    def __init__(
        self, root: Location, protected: AbstractSet[str], links: AbstractSet[str], guarantees: Guarantee
    ) -> None:
        self._root = root
        self._protected = protected
        self._links = links
        self._guarantees = guarantees
        self.removed: list[Commit] = []
        self.failures: list[Exception] = []

    async def clean(self, series: Sequence[Commit], n: int) -> None:
        for index, commit in enumerate(series[:-n]):
            path = self._root.child(commit.name)
            if commit.name in self._protected:
                continue
            if commit.name in self._links:
                _LOG.warning("%s is a link, and is not removed: remove the link, and its target, yourself", path)
                continue
            if commit.record is None:
                _LOG.warning("%s was committed by another tool, and is not removed", path)
                continue
            if not await self._one_is_complete(series[index + 1 :]):
                _LOG.warning("%s is not removed: nothing newer is complete any more", path)
                break
            await self._remove(commit, path)

    async def _remove(self, commit: Commit, path: Location) -> None:
        removed: list[Commit] = []
        try:
            await remove(path, guarantees=self._guarantees, on_removed=lambda: removed.append(commit))
        except NotCommittedError as error:
            _LOG.info("%s is not removed here: %s", path, error)
        except ConflictError as error:
            what = "removed for readers, but something of it stays" if removed else "not removed"
            _LOG.warning("%s is %s: %s", path, what, error)
        except (GuaranteeError, OutcomeUnknownError):
            raise  # the first is the same for all of them, the second has to be looked at
        except (OSError, AtomicPathError) as error:
            error.add_note(f"keep_last could not remove {path}, or not wholly")
            _LOG.warning("%s is not removed: %s", path, error)
            self.failures.append(error)
            return
        self.removed += removed

    async def _one_is_complete(self, newer: Sequence[Commit]) -> bool:
        for commit in reversed(newer):
            try:
                if await is_complete(self._root.child(commit.name)):
                    return True
            except AtomicPathError as error:
                _LOG.warning("%s cannot be looked at any more: %s", self._root.child(commit.name), error)
        return False


def _name_of(root: Location, one: PathLike) -> str:
    """The name below the root that is meant; ValidationError for a place elsewhere, which would protect nothing."""
    if isinstance(one, str) and "/" not in one and one.strip():
        return one
    place = locate(one, root.storage_options)
    if place.parent.place != root.place:
        raise ValidationError(f"protect names {place}, which is not right below {root}: pass names or URLs of what is")
    return place.name
