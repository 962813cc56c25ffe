"""The coordinator over MPI, by mpi4py."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from atomicpath._core.environment import current
from atomicpath.errors import CoordinationError

from .engine import engine_module
from .key_value_store import poll
from .messages import MessageCoordinator, Messages

__all__ = ["MpiCoordinator"]

T = TypeVar("T")


class MpiCoordinator(MessageCoordinator):
    """Over a duplicate of the communicator (default: COMM_WORLD), so that no message of the program's own is taken.

    Made by all its processes, in the same order as their other calls on it: duplicating is collective. It
    is only begun here, and waited for by the first call.
    """

    def __init__(self, comm: Any = None, *, timeout: float = 600.0) -> None:
        mpi = engine_module("mpi4py.MPI", "mpi")
        _check_open(mpi)
        level = mpi.Query_thread()
        if level < mpi.THREAD_SERIALIZED:
            raise CoordinationError(
                "MPI was initialised for calls from one thread only, and atomicpath waits in threads of its own: set "
                "mpi4py.rc.thread_level = 'multiple' before mpi4py.MPI is imported, or call MPI_Init_thread so"
            )
        given = mpi.COMM_WORLD if comm is None else comm
        messages = _MpiMessages(mpi, given)
        super().__init__(messages, given.Get_rank(), given.Get_size(), timeout=timeout)


def _check_open(mpi: Any) -> None:
    if not mpi.Is_initialized() or mpi.Is_finalized():
        state = "was finalized" if mpi.Is_finalized() else "is not initialised"
        raise CoordinationError(f"MPI {state}: use atomicpath between MPI_Init and MPI_Finalize")


class _MpiMessages(Messages):
    """MPI cannot wait with a time-out, so it is asked again and again; one thread at a time calls it."""

    def __init__(self, mpi: Any, given: Any) -> None:
        self._mpi = mpi
        self._lock = threading.Lock()
        self._under_way: list[tuple[Any, bytes]] = []  # requests, and what they send, which must stay
        self._comm, self._duplicating = self._ask(given.Idup)

    def ready(self, seconds: float, waited: float) -> bool:
        if self._duplicating is not None and poll(current(), self._is_duplicated, seconds, waited):
            self._duplicating = None
        return self._duplicating is None

    def send(self, to: int, data: bytes) -> None:
        self._ask(self._send, to, data)

    def receive(self, seconds: float, waited: float) -> tuple[int, bytes] | None:
        return poll(current(), lambda: self._ask(self._receive), seconds, waited)

    def _is_duplicated(self) -> bool | None:
        return bool(self._ask(self._duplicating.Test)) or None

    def _send(self, to: int, data: bytes) -> None:
        self._under_way = [(request, sent) for request, sent in self._under_way if not request.Test()]
        self._under_way.append((self._comm.Isend([data, self._mpi.BYTE], to), data))

    def _receive(self) -> tuple[int, bytes] | None:
        status = self._mpi.Status()
        message = self._comm.Improbe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG, status)
        if message is None:
            return None
        data = bytearray(status.Get_count(self._mpi.BYTE))
        message.Recv([data, self._mpi.BYTE])
        return status.Get_source(), bytes(data)

    def _ask(self, function: Callable[..., T], *arguments: object) -> T:
        _check_open(self._mpi)
        try:
            with self._lock:
                return current().call(function, *arguments)
        except self._mpi.Exception as error:
            raise CoordinationError(f"MPI does not answer ({error}): another process has probably ended") from error
