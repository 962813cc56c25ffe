"""How a body is sent: told of as it is taken, and not held back until the store says "100 Continue".

botocore makes a file of every body, and asks for "100 Continue" before a body that is a file. Its own connections go on
after a second without it; aiohttp waits for ever, and not every store says it (Ceph's gateway with `rgw print continue`
off, which its documentation asks for behind some proxies). So it is not asked for: the header is not signed
(botocore.auth), and is taken away right before a request is sent.
"""

from __future__ import annotations

from typing import Any, BinaryIO, cast

from atomicpath.storage import WatchedBytes, WatchedFile, silence_for

__all__ = ["no_waiting", "watched"]

_NAME = "atomicpath"


def no_waiting(client: Any) -> Any:
    """Have a client of botocore's never wait before a body. A second call for the same client changes nothing."""
    client.meta.events.register("before-send.s3", _send_at_once, unique_id=_NAME)
    return client


def watched(body: object, client: Any) -> object:
    """The same body for a request of this client, which ends when nothing more of it is taken."""
    seconds = silence_for(client.meta.config.read_timeout)
    return WatchedBytes(body, seconds) if isinstance(body, bytes) else WatchedFile(cast("BinaryIO", body), seconds)


def _send_at_once(request: Any, **_: object) -> None:
    if "Expect" in request.headers:
        del request.headers["Expect"]
