"""What a manager does behind its caller: what is under way, what follows a commit, and what failed of it."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Coroutine

from atomicpath._cleaning import is_temporary
from atomicpath._commit.readers import Commit
from atomicpath._core.environment import current, use

from .lanes import REMOVALS, UPLOADS, Cancelled, Job, Lane
from .tiers import Follower, Tier

__all__ = ["Behind"]

_LOG = logging.getLogger("atomicpath")


class Behind:
    """The jobs of one manager. Each method may be called from any thread, and from a signal handler."""

    def __init__(self, store: Tier, local: Tier | None, *, removes: bool) -> None:
        """`removes` tells whether this process is the one that removes old saves."""
        self.size = 0
        """The bytes of the last save."""
        self.reason: BaseException | None = None
        """Why the store lacks something that the local tier has."""
        self._store = store
        self._local = local
        self._follower = Follower(local, store) if local is not None else None
        self._removes = removes
        self._environment = current()
        self._changed = threading.Condition()  # its lock is reentrant
        self._under_way = 0
        self._saves = itertools.count()
        self._commits: dict[int, tuple[int, Job[Commit]]] = {}  # unfinished commits, by save, with their steps
        self._queued: dict[str, Job[None]] = {}  # jobs that follow commits and have not begun
        self._errors: list[BaseException] = []  # errors of commits; the next call raises them
        self._untold: dict[str, BaseException] = {}  # errors of the jobs that follow commits; raised when somebody asks
        self._unretained = ""  # the reason logged last why old saves stay
        self._may_be_temporary = True

    def new_save(self, *, temporary: bool) -> int:
        """Return a number for a save that begins."""
        if temporary:
            self._may_be_temporary = True
        return next(self._saves)

    def add_commit(self, save: int, step: int, lane: Lane, job: Job[Commit]) -> None:
        """Add the commit of a save to a lane."""
        with self._changed:
            self._under_way += 1
            self._commits[save] = (step, job)
        lane.add(job)

    def commit_of(self, step: int) -> Job[Commit] | None:
        """Return the last commit of a step that has not ended, or None if there is none."""
        with self._changed:
            jobs = [job for saved, job in self._commits.values() if saved == step]
        return jobs[-1] if jobs else None

    def ended(self, save: int, commit: Commit | None, error: BaseException | None) -> None:
        """Note that a save has ended.

        The thread of the save's lane calls this, or the caller if it has added no job for the save.
        """
        with self._changed:
            in_the_background = self._commits.pop(save, None) is not None
            if error is not None and in_the_background and not isinstance(error, Cancelled):
                self._errors.append(error)
        if commit is not None:
            if commit.record is not None:
                self.size = sum(file.size for file in commit.record.files)
            copying = self.follow()
            if copying is None:
                self._retain()
            elif not in_the_background:
                copying.promise.exception()  # the promise keeps the error for callers who ask
        if in_the_background:
            self._less()

    def follow(self) -> Job[None] | None:
        """Copy to the store what it lacks, and then remove what no rule keeps. None without a local tier."""
        follower, local = self._follower, self._local
        if follower is None or local is None:
            return None

        async def main() -> None:
            self._begin("follow")
            await follower.follow()

        def settled(error: BaseException | None) -> None:
            was_behind, self.reason = self.reason, error
            self._note("follow", error)
            if error is not None:
                _LOG.warning(
                    "%s lacks commits of %s: %s. Saves go on, and the next one tries again to copy them",
                    self._store.root,
                    local.root,
                    error,
                )
            elif was_behind is not None:
                _LOG.info("%s has what %s has again", self._store.root, local.root)
            self._retain()

        return self._add("follow", UPLOADS, f"the copies to {self._store.root}", main, settled)

    def wait(self, timeout: float | None) -> bool:
        """Wait until nothing is under way; return whether that came about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._under_way == 0, timeout)

    def raise_error(self, consequence: str = "") -> None:
        """Raise the first error of a commit that was not raised yet, with what it means for the call that does."""
        with self._changed:
            error = self._errors.pop(0) if self._errors else None
        if error is not None:
            if consequence:
                error.add_note(f"This is the error of an earlier save in the background. {consequence}: save it again")
            raise error

    def raise_untold(self) -> None:
        """Raise what was not raised yet of what follows commits."""
        with self._changed:
            error = self._untold.pop(min(self._untold)) if self._untold else None
        if error is not None:
            raise error

    def _retain(self) -> None:
        """Remove what no rule keeps, behind everything else."""
        if not self._removes:
            return

        async def main() -> None:
            self._begin("retain")
            if self._local is not None and self._follower is not None:
                due = [commit.name for commit in await self._follower.due()]
                await self._local.retain(protect=due)
            if self._store.selection.rules.is_empty and not self._may_be_temporary:
                return
            self._may_be_temporary = False
            if any(is_temporary(one.commit) for one in await self._store.retain() if one.kept):
                self._may_be_temporary = True

        def settled(error: BaseException | None) -> None:
            if error is not None:
                self._may_be_temporary = True
                if str(error) != self._unretained:
                    _LOG.warning("old saves below %s stay: %s", self._store.root, error)
            self._unretained = "" if error is None else str(error)
            self._note("retain", error)

        self._add("retain", REMOVALS, f"the removals below {self._store.root}", main, settled)

    def _add(
        self,
        key: str,
        lane: Lane,
        what: str,
        main: Callable[[], Coroutine[object, object, None]],
        settled: Callable[[BaseException | None], None],
    ) -> Job[None]:
        """Add a job, unless the same waits already, which will see everything that this one would."""

        def ended(_: list[None], error: BaseException | None) -> None:
            with self._changed:
                if self._queued.get(key) is job:
                    del self._queued[key]  # it was cancelled
            try:
                settled(error)
            finally:
                self._less()

        with use(self._environment):
            job = Job(what, main, ended)
        with self._changed:
            if key in self._queued:
                return self._queued[key]
            self._queued[key] = job
            self._under_way += 1
        lane.add(job)
        return job

    def _begin(self, key: str) -> None:
        with self._changed:
            self._queued.pop(key, None)

    def _note(self, key: str, error: BaseException | None) -> None:
        with self._changed:
            self._untold.pop(key, None)
            if error is not None:
                self._untold[key] = error

    def _less(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()
