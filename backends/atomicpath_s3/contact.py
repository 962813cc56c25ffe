"""First contact with an endpoint: what no repetition mends ends it at once, and says what to look at.

An untrusted certificate, a proxy that is not there, a host without a route and a name that nobody knows stay what they
are while a client repeats its request for half a minute. Once an endpoint has answered, the same failures may pass, and
the client's own repetitions stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError

from atomicpath.storage import Link, missing_link

__all__ = ["advice_on", "watch"]

_ADVICE: Mapping[Link, str] = {
    "certificate": (
        "the endpoint's certificate is not trusted: name its authority's file in AWS_CA_BUNDLE or"
        ' client_kwargs={"verify": ...}, or correct the host in endpoint_url'
    ),
    "proxy": "the proxy cannot be reached: check HTTPS_PROXY, HTTP_PROXY, NO_PROXY and config_kwargs",
    "endpoint": "the endpoint cannot be reached: check endpoint_url and the network",
}


def watch(client: Any) -> None:
    """Let a client of botocore give up at once as long as its endpoint has never answered; for each client once."""
    client.meta.events.register_first("needs-retry.s3", _FirstContact(), unique_id="atomicpath-first-contact")


def advice_on(error: BotoCoreError) -> str | None:
    """Say what to look at if no connection could be made, so that nothing was sent; None for any other failure."""
    # botocore has one class for a host that cannot be reached and for a connection that broke while a request was sent
    link = missing_link(error.kwargs.get("error"))
    return _ADVICE[link] if link is not None else None


class _FirstContact:
    """Stands before botocore's own handler, which decides by its answer whether to repeat a request."""

    def __init__(self) -> None:
        self._has_answered = False

    def __call__(
        self, response: object = None, caught_exception: BaseException | None = None, **_others: object
    ) -> None:
        if response is not None:
            self._has_answered = True
        elif not self._has_answered and isinstance(caught_exception, BotoCoreError) and advice_on(caught_exception):
            raise caught_exception
