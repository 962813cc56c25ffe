"""What a client does by itself, beyond what it was asked to do: what it sends again, and how long it looks names up."""

from __future__ import annotations

import errno
from typing import Any

import anyio

__all__ = ["bounds_lookups", "repeats_nothing"]

_LOOKUP = 20.0  # seconds: as long as clients wait for the next piece of a reply


def repeats_nothing(session: Any) -> None:
    """Have a session of aiohttp send what it is given once.

    It sends GET, PUT and DELETE again, without a word, when the connection breaks before the reply (aiohttp 3.10 and
    later, `ClientSession._request`). A delete that arrives twice may hit the next attempt's object, and whether another
    request is worth a second try is for whoever settles its outcome to say. There is no public switch.
    """
    if hasattr(session, "_retry_connection"):
        session._retry_connection = False  # noqa: SLF001 - as above


def bounds_lookups(session: Any) -> None:
    """Have a session of aiohttp look a host's name up within a time; a second call for it changes nothing.

    Its time-outs begin with the connection to an address, and all requests to a host wait for one look-up: a resolver
    that never answers would hold each of them for ever. A look-up that was given up is an `OSError`, after which
    nothing was sent; the next request begins another. There is no public way to the resolver of a session.
    """
    connector = getattr(session, "connector", None)
    resolver = getattr(connector, "_resolver", None)
    if connector is not None and resolver is not None and not isinstance(resolver, _Bounded):
        connector._resolver = _Bounded(resolver)  # noqa: SLF001 - as above


class _Bounded:
    """A resolver of aiohttp's that gives up."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def resolve(self, host: str, *args: Any, **kwargs: Any) -> Any:
        try:
            with anyio.fail_after(_LOOKUP):
                return await self._inner.resolve(host, *args, **kwargs)
        except TimeoutError:
            raise OSError(errno.EHOSTUNREACH, f"the name {host} was not found within {_LOOKUP:g} s") from None

    async def close(self) -> None:
        await self._inner.close()
