"""From what aiohttp, google-auth and the JSON API say to what `Storage` promises to raise."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import aiohttp
from gcsfs.retry import HttpError
from google.auth.exceptions import GoogleAuthError

from atomicpath.abc import StaleVersionError
from atomicpath.errors import AccessError, AtomicPathError, ValidationError
from atomicpath.storage import Link, missing_link

from .exchange import Reply, Request

__all__ = ["AGAIN", "CHECK", "TemporaryError", "answers", "refused"]

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""The replies after which a request may be sent again (Cloud Storage, "Retry strategy")."""

CHECK = "check the credentials and what they may do there"

_ADVICE: Mapping[Link, str] = {
    "certificate": "the endpoint's certificate is not trusted: name its authority's file in SSL_CERT_FILE, or correct"
    " the host in endpoint_url",
    "proxy": "the proxy cannot be reached: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    "endpoint": "the endpoint cannot be reached: check endpoint_url and the network",
}
_REASON = re.compile(r"[A-Za-z_]{1,40}")


class TemporaryError(OSError):
    """The store cannot serve the request now, and does not say what became of it."""


@contextmanager
def answers(path: str) -> Iterator[None]:
    """Translate what the block raises about `path`. No text from outside is in a message: it may hold secrets."""
    url = f"gs://{path}"
    try:
        yield
    except (GoogleAuthError, HttpError) as error:  # gcsfs raises the second when the first happened at a refresh
        # not chained: the answer of a token server is in its text
        raise AccessError(f"{url}: no usable credentials ({type(error).__name__}): {CHECK}") from None
    except aiohttp.InvalidURL:  # as below, where it is a `ValueError` only
        raise ValidationError(f"{url}: endpoint_url must be a URL such as https://host:9000") from None
    except aiohttp.ServerTimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"{url}: the endpoint did not answer in time") from error
    except aiohttp.ClientConnectorError as error:
        advice = _ADVICE[missing_link(error) or "endpoint"]
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"{url}: {advice}") from error
    except aiohttp.ClientError as error:
        # not chained: the address of an upload session, with which anybody could write, may be in its text
        raise ConnectionError(errno.ECONNABORTED, f"{url}: the connection failed ({type(error).__name__})") from None
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"{url}: the endpoint did not answer in time") from error
    except AtomicPathError:
        raise
    except ValueError:  # of an endpoint that is no URL; it may have a password in it
        raise ValidationError(f"{url}: endpoint_url must be a URL such as https://host:9000") from None


def refused(reply: Reply, request: Request, path: str, *, doubtful: bool) -> Exception:
    """The error for a reply that is none of success.

    `doubtful`: it was a write that was sent before, and that first try, which had no answer, may have been
    carried out: only the second was refused.
    """
    url = f"gs://{path}"
    said = f"{url}: {request.what} was answered {reply.status} {_reason(reply)}".rstrip()
    if reply.status in (401, 403):
        return (
            OSError(errno.EIO, f"{said} when it was sent again: {CHECK}")
            if doubtful
            else AccessError(f"{said}: {CHECK}")
        )
    if reply.status == 404:
        if request.of_object:
            return FileNotFoundError(errno.ENOENT, f"nothing is at {url}")
        return FileNotFoundError(errno.ENOENT, f"{url}: the bucket does not exist: create it first")
    if reply.status == 412:
        if request.versioned:
            return StaleVersionError(errno.ESTALE, f"{url} does not have the expected version any more")
        return FileExistsError(errno.EEXIST, f"something is at {url}")
    if reply.status in AGAIN:
        return TemporaryError(errno.EBUSY if reply.status == 429 else errno.EIO, said)
    return OSError(errno.EBUSY if reply.status == 409 else errno.EIO, said)


def _reason(reply: Reply) -> str:
    """The error's code word, which is one of a documented list, never its text."""
    try:
        reason = str(json.loads(reply.body)["error"]["errors"][0]["reason"])
    except (ValueError, LookupError, TypeError):
        return ""
    return reason if _REASON.fullmatch(reason) else ""
