"""Connections to SFTP servers: one for each server and process, several channels on it, made anew when lost."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import anyio
import asyncssh
from asyncssh import ChannelOpenError, SFTPClient, SSHClientConnection

from atomicpath.storage import IOLoop, io_loop

from .address import Address
from .errors import LOST, connecting
from .server import Server
from .settings import OF_FSSPEC

__all__ = ["Channel", "Sessions"]

_BOUNDS = {"connect_timeout": 10, "login_timeout": 20, "keepalive_interval": 15, "keepalive_count_max": 3}  # seconds
_SESSIONS = 10  # sshd_config(5), MaxSessions
_OPENING = 20.0  # seconds for a channel
_SPARE = 2  # as many as sshfs leaves
_PIECES = 16  # in flight to one server: 4 MiB, so that a small request does not wait for long behind them


class Channel:
    """One SFTP session, served by a process of its own; `with` marks it busy."""

    def __init__(self, sftp: SFTPClient, server: Server, pieces: anyio.Semaphore) -> None:
        self.sftp = sftp
        self.server = server
        self.pieces = pieces
        self.uses = 0
        self.lost = False

    def __enter__(self) -> Self:
        self.uses += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.uses -= 1
        self.lost = self.lost or isinstance(error, LOST)


class _Connection:
    def __init__(self, link: SSHClientConnection, most: int) -> None:
        self.link = link
        self._most = most
        self._channels: list[Channel] = []
        self._opening = anyio.Lock()
        self._pieces = anyio.Semaphore(_PIECES)

    async def channel(self) -> Channel:
        """Return the least busy channel, or another one as long as all are busy and the server lets us open it."""
        found = self._free()
        if found is not None:
            return found
        async with self._opening:
            found = self._free()
            if found is not None:
                return found
            try:
                with anyio.fail_after(_OPENING):
                    sftp = await self.link.start_sftp_client(path_errors="surrogateescape", sftp_version=3)
            except ChannelOpenError:
                if not self._channels:
                    raise
                self._most = len(self._channels)
            else:
                self._channels.append(Channel(sftp, _server(self.link, sftp), self._pieces))
            return min(self._channels, key=lambda channel: channel.uses)

    def _free(self) -> Channel | None:
        self._channels = [channel for channel in self._channels if not channel.lost]
        best = min(self._channels, key=lambda channel: channel.uses, default=None)
        return best if best and (not best.uses or len(self._channels) >= self._most) else None


class Sessions:
    """All connections of one process under one set of options. Its coroutines run in `loop`, and nowhere else."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self.loop: IOLoop = io_loop()
        self._options = {name: value for name, value in options.items() if name not in OF_FSSPEC}
        if options.get("timeout"):
            self._options.setdefault("connect_timeout", options["timeout"])
        self._most = max(1, int(str(options.get("max_sessions") or _SESSIONS)) - _SPARE)
        self._connections: dict[Address, _Connection] = {}
        self._connecting: dict[Address, anyio.Lock] = {}
        weakref.finalize(self, _close, os.getpid(), self.loop, self._connections)

    async def channel(self, address: Address) -> Channel:
        """Return a channel to a server, over its connection if that lives, else over a new one."""
        connection = self._living(address)
        with connecting(str(address)):
            if connection is None:
                async with self._connecting.setdefault(address, anyio.Lock()):
                    connection = self._living(address) or await self._connect(address)
            return await connection.channel()

    async def drop(self, address: Address) -> None:
        """End a connection on which an answer is overdue. The server will not do what it has not begun."""
        connection = self._connections.pop(address, None)
        if connection is not None:
            connection.link.abort()

    def _living(self, address: Address) -> _Connection | None:
        connection = self._connections.get(address)
        return None if connection is None or connection.link.is_closed() else connection

    async def _connect(self, address: Address) -> _Connection:
        options: dict[str, Any] = {**_BOUNDS, **self._options}
        if address.username:
            options["username"] = address.username
        if address.port:
            options["port"] = int(address.port)
        link = await asyncssh.connect(address.host, **options)
        connection = self._connections[address] = _Connection(link, self._most)
        return connection


def _server(link: SSHClientConnection, sftp: SFTPClient) -> Server:
    handler = sftp._handler  # noqa: SLF001 - what the server announced has no public name
    announced = ("fsync", "hardlink", "posix_rename", "statvfs", "fstatvfs")
    extensions = {name: bool(getattr(handler, f"_supports_{name}", False)) for name in announced}
    software = str(link.get_extra_info("server_version", "")).removeprefix("SSH-2.0-")
    return Server(software=software, **extensions)


def _close(process: int, loop: IOLoop, connections: dict[Address, _Connection]) -> None:
    if os.getpid() == process:  # not in a forked child: the connections are its parent's
        for connection in connections.values():
            loop.call_soon_threadsafe(connection.link.abort)
