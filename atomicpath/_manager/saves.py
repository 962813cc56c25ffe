"""One save of a manager: the block of the caller, and what is done once it has ended."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from upath import UPath

from atomicpath._commit.readers import Commit
from atomicpath._commit.session import CommitSession
from atomicpath._commit.sources import Staged
from atomicpath._commit.staging import LocalFile, Staging
from atomicpath._core.environment import current
from atomicpath._core.runner import run
from atomicpath.sync import BlockingCommit

from .background import tell
from .lanes import Job

__all__ = ["AttemptSave", "Done", "Save", "StagedSave"]


Done = Callable[[Commit | None, BaseException | None], None]
"""Called once a save has ended, in whichever thread: with what was committed, or the error."""


class Save(Protocol):
    """A save, to be entered and left once."""

    def __enter__(self) -> Path | UPath:
        """Give the directory to write in."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what was written, or have it committed; after an error give it up."""


class AttemptSave:
    """A save that is written in the attempt itself, and committed by the caller, or in a lane."""

    def __init__(self, writing: CommitSession, done: Done, lane: Callable[[Job[Commit]], None] | None) -> None:
        """`lane` is given the job of the commit; with None the caller commits."""
        self._writing = writing
        self._session = BlockingCommit(writing)
        self._done = done
        self._lane = lane
        self._path: Path | None = None

    def __enter__(self) -> Path | UPath:
        path = self._session.__enter__()
        self._path = Path(str(path)) if self._lane is not None else None
        return path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or self._lane is None:
            self._session.__exit__(kind, error, trace)
            if error is None:
                self._done(self._session.result, None)
            return
        assert self._path is not None  # noqa: S101 - for the type checkers
        staged = Staged(current(), self._path)
        try:
            seen = run(staged.files)
        except BaseException as raised:
            self._session.__exit__(type(raised), raised, raised.__traceback__)
            raise
        self._lane(_committing(self._writing, staged, seen, self._done))


def _committing(writing: CommitSession, staged: Staged, seen: list[LocalFile], done: Done) -> Job[Commit]:
    async def main() -> Commit:
        try:
            await staged.expect_unchanged(seen)
        except BaseException as error:
            await writing.abandon(error)
            raise
        await writing.finish()
        return writing.result()

    def settled(value: list[Commit], error: BaseException | None) -> None:
        if error is not None:
            tell(writing.location, error)
            if writing.is_open:  # it was cancelled before it began
                run(functools.partial(writing.abandon, error))
        done(value[0] if error is None else None, error)

    return Job(f"the commit of {writing.location}", main, settled)


class StagedSave:
    """A save that is written in a staging directory; everything that the store is asked for is done in a lane."""

    def __init__(
        self, writing: CommitSession, done: Done, lane: Callable[[Job[Commit]], None], staging: Staging
    ) -> None:
        self._writing = writing
        self._done = done
        self._lane = lane
        self._staging = staging
        self._path: Path | None = None

    def __enter__(self) -> Path | UPath:
        self._writing.expect_new()
        try:
            self._path = run(self._staging.create)
        except BaseException:
            run(self._staging.remove)
            raise
        return self._path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._path is not None  # noqa: S101 - for the type checkers
        staged = Staged(current(), self._path)
        try:
            if error is not None:
                run(functools.partial(self._writing.abandon, error))
            seen = run(staged.files) if error is None else []
        except BaseException:
            run(self._staging.remove)
            raise
        if error is not None:
            run(self._staging.remove)
            return
        self._lane(self._job(staged, seen))

    def _job(self, staged: Staged, seen: list[LocalFile]) -> Job[Commit]:
        writing, staging, done = self._writing, self._staging, self._done

        async def main() -> Commit:
            await staged.expect_unchanged(seen)
            await writing.begin(source=True)
            await writing.finish(staged)
            return writing.result()

        def settled(value: list[Commit], error: BaseException | None) -> None:
            if error is not None:
                tell(writing.location, error)
            run(staging.remove)
            done(value[0] if error is None else None, error)

        return Job(f"the commit of {writing.location}", main, settled)
