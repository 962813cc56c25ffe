"""The checkpoint manager: saves of one training run, what of them stays, and where to resume.

Half of this is the documentation of one public class; what it does is in the modules beside this one.
"""

from __future__ import annotations

import functools
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Literal, Self, SupportsFloat, SupportsIndex, TypeVar

from upath import UPath

from atomicpath._cleaning import Metric, Mode, Rules, Selection, Wanted
from atomicpath._commit.options import CommitOptions
from atomicpath._commit.readers import Commit
from atomicpath._commit.session import CommitSession, expect_room_at
from atomicpath._commit.staging import Staging
from atomicpath._core.environment import current
from atomicpath._core.interruption import GIVING_UP
from atomicpath._core.record import JSONValue
from atomicpath._core.runner import run
from atomicpath._profile.location import PathLike, local_directory, locate
from atomicpath.abc import Coordinator, FileOptions, TemporaryPath
from atomicpath.coordinators.options import MultiprocessingOptions
from atomicpath.coordinators.process_group import ProcessGroup
from atomicpath.errors import AtomicPathError, CommitError, ValidationError
from atomicpath.guarantees import Guarantee

from .behind import Behind
from .lanes import COMMITS, UPLOADS, Cancelled, Job, Lane
from .saves import AttemptSave, Done, Save, StagedSave
from .tiers import Tier, metadata_of, step_number

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
        self._background = background
        self._is_closed = False

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
        self._places = [tier.root.identity for tier in (self._store, self._local) if tier is not None]
        for one in self._places:
            if (self._pid, one) in _open:
                raise ValidationError(
                    f"this process has a manager of {place} already, or of its local tier: close() that one first"
                )
        for one in self._places:
            _open[self._pid, one] = self
        self._behind = Behind(self._store, self._local, removes=self._group.is_primary)
        self._behind.follow()

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
        self._behind.raise_error(f"step {number} was not saved")
        save, path = self._entered(number, noted, self._behind.new_save(temporary=temporary))
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
        newest = self._newest()
        return newest[1] if newest is not None else None

    def fetch(self, into: PathLike) -> Path | None:
        """Have a complete local copy of the newest save, below a directory of this host.

        As `fetch_latest`: a second call, in whichever process of the host, gives the same path for the same save.

        Args:
            into: The directory for the copies.

        Returns:
            The copy; None if nothing is saved.

        Raises:
            AtomicPathError: As for `latest` and `fetch_latest`.
        """
        directory = local_directory(into, "into")
        newest = self._newest()
        return run(functools.partial(newest[0].fetch, directory)) if newest is not None else None

    def cancel(self, step: SupportsIndex) -> bool:
        """Give up a save in the background that is not committed yet.

        Returns:
            True if it was given up, so that nothing of it is or will be visible. False if it is committed, or there is
            no such save, or it could not be broken off in time.
        """
        self._expect_own()
        job = self._behind.commit_of(step_number(step))
        if job is None:
            return False
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
        ended = self._behind.wait(timeout)
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
        self._behind.raise_error()
        self._behind.raise_untold()

    def close(self) -> None:
        """Wait for everything that was begun, and let another manager have the root. A second call does nothing.

        With `local=` it is tried once more to copy what the store lacks.

        Raises:
            AtomicPathError: The first error that no call has raised. All is logged, and the manager is closed.
        """
        self._expect_own(closed=True)
        if self._is_closed:
            return
        if self._behind.reason is not None:
            self._behind.follow()
        self._behind.wait(None)
        self._is_closed = True
        for place in self._places:
            if _open.get((self._pid, place)) is self:
                del _open[self._pid, place]
        self._behind.raise_error()
        if self._behind.reason is not None:
            raise self._behind.reason

    def _newest(self) -> tuple[Tier, Commit] | None:
        """The newest complete save, and the tier that has it."""
        self._expect_own(closed=True)
        there = run(self._store.latest)
        found = (self._store, there) if there is not None else None
        if self._local is None:
            return found
        try:
            here = run(self._local.latest)
        except AtomicPathError as error:
            _LOG.warning("the local tier %s is left out: %s", self._local.root, error)
            return found
        if here is None or (there is not None and (there.step or 0) > (here.step or 0)):
            return found
        return self._local, here

    # a save

    def _entered(self, step: int, metadata: Mapping[str, JSONValue], number: int) -> tuple[Save, Path | UPath]:
        """Begin a save, in the local tier if that can be used, else at the store; and where to write."""
        name = f"{self._prefix}{step}"
        done = functools.partial(self._behind.ended, number)
        add = functools.partial(self._behind.add_commit, number, step)
        if self._local is not None:
            try:
                run(functools.partial(expect_room_at, self._local.root.child(name), self._behind.size))
                save = self._attempt(self._local.writing(name, metadata), done, add)
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
            save = StagedSave(writing, done, functools.partial(add, lane), staging)
        else:
            save = self._attempt(writing, done, add)
        return save, save.__enter__()

    def _attempt(self, writing: CommitSession, done: Done, add: Callable[[Lane, Job[Commit]], None]) -> Save:
        return AttemptSave(writing, done, functools.partial(add, COMMITS) if self._background else None)

    def _expect_own(self, *, closed: bool = False) -> None:
        if os.getpid() != self._pid:
            raise CommitError(f"{self!r} belongs to process {self._pid}: a forked child makes a manager of its own")
        if self._is_closed and not closed:
            raise CommitError(f"{self!r} is closed")
