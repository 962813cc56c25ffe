"""The coordinator of a job of one process, which has nobody to wait for."""

from __future__ import annotations

from atomicpath.abc import Coordinator, Watch
from atomicpath.errors import ValidationError

__all__ = ["SingleProcess"]


class SingleProcess(Coordinator):
    """Rank 0 of 1. Nothing of it waits, so it works without an event loop."""

    @property
    def rank(self) -> int:
        return 0

    @property
    def world_size(self) -> int:
        return 1

    async def broadcast(
        self, key: str, value: bytes | None = None, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> bytes:
        if value is None:
            raise ValidationError(f"rank 0 broadcasts {key!r} without a value: pass value=")
        return value

    async def gather(
        self, key: str, value: bytes, *, root: int = 0, timeout: float, watch: Watch | None = None
    ) -> list[bytes] | None:
        return [value]

    async def barrier(self, key: str, *, timeout: float, watch: Watch | None = None) -> None:
        pass
