"""A reverse proxy on loopback that counts requests and goes wrong on request.

    with Proxy("http://127.0.0.1:5000") as proxy:
        proxy.rules.append(Rule(match=is_("PUT", "run/a"), action=drop_reply))
        ...  # talk to proxy.url
        assert [request.conditions for request in proxy.requests] == [...]

The first rule that matches and has times left is applied; the others do not see the request.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

CONDITIONS = ("if-match", "if-none-match")
_PER_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent. `path` is decoded and has no query; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return {
            name: values[-1] for name, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()
        }

    @property
    def conditions(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name in CONDITIONS}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the upstream answered, or what the client is told instead.

    `short` bytes of the body are never sent. With `is_announced` false nothing says how long the body is: it ends with
    the connection.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    short: int = 0
    is_announced: bool = True

    def with_headers(self, keep: Callable[[str], bool]) -> Reply:
        """The same with those headers only whose name, in lower case, is kept."""
        return replace(self, headers={name: value for name, value in self.headers.items() if keep(name.lower())})


RESET = Reply(0, {})
"""In place of a reply: the connection is reset, where None closes it."""


Send = Callable[[Request], Reply]
Action = Callable[[Request, Send], "Reply | None"]
"""Given the request and how to have it carried out: the reply, RESET, or None to close the connection without one."""


@dataclass(slots=True)
class Rule:
    """Apply `action` to the next `times` requests that match; None is all of them.

    With `is_early` it sees the request before its body is read, which is then never read.
    """

    match: Callable[[Request], bool]
    action: Action
    times: int | None = 1
    is_early: bool = False


def is_(method: str, path: str = "", **query: str) -> Callable[[Request], bool]:
    """Requests of a method whose path ends so, with these names in the query ("" for any value)."""

    def match(request: Request) -> bool:
        found = request.query
        asked = all(name in found and value in ("", found[name]) for name, value in query.items())
        return request.method == method and request.path.endswith(path) and asked

    return match


def drop_reply(request: Request, send: Send) -> None:
    """Carried out, but the client never hears of it."""
    send(request)


def drop_request(request: Request, send: Send) -> None:
    """Never carried out, and no answer."""


def reset_before(request: Request, send: Send) -> Reply:
    """Never carried out, and the connection is reset."""
    return RESET


def reset_after(request: Request, send: Send) -> Reply:
    """Carried out, and the connection is reset."""
    send(request)
    return RESET


def fall_silent(release: threading.Event) -> Action:
    """Say nothing and read nothing until `release` is set."""

    def act(request: Request, send: Send) -> None:
        release.wait()

    return act


def refuse(status: int, code: str, text: str = "as the test asked") -> Action:
    """Not carried out; answered with an error in S3's form."""
    return lambda request, send: _error(status, code, text)


def answer_after(status: int, code: str, text: str = "as the test asked") -> Action:
    """Carried out, but answered with an error in S3's form."""

    def act(request: Request, send: Send) -> Reply:
        send(request)
        return _error(status, code, text)

    return act


def hold(seen: threading.Event, release: threading.Event) -> Action:
    """Sets `seen` when the request is there, and carries it out once `release` is set."""

    def act(request: Request, send: Send) -> Reply:
        seen.set()
        release.wait()
        return send(request)

    return act


def duplicate(when: threading.Event, done: threading.Event) -> Action:
    """Carried out and answered; once more after `when` is set, then sets `done`."""

    def act(request: Request, send: Send) -> Reply:
        def again() -> None:
            when.wait()
            send(request)
            done.set()

        threading.Thread(target=again, daemon=True).start()
        return send(request)

    return act


def ignore_conditions(request: Request, send: Send) -> Reply:
    """Carried out as by an endpoint that does not know conditional requests."""
    headers = {name: value for name, value in request.headers.items() if name not in CONDITIONS}
    return send(Request(request.method, request.target, headers, request.body))


def truncate(missing: int) -> Action:
    """Carried out, but the last bytes of the announced body never come."""

    def act(request: Request, send: Send) -> Reply:
        reply = send(request)
        return Reply(reply.status, reply.headers, reply.body, short=missing)

    return act


class Proxy:
    """The proxy: `url` to talk to, `requests` as they came, `rules` to go wrong by.

    With `continues` false it never says "100 Continue" to a client that asks for it, as Ceph's gateway with
    `rgw print continue = false`.
    """

    def __init__(self, upstream: str, *, continues: bool = True) -> None:
        self.continues = continues
        self.requests: list[Request] = []
        self.rules: list[Rule] = []
        self._lock = threading.Lock()
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, match: Callable[[Request], bool]) -> int:
        """How many matching requests came."""
        return sum(match(request) for request in tuple(self.requests))

    def handle(self, request: Request) -> Reply | None:
        rule = self.choose(request)
        return rule.action(request, self.send) if rule else self.send(request)

    def choose(self, request: Request, *, early: bool = False) -> Rule | None:
        """The rule for a request, which is one of its times; the request is noted once it is whole."""
        with self._lock:
            rules = (rule for rule in self.rules if rule.times != 0 and rule.is_early == early and rule.match(request))
            rule = next(rules, None)
            if rule is not None or not early:
                self.requests.append(request)
            if rule is not None and rule.times is not None:
                rule.times -= 1
        return rule

    def send(self, request: Request) -> Reply:
        connection = HTTPConnection(*self._upstream, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in _PER_HOP}
            headers["content-length"] = str(len(request.body))
            connection.request(request.method, request.target, request.body, headers)
            answer = connection.getresponse()
            # the length stays, for a HEAD: it announces what is not sent
            kept = {
                name: value for name, value in answer.getheaders() if name.lower() not in _PER_HOP - {"content-length"}
            }
            if "Location" in kept:  # of an upload session: what is sent there comes this way, too
                kept["Location"] = kept["Location"].replace("http://{}:{}".format(*self._upstream), self.url)
            return Reply(answer.status, kept, answer.read())
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._open: set[socket.socket] = set()
        self._reset: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        self._open.add(request)
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def reset(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._reset.add(connection)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        self._open.discard(request)
        if request in self._reset:  # closed at once: an orderly end first would be another thing
            self._reset.discard(request)
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body of an answer waits for the acknowledgement of its head: 40 ms
    server: _Server

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._do
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def handle_expect_100(self) -> bool:
        return super().handle_expect_100() if self.server.proxy.continues else True

    def _do(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, b"")
        early = self.server.proxy.choose(request, early=True)
        if early is None:
            request = replace(request, body=b"".join(self._body()))
            reply = self.server.proxy.handle(request)
        else:
            reply = early.action(request, self.server.proxy.send)
        if reply is None or reply is RESET or early is not None:
            self.close_connection = True
        if reply is None:
            return
        if reply is RESET:
            self.server.reset(self.connection)
            return
        lengths = [value for name, value in reply.headers.items() if name.lower() == "content-length"]
        announced = lengths[0] if lengths and self.command == "HEAD" else None
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        if not reply.is_announced:
            self.close_connection = True
            self.send_header("Connection", "close")
        elif reply.status != 204:
            self.send_header("Content-Length", announced or str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: len(reply.body) - reply.short])
        self.wfile.flush()
        self.close_connection = self.close_connection or bool(reply.short)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))


def _error(status: int, code: str, text: str) -> Reply:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
    return Reply(status, {"Content-Type": "application/xml"}, body)
