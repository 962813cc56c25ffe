"""What is changed of each request right before it is sent: bodies that say how they are taken, and nothing to wait for.

botocore asks for "100 Continue" before a body that is a file. Its own connections go on after a second without it;
aiohttp waits for ever, and not every store says it (Ceph's gateway with `rgw print continue = false`, which its
documentation asks for behind some proxies). So it is not asked for. The header is not signed (botocore.auth).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from atomicpath.storage import SILENCE, WatchedBytes

__all__ = ["on_the_wire"]

_NAME = "atomicpath"
_READS = 3  # silences that the client itself bounds, which a request may meet without a piece of its body being taken


def on_the_wire(client: Any) -> Any:
    """Have a client of botocore's send its requests so. A second call for the same client changes nothing."""
    reads = client.meta.config.read_timeout
    seconds = max(SILENCE, _READS * reads) if isinstance(reads, int | float) else SILENCE
    client.meta.events.register("before-send.s3", partial(_prepare, seconds=seconds), unique_id=_NAME)
    return client


def _prepare(request: Any, *, seconds: float, **_: object) -> None:
    if "Expect" in request.headers:
        del request.headers["Expect"]
    if isinstance(request.body, bytes | bytearray):
        request.body = WatchedBytes(bytes(request.body), seconds)
