"""Cancelling a caller from inside the protocol that it waits for, which runs in another thread."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel

from atomicpath._core.concurrency import wake
from atomicpath._core.environment import this_run

__all__ = ["Caller"]

_PATIENCE = 60.0  # seconds that an event loop may take to see a cancellation


class Caller:
    """A context manager for the calls of one task, which `cancel` cancels from inside an environment."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self._token: anyio.lowlevel.EventLoopToken | None = None

    def __enter__(self) -> Self:
        self._token = anyio.lowlevel.current_token()
        self.scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return bool(self.scope.__exit__(kind, error, trace))

    def cancel(self) -> None:
        """Return once the call has been told of it; it is seen at its next safe point."""
        run = this_run()
        if run is None or self._token is None:
            self.scope.cancel()
            return
        wake(self._token, self.scope.cancel)
        deadline = time.monotonic() + _PATIENCE
        while not run.asked and time.monotonic() < deadline:
            time.sleep(0.001)
        if run.break_off is not None and _is_in(run.loop):
            run.break_off()  # before the loop comes to it by itself: the very next wait sees it


def _is_in(loop: object) -> bool:
    try:
        return anyio.lowlevel.current_token().native_token is loop
    except RuntimeError:
        return False  # in a worker thread of it
