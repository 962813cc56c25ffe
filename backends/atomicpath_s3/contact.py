"""First contact with an endpoint: what no repetition mends ends it at once, and says what to look at.

An untrusted certificate, a proxy that is not there, a host without a route and a name that nobody knows stay what they
are while a client repeats its request for half a minute. Once an endpoint has answered, the same failures may pass, and
the client's own repetitions stand.
"""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from botocore.exceptions import BotoCoreError, EndpointConnectionError, ProxyConnectionError, SSLError

__all__ = ["advice_on", "watch"]


def watch(client: Any) -> None:
    """Let a client of botocore give up at once as long as its endpoint has never answered; for each client once."""
    client.meta.events.register_first("needs-retry.s3", _FirstContact(), unique_id="atomicpath-first-contact")


def advice_on(error: BotoCoreError) -> str | None:
    """Say what to look at if no connection could be made, so that nothing was sent; None for any other failure."""
    if isinstance(error, SSLError):
        return (
            "the endpoint's certificate is not trusted: name the authority's file in AWS_CA_BUNDLE or"
            ' client_kwargs={"verify": ...}, or correct the host in endpoint_url'
        )
    if isinstance(error, ProxyConnectionError):
        return "the proxy cannot be reached: check HTTPS_PROXY, HTTP_PROXY, NO_PROXY and config_kwargs"
    if isinstance(error, EndpointConnectionError):
        cause = error.kwargs.get("error")
        # the client says the same of a connection that broke while a request was sent
        if isinstance(cause, aiohttp.ClientConnectorError | socket.gaierror):
            return "the endpoint cannot be reached: check endpoint_url and the network"
    return None


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
