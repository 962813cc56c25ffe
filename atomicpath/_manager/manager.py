"""The checkpoint manager: saves of one training run, what of them stays, and where to resume."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Literal, Self, SupportsFloat, SupportsIndex, TypeVar

from upath import UPath

from atomicpath._cleaning import TEMPORARY, Metric, Mode, Retained, Rules, Selection, Wanted
from atomicpath._commit.options import CommitOptions
from atomicpath._commit.readers import Commit
from atomicpath._commit.session import CommitSession, expect_room_at
from atomicpath._commit.staging import Staging
from atomicpath._core.environment import current, use
from atomicpath._core.interruption import GIVING_UP
from atomicpath._core.record import JSONValue
from atomicpath._core.runner import run
from atomicpath._profile.location import PathLike, local_directory, locate
from atomicpath.abc import Coordinator, FileOptions, TemporaryPath
from atomicpath.coordinators.options import MultiprocessingOptions
from atomicpath.coordinators.process_group import ProcessGroup
from atomicpath.errors import AtomicPathError, CommitError, ValidationError
from atomicpath.guarantees import Guarantee
from atomicpath.sync import get, is_committed, read_record

from .lanes import COMMITS, REMOVALS, UPLOADS, Cancelled, Job, Lane
from .saves import AttemptSave, Save, StagedSave
from .tiers import Follower, Tier, metadata_of, step_number

__all__ = ["CheckpointManager"]

T = TypeVar("T")

_LOG = logging.getLogger("atomicpath")
_open: weakref.WeakValueDictionary[tuple[int, str], CheckpointManager] = weakref.WeakValueDictionary()
"""The managers of each process by the places that they save to."""


class CheckpointManager:
    """Save the checkpoints of one run below a root, keep those that rules name, and find where to resume.

        with atomicpath.CheckpointManager("s3://bucket/run", keep_last=3, background=True) as manager:
            newest = manager.latest()
            for step in range(newest.step + 1 if newest else 0, 1000):
                ...
                with manager.save(step) as path:
                    torch.save(model.state_dict(), path / "model.pt")

    A save is the directory `step_<step>`, one commit: readers see all of it or nothing. Old saves are removed behind
    the commits, by a thread of their own, and never the newest complete one; `retain` says what the rules mean.

    With `background=True` a block ends once its files are written, on this host; the commit goes on in a thread. Those
    of a process are made one after another, in the order of the blocks. Whatever the files were made from may be
    changed once the block has ended; the files may not. An error is logged, and raised by the next `save`, before
    anything of that is begun, or by `check`, `wait` or `close`.

    With `local=` a save is first committed on a disk of this host, and then copied to the root, by a thread of its own.
    While the store fails, saves go on: `check`, `wait` and `close` raise its error, and each save, a restarted process
    too, tries again to copy what the store lacks, oldest first. A save that finds no room on the disk, or no disk,
    goes to the store at once. If the disk is lost, the run resumes from the store.

    One process has one manager of a root at a time. Managers of several processes are as safe as several writers:
    of two that save one step one is told that it is committed. In a job of several processes pass `coordinator=`, and
    call the same methods in the same order in all of them: then `background` and `local` are refused.
    """

    def __init__(
        self,
        root: PathLike,
        *,
        keep_last: int | None = None,
        keep_every_n_steps: int | None = None,
        keep_every: timedelta | None = None,
        keep_within: timedelta | None = None,
        keep_best: int | None = None,
        metric: Metric | None = None,
        mode: Mode = "min",
        keep: Wanted | None = None,
        protect: Iterable[PathLike] = (),
        prefix: str = "step_",
        background: bool = False,
        local: PathLike | None = None,
        local_keep_last: int = 1,
        storage_options: Mapping[str, object] | None = None,
        temporary_path_class: type[TemporaryPath] | None = None,
        exists: Literal["error", "keep"] = "error",
        durable: bool = True,
        coordinator: Coordinator | Literal["auto"] | None = None,
        file_options: FileOptions | None = None,
        checksums: bool = False,
        staging_dir: PathLike | None = None,
        guarantees: Guarantee | None = None,
        unsafe_takeover: bool = False,
        marker: str | EllipsisType | None = ...,
    ) -> None:
        """Open a root. It is not looked at yet, but with `local=` the copying of what the store lacks begins.

        Args:
            root: The directory that holds the saves: a URL, a path or a UPath.
            keep_last: As for `retain`, and so are the rules that follow. Without any rule everything stays, but for
                temporary saves that were superseded.
            keep_every_n_steps: Those stay whose step is a multiple of it.
            keep_every: One stays for each such time.
            keep_within: Those stay that were committed at most so long before the newest one.
            keep_best: The best so many by `metric` stay.
            metric: A name in the `metrics` of the saves, or a function of the `Commit`.
            mode: Whether the least ("min") or the greatest ("max") value is the best.
            keep: A function of the `Commit` that returns True for what stays; called in another thread.
            protect: Names below the root, or URLs, that stay besides.
            prefix: What names begin with, before the step. Whatever else is in the root is left alone.
            background: Commit in a thread, and let the caller go on.
            local: A directory on a fast disk of this host, to commit to first.
            local_keep_last: How many saves stay there, beside those that the store still lacks.
            storage_options: For the file system behind the URL. No message shows them.
            temporary_path_class: The strategy at the root; left out, it follows from what the location guarantees.
            exists: Whether a step that is saved already is an AlreadyCommittedError, or what was saved before is kept.
            durable: Sync files, directories and the final name on a file system of this host.
            coordinator: Which processes save together, as for `commit`.
            file_options: The mode of the directories.
            checksums: Add the SHA-256 of every file to the records.
            staging_dir: Where the staging directories for a store are made, as for `commit`.
            guarantees: What you know of the root, which is added to what is known of it.
            unsafe_takeover: As for `commit`.
            marker: As for `commit`.

        Raises:
            ValidationError: An argument cannot be used, or this process has a manager of that root already.
            BackendError: No backend serves the URL.
        """
        self._pid = os.getpid()
        self._environment = current()
        self._background = background
        self._is_closed = False
        self._changed = threading.Condition()
        self._under_way = 0
        self._saves = itertools.count()
        self._jobs: dict[int, tuple[int, Job[Commit]]] = {}  # which commits have not ended: by save, with their steps
        self._queued: dict[str, Job[None]] = {}  # what follows commits and has not begun
        self._errors: list[BaseException] = []  # of commits: raised by whatever is called next
        self._behind: BaseException | None = None  # why the store lacks something that the local tier has
        self._unretained = ""  # why old saves stay
        self._untold: dict[str, BaseException] = {}  # what `check` has to raise of these two
        self._size = 0  # bytes of the last save
        self._may_be_temporary = True

        place = locate(root, storage_options)
        options = CommitOptions(
            storage_options=storage_options,
            temporary_path_class=temporary_path_class,
            exists=exists,
            durable=durable,
            coordinator=coordinator,
            file_options=file_options,
            checksums=checksums,
            staging_dir=staging_dir,
            guarantees=guarantees,
            unsafe_takeover=unsafe_takeover,
            marker=marker,
        )
        if isinstance(protect, str | bytes | os.PathLike | UPath):
            raise ValidationError(f"protect is a list of names or URLs, not one: pass protect=[{str(protect)!r}]")
        selection = Selection.of(
            keep_last=keep_last,
            keep_every_n_steps=keep_every_n_steps,
            keep_every=keep_every,
            keep_within=keep_within,
            keep_best=keep_best,
            metric=metric,
            mode=mode,
            keep=keep,
        )
        self._group = ProcessGroup(MultiprocessingOptions(coordinator=coordinator))
        if not self._group.is_alone and (background or local is not None):
            raise ValidationError(
                "background= and local= are for one process: in a job of several the order of the commits would not be"
                " the same in all of them. Leave them out, or have one process save with coordinator=SingleProcess()"
            )
        if not prefix:
            raise ValidationError(
                "prefix= needs a text, such as 'step_': by it the manager knows its saves in the root"
            )
        self._store = Tier(root=place, prefix=prefix, selection=selection, protect=tuple(protect), options=options)
        _ = self._store.order  # refuses a prefix that cannot be used
        self._prefix = prefix
        self._local: Tier | None = None
        self._follower: Follower | None = None
        if local is not None:
            disk = locate(local_directory(local, "local"))
            if disk.identity == place.identity:
                raise ValidationError(f"local= is the root itself, {place}: pass a directory on another disk")
            self._local = Tier(
                root=disk,
                prefix=prefix,
                selection=Selection(rules=Rules(keep_last=local_keep_last)),
                protect=(),
                options=CommitOptions(
                    coordinator=coordinator,
                    exists=exists,
                    durable=durable,
                    file_options=file_options,
                    checksums=checksums,
                ),
            )
            self._follower = Follower(self._local, self._store)
        self._places = [tier.root.identity for tier in (self._store, self._local) if tier is not None]
        for one in self._places:
            if (self._pid, one) in _open:
                raise ValidationError(
                    f"this process has a manager of {place} already, or of its local tier: close() that one first"
                )
        for one in self._places:
            _open[self._pid, one] = self
        if self._follower is not None:
            self._follow()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._store.root}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. An error of the block is what is raised, and those of saves are in the log."""
        try:
            self.close()
        except AtomicPathError:
            if error is None:
                raise

    @contextmanager
    def save(
        self,
        step: SupportsIndex,
        *,
        temporary: bool = False,
        metadata: Mapping[str, JSONValue] | None = None,
        metrics: Mapping[str, SupportsFloat] | None = None,
    ) -> Iterator[Path | UPath]:
        """Save a step: enter the result with `with`, and write in the directory that it gives.

        If the block raises, nothing of the save is visible, then or later.

        Args:
            step: The step, an integer of 0 or more.
            temporary: The next save supersedes it, whatever the rules say: for a save before an expected interruption.
            metadata: JSON that travels in the record, beside `step`.
            metrics: Numbers by name, for `keep_best`; anything that `float()` takes. They are `metadata["metrics"]`.

        Returns:
            A context manager that gives the directory.

        Raises:
            ValidationError: An argument cannot be used. Nothing was begun.
            AlreadyCommittedError: The step is saved already. With `background` it is raised by the next call.
            AtomicPathError: This save failed; or an earlier one in the background did, and nothing of this was begun.
        """
        number = step_number(step)
        noted = metadata_of(number, temporary=temporary, metadata=metadata, metrics=metrics)
        self._expect_own()
        self._raise_first(self._errors, f"step {number} was not saved")
        if temporary:
            self._may_be_temporary = True
        save, path = self._entered(number, noted)
        try:
            yield path
        except BaseException as error:
            save.__exit__(type(error), error, error.__traceback__)
            raise
        save.__exit__(None, None, None)

    def latest(self) -> Commit | None:
        """Find the newest complete save, in the store or in the local tier. In the latter, if both have it.

        A save that is committed meanwhile may be the answer or not.

        Returns:
            It; None if there is none.

        Raises:
            StorageError: The store failed or did not answer. What the local tier has may not be the newest, so that it
                is no answer; `atomicpath.latest(local)` asks for that alone.
        """
        self._expect_own(closed=True)
        there = run(self._store.latest)
        if self._local is None:
            return there
        try:
            here = run(self._local.latest)
        except AtomicPathError as error:
            _LOG.warning("the local tier %s is left out: %s", self._local.root, error)
            return there
        if here is None or (there is not None and (there.step or 0) > (here.step or 0)):
            return there
        return here

    def fetch(self, into: PathLike) -> Path | None:
        """Have a complete local copy of the newest save, below a directory of this host.

        A second call, in whichever process of the host, gives the same path for the same save. What is in the
        directory beside it stays there.

        Args:
            into: The directory for the copies.

        Returns:
            The copy; None if nothing is saved.

        Raises:
            AtomicPathError: As for `latest` and `get`.
        """
        newest = self.latest()
        if newest is None:
            return None
        copy = local_directory(into, "into") / newest.name
        if _is_copy(copy, newest):
            return copy
        try:
            return get(newest.path, copy)
        except CommitError:
            if _is_copy(copy, newest):  # another process of this host was faster
                return copy
            raise

    def cancel(self, step: SupportsIndex) -> bool:
        """Give up a save in the background that is not committed yet.

        Returns:
            True if it was given up, so that nothing of it is or will be visible. False if it is committed, or there is
            no such save, or it could not be broken off in time.
        """
        self._expect_own()
        with self._changed:
            jobs = [job for saved, job in self._jobs.values() if saved == step_number(step)]
        if not jobs:
            return False
        job = jobs[-1]
        job.interrupt()
        try:
            return isinstance(job.promise.exception(timeout=2 * GIVING_UP), Cancelled)
        except CancelledError:
            return True
        except TimeoutError:
            return False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything is committed, copied to the store, and removed, that was begun before.

        Args:
            timeout: At most so many seconds; by default until the storage answers or has failed.

        Returns:
            True; False if it took longer than `timeout`.

        Raises:
            AtomicPathError: Something of it failed, as `check` says.
        """
        self._expect_own()
        with self._changed:
            ended = self._changed.wait_for(lambda: self._under_way == 0, timeout)
        if ended:
            self.check()
        return ended

    def check(self) -> None:
        """Raise, once, the first error of what was done in the background and that no call has raised yet. No I/O.

        Raises:
            AtomicPathError: A commit failed; or the store still lacks what the local tier has; or nothing could be
                removed, which only this and `wait` raise.
        """
        self._expect_own(closed=True)
        self._raise_first(self._errors, "")
        with self._changed:
            error = self._untold.pop(min(self._untold)) if self._untold else None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait for everything that was begun, and let another manager have the root. A second call does nothing.

        With `local=` it is tried once more to copy what the store lacks.

        Raises:
            AtomicPathError: The first error that no call has raised. All is logged, and the manager is closed.
        """
        self._expect_own(closed=True)
        if self._is_closed:
            return
        if self._behind is not None:
            self._follow()
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 0)
        self._is_closed = True
        for place in self._places:
            if _open.get((self._pid, place)) is self:
                del _open[self._pid, place]
        self._raise_first(self._errors, "")
        if self._behind is not None:
            raise self._behind

    # a save

    def _entered(self, step: int, metadata: Mapping[str, JSONValue]) -> tuple[Save, Path | UPath]:
        name = f"{self._prefix}{step}"
        this = next(self._saves)
        done = functools.partial(self._ended, this)
        if self._local is not None:
            try:
                run(functools.partial(expect_room_at, self._local.root.child(name), self._size))
                save = self._attempt((this, step), self._local.writing(name, metadata), done)
                return save, save.__enter__()
            except ValidationError as error:
                _LOG.warning("step %d goes to %s at once: %s", step, self._store.root, error)
            except OSError as error:
                if isinstance(error, CommitError):
                    raise
                _LOG.warning(
                    "step %d goes to %s at once: the local tier %s cannot be used: %s",
                    step,
                    self._store.root,
                    self._local.root,
                    error,
                )
        writing = self._store.writing(name, metadata)
        if self._background and not self._store.root.open().is_local:
            staging = Staging(current(), self._store.options.staging_dir)
            lane = COMMITS if self._local is None else UPLOADS  # behind the copies of earlier ones
            save = StagedSave(writing, done, functools.partial(self._add_commit, (this, step), lane), staging)
        else:
            save = self._attempt((this, step), writing, done)
        return save, save.__enter__()

    def _attempt(self, this: tuple[int, int], writing: CommitSession, done: Callable[..., None]) -> Save:
        lane = functools.partial(self._add_commit, this, COMMITS) if self._background else None
        return AttemptSave(writing, done, lane)

    def _add_commit(self, this: tuple[int, int], lane: Lane, job: Job[Commit]) -> None:
        save, step = this
        with self._changed:
            self._under_way += 1
            self._jobs[save] = (step, job)
        lane.add(job)

    def _ended(self, save: int, commit: Commit | None, error: BaseException | None) -> None:
        """Called in the thread of the lane, or in that of the caller, who has begun no job."""
        with self._changed:
            in_the_background = self._jobs.pop(save, None) is not None
            if error is not None and in_the_background and not isinstance(error, Cancelled):
                self._errors.append(error)
        if commit is not None:
            if commit.record is not None:
                self._size = sum(file.size for file in commit.record.files)
            if self._follower is not None:
                copying = self._follow()
                if not in_the_background:
                    copying.promise.exception()  # which is kept for `check`
            else:
                self._retain()
        if in_the_background:
            self._less()

    # what follows a commit

    def _follow(self) -> Job[None]:
        """Copy to the store what it lacks, and remove afterwards what no rule keeps."""
        follower = self._follower
        assert follower is not None  # noqa: S101 - for the type checkers

        async def main() -> None:
            with self._changed:
                self._queued.pop("follow", None)
            await follower.follow()

        def settled(error: BaseException | None) -> None:
            was_behind, self._behind = self._behind, error
            self._note("follow", error)
            if error is not None:
                _LOG.warning(
                    "%s lacks commits of %s: %s. Saves go on, and the next one tries again to copy them",
                    self._store.root,
                    self._places[-1],
                    error,
                )
            elif was_behind is not None:
                _LOG.info("%s has what %s has again", self._store.root, self._places[-1])
            self._retain()

        return self._add("follow", UPLOADS, f"the copies to {self._store.root}", main, settled)

    def _retain(self) -> None:
        """Remove what no rule keeps, behind everything else. In a job of several processes the primary does it."""
        if not self._group.is_primary:
            return

        async def main() -> None:
            with self._changed:
                self._queued.pop("retain", None)
            if self._local is not None and self._follower is not None:
                due = [commit.name for commit in await self._follower.due()]
                await self._local.retain(protect=due)
            if self._store.selection.rules.is_empty and not self._may_be_temporary:
                return
            self._may_be_temporary = False
            if any(_is_temporary(one) for one in await self._store.retain() if one.kept):
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

    def _note(self, key: str, error: BaseException | None) -> None:
        with self._changed:
            self._untold.pop(key, None)
            if error is not None:
                self._untold[key] = error

    def _less(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def _raise_first(self, errors: list[BaseException], consequence: str) -> None:
        with self._changed:
            error = errors.pop(0) if errors else None
        if error is not None:
            if consequence:
                error.add_note(f"This is the error of an earlier save in the background. {consequence}: save it again")
            raise error

    def _expect_own(self, *, closed: bool = False) -> None:
        if os.getpid() != self._pid:
            raise CommitError(f"{self!r} belongs to process {self._pid}: a forked child makes a manager of its own")
        if self._is_closed and not closed:
            raise CommitError(f"{self!r} is closed")


def _is_copy(copy: Path, commit: Commit) -> bool:
    """Tell whether a complete copy of a commit is there."""
    if commit.record is None or not is_committed(copy):
        return False
    ours, theirs = commit.record, read_record(copy)
    same_files = {(one.name, one.size) for one in ours.files} == {(one.name, one.size) for one in theirs.files}
    return same_files and ours.metadata == theirs.metadata


def _is_temporary(one: Retained) -> bool:
    return one.commit.record is not None and one.commit.record.metadata.get(TEMPORARY) is True
