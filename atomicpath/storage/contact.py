"""Telling a connection that could not be made from one that broke, by what an HTTP client says.

Where none could be made nothing was sent, and no repetition mends it: the certificate is not trusted, the proxy is not
there, the host cannot be reached or found. A client that repeats its request all the same would keep its user waiting.
"""

from __future__ import annotations

import socket
import ssl
from typing import Literal, TypeAlias

__all__ = ["Link", "missing_link"]

Link: TypeAlias = Literal["certificate", "proxy", "endpoint"]

_PROXY = {"ClientProxyConnectionError", "ClientHttpProxyError"}  # names in aiohttp, which may not be installed
_CONNECTOR = "ClientConnectorError"


def missing_link(error: BaseException | None) -> Link | None:
    """Tell what kept a connection from being made. Return None if one was made, or if the error does not tell."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _PROXY:
        return "proxy"
    if isinstance(error, ssl.SSLError) or "ClientSSLError" in names:
        return "certificate"
    return "endpoint" if isinstance(error, socket.gaierror) or _CONNECTOR in names else None
