"""Keep a fork from breaking into an import. `atomicpath` itself loads this module, so it imports next to nothing."""

from __future__ import annotations

import os
import threading
from types import TracebackType

__all__ = ["Unforked", "unforked"]


class Unforked:
    """A block that no fork of another thread breaks into, as of a first import.

    A forked child has only the thread that forked: a module that another one was importing stays half imported there
    for ever, and whoever uses it is told that it lacks something. So a fork waits for the end of the block, but only
    for a while, since who is in the block may wait for something that the forking thread has.
    """

    _PATIENCE = 10.0  # seconds

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forking = threading.local()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self._begin_anew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _wait(self) -> None:
        self._forking.waited = self._lock.acquire(timeout=self._PATIENCE)

    def _go_on(self) -> None:
        if self._forking.waited:
            self._lock.release()

    def _begin_anew(self) -> None:
        if self._forking.waited:
            self._lock.release()  # this thread may be in a block itself, and goes on in it
        else:
            self._lock = threading.RLock()


unforked = Unforked()
"""For whatever this library imports at its first use, and not before."""
