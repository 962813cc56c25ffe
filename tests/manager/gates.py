"""What holds the background back, so that a test can look at what is the case meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import anyio

from atomicpath._core.environment import Environment
from tests.support.waiting import PATIENCE, until

P = ParamSpec("P")
T = TypeVar("T")


class Gate(Environment):
    """Holds back every call and request that the background makes while it is shut, and tells when one has come."""

    def __init__(self, thread: str = "atomicpath, commits") -> None:
        self._thread = thread
        self.reached, self._open = threading.Event(), threading.Event()
        self.fails: BaseException | None = None

    def open(self) -> None:
        self._open.set()

    def wait_until_reached(self) -> None:
        assert self.reached.wait(PATIENCE)

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._is_held():
            assert self._open.wait(PATIENCE)
            if self.fails is not None:
                raise self.fails
        return function(*args, **kwargs)

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._is_held():
            with anyio.fail_after(PATIENCE):
                await until(self._open)
            if self.fails is not None:
                raise self.fails
        return await function(*args, **kwargs)

    def _is_held(self) -> bool:
        if not threading.current_thread().name.startswith(self._thread):
            return False
        self.reached.set()
        return True
