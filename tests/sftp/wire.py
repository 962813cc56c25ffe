"""A TCP relay that stops carrying answers, or ends every connection, when told: nobody can look into SSH."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

__all__ = ["Wire"]


class Wire:
    """Listens on `port` and carries bytes to and from a port of loopback."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.made = 0
        self._deaf = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for thread in list(self._threads):
            thread.join(10)

    def deafen(self) -> None:
        """From here on what the server answers is lost; what it is asked still arrives."""
        self._deaf = True

    def cut(self) -> None:
        """End every connection; new ones are made and carried as before."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self._deaf = False
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End every connection, and take no new one."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for end in (client, server):  # else each small packet waits for the acknowledgement of the last
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.made += 1
                self._pairs.append((client, server))
            ends = threading.Barrier(2)
            self._start(self._carry, client, server, False, ends)
            self._start(self._carry, server, client, True, ends)

    def _carry(self, source: socket.socket, target: socket.socket, answers: bool, ends: threading.Barrier) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not (answers and self._deaf):
                    target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        ends.wait(10)
        source.close()

    def _start(self, function: object, *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()
