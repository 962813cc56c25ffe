"""Bodies on the wire: how those of requests are sent, and which replies have none.

A body that is sent is told of as it is taken, and not held back until the store says "100 Continue".

botocore makes a file of every body, and asks for "100 Continue" before a body that is a file. Its own connections go on
after a second without it; aiohttp waits for ever, and not every store says it (Ceph's gateway with `rgw print continue`
off, which its documentation asks for behind some proxies). So it is not asked for: the header is not signed
(botocore.auth), and is taken away right before a request is sent.

S3 answers a DELETE with 204 and some look-alikes with 200, without a body ("DeleteObject"). botocore does not read one,
and so takes a proxy's page with status 200 for a deletion.
"""

from __future__ import annotations

from typing import Any, BinaryIO, cast

from atomicpath.storage import WatchedBytes, WatchedFile, silence_for

__all__ = ["PageError", "no_pages", "no_waiting", "watched"]

_NAME = "atomicpath"
_WITHOUT_BODY = ("DeleteObject", "AbortMultipartUpload")


class PageError(Exception):
    """A success came with a body where S3 sends none: the reply is not the store's own. Its text says which it was."""


def no_waiting(client: Any) -> None:
    """Have a client of botocore's never wait before a body. A second call for the same client changes nothing."""
    client.meta.events.register("before-send.s3", _send_at_once, unique_id=_NAME)


def no_pages(client: Any) -> None:
    """Have a client of botocore's raise `PageError`. A second call for the same client changes nothing."""
    for operation in _WITHOUT_BODY:
        client.meta.events.register(f"after-call.s3.{operation}", _expect_no_body, unique_id=f"{_NAME} {operation}")


def watched(body: object, client: Any) -> object:
    """Return the same body for a request of this client; the request ends when nothing more of the body is taken."""
    seconds = silence_for(client.meta.config.read_timeout)
    return WatchedBytes(body, seconds) if isinstance(body, bytes) else WatchedFile(cast("BinaryIO", body), seconds)


def _send_at_once(request: Any, **_: object) -> None:
    if "Expect" in request.headers:
        del request.headers["Expect"]


async def _expect_no_body(http_response: Any, model: Any, **_: object) -> None:
    if http_response.status_code < 300 and (await http_response.content).strip():
        raise PageError(f"{model.name} was answered {http_response.status_code} with a body")
