"""From what Azure's libraries raise to what `Storage` promises to raise."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)

from atomicpath.abc import StaleVersionError
from atomicpath.errors import AccessError, AtomicPathError
from atomicpath.storage import Link, missing_link

__all__ = ["NoContactError", "NoContainerError", "Watch", "answers"]

_CHECK = "check the credentials, and what they may do there"
_REFUSED = frozenset(
    {"InvalidAuthenticationInfo", "BlobImmutableDueToPolicy", "PublicAccessNotPermitted"}
)  # not 401, 403
_NO_CONTAINER = frozenset(
    {"ContainerNotFound", "ContainerBeingDeleted", "FilesystemNotFound", "FilesystemBeingDeleted"}
)
_THERE = frozenset({"BlobAlreadyExists", "PathAlreadyExists", "ResourceAlreadyExists", "ResourceTypeMismatch"})
_CONDITION = frozenset({"", "ConditionNotMet", "TargetConditionNotMet"})  # a 412 is also what a lease is refused with


_ADVICE: Mapping[Link, str] = {
    "certificate": "the endpoint's certificate is not trusted: name its authority's file in SSL_CERT_FILE, or correct"
    " the host",
    "proxy": "the proxy cannot be reached: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    "endpoint": "the endpoint cannot be reached: check the account's name and the network",
}


class NoContactError(Exception):
    """No connection could be made to an endpoint that has never answered; its cause says why.

    None of the SDK's own errors, each of which its policy would repeat the request after.
    """


class NoContainerError(FileNotFoundError):
    """Not even the container is there."""


@dataclass(slots=True)
class Watch:
    """What is seen of one operation on the wire: how often something was sent, and the headers of the last reply."""

    writes: bool = False
    versioned: bool = False
    patient: bool = False
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def answers(path: str, watch: Watch) -> Iterator[None]:
    """Translate what the block raises about `path`.

    Nothing of the SDK's own texts is shown or chained: a reply may quote a header or parameter that was
    sent, and with it the signature that is a credential.
    """
    url = f"abfs://{path}"
    try:
        yield
    except ClientAuthenticationError as error:
        if error.response is None:  # no token could be had, and what the credential's attempts said is in its text
            raise AccessError(f"{url}: no usable credentials ({type(error).__name__}): {_CHECK}") from None
        raise _of_reply(error, url, watch) from None
    except HttpResponseError as error:
        raise _of_reply(error, url, watch) from None
    except (TimeoutError, ServiceRequestTimeoutError, ServiceResponseTimeoutError):
        raise TimeoutError(errno.ETIMEDOUT, f"{url}: the endpoint did not answer in time") from None
    except (ServiceRequestError, NoContactError) as error:
        # the SDK has one class for a host that cannot be reached and for a connection that broke
        link = missing_link(error.__cause__)
        if link is None:
            raise ConnectionError(errno.ECONNABORTED, f"{url}: the connection failed") from None
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"{url}: {_ADVICE[link]}") from None
    except (ServiceResponseError, aiohttp.ClientError) as error:
        raise ConnectionError(errno.ECONNABORTED, f"{url}: the connection failed ({type(error).__name__})") from None
    except AzureError as error:
        if "Signing" in type(error).__name__:
            raise AccessError(f"{url}: the account's key cannot sign a request: {_CHECK}") from None
        raise OSError(errno.EIO, f"{url}: no usable answer ({type(error).__name__})") from None
    except AtomicPathError:
        raise
    except (TypeError, ValueError) as error:  # what the SDK stumbles with over a reply that is not Azure's
        raise OSError(errno.EIO, f"{url}: no usable answer ({type(error).__name__})") from None


def _of_reply(error: HttpResponseError, url: str, watch: Watch) -> Exception:
    status = error.status_code
    code = _code(error)
    if status is None:
        return OSError(errno.EIO, f"{url}: no usable answer ({type(error).__name__})")
    said = f"{url}: the request was answered {status} {code}".rstrip()
    if status in (401, 403) or code in _REFUSED:
        if watch.writes and watch.sent > 1:
            # the client's first try, which had no answer, may have been carried out: only the last was refused
            return OSError(errno.EIO, f"{said} when it was sent again: {_CHECK}")
        return AccessError(f"{said}: {_CHECK}")
    if code in _NO_CONTAINER:
        return NoContainerError(errno.ENOENT, f"{url}: the container does not exist: create it first")
    if watch.versioned and (status == 404 or (status == 412 and code in _CONDITION)):
        return StaleVersionError(errno.ESTALE, f"{url} does not have the expected version any more")
    if status == 404:
        return FileNotFoundError(errno.ENOENT, f"nothing is at {url} ({code or 'not found'})")
    if (status == 412 and code in _CONDITION) or (status in (409, 412) and code in _THERE):
        return FileExistsError(errno.EEXIST, f"something is at {url}")
    return OSError(errno.EBUSY if status in (409, 412) else errno.EIO, said)


def _code(error: HttpResponseError) -> str:
    """Azure's name for what is wrong; the reply to a HEAD has it in a header only."""
    found = getattr(error, "error_code", None) or getattr(error.response, "headers", {}).get("x-ms-error-code")
    return str(getattr(found, "value", found) or "")
