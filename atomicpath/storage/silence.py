"""Requests that end when their peer takes nothing any more: what a body has to do with how long a request may take.

Clients bound the time to connect and the time between two pieces of a reply. None bounds the time in which a body is
sent: a peer that accepts a connection and then reads nothing would hold a writer for ever. A body that is sent through
here gives a sign with each piece that is taken from it, and a request ends that has given one and then no other. How
long the whole takes does not matter.
"""

from __future__ import annotations

import errno
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, BinaryIO

import anyio
import anyio.lowlevel

from atomicpath._core.concurrency import wake

__all__ = ["WatchedBytes", "WatchedFile", "silence_for", "watched", "watched_pieces"]

_SILENCE = 60.0  # seconds without a sign after which a request ends, at least
_READS = 3  # read time-outs of the client that a request may spend without sending a piece of its body

_UNBLOCKED = 2**16
"""Bytes of a body that a connection takes at once, whatever its peer does (asyncio's high-water mark)."""

_sign: ContextVar[Callable[[float], None] | None] = ContextVar("atomicpath_sign", default=None)


def silence_for(read_timeout: object) -> float:
    """Return the seconds without a sign after which a request ends.

    `read_timeout` is how long the client waits for each piece of a reply.
    """
    return max(_SILENCE, _READS * read_timeout) if isinstance(read_timeout, int | float) else _SILENCE


@contextmanager
def watched() -> Iterator[None]:
    """End the request in the block when the body that it sends has given no sign for too long.

    Raises:
        TimeoutError: It was ended. The store may have carried it out, or may yet do so.
    """
    loop: Any = anyio.lowlevel.current_token().native_token  # fsspec's, which is asyncio's
    with anyio.CancelScope() as scope:

        def sign(seconds: float) -> None:
            scope.deadline = loop.time() + seconds

        before = _sign.set(sign)
        try:
            yield
        finally:
            _sign.reset(before)
    if scope.cancelled_caught:
        raise TimeoutError(errno.ETIMEDOUT, "nothing more of the body was taken")


def _signal(seconds: float) -> Callable[[], None] | None:
    sign = _sign.get()
    return partial(sign, seconds) if sign is not None else None


class WatchedBytes(io.BytesIO):
    """A body in memory, read by the event loop."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self._data = data
        self._signal = _signal(seconds) if len(data) > _UNBLOCKED else None

    def getbuffer(self) -> memoryview:
        """Return the body without a copy, to be read only: aiohttp asks for it to learn the length."""
        return memoryview(self._data)

    def read(self, size: int | None = -1, /) -> bytes:
        if self._signal is not None:
            self._signal()
        return super().read(size)


class WatchedFile(io.RawIOBase):
    """An open file as a body, read by whatever thread; made in the event loop, and closed by who opened the file."""

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        self._file = file
        signal, token = _signal(seconds), anyio.lowlevel.current_token()
        self._tell: Callable[[], None] | None = partial(wake, token, signal) if signal is not None else None

    def read(self, size: int | None = -1, /) -> bytes:
        if self._tell is not None:
            self._tell()
        return self._file.read(-1 if size is None else size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


async def watched_pieces(pieces: AsyncIterator[Any], seconds: float) -> AsyncIterator[Any]:
    """Yield a body in pieces, each small enough to be taken well within the time."""
    signal = _signal(seconds)
    async for piece in pieces:
        if signal is not None:
            signal()
        yield piece
