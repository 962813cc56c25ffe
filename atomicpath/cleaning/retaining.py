"""Which of the committed directories below a root stay: the newest, the protected, and always a complete one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence

from upath import UPath

from atomicpath.errors import ConflictError, NotCommittedError, ValidationError
from atomicpath.guarantees import NONE, Guarantee
from atomicpath.inspect import Commit, committed, is_complete
from atomicpath.location import Location, PathLike, locate

from .removing import remove

__all__ = ["keep_last"]

_LOG = logging.getLogger("atomicpath")


async def keep_last(
    root: Location, n: int, *, protect: Iterable[PathLike], guarantees: Guarantee = NONE
) -> list[Commit]:
    """Remove, oldest first, the committed directories below a root but the newest `n` and the protected; which went.

    Where names end in a step, they are the series: a `best` beside them is neither counted nor removed.
    Each goes only while a newer one is seen to be complete, so that the newest never goes, whoever else is at it.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValidationError(f"keep_last keeps at least one: n must be an integer of 1 or more, not {n!r}")
    if isinstance(protect, str | os.PathLike):
        raise ValidationError(f"protect is a list of names or URLs, not one: pass protect=[{os.fspath(protect)!r}]")
    names = {_name_of(root, one) for one in protect}
    found = await committed(root)
    found = [commit for commit in found if commit.step is not None] or found
    removed: list[Commit] = []
    for index, commit in enumerate(found[:-n]):
        if commit.name in names:
            continue
        if commit.record is None:
            _LOG.warning("%s was committed by another tool, and is not removed", root.child(commit.name))
            continue
        if not await _one_is_complete(root, found[index + 1 :]):
            _LOG.warning("%s is not removed: nothing newer is complete any more", root.child(commit.name))
            break
        try:
            await remove(root.child(commit.name), guarantees=guarantees)
        except NotCommittedError as error:
            _LOG.info("%s is not removed here: %s", root.child(commit.name), error)
            continue
        except ConflictError as error:
            _LOG.warning("%s is kept: %s", root.child(commit.name), error)
            continue
        removed.append(commit)
    return removed


async def _one_is_complete(root: Location, newer: Sequence[Commit]) -> bool:
    for commit in reversed(newer):
        if await is_complete(root.child(commit.name)):
            return True
    return False


def _name_of(root: Location, one: PathLike) -> str:
    """The name below the root that is meant; ValidationError for a place elsewhere, which would protect nothing."""
    if isinstance(one, str) and "/" not in one and one.strip():
        return one
    place = locate(one, root.storage_options if isinstance(one, UPath) or "://" in os.fspath(one) else None)
    if place.parent.place != root.place:
        raise ValidationError(f"protect names {place}, which is not right below {root}: pass names or URLs of what is")
    return place.name
