"""What makes an object: one request with its name, metadata and bytes, or a resumable session of several."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import AsyncIterator, Mapping

import anyio
import google_crc32c

from atomicpath.abc import Entry
from atomicpath.errors import BackendError
from atomicpath.storage import Answer, IOLoop, Source, memory_for

from .asking import Asking
from .errors import TemporaryError
from .exchange import Body, Reply, Request, encoded
from .names import split

__all__ = ["PART", "TOKEN", "create_in_parts", "one_request", "upload_in_parts", "upload_in_stream"]

PART = 16 * 2**20
"""Bytes of a part, a multiple of 256 KiB (Cloud Storage, "Resumable uploads")."""

TOKEN = "atomicpath-token"  # noqa: S105 - names an attempt, opens nothing
"""The key of the owner in an object's metadata."""

_SLICE = 2**18  # small enough that each is taken within a minute on any line
_TRIES = 5
_PAUSE = 0.5
_INCOMPLETE = 308
_ENDED = (404, 410)
_CANCELLED = 499
_PERSISTED = re.compile(r"bytes=0-(\d{1,19})")


def one_request(
    storage: Asking,
    path: str,
    data: bytes,
    *,
    condition: Mapping[str, str],
    owner: str = "",
    small: bool = True,
) -> Request:
    """Return the multipart upload that stores these bytes.

    The store verifies the checksum of the upload before the object appears. `small` objects are atomicpath's own, and
    are changed in place: a cache between readers and a public bucket must not keep them (Cloud Storage, "Consistency":
    cached objects).
    """
    extra: dict[str, object] = {"crc32c": encoded(google_crc32c.value(data))}
    if small:
        extra["cacheControl"] = "no-store"
    head, tail, boundary = _envelope(storage, path, owner, extra)

    async def body(_: IOLoop) -> AsyncIterator[bytes | memoryview]:
        yield head
        for offset in range(0, len(data), _SLICE):
            yield memoryview(data)[offset : offset + _SLICE]
        yield tail

    return Request(
        what="a write",
        method="POST",
        url=storage.url(split(path)[0], "o", upload=True),
        query={"uploadType": "multipart", "fields": "generation", **condition},
        headers={"Content-Type": f"multipart/related; boundary={boundary}"},
        body=body,
        length=len(head) + len(data) + len(tail),
        patient=not small,
        versioned=condition.get("ifGenerationMatch", "0") != "0",
    )


async def upload_in_stream(storage: Asking, source: Source, path: str, *, owner: str) -> Entry:
    """Create an object from a file of any size by one request, a megabyte of it in memory at a time."""
    head, tail, boundary = _envelope(storage, path, owner, {})
    file = await storage.environment.step(source.open)
    sent: list[int] = []
    changed: list[OSError] = []  # errors of the file; the client would report only that it could not send

    async def body(loop: IOLoop) -> AsyncIterator[bytes | memoryview]:
        left, crc = source.size, 0
        try:
            await loop.run_in_executor(None, file.seek, 0)
            yield head
            while left:
                chunk = await loop.run_in_executor(None, file.read, min(_SLICE, left))
                await loop.run_in_executor(None, source.check, file)  # without the tail, nothing is stored
                if not chunk:
                    raise OSError(errno.EIO, f"{source.path} ends {left} bytes early")
                left, crc = left - len(chunk), google_crc32c.extend(crc, chunk)
                yield chunk
        except OSError as error:
            changed.append(error)
            raise
        sent.append(crc)
        yield tail

    request = Request(
        what="an upload",
        method="POST",
        url=storage.url(split(path)[0], "o", upload=True),
        query={"uploadType": "multipart", "fields": "generation,size,crc32c", "ifGenerationMatch": "0"},
        headers={"Content-Type": f"multipart/related; boundary={boundary}"},
        body=body,
        length=len(head) + source.size + len(tail),
        patient=True,
    )
    try:
        reply = await storage.ask(path, request)
    except OSError as error:
        if changed:
            raise changed[0] from error
        raise
    finally:
        file.close()
    return _entry(path, source, reply.resource, sent[-1])


async def upload_in_parts(storage: Asking, source: Source, path: str, *, owner: str) -> Entry:
    """Create an object from a file by a resumable upload; it appears with the last part, if nothing is there by then.

    The condition is given where the session begins, and the store keeps to it when the object is made.
    """
    with anyio.CancelScope(shield=True):  # if cancelled here, a session would exist whose address nobody knows
        session = await _begin(storage, path, owner, source.size)
    try:
        return await _send(storage, source, path, session)
    except BaseException as error:
        try:
            with anyio.CancelScope(shield=True):
                await _cancel(storage, path, session)
        except (OSError, BackendError) as failed:
            error.add_note(f"An unfinished upload to gs://{path} was not cancelled; it ends by itself ({failed})")
        raise


async def create_in_parts(storage: Asking, path: str, data: bytes) -> None:
    """Create an object from bytes by a resumable upload. The contract is that of `MultipartStorage.create_in_parts`."""
    session = await _begin(storage, path, "", len(data))
    await _put(storage, path, session, data, 0, len(data))


