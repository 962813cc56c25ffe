"""How a request is sent: a delete once, whatever the client's own retries are, and to a name that was found in time."""

from __future__ import annotations

from typing import Any

from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import ClientError

from atomicpath.storage import bounds_lookups, repeats_nothing

__all__ = ["PlainSession", "send_deletes_once"]

_ID = "atomicpath-deletes-once"
_ELSEWHERE = frozenset(  # codes by which botocore learns the bucket's region; nothing was done (S3RegionRedirectorv2)
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)


class PlainSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """aiobotocore's session over aiohttp, without the repetitions of the latter, and with a bound for look-ups."""

    async def __aenter__(self) -> Any:
        entered = await super().__aenter__()
        session = getattr(self, "_session", None)  # where there is one, in aiobotocore 2
        repeats_nothing(session)
        bounds_lookups(session)
        return entered

    async def _get_session(self, proxy_url: object) -> Any:
        session = await super()._get_session(proxy_url)
        repeats_nothing(session)
        bounds_lookups(session)
        return session


def send_deletes_once(client: Any) -> None:
    """Have a client of botocore's give a DeleteObject up that had no usable answer.

    The decision on a retry is botocore's event `needs-retry`; what is raised there is the outcome of the request.
    """
    client.meta.events.register_first("needs-retry.s3.DeleteObject", _give_up, unique_id=_ID)


def _give_up(response: Any, operation: Any, caught_exception: BaseException | None, **_: object) -> None:
    if caught_exception is not None:
        raise caught_exception
    reply, parsed = response
    if reply.status_code >= 400 and parsed.get("Error", {}).get("Code") not in _ELSEWHERE:
        raise ClientError(parsed, operation.name)
