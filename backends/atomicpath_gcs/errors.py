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

from atomicpath.abc import NoBucketError, StaleVersionError
from atomicpath.errors import AtomicPathError, ValidationError
from atomicpath.storage import Link, Refusal, Watch, foreign_answer, missing_link, of_the_client, refusal_of

from .exchange import Reply, Request
from .names import split
from .settings import FILES

__all__ = ["AGAIN", "TemporaryError", "UnconfirmedError", "expect_no_page", "in_time", "refused", "translate_errors"]

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""The replies after which a request may be sent again (Cloud Storage, "Retry strategy")."""

_ADVICE: Mapping[Link, str] = {
    "certificate": "the endpoint's certificate is not trusted: name its authority's file in SSL_CERT_FILE, or correct"
    " the host in endpoint_url",
    "proxy": "the proxy cannot be reached: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    "endpoint": "the endpoint cannot be reached: check endpoint_url and the network",
}
_CODES = {  # "HTTP status and error codes for JSON"
    "authError": Refusal.CREDENTIALS,
    "required": Refusal.CREDENTIALS,
    "expired": Refusal.EXPIRED,
    "retentionPolicyNotMet": Refusal.LOCKED,
    "objectUnderActiveHold": Refusal.LOCKED,
    "quotaExceeded": Refusal.QUOTA,
    "userProjectMissing": Refusal.PAYER,
    "requesterPaysRequired": Refusal.PAYER,
}
_NO_BUCKET = re.compile(r"\bbucket\b.*\bnot (exist|found)\b", re.IGNORECASE)
_ABSENT = ("notFound", "Not Found")  # the second is fake-gcs-server's, which does not tell a bucket from an object
_REASON = re.compile(r"[A-Za-z_ ]{1,40}")


class TemporaryError(OSError):
    """The store cannot serve the request now, and does not say what became of it."""


class UnconfirmedError(OSError):
    """The bytes of an object were answered 404, and not in the store's own words."""


@contextmanager
def in_time(path: str) -> Iterator[None]:
    """Translate the error that says that the block took too long."""
    try:
        yield
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"gs://{path}: the endpoint did not answer in time") from error


@contextmanager
def translate_errors(path: str, watch: Watch) -> Iterator[None]:
    """Translate the errors that one exchange raises about `path`.

    No text from outside is in a message: it may hold secrets.

    `watch` counts the exchanges before this one, and is told of credentials that could not be had.
    """
    url = f"gs://{path}"
    try:
        yield
    except (GoogleAuthError, HttpError) as error:  # gcsfs raises the second when the first happened at a refresh
        watch.is_stale = True
        # not chained: the answer of a token server is in its text
        raise Refusal.CREDENTIALS.error(f"{url}: no usable credentials ({type(error).__name__})") from None
    except aiohttp.InvalidURL:  # treated like the `ValueError` below
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
    except ValueError:  # the endpoint is no URL; its text may have a password in it
        raise ValidationError(f"{url}: endpoint_url must be a URL such as https://host:9000") from None
    except (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
        watch.is_stale = True  # the credentials of this client may be the ones that are missing
        raise of_the_client(error, url, sent=watch.sent > 0, variables=FILES) from error


def expect_no_page(reply: Reply, request: Request, path: str) -> None:
    """Raise if the success of a deletion has a body that is not JSON: the API's own is empty ("Objects: delete")."""
    try:
        json.loads(reply.body or b"null")
    except ValueError:
        said = f"gs://{path}: {request.what} was answered {reply.status} with a page"
        raise foreign_answer(said) from None


def refused(reply: Reply, request: Request, path: str, watch: Watch) -> Exception:
    """Return the error for a reply that is no success.

    Where a write was sent before, that first try had no answer and may have been carried out: only the last try was
    refused.
    """
    url = f"gs://{path}"
    reason, text = _said(reply)
    said = f"{url}: {request.what} was answered {reply.status} {reason}".rstrip()
    why = _refusal(reply, reason, text)
    if why is not None:
        watch.is_stale = watch.is_stale or why.is_of_credentials or reply.status == 401
        if watch.writes and watch.sent:
            return OSError(errno.EIO, f"{said} when it was sent again: {why.value}")
        return why.error(said)
    if reply.status == 404:
        return _missing(request, path, reason, text, said)
    if reply.status == 412:
        if request.versioned:
            return StaleVersionError(errno.ESTALE, f"{url} does not have the expected version any more")
        return FileExistsError(errno.EEXIST, f"something is at {url}")
    if reply.status in AGAIN:
        return TemporaryError(errno.EBUSY if reply.status == 429 else errno.EIO, said)
    return OSError(errno.EBUSY if reply.status == 409 else errno.EIO, said)


def _missing(request: Request, path: str, reason: str, text: str, said: str) -> Exception:
    """Return the error that a 404 means.

    The store says "not found" in JSON or, of an object's bytes, in one line that names the object.
    """
    url, (bucket, key) = f"gs://{path}", split(path)
    is_media = request.query.get("alt") == "media"
    named = is_media and text.startswith(f"No such object: {bucket}/{key}")
    if reason not in _ABSENT and not named:
        return UnconfirmedError(errno.EIO, said) if is_media else foreign_answer(said)
    if request.of_object and not _NO_BUCKET.search(text):
        return FileNotFoundError(errno.ENOENT, f"nothing is at {url}")
    missing = f"{url}: the bucket does not exist: create it first"
    looks = request.of_object and request.method == "GET"
    return NoBucketError(missing) if looks else FileNotFoundError(errno.ENOENT, missing)


def _refusal(reply: Reply, reason: str, text: str) -> Refusal | None:
    if reply.status not in (400, 401, 403):
        return None
    if reply.status == 400:  # the bucket's requester pays, or the key cannot be used
        why = refusal_of("", text, {})
        return why if why in (Refusal.PAYER, Refusal.KEY) else None
    return refusal_of(reason, text, _CODES) or Refusal.RIGHTS_OR_PAYER


def _said(reply: Reply) -> tuple[str, str]:
    """Return the error's code word, which is one of a documented list, and its text, which no message shows."""
    try:
        error = json.loads(reply.body)["error"]
        reason = str(error["errors"][0]["reason"])
        text = str(error.get("message", ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", reply.body[:2000].decode(errors="replace")
    return (reason if _REASON.fullmatch(reason) else ""), text
