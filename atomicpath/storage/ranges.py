"""An object fetched in ranges, several at once, into one local file: of one version, complete, or not there.

    first     asks for the whole object · its head tells size and version · a small object is read to its end
              of a large one the first range is read, and the rest of that reply is given up
    others    as soon as that head is there: each asks for one range · before a byte of it is written, its head must
              tell the range, size and version that are expected

So a small object takes one request, of the kind that every store knows. A store that ignores conditions cannot have a
mixture written, and from one that ignores ranges the object is fetched by one more request, whole. Requests are the
backend's; this module says which bytes each is for, and takes them.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.lowlevel

from atomicpath._core.concurrency import wake
from atomicpath._core.environment import Environment, cleaning_up
from atomicpath._core.tasks import map_concurrently, run_both
from atomicpath.abc import Entry, StaleVersionError

from .access import IOLoop
from .budget import memory_for
from .checksums import Checksum
from .target import check_length

__all__ = ["CHUNK", "RangeRequest", "receive_in_ranges"]

_RANGE = 8 * 2**20
_AT_ONCE = 16  # ranges of one object

CHUNK = 2**20
"""Bytes of a reply that are written by one trip to a thread."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


@dataclass(frozen=True, slots=True)
class _Found:
    """What the head of the first reply says of the object. `is_divided`: it is fetched in more than one request."""

    size: int | None
    version: str | None
    checksum: Checksum | None
    is_divided: bool


class _RangesIgnoredError(OSError):
    """A store answered a request for a range with something else."""


async def receive_in_ranges(
    environment: Environment,
    where: str,
    target: Path,
    send: Callable[[RangeRequest], Awaitable[object]],
    *,
    length: int = _RANGE,
    held: int = CHUNK,
) -> Entry:
    """Create a local file, which must not exist, with the bytes of an object; nothing is left of a failed one.

    Args:
        environment: Where steps are done.
        where: The object's URL, for messages.
        target: The file.
        send: Makes a request, and hands its reply to it.
        length: The bytes of a range. Objects of up to twice as many are fetched by one request.
        held: The bytes of a reply that are in memory at once.

    Returns:
        The object's size and version.

    Raises:
        StaleVersionError: The object was changed meanwhile.
        OSError: What came is not what was asked for, or not all of it; or the file cannot be written.
    """
    return await _Download(environment, where, target, send, length, held).run()


class RangeRequest:
    """One request of a download: which bytes it asks for, and where those go that come.

    A backend sends the header `Range` with the value of `header`, unless that is None, gives the head of the reply to
    `begin` and the bytes of its body to `put` while `is_wanting`, and closes the reply. It does all of that again if
    the request is repeated. These methods run in the file system's event loop.
    """

    def __init__(self, file: _File, where: str, offset: int, length: int, found: _Found | None = None) -> None:
        self._file = file
        self.where = where
        self.offset = offset
        self.length = length
        self.found = found
        self.is_divisible = True
        """Whether a large object may come in more than one reply."""
        self.on_head: Callable[[], None] | None = None
        """Called once the head of the first reply is known."""
        self.failure: OSError | None = None
        """Why the file cannot be written."""
        self.crc = 0
        self.size = 0
        """The bytes that came."""
        self._open: BinaryIO | None = None
        self._begins = True
        self._expected: int | None = None
        self._pending: list[bytes] = []
        self._pending_size = 0

    @property
    def header(self) -> str | None:
        """The value of the request's `Range` header; None if it asks for the whole object."""
        return f"bytes={self.offset}-{self.offset + self.length - 1}" if self.offset else None

    @property
    def version(self) -> str | None:
        """The version that the object must have; None for the first request."""
        return self.found.version if self.found is not None and self.offset else None

    @property
    def is_wanting(self) -> bool:
        """Tell whether more of the body is to be read; the rest of a large object is not read from its first reply."""
        return not self._is_cut or self.size < self.length

    @property
    def _is_cut(self) -> bool:
        return self.found is not None and self.found.is_divided and not self.offset

    def begin(
        self,
        *,
        version: str | None,
        content_range: str | None,
        length: int | None,
        checksum: Checksum | None = None,
        is_divisible: bool = True,
    ) -> None:
        """Take the head of a reply.

        Args:
            version: The object's.
            content_range: The header of that name; None in a reply with the whole object.
            length: The bytes of the body, where that is announced.
            checksum: Of the whole object, if the store tells one that can be checked over ranges.
            is_divisible: False if the object has to come in one reply.

        Raises:
            StaleVersionError: The object has been changed since the first reply.
            OSError: The reply is not to this request.
        """
        size, self._expected = self._told(content_range, length)
        if self.found is None or not (self.offset or self.found.is_divided):
            # a repetition of the first request may find another object, which then comes in one reply
            may_divide = is_divisible and self.is_divisible and self.found is None
            is_divided = may_divide and size is not None and size > 2 * self.length
            self.found = _Found(size, version, checksum, is_divided)
        elif (size, version) != (self.found.size, self.found.version):
            raise StaleVersionError(errno.ESTALE, f"{self.where} was changed while it was downloaded")
        if self._is_cut:
            self._expected = self.length
        self.size = self.crc = self._pending_size = 0
        self._pending.clear()
        self._begins = True
        if self.on_head is not None:
            self.on_head()

    def _told(self, content_range: str | None, length: int | None) -> tuple[int | None, int | None]:
        """Return the sizes of the object and of the body, as the head tells them."""
        if content_range is None:
            if self.offset:
                raise _RangesIgnoredError(errno.EIO, f"{self.where}: the reply to a request for a range has none")
            return length, length
        told = _CONTENT_RANGE.fullmatch(content_range)
        if told is None:
            raise OSError(errno.EIO, f"{self.where}: the reply has a range that cannot be read")
        first, last, size = int(told[1]), int(told[2]), int(told[3])
        if first != self.offset or last + 1 != min(first + self.length, size):
            raise OSError(errno.EIO, f"{self.where}: the reply has another range than was asked for")
        return size, last + 1 - first

    async def put(self, loop: IOLoop, data: bytes) -> None:
        """Take the next bytes of the body. They are written in a thread of the loop's, once there are enough."""
        if self._is_cut:
            data = data[: self.length - self.size]
        self.size += len(data)
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= CHUNK:
            await loop.run_in_executor(None, self._noted, self._write)

    # below: in a thread

    def finish(self) -> None:
        """Write what is left and close the file. Raises an `OSError` if not all came."""
        if self._expected is not None:
            check_length(self.size, self._expected)
        self._noted(self._write)
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        file, self._open = self._open, None
        if file is not None:
            self._noted(file.close)

    def _noted(self, function: Callable[[], None]) -> None:
        try:
            function()
        except OSError as error:  # a backend takes what comes through it for the store's
            self.failure = error
            raise

    def _write(self) -> None:
        if self._open is None:
            self._open = self._file.open()
        if self._begins:
            self._begins = False
            self._open.seek(self.offset)
            if self.found is not None and not self.found.is_divided:
                self._open.truncate()
        if self.found is not None and self.found.checksum is not None:
            for piece in self._pending:
                self.crc = self.found.checksum.extend(piece, self.crc)
        self._open.writelines(self._pending)
        self._pending.clear()
        self._pending_size = 0


