"""Work behind the caller's back: ordered lanes of jobs, one thread each, that end before the interpreter does.

A lane's thread is a daemon and lives while there are jobs. One thread that is none, the keeper, waits for the end of
the main thread and then, for a bounded time, for the lanes; the interpreter joins it by itself. So everything here is
public: pools of `concurrent.futures` accept nothing once the main thread has ended, and wait without a bound.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeAlias, TypeVar

from atomicpath._core.concurrency import start_thread
from atomicpath._core.interruption import GIVING_UP, Interrupted
from atomicpath._core.runner import Worker
from atomicpath.errors import CommitError

__all__ = ["COMMITS", "REMOVALS", "UPLOADS", "Cancelled", "Job", "Lane", "Promise"]

T = TypeVar("T")
Settled: TypeAlias = Callable[[list[T], BaseException | None], None]
"""Called at the end of a job, in the lane's thread, before anybody who waits for it is told: with the result in a list,
or with an empty one and the error."""

_LOG = logging.getLogger("atomicpath")
PATIENCE_AT_EXIT = 600.0
"""Seconds for which the end of the interpreter waits for what is under way."""

_here = threading.local()
_QUIET = 1.0  # seconds of waiting before a message says so


class Promise(Future[T]):
    """A future that is of the process which made it: a forked child, where nobody works on it, is told so."""

    def __init__(self, what: str, *, can_be_cancelled: bool = True) -> None:
        super().__init__()
        self._what = what
        self._pid = os.getpid()
        self._can_be_cancelled = can_be_cancelled
        self.is_seen = False
        """Whether anybody has asked for the outcome since it was there."""

    def cancel(self) -> bool:
        """Cancel what has not begun; return True if it is cancelled."""
        return self._can_be_cancelled and super().cancel()

    def result(self, timeout: float | None = None) -> T:
        """Return the outcome, or raise its error; TimeoutError after `timeout` seconds."""
        self._expect_own()
        try:
            return super().result(timeout)
        finally:
            self.is_seen = self.is_seen or self.done()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, or None; TimeoutError after `timeout` seconds."""
        self._expect_own()
        try:
            return super().exception(timeout)
        finally:
            self.is_seen = self.is_seen or self.done()

    def _expect_own(self) -> None:
        if os.getpid() != self._pid:
            raise CommitError(f"{self._what} is the work of process {self._pid}: a forked child has no part in it")


class Cancelled(CommitError):  # noqa: N818 - what was asked for, not a mistake
    """It was cancelled by its caller, or when the interpreter ended."""


class Job(Generic[T]):
    """One coroutine to be run in a lane, and its outcome."""

    def __init__(
        self, what: str, main: Callable[[], Coroutine[object, object, T]], settled: Settled[T] | None = None
    ) -> None:
        """`settled` is called whatever becomes of the job, even if the job was cancelled before it began."""
        self.what = what
        self.promise: Promise[T] = Promise(what)
        self._settled = settled
        self._worker: Worker[T] | None = Worker(main, backend="asyncio", inline=True, ended=lambda: None)

    def interrupt(self) -> None:
        """Keep the job from beginning, or break it off at the next point where it may be; return at once."""
        if not self.promise.cancel() and (worker := self._worker) is not None:
            worker.interrupt()

    def run(self) -> None:
        """Run the job in the calling thread, to its end. Its outcome is told by the promise only."""
        worker, settled = self._worker, self._settled
        assert worker is not None  # noqa: S101 - for the type checkers
        cancelled = not self.promise.set_running_or_notify_cancel()
        if not cancelled:
            worker.run_here()
        value, error = worker.value, worker.error
        if cancelled or isinstance(error, Interrupted):
            error = Cancelled(f"{self.what} was cancelled, and nothing of it was committed")
        self._worker = self._settled = None  # release all that they refer to
        try:
            if settled is not None:
                settled(value, error)
        finally:
            if not cancelled:
                if error is not None:
                    self.promise.set_exception(error)
                else:
                    self.promise.set_result(value[0])


