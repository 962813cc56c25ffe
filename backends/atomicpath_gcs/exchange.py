"""One HTTP exchange with gcsfs's session and credentials: what is sent, and what comes back."""

from __future__ import annotations

import base64
import errno
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import aiohttp
import anyio
import google_crc32c
from yarl import URL

from atomicpath.storage import (
    CHUNK,
    CRC32C,
    Answer,
    AsyncFilesystem,
    Checksum,
    IOLoop,
    RangeRequest,
    bounds_lookups,
    check_length,
    repeats_nothing,
    silence_for,
    watched_pieces,
)

__all__ = [
    "Body",
    "GcsFilesystem",
    "Reply",
    "Request",
    "encoded",
    "exchange",
    "location",
    "receive_into",
    "url_of",
]

_WAITS = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=20)  # aiohttp's own total would end long uploads
_REFRESH = 150.0  # seconds for credentials: google-auth's own 120 for a request do not bound the look-up of a name

Body = Callable[[IOLoop], AsyncIterator[bytes | memoryview]]
"""Makes a request's body anew for each try."""


class GcsFilesystem(AsyncFilesystem, Protocol):
    """What is used of `gcsfs.GCSFileSystem`: its session, credentials and options, none of its requests.

    Those drop or reinterpret conditions on some kinds of bucket, repeat a write without telling, and ask for the
    bucket's layout by gRPC, which at an emulator's endpoint ends only after minutes.
    """

    base: str
    requests_timeout: Any

    async def _set_session(self) -> aiohttp.ClientSession: ...
    def _get_headers(self, headers: Mapping[str, str] | None) -> dict[str, str]: ...
    def _get_params(self, kwargs: Mapping[str, str]) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply; header names are in lower case. `where` and `what` say in words what it answers."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)
    where: str = ""
    what: str = "a request"

    @property
    def head(self) -> Answer:
        """The headers."""
        return Answer(self.where, self.what, self.headers)

    @property
    def resource(self) -> Answer:
        """The body, which on success is a resource of the JSON API; `OSError` if it is something else."""
        try:
            found = json.loads(self.body)
        except ValueError as error:
            raise OSError(errno.EIO, f"{self.where}: the reply to {self.what} is not JSON") from error
        if not isinstance(found, dict):
            raise OSError(errno.EIO, f"{self.where}: the reply to {self.what} is no resource")
        return Answer(self.where, self.what, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent, and what the answers to it mean.

    `what`: in words, for messages. `url`: absolute, without a query. `length`: in bytes, of a body that is given.
    `signed`: with credentials; the address of an upload session is one itself, and needs no other.
    `patient`: it moves data and so may take long. `tries`: how often it may be sent. `accept`: replies beside 2xx
    that are no errors. `versioned`: it names a generation. `of_object`: a 404 need not mean that the bucket is missing.
    """

    what: str
    method: str
    url: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: Body | None = field(default=None, repr=False)
    length: int = 0
    signed: bool = True
    patient: bool = False
    tries: int = 4
    accept: tuple[int, ...] = ()
    versioned: bool = False
    of_object: bool = False


def location(filesystem: GcsFilesystem) -> str:
    """Return the scheme and host of the endpoint, without a trailing "/"."""
    return filesystem.base.removesuffix("/storage/v1/").rstrip("/")


def url_of(filesystem: GcsFilesystem, *parts: str, upload: bool = False) -> str:
    """Return the address of a resource below `/b`, with each part of its path encoded whole.

    See "Cloud Storage request endpoints".
    """
    below = "/".join(quote(part, safe="") for part in parts)
    return f"{location(filesystem)}{'/upload' if upload else ''}/storage/v1/b/{below}"


async def exchange(filesystem: GcsFilesystem, request: Request) -> Reply:
    """Send a request, once, and read the reply whole. Runs in the file system's event loop."""
    async with await _send(filesystem, request) as response:
        body = await response.read()
        if request.query.get("alt") == "media" and response.status == 200:
            _check(response, body)
        return _reply(response, body)


async def receive_into(filesystem: GcsFilesystem, request: Request, into: RangeRequest) -> Reply:
    """Send a download request, once, and give the body of a success to `into`.

    The body of the returned reply is then empty. Runs in the file system's event loop.
    """
    async with await _send(filesystem, request) as response:
        if response.status not in (200, 206):
            return _reply(response, await response.read())
        reply = replace(_reply(response, b""), where=into.where, what=request.what)
        into.begin(
            version=reply.head.text("x-goog-generation"),
            content_range=reply.head.text_or_none("content-range"),
            length=_announced(response),
            checksum=_checksum(response),
        )
        while into.is_wanting and (data := await response.content.read(CHUNK)):
            await into.put(filesystem.loop, data)
        return reply


def encoded(crc: int) -> str:
    """Return a checksum as the JSON API writes it: CRC32C, big-endian, in base 64."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


async def _send(filesystem: GcsFilesystem, request: Request) -> Any:
    session = await filesystem._set_session()  # noqa: SLF001 - has no public name
    repeats_nothing(session)  # the session belongs to an instance that nobody else has, see `PerProcess`
    bounds_lookups(session)
    headers, query = dict(request.headers), dict(request.query)
    if request.signed:
        # in a worker thread: credentials that have to be refreshed make a blocking request
        with anyio.fail_after(_REFRESH):
            headers = await filesystem.loop.run_in_executor(None, filesystem._get_headers, headers)  # noqa: SLF001 - as above
        query = filesystem._get_params(query)  # noqa: SLF001 - as above; it adds who pays
    if request.query.get("alt") == "media":
        headers["Accept-Encoding"] = "gzip"  # else what is stored compressed is sent decompressed ("Transcoding")
    chosen = filesystem.requests_timeout
    waits = aiohttp.ClientTimeout(total=chosen) if isinstance(chosen, int | float) else chosen or _WAITS
    data: Any = None
    if request.body is not None:
        data = watched_pieces(request.body(filesystem.loop), silence_for(waits.sock_read))
        headers["Content-Length"] = str(request.length)
    return session.request(
        request.method,
        URL(request.url + (f"?{urlencode(query, quote_via=quote)}" if query else ""), encoded=True),
        data=data,
        headers=headers,
        timeout=waits,
        allow_redirects=False,
        raise_for_status=False,
        auto_decompress=request.query.get("alt") != "media",
    )


def _reply(response: Any, body: bytes) -> Reply:
    return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, body)


def _check(response: Any, body: bytes) -> None:
    """Raise an `OSError` unless what came is what the head announced."""
    announced, checksum = _announced(response), _checksum(response)
    if announced is not None:
        check_length(len(body), announced)
    if checksum is not None:
        checksum.check([(google_crc32c.value(body), len(body))])


def _announced(response: Any) -> int | None:
    length = response.headers.get("Content-Length")
    return int(length) if length is not None and length.isascii() and length.isdecimal() else None


def _checksum(response: Any) -> Checksum | None:
    """Return the checksum of the whole object, which replies with a range of it have, too."""
    for one in ",".join(response.headers.getall("X-Goog-Hash", ())).split(","):
        name, _, value = one.strip().partition("=")
        if name == "crc32c":
            return Checksum(_extend, CRC32C, value)
    return None


def _extend(data: bytes, crc: int) -> int:
    extended: int = google_crc32c.extend(crc, data)
    return extended
