"""From what Azure's libraries raise to what `Storage` promises to raise."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

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

from atomicpath.abc import NoBucketError, StaleVersionError
from atomicpath.errors import AtomicPathError
from atomicpath.storage import Link, Refusal, foreign_answer, missing_link, of_the_client, refusal_of
from atomicpath.storage import Watch as Seen

from .settings import FILES

__all__ = ["NoContactError", "NoContainerError", "Watch", "translate_errors"]

_CODES = {  # "Common REST API error codes", "Blob Storage error codes"; some come with another status than 401 or 403
    "AuthenticationFailed": Refusal.CREDENTIALS,
    "InvalidAuthenticationInfo": Refusal.CREDENTIALS,
    "NoAuthenticationInformation": Refusal.CREDENTIALS,
    "PublicAccessNotPermitted": Refusal.CREDENTIALS,
    "BlobImmutableDueToPolicy": Refusal.LOCKED,
    "BlobArchived": Refusal.ARCHIVED,
    "KeyVaultEncryptionKeyNotFound": Refusal.KEY,
    "KeyVaultEncryptionKeyDisabled": Refusal.KEY,
    "KeyVaultAccessTokenCannotBeAcquired": Refusal.KEY,
    "AccountQuotaExceeded": Refusal.QUOTA,
}
_ABSENT = frozenset(
    {"BlobNotFound", "PathNotFound", "ResourceNotFound", "SourcePathNotFound", "RenameDestinationParentPathNotFound"}
    | {"CannotVerifyCopySource"}
)
_HIDDEN = "ResourceNotFound"  # what a container that is not public answers to a request without credentials
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
class Watch(Seen):
    """The same; `looks`: it reads one name. `is_anonymous`: it is sent without credentials."""

    looks: bool = False
    is_anonymous: bool = False


@contextmanager
def translate_errors(path: str, watch: Watch) -> Iterator[None]:
    """Translate the errors that the block raises about `path`.

    Nothing of the SDK's own texts is shown or chained: a reply may quote a header or parameter that was
    sent, and with it the signature that is a credential.
    """
    url = f"abfs://{path}"
    try:
        yield
    except ClientAuthenticationError as error:
        if error.response is None:  # no token was obtained; the error's text says how each attempt failed
            watch.is_stale = True
            said = f"{url}: no usable credentials ({type(error).__name__})"
            raise _unless_sent(said, Refusal.CREDENTIALS, watch) from None
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
            raise Refusal.CREDENTIALS.error(f"{url}: the account's key cannot sign a request") from None
        raise OSError(errno.EIO, f"{url}: no usable answer ({type(error).__name__})") from None
    except AtomicPathError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # the SDK, for a reply not of Azure
        raise OSError(errno.EIO, f"{url}: no usable answer ({type(error).__name__})") from None
    except (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
        watch.is_stale = True  # the credentials of this client may be the ones that are missing
        raise of_the_client(error, url, sent=watch.sent > 0, variables=FILES) from None


def _of_reply(error: HttpResponseError, url: str, watch: Watch) -> Exception:
    status = error.status_code
    code = _code(error)
    if status is None:
        return OSError(errno.EIO, f"{url}: no usable answer ({type(error).__name__})")
    said = f"{url}: the request was answered {status} {code}".rstrip()
    why = _CODES.get(code)
    if why is None and status in (401, 403):
        why = refusal_of(code, str(error.message or ""), {}) or Refusal.RIGHTS
    if why is not None:
        watch.is_stale = watch.is_stale or why.is_of_credentials or status == 401
        return _unless_sent(said, why, watch)
    if code in _NO_CONTAINER:
        missing = f"{url}: the container does not exist: create it first"
        return NoBucketError(missing) if watch.looks else NoContainerError(errno.ENOENT, missing)
    if code == _HIDDEN and watch.is_anonymous:
        return Refusal.CREDENTIALS.error(f"{said} without credentials, as a container is that is not public")
    if status == 404 and code not in _ABSENT:
        return foreign_answer(said)
    if watch.versioned and (status == 404 or (status == 412 and code in _CONDITION)):
        return StaleVersionError(errno.ESTALE, f"{url} does not have the expected version any more")
    if status == 404:
        return FileNotFoundError(errno.ENOENT, f"nothing is at {url} ({code})")
    if (status == 412 and code in _CONDITION) or (status in (409, 412) and code in _THERE):
        return FileExistsError(errno.EEXIST, f"something is at {url}")
    return OSError(errno.EBUSY if status in (409, 412) else errno.EIO, said)


def _unless_sent(said: str, why: Refusal, watch: Watch) -> Exception:
    if watch.writes and watch.sent > 1:
        # the client's first try, which had no answer, may have been carried out: only the last was refused
        return OSError(errno.EIO, f"{said} when it was sent again: {why.value}")
    return why.error(said)


def _code(error: HttpResponseError) -> str:
    """Return Azure's name for what is wrong; the reply to a HEAD has it in a header only."""
    found = getattr(error, "error_code", None) or getattr(error.response, "headers", {}).get("x-ms-error-code")
    return str(getattr(found, "value", found) or "")
