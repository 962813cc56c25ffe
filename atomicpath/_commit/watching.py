"""Waiting for new complete directories below a root, by looking again and again."""

from __future__ import annotations

import logging

from atomicpath._core.environment import current
from atomicpath._core.step_order import Order
from atomicpath._profile.location import Location
from atomicpath._profile.storage_errors import reporting
from atomicpath.errors import AccessError, NotCommittedError, ValidationError

from .completeness import Commit
from .readers import survey_new

__all__ = ["Watcher"]

_LOG = logging.getLogger("atomicpath")
_FIRST = 0.2  # seconds between the first two looks
_GROWTH = 1.5
_LONGEST_ON_A_DISK, _LONGEST_ON_A_STORE = 2.0, 15.0  # seconds between looks
_PATIENCE = 600.0  # seconds for which a storage may fail


class Watcher:
    """Finds what is new below a root, each directory once. For one consumer."""

    def __init__(self, root: Location, *, after: int | None, timeout: float | None, order: Order) -> None:
        if after is not None and (isinstance(after, bool) or not isinstance(after, int)):
            raise ValidationError(f"after= is a step, an integer, not {after!r}")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 0):
            raise ValidationError(f"timeout= is a number of seconds of zero or more, not {timeout!r}")
        self._root = root
        self._after = after
        self._timeout = timeout
        self._order = order
        self._environment = current()
        self._found: list[Commit] = []
        self._known: frozenset[str] = frozenset()
        self._failing_since: float | None = None
        self._level = logging.WARNING

    async def next(self) -> Commit | None:
        """Return the next commit, once it is there; None if nothing new came in time."""
        environment = self._environment
        ends = None if self._timeout is None else environment.monotonic() + self._timeout
        longest = _LONGEST_ON_A_DISK if self._root.open().is_local else _LONGEST_ON_A_STORE
        pause = _FIRST
        while not self._found:
            with reporting("cannot watch {}", lambda: self._root):
                await self._look()
            if self._found:
                break
            left = pause if ends is None else ends - environment.monotonic()
            if left <= 0:
                return None
            await environment.sleep(min(pause, left))
            pause = min(pause * _GROWTH, longest)
        return self._found.pop(0)

    async def _look(self) -> None:
        try:
            commits, names = await survey_new(self._root, self._order, self._known, level=self._level)
        except (AccessError, NotCommittedError):
            raise
        except OSError as error:
            self._bear(error)
            return
        self._failing_since = None
        self._level = logging.DEBUG  # what is incomplete is said once
        self._known = (self._known & names) | {commit.name for commit in commits}
        self._found += [commit for commit in commits if self._is_asked_for(commit)]

    def _is_asked_for(self, commit: Commit) -> bool:
        return self._after is None or (commit.step is not None and commit.step > self._after)

    def _bear(self, error: OSError) -> None:
        """Return if the error may pass, so that the caller looks again; raise an error that lasts."""
        now = self._environment.monotonic()
        self._level = logging.DEBUG
        if self._failing_since is None:
            self._failing_since = now
            _LOG.warning("%s cannot be looked at, and is looked at again: %s", self._root, error)
        elif now - self._failing_since > _PATIENCE:
            raise error
