"""Whole files over one SFTP channel: read, written under a name nobody looks at, sent from and to the disk here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import BinaryIO, cast

import anyio
from asyncssh import FXF_CREAT, FXF_EXCL, FXF_READ, FXF_TRUNC, FXF_WRITE, SFTPAttrs, SFTPClientFile, SFTPError

from atomicpath.abc import EntryKind
from atomicpath.errors import ValidationError
from atomicpath.storage import IOLoop, Source, check_length

from .connection import Channel

__all__ = ["fetch", "kind_of", "overwrite", "read", "send", "write"]

_STALL = 60.0  # seconds for one piece, or to open or close a file
_FLUSH = 3600.0  # seconds for the server to make a file of any size durable, of which it says nothing meanwhile
_CLEANING = 4.0  # seconds to remove a file that was not finished
_AT_ONCE = 4  # pieces of one file
_SMALLEST, _LARGEST = 16 * 2**10, 255 * 2**10  # bytes of a piece; OpenSSH ends a connection at a packet of 256 KiB


def kind_of(attributes: SFTPAttrs) -> EntryKind:
    """Return what a server says that something is."""
    return EntryKind.of_mode(attributes.permissions or 0)


async def read(channel: Channel, remote: str) -> bytes:
    """Return the content of a small file, whole."""
    file, size = await _open(channel, remote)
    try:
        return b"".join([await _piece(file, offset, length) for offset, length in _pieces(channel, size)])
    finally:
        await _end(file)


async def fetch(channel: Channel, remote: str, target: BinaryIO, loop: IOLoop) -> int:
    """Fill a local file, and return the size that the server announced."""
    file, size = await _open(channel, remote)
    writing = anyio.Lock()  # the target has one position

    async def one(offset: int, length: int) -> None:
        async with channel.pieces:
            with anyio.fail_after(_STALL):
                data = await _piece(file, offset, length)
        async with writing:
            await loop.run_in_executor(None, _put, target, offset, data)

    try:
        await _all(channel, size, one)
    finally:
        await _end(file)
    return size


async def write(channel: Channel, remote: str, data: bytes) -> None:
    """Create a small file that must not exist; none is left after an error."""
    await _fill(channel, remote, lambda file: _write_all(channel, file, data))


async def overwrite(channel: Channel, remote: str, data: bytes) -> None:
    """Create a small file, or write it anew in its place, for nobody else to read meanwhile."""
    file = await channel.sftp.open(remote, FXF_WRITE | FXF_CREAT | FXF_TRUNC, encoding=None, block_size=0)
    try:
        await _write_all(channel, file, data)
        await _sync(channel, file)
    finally:
        await _end(file)


async def send(channel: Channel, remote: str, source: Source, loop: IOLoop) -> None:
    """Create a file that must not exist from a local one; none is left after an error."""

    async def pieces(file: SFTPClientFile) -> None:
        async def one(offset: int, length: int) -> None:
            async with channel.pieces:
                data = await loop.run_in_executor(None, source.read, offset, length)
                with anyio.fail_after(_STALL):
                    await file.write(data, offset)

        await _all(channel, source.size, one)
        if not source.size:
            await loop.run_in_executor(None, source.read, 0, 0)  # check that the file is still empty

    await _fill(channel, remote, pieces)


async def _fill(channel: Channel, remote: str, fill: Callable[[SFTPClientFile], Awaitable[None]]) -> None:
    opening = channel.sftp.open(remote, FXF_WRITE | FXF_CREAT | FXF_EXCL, encoding=None, block_size=0)
    file: SFTPClientFile | None = None
    try:
        with anyio.fail_after(_STALL):
            file = await opening
        await fill(file)
        await _sync(channel, file)
        with anyio.fail_after(_STALL):
            await file.close()
    except BaseException as error:
        if file is not None or not isinstance(
            error, SFTPError
        ):  # if cancelled, the file may still be opened; the removal then comes after that
            await _drop(channel, remote, file)
        raise


async def _drop(channel: Channel, remote: str, file: SFTPClientFile | None) -> None:
    with suppress(SFTPError, OSError), anyio.move_on_after(_CLEANING, shield=True):  # another error is being raised
        if file is not None:
            await _end(file)
        await channel.sftp.remove(remote)


async def _open(channel: Channel, remote: str) -> tuple[SFTPClientFile, int]:
    """Open a file to read, and return it with its size.

    The server is asked first what the file is: opening a FIFO would stop the server's process.
    """
    with anyio.fail_after(_STALL):
        kind = kind_of(await channel.sftp.stat(remote))
        if kind is not EntryKind.FILE:
            raise ValidationError(f"{remote} is {kind}, not a file: move it away")
        file = await channel.sftp.open(remote, FXF_READ, encoding=None, block_size=0)
    try:
        with anyio.fail_after(_STALL):
            return file, (await file.stat()).size or 0
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _end(file)
        raise


async def _all(channel: Channel, size: int, one: Callable[[int, int], Awaitable[None]]) -> None:
    """Call `one` for every piece of a file, several at once; the first failure is raised itself."""
    pieces = iter(_pieces(channel, size))
    failures: list[Exception] = []

    async def work() -> None:
        try:
            for offset, length in pieces:
                await one(offset, length)
        except Exception as error:  # noqa: BLE001 - raised below, instead of a group of which only the first matters
            failures.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(_AT_ONCE):
            group.start_soon(work)
    if failures:
        raise failures[0]


def _pieces(channel: Channel, size: int) -> list[tuple[int, int]]:
    limits = channel.sftp.limits
    length = max(_SMALLEST, min(limits.max_read_len, limits.max_write_len, _LARGEST))
    return [(offset, min(length, size - offset)) for offset in range(0, size, length)]


async def _piece(file: SFTPClientFile, offset: int, length: int) -> bytes:
    data = b""
    while len(data) < length:  # a server may answer with less than was asked for
        more = cast("bytes", await file.read(length - len(data), offset + len(data)))
        if not more:
            break
        data += more
    check_length(len(data), length)
    return data


async def _write_all(channel: Channel, file: SFTPClientFile, data: bytes) -> None:
    for offset, length in _pieces(channel, len(data)):
        await file.write(data[offset : offset + length], offset)


async def _sync(channel: Channel, file: SFTPClientFile) -> None:
    if channel.server.fsync:
        with anyio.fail_after(_FLUSH):
            await file.fsync()


async def _end(file: SFTPClientFile) -> None:
    """Close after reading, or after an error: nothing can be lost by its failure."""
    with suppress(SFTPError, OSError), anyio.move_on_after(_STALL):
        await file.close()


def _put(target: BinaryIO, offset: int, data: bytes) -> None:
    target.seek(offset)
    target.write(data)
