"""From what botocore and aiohttp raise to what `Storage` promises to raise."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from atomicpath.abc import StaleVersionError
from atomicpath.errors import AccessError, AtomicPathError, BackendError, ValidationError

from .contact import advice_on

__all__ = ["answers"]

_ACCESS_CODES = frozenset(  # those that come with status 400
    {"AuthorizationHeaderMalformed", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
_PASSING_CODES = frozenset(  # those with status 400 after which a request may be sent again
    {
        "RequestTimeout",
        "IncompleteBody",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "BadDigest",
    }
)
_READS = ("Get", "Head", "List")
_CHECK = "check the credentials, their region and what they may do there"


@contextmanager
def answers(path: str, *, versioned: bool = False) -> Iterator[None]:
    """Translate what the block raises about `path`; `versioned` says that its request had `If-Match`.

    Messages hold the error's code but not its text, which on refusals may quote what was sent.
    """
    try:
        yield
    except ClientError as error:
        translated = _of_reply(error, f"s3://{path}", versioned=versioned)
        if _is_refusal(error):
            raise translated from None  # the reply may quote the session token
        raise translated from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        # not chained: what a credential process printed is in its text
        raise AccessError(f"s3://{path}: no usable credentials ({type(error).__name__}): {_CHECK}") from None
    except (TimeoutError, ConnectTimeoutError, ReadTimeoutError) as error:
        raise TimeoutError(errno.ETIMEDOUT, f"s3://{path}: the endpoint did not answer in time") from error
    except ParamValidationError as error:
        raise BackendError(
            f"s3://{path}: the installed botocore does not take this request: pip install -U 'atomicpath[s3]'"
        ) from error
    except (EndpointConnectionError, ProxyConnectionError, SSLError) as error:
        if advice := advice_on(error):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"s3://{path}: {advice}") from error
        raise ConnectionError(errno.ECONNABORTED, f"s3://{path}: the connection failed") from error
    except (HTTPClientError, aiohttp.ClientError) as error:
        raise ConnectionError(
            errno.ECONNABORTED, f"s3://{path}: the connection failed ({type(error).__name__})"
        ) from error
    except AtomicPathError:
        raise
    except ValueError:  # botocore's answer to an endpoint that is no URL; it may have a password in it
        raise ValidationError(f"s3://{path}: endpoint_url must be a URL such as https://host:9000") from None
    except BotoCoreError as error:  # a damaged reply among them
        raise OSError(errno.EIO, f"s3://{path}: no usable answer ({type(error).__name__})") from error


def _is_refusal(error: ClientError) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in (401, 403) or error.response.get("Error", {}).get("Code") in _ACCESS_CODES


def _repeated(error: ClientError) -> bool:
    return bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def _of_reply(error: ClientError, url: str, *, versioned: bool) -> Exception:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = str(error.response.get("Error", {}).get("Code", ""))
    said = f"{url}: {error.operation_name} was answered {status} {code}".rstrip()
    if _is_refusal(error):
        if _repeated(error) and not error.operation_name.startswith(_READS):
            # the client's first try, which had no answer, may have been carried out: only the second was refused
            return OSError(errno.EIO, f"{said} when it was sent again: {_CHECK}")
        return AccessError(f"{said}: {_CHECK}")
    if code == "NoSuchBucket":
        return FileNotFoundError(errno.ENOENT, f"{url}: the bucket does not exist: create it first")
    if code == "NoSuchUpload":  # a completion that succeeded says so when its reply was lost and it is sent again
        return OSError(errno.EIO, f"{said}: the upload has ended, completed or aborted")
    if versioned and (status == 412 or (status == 404 and error.operation_name != "DeleteObject")):
        return StaleVersionError(errno.ESTALE, f"{url} does not have the expected version any more")
    if status == 404:
        return FileNotFoundError(errno.ENOENT, f"nothing is at {url}")
    if status == 412:
        return FileExistsError(errno.EEXIST, f"something is at {url}")
    if status == 409:  # ConditionalRequestConflict: another request was under way, and who won is not said
        return OSError(errno.EBUSY, said)
    if status in (405, 501):  # the store does not know what was asked for
        return OSError(errno.EOPNOTSUPP, said)
    if status == 400 and code not in _PASSING_CODES:
        return OSError(errno.EINVAL, said)
    return OSError(errno.EIO, said)