class _File:
    """The local file, which whoever opens it first creates."""

    def __init__(self, environment: Environment, path: Path) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self.path = path
        self.is_created = False

    def open(self) -> BinaryIO:
        with self._lock:
            file: BinaryIO = self._environment.call(self.path.open, "r+b" if self.is_created else "xb")
            self.is_created = True
            return file


class _Download:
    """One object on its way into one file."""

    def __init__(
        self,
        environment: Environment,
        where: str,
        target: Path,
        send: Callable[[RangeRequest], Awaitable[object]],
        length: int,
        held: int,
    ) -> None:
        self._environment = environment
        self._where = where
        self._file = _File(environment, target)
        self._send = send
        self._length = length
        self._held = held

    async def run(self) -> Entry:
        try:
            try:
                return await self._run(in_ranges=True)
            except _RangesIgnoredError:
                return await self._run(in_ranges=False)
        except BaseException as error:
            if self._file.is_created:
                with cleaning_up(self._file.path, error):
                    await self._environment.step(self._unlink)
            raise

    async def _run(self, *, in_ranges: bool) -> Entry:
        first, has_head = RangeRequest(self._file, self._where, 0, self._length), anyio.Event()
        first.is_divisible = in_ranges
        first.on_head = partial(wake, anyio.lowlevel.current_token(), has_head.set)
        _, others = await run_both(partial(self._fetch, first), partial(self._fetch_others, first, has_head))
        found = first.found
        if found is None:
            raise AssertionError("unreachable: the others wait for it")
        if found.checksum is not None:
            found.checksum.check((request.crc, request.size) for request in (first, *others))
        return Entry(name="", size=first.size if found.size is None else found.size, version=found.version)

    async def _fetch(self, request: RangeRequest) -> None:
        try:
            async with memory_for(self._held):
                await self._send(request)
                await self._environment.step(request.finish)
        except BaseException as error:
            with cleaning_up(self._file.path, error):
                await self._environment.step(self._close, request)
            if request.failure is not None and isinstance(error, Exception):
                raise request.failure from None
            raise

    async def _fetch_others(self, first: RangeRequest, has_head: anyio.Event) -> list[RangeRequest]:
        await has_head.wait()
        found = first.found
        if found is None or found.size is None or not found.is_divided:
            return []

        async def one(offset: int) -> RangeRequest:
            request = RangeRequest(self._file, self._where, offset, self._length, found)
            await self._fetch(request)
            return request

        return await map_concurrently(range(self._length, found.size, self._length), one, at_once=_AT_ONCE)

    def _close(self, request: RangeRequest) -> None:
        with suppress(OSError):  # a full disk fails again at closing
            request.close()

    def _unlink(self) -> None:
        with suppress(OSError):
            self._file.path.unlink()
