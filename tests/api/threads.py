"""A coordinator over a dictionary, for ranks that are threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio
import anyio.to_thread

from atomicpath import CoordinationError, CoordinationTimeoutError, Coordinator
from atomicpath.abc import Watch


class Board:
    """What all ranks of a job see. `lost` keys can be neither written nor read."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.written: dict[str, bytes] = {}
        self.reads: list[str] = []
        self.lost: Callable[[str], bool] = lambda _: False
        self._changed = threading.Condition()

    def put(self, key: str, value: bytes) -> None:
        with self._changed:
            if self.lost(key):
                raise CoordinationError(f"{key} is lost")
            assert key not in self.written, f"{key} was used before"
            self.written[key] = value
            self._changed.notify_all()

    def get(self, key: str, seconds: float) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: key in self.written, seconds)
            return self.written.get(key)

    def member(self, rank: int) -> OnBoard:
        return OnBoard(self, rank)


class OnBoard(Coordinator):
    """One rank."""

    def __init__(self, board: Board, rank: int) -> None:
        self._board, self._rank = board, rank

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._board.world_size

    @property
    def timeout(self) -> float:
        return 30.0

    async def _get(self, key: str, rank: int, timeout: float) -> bytes:
        end = anyio.current_time() + timeout
        while (left := end - anyio.current_time()) > 0:
            value = await anyio.to_thread.run_sync(self._board.get, key, min(left, 0.05))
            if value is not None:
                return value
        raise CoordinationTimeoutError(f"{key} did not come", (rank,))

    async def broadcast(
        self, key: str, value: bytes | None = None, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> bytes:
        if self._rank != root:
            self._board.reads.append(key)
            return await self._get(f"{key}/all", root, timeout)
        assert value is not None
        self._board.put(f"{key}/all", value)
        return value

    async def gather(
        self, key: str, value: bytes, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> list[bytes] | None:
        self._board.put(f"{key}/{self._rank}", value)
        if self._rank != root:
            return None
        received: dict[int, bytes] = {}
        missing = []
        for rank in range(self.world_size):
            try:
                received[rank] = await self._get(f"{key}/{rank}", rank, timeout)
            except CoordinationTimeoutError:
                missing.append(rank)
        if missing:
            raise CoordinationTimeoutError("not all came", tuple(missing), received)
        return [received[rank] for rank in range(self.world_size)]

    async def barrier(self, key: str, *, timeout: float, watch: Watch | None = None) -> None:
        self._board.put(f"{key}/{self._rank}", b"here")
        for rank in range(self.world_size):
            await self._get(f"{key}/{rank}", rank, timeout)
