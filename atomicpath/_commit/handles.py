"""Commits that were begun without a block: each is ended once, in any thread, or given up when the interpreter ends."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from upath import UPath

from atomicpath._core.record import JSONValue
from atomicpath._core.runner import run
from atomicpath.errors import CommitError

from .session import CommitSession

__all__ = ["BegunCommit"]

_LOG = logging.getLogger("atomicpath")


class BegunCommit:
    """A session that has begun, the directory to write in, and the right to end the session, which one caller gets."""

    def __init__(self, session: CommitSession, path: Path | UPath) -> None:
        self.session = session
        self.path = path
        self.is_over = False
        self._ended_by = ""
        self._right: list[None] = [None]  # taking an element out of a list is indivisible
        _open.add(self)

    @contextmanager
    def finishing(self, entries: Sequence[Mapping[str, JSONValue]]) -> Iterator[None]:
        """Have the block finish the session, with the entries of those that joined.

        Raise CommitError if the session has ended, or is being ended elsewhere.
        """
        with self._ending("finish()"):
            self.session.joined = entries
            yield

    @contextmanager
    def abandoning(self) -> Iterator[bool]:
        """Yield True if the block has to give the session up.

        Yield False if the session was given up, or has failed, before.
        """
        if self.is_over and not self.session.is_committed:
            yield False
            return
        with self._ending("abandon()"):
            yield True

    @contextmanager
    def _ending(self, how: str) -> Iterator[None]:
        try:
            self._right.pop()
        except IndexError:
            raise CommitError(self._refusal(how)) from None
        self._ended_by = how
        dropped = False
        try:
            yield
        except GeneratorExit:  # the coroutine is dropped: a thread that nobody waits for ends the session
            dropped = True
            raise
        finally:
            if self.session.is_open and not dropped:  # interrupted before the session was reached
                self._right.append(None)
            else:
                self.is_over = True

    def _refusal(self, how: str) -> str:
        where = self.session.location
        if self.session.is_committed:
            return f"{how} of {where}: it is committed already. Call begin() for another commit"
        if not self.is_over:
            return f"{how} of {where}: another thread is ending it, by {self._ended_by}. Wait for that call"
        if self._ended_by == "abandon()":
            return f"{how} of {where}: it was given up, and nothing was committed. Call begin() for another commit"
        return f"{how} of {where}: finish() was called before, and failed. Call begin() for another commit"


_open: weakref.WeakSet[BegunCommit] = weakref.WeakSet()


class _InterpreterEnds(BaseException):
    """Why what was never finished is given up: no error, and as with an interruption it is waited for only a while."""


def _give_up_the_rest() -> None:
    for begun in list(_open):
        if not begun.session.is_open:
            continue
        _LOG.warning("%s was begun and never finished: it is given up, as the interpreter ends", begun.session.location)
        try:
            with begun.abandoning() as is_mine:
                if is_mine:
                    run(partial(begun.session.abandon, _InterpreterEnds("the interpreter ended before finish()")))
        except Exception as error:  # noqa: BLE001 - nobody is left to raise it to
            _LOG.warning("%s could not be given up: %s", begun.session.location, error)


atexit.register(_give_up_the_rest)