async def _begin(storage: Asking, path: str, owner: str, size: int) -> str:
    bucket, key = split(path)
    resource = _resource(key, owner, {})
    request = Request(
        what="the beginning of an upload",
        method="POST",
        url=storage.url(bucket, "o", upload=True),
        query={"uploadType": "resumable", "ifGenerationMatch": "0"},
        headers={
            "Content-Type": "application/json; charset=UTF-8",
            "X-Upload-Content-Type": _TYPE,
            "X-Upload-Content-Length": str(size),
        },
        body=_bytes(resource),
        length=len(resource),
    )
    session = (await storage.ask(path, request)).headers.get("location")
    if not session:
        raise OSError(errno.EIO, f"gs://{path}: the beginning of an upload was answered without its address")
    return session


async def _send(storage: Asking, source: Source, path: str, session: str) -> Entry:
    offset = crc = failures = 0
    while True:
        try:
            length = min(PART, source.size - offset)
            async with memory_for(length):
                data = await storage.environment.step(source.read, offset, length)
                reply = await _put(storage, path, session, data, offset, source.size)
            failures = 0
        except (ConnectionError, TimeoutError, TemporaryError):
            failures += 1
            if failures == _TRIES:
                raise
            await storage.environment.sleep(_PAUSE * 2**failures)
            reply = await _ask_where(storage, path, session, source.size)
        kept = source.size if reply.status != _INCOMPLETE else _persisted(reply, path)
        if not offset <= kept <= offset + len(data):
            raise OSError(errno.EPROTO, f"gs://{path}: the upload does not have the bytes that were sent")
        crc = google_crc32c.extend(crc, data[: kept - offset])
        if reply.status != _INCOMPLETE:
            return _entry(path, source, reply.resource, crc)
        offset = kept


async def _put(storage: Asking, path: str, session: str, data: bytes, offset: int, size: int) -> Reply:
    last = offset + len(data) - 1
    request = Request(
        what="a part of an upload",
        method="PUT",
        url=session,
        headers={"Content-Range": f"bytes {offset}-{last}/{size}", "Content-Type": _TYPE},
        body=_bytes(data),
        length=len(data),
        signed=False,
        patient=True,
        tries=1,
        accept=(_INCOMPLETE, *_ENDED),
    )
    return _alive(path, await storage.ask(path, request))


async def _ask_where(storage: Asking, path: str, session: str, size: int) -> Reply:
    request = Request(
        what="the state of an upload",
        method="PUT",
        url=session,
        headers={"Content-Range": f"bytes */{size}"},
        signed=False,
        accept=(_INCOMPLETE, *_ENDED),
    )
    return _alive(path, await storage.ask(path, request))


async def _cancel(storage: Asking, path: str, session: str) -> None:
    accept = (_CANCELLED, *_ENDED)
    request = Request(what="the end of an upload", method="DELETE", url=session, signed=False, accept=accept)
    await storage.ask(path, request)


def _alive(path: str, reply: Reply) -> Reply:
    if reply.status in _ENDED:
        raise OSError(errno.EIO, f"gs://{path}: the upload has ended, completed or not")
    return reply


def _persisted(reply: Reply, path: str) -> int:
    """Return how many bytes a session has; without the header, none ("Performing resumable uploads")."""
    said = reply.headers.get("range")
    found = _PERSISTED.fullmatch(said) if said is not None else None
    if said is not None and found is None:
        raise OSError(errno.EPROTO, f"gs://{path}: the upload does not say which bytes it has")
    return int(found[1]) + 1 if found else 0


def _entry(path: str, source: Source, resource: Answer, crc: int) -> Entry:
    stored = resource.text_or_none("crc32c")
    if resource.number("size") != source.size or (stored is not None and stored != encoded(crc)):
        raise OSError(errno.EIO, f"what was stored at gs://{path} is not what {source.path} is")
    return Entry(name="", size=source.size, version=resource.text("generation"))


_TYPE = "application/octet-stream"


def _resource(key: str, owner: str, extra: Mapping[str, object]) -> bytes:
    metadata = {"metadata": {TOKEN: owner}} if owner else {}
    return json.dumps({"name": key, "contentType": _TYPE, **metadata, **extra}).encode()


def _envelope(storage: Asking, path: str, owner: str, extra: Mapping[str, object]) -> tuple[bytes, bytes, str]:
    """Return what comes before and after the bytes in a `multipart/related` body, and the boundary between them."""
    boundary = f"atomicpath-{storage.environment.token()}"
    head = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode()
        + _resource(split(path)[1], owner, extra)
        + f"\r\n--{boundary}\r\nContent-Type: {_TYPE}\r\n\r\n".encode()
    )
    return head, f"\r\n--{boundary}--\r\n".encode(), boundary


def _bytes(data: bytes) -> Body:
    async def body(_: IOLoop) -> AsyncIterator[bytes | memoryview]:
        for offset in range(0, len(data), _SLICE):
            yield memoryview(data)[offset : offset + _SLICE]

    return body
