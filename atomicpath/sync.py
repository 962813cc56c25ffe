"""The blocking face: the functions and the context manager of `aio`, for scripts, threads, notebooks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

from upath import UPath

from .aio import Committing
from .commit import Writing
from .environment import EventLoopNeeded
from .interruption import Signals
from .runner import run, run_alone

__all__ = ["BlockingCommit", "blocking", "blocking_context"]

P = ParamSpec("P")
T = TypeVar("T")


def blocking(function: Callable[P, Coroutine[object, object, T]]) -> Callable[P, T]:
    """The blocking form of a coroutine function: same arguments, same documentation."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(functools.partial(function, *args, **kwargs))

    return call


def blocking_context(function: Callable[P, Committing]) -> Callable[P, BlockingCommit]:
    """The same for a function that returns an async context manager."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> BlockingCommit:
        with Signals() as signals:
            committing = function(*args, **kwargs)
        if signals.error is not None:
            raise signals.error
        return BlockingCommit(committing.writing)

    return call


class BlockingCommit:
    """What the blocking `commit` returns: a context manager, to be entered once."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._alone = writing.is_local

    def __enter__(self) -> Path | UPath:
        self._writing.expect_new()
        try:
            return self._run(self._writing.begin)
        except BaseException as error:
            self._give_up(error)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(functools.partial(self._writing.end, error))
        except BaseException as raised:
            self._give_up(raised)
            raise

    def _run(self, main: Callable[[], Coroutine[object, object, T]]) -> T:
        if self._alone:
            try:
                return run_alone(main)
            except EventLoopNeeded:
                self._alone = False
        return run(main)

    def _give_up(self, error: BaseException) -> None:
        """A handler may have raised right before the work began, or after its end: then nobody else has given up."""
        second: BaseException | None = None
        while self._writing.is_open:
            try:
                self._run(functools.partial(self._writing.abandon, error))
            except BaseException as raised:  # noqa: BLE001 - of a handler again: the first is raised by the caller
                second = second or raised
        del second