class Lane:
    """Jobs that are done one after another, in the order in which they came.

    A signal handler may add to it, and wait for it, whatever its thread was doing: the lock can be taken again, and
    nothing depends on what was begun before. A forked child finds it empty.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()  # its lock is reentrant
        self._jobs: deque[Job[Any]] = deque()
        self._current: Job[Any] | None = None
        self._running = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def add(self, job: Job[T]) -> None:
        """Add a job. At the end of the interpreter, when nobody would wait for it any more, wait for it here."""
        with self._changed:
            self._jobs.append(job)
            running = self._running
        _keeper.start()
        if not running and not start_thread(self._work, self._name):
            self._work()
        if not (threading.main_thread().is_alive() or getattr(_here, "works_in_a_lane", False)):
            self.wait(None)

    @property
    def pending(self) -> list[str]:
        """Return what is under way or waits, in order."""
        with self._changed:
            under_way = [self._current] if self._current is not None else []
            return [job.what for job in (*under_way, *self._jobs)]

    def wait(self, timeout: float | None) -> bool:
        """Wait until nothing is under way; return whether that came about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._running or self._jobs), timeout)

    def interrupt(self) -> None:
        """Drop what waits, and break off what is under way at the next point where it may be."""
        with self._changed:
            jobs = [*([self._current] if self._current is not None else []), *self._jobs]
        for job in jobs:
            job.interrupt()

    def _work(self) -> None:
        with self._changed:
            if self._running:
                return  # two were started for one job
            self._running = True
        _here.works_in_a_lane = True
        while (job := self._next()) is not None:
            try:
                job.run()
            except BaseException:  # noqa: BLE001 - logged; the lane goes on
                _LOG.exception("%s: a mistake in atomicpath", job.what)
            del job  # before anybody is told that there are no more
        _here.works_in_a_lane = False

    def _next(self) -> Job[Any] | None:
        with self._changed:
            self._current = self._jobs.popleft() if self._jobs else None
            if self._current is None:
                self._running = False
                self._changed.notify_all()
            return self._current

    def _forget(self) -> None:
        self._changed = threading.Condition()
        self._jobs.clear()
        self._current = None
        self._running = False


class _Keeper:
    """The thread for which the interpreter waits when it ends."""

    def __init__(self) -> None:
        self._started_in = 0
        self.is_waiting = False

    def start(self) -> None:
        """Start it, once in each process; at the end of the interpreter there is no need for it any more."""
        if self._started_in == os.getpid() or not threading.main_thread().is_alive():
            return
        self._started_in = os.getpid()
        try:
            threading.Thread(target=self._wait, name="atomicpath, at the end", daemon=False).start()
        except RuntimeError:
            self._started_in = 0

    def _wait(self) -> None:
        threading.main_thread().join()
        end = time.monotonic() + PATIENCE_AT_EXIT
        lanes = (COMMITS, UPLOADS, REMOVALS)  # each may add to those after it
        if all(lane.wait(_QUIET) for lane in lanes):
            return
        left = [what for lane in lanes for what in lane.pending]
        self.is_waiting = True
        _LOG.warning(
            "the interpreter ends once this has ended, at most %.0f s from now; Ctrl-C ends it at once: %s",
            PATIENCE_AT_EXIT,
            "; ".join(left),
        )
        if all(lane.wait(max(0.0, end - time.monotonic())) for lane in lanes):
            return
        left = [what for lane in lanes for what in lane.pending]
        _LOG.error("the interpreter does not wait any longer; this is given up: %s", "; ".join(left))
        for lane in lanes:
            lane.interrupt()
        for lane in lanes:
            lane.wait(GIVING_UP)


_keeper = _Keeper()

COMMITS = Lane("atomicpath, commits in the background")
"""Every commit in the background of this process, in order."""

UPLOADS = Lane("atomicpath, copies from a local tier to its store")
"""What is committed on this host and goes to a store: no commit waits for a slow network."""

REMOVALS = Lane("atomicpath, removals in the background")
"""Retention and the deletes of it: a lane of its own, so that no commit waits for them."""
