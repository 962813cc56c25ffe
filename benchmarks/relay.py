"""A TCP relay on loopback that is as slow as a distant host: a round-trip time, and a bandwidth for each connection.

    python benchmarks/relay.py --to 127.0.0.1:8333 --round-trip 0.03 --rate 40e6

It prints its port, and ends with its standard input. It runs in a process of its own, so that it does not take turns
with what is measured. Each direction of a connection carries `--rate` bytes a second and is late by half of the
round-trip time; a new connection is late by a whole one more, as a handshake is.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections import deque
from contextlib import suppress

_READ = 2**17
_AHEAD = 2 * 2**20  # bytes on their way in one direction, beyond which no more are read: a window


async def _carry(source: socket.socket, target: socket.socket, *, late: float, begin: float, rate: float) -> None:
    """Carry one direction until it ends."""
    loop = asyncio.get_running_loop()
    under_way: deque[tuple[float, bytes]] = deque()
    size, ended = 0, False
    more, room = asyncio.Event(), asyncio.Event()

    async def deliver() -> None:
        nonlocal size
        while under_way or not ended:
            if not under_way:
                more.clear()
                await more.wait()
                continue
            due, data = under_way[0]
            if (wait := due - loop.time()) > 0.0005:
                await asyncio.sleep(wait)
            under_way.popleft()
            await loop.sock_sendall(target, data)
            size -= len(data)
            room.set()
        target.shutdown(socket.SHUT_WR)

    async def take() -> None:
        nonlocal size, ended
        free = begin  # when the line has carried all that it was given
        while data := await loop.sock_recv(source, _READ):
            free = max(free, loop.time()) + len(data) / rate
            under_way.append((free + late, data))
            size += len(data)
            more.set()
            while size > _AHEAD:
                room.clear()
                await room.wait()
        ended = True
        more.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(deliver())
        group.create_task(take())


async def _serve(to: tuple[str, int], round_trip: float, rate: float) -> None:
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setblocking(False)
    print(listening.getsockname()[1], flush=True)
    connections = set[asyncio.Task[None]]()

    async def connect(client: socket.socket) -> None:
        with client, socket.socket() as server:
            for one in (client, server):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(server, to)
            begin, late = loop.time() + round_trip, round_trip / 2
            with suppress(ExceptionGroup):  # of an OSError: one side is gone, and the other has nobody to talk to
                async with asyncio.TaskGroup() as group:
                    group.create_task(_carry(client, server, late=late, begin=begin, rate=rate))
                    group.create_task(_carry(server, client, late=late, begin=begin, rate=rate))

    while True:
        client, _ = await loop.sock_accept(listening)
        task = asyncio.create_task(connect(client))
        connections.add(task)
        task.add_done_callback(connections.discard)


async def _main(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.to.rpartition(":")
    serving = asyncio.create_task(_serve((host, int(port)), arguments.round_trip, arguments.rate))
    await asyncio.to_thread(sys.stdin.read)
    serving.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", required=True, help="HOST:PORT")
    parser.add_argument("--round-trip", type=float, default=0.03, help="seconds")
    parser.add_argument("--rate", type=float, default=40e6, help="bytes a second, each way of each connection")
    asyncio.run(_main(parser.parse_args()))
