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
    SSOError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from atomicpath.abc import NoBucketError, StaleVersionError
from atomicpath.errors import AtomicPathError, BackendError, ValidationError
from atomicpath.storage import Refusal, Watch, foreign_answer, of_the_client, refusal_of

from .contact import advice_on
from .settings import FILES
from .wire import PageError

__all__ = ["UnconfirmedError", "translate_errors"]

_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
    UnauthorizedSSOTokenError,
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
_OF_FILES = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError)
_CODES = {  # "Error responses" of S3; what comes after are MinIO's, Ceph's, Cloudflare's and Backblaze's own
    "AuthorizationHeaderMalformed": Refusal.CREDENTIALS,
    "InvalidAccessKeyId": Refusal.CREDENTIALS,
    "InvalidToken": Refusal.CREDENTIALS,
    "SignatureDoesNotMatch": Refusal.CREDENTIALS,
    "ExpiredToken": Refusal.EXPIRED,
    "TokenRefreshRequired": Refusal.EXPIRED,
    "RequestTimeTooSkewed": Refusal.CLOCK,
    "RequestExpired": Refusal.CLOCK,
    "InvalidObjectState": Refusal.ARCHIVED,
    "KMS.DisabledException": Refusal.KEY,
    "KMS.NotFoundException": Refusal.KEY,
    "KMS.KMSInvalidStateException": Refusal.KEY,
    "KMS.InvalidKeyUsageException": Refusal.KEY,
    "QuotaExceeded": Refusal.QUOTA,
    "XMinioAdminBucketQuotaExceeded": Refusal.QUOTA,
    "XMinioStorageFull": Refusal.QUOTA,
    "InsufficientQuota": Refusal.QUOTA,
    "ObjectLocked": Refusal.LOCKED,
    "ObjectLockedByBucketPolicy": Refusal.LOCKED,
}


class UnconfirmedError(OSError):
    """A HEAD was answered 404. It has no body, so that anybody may have said it, and of the bucket as well."""


@contextmanager
def translate_errors(path: str, watch: Watch) -> Iterator[None]:
    """Translate the errors that the block raises about `path`.

    Messages hold the error's code but not its text, which on refusals may quote what was sent. `watch` tells what was
    sent, and is told of credentials that were refused.
    """
    url = f"s3://{path}"
    try:
        yield
    except ClientError as error:
        translated = _of_reply(error, url, watch)
        if isinstance(translated, PermissionError) or _status(error) in (401, 403):
            raise translated from None  # the reply may quote the session token
        raise translated from error
    except _CREDENTIALS as error:
        # not chained: what a credential process printed is in its text
        watch.is_stale = True
        said = f"{url}: no usable credentials ({type(error).__name__})"
        raise _unless_sent(said, Refusal.CREDENTIALS, watch) from None
    except (TimeoutError, ConnectTimeoutError, ReadTimeoutError) as error:
        raise TimeoutError(errno.ETIMEDOUT, f"{url}: the endpoint did not answer in time") from error
    except ParamValidationError as error:
        raise BackendError(
            f"{url}: the installed botocore does not take this request: pip install -U 'atomicpath[s3]'"
        ) from error
    except (EndpointConnectionError, ProxyConnectionError, SSLError) as error:
        if advice := advice_on(error):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{url}: {advice}") from error
        raise ConnectionError(errno.ECONNABORTED, f"{url}: the connection failed") from error
    except (HTTPClientError, aiohttp.ClientError) as error:
        if isinstance(
            error.__context__, _OF_FILES
        ):  # such as a file of certificates, without which no connection is made
            raise of_the_client(error.__context__, url, sent=watch.sent > 1, variables=FILES) from None
        raise ConnectionError(errno.ECONNABORTED, f"{url}: the connection failed ({type(error).__name__})") from error
    except PageError as error:
        raise foreign_answer(f"{url}: {error}") from None
    except AtomicPathError:
        raise
    except ValueError:  # botocore's answer to an endpoint that is no URL; it may have a password in it
        raise ValidationError(f"{url}: endpoint_url must be a URL such as https://host:9000") from None
    except BotoCoreError as error:  # a damaged reply among them
        raise OSError(errno.EIO, f"{url}: no usable answer ({type(error).__name__})") from error
    except _OF_FILES as error:
        watch.is_stale = True  # it may be the credentials of this client that are not there
        raise of_the_client(error, url, sent=watch.sent > 0, variables=FILES) from error


def _status(error: ClientError) -> int | None:
    status: int | None = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _of_reply(error: ClientError, url: str, watch: Watch) -> Exception:
    status, found = _status(error), error.response.get("Error", {})
    code, operation = str(found.get("Code", "")), error.operation_name
    said = f"{url}: {operation} was answered {status} {code}".rstrip()
    why = _refusal(status, code, str(found.get("Message", "")), watch)
    if why is not None:
        return _unless_sent(said, why, watch)
    if code == "NoSuchBucket":
        missing = f"{url}: the bucket does not exist: create it first"
        looks = operation in ("GetObject", "HeadObject")
        return NoBucketError(missing) if looks else FileNotFoundError(errno.ENOENT, missing)
    if code == "NoSuchUpload":  # a completion that succeeded says so when its reply was lost and it is sent again
        return OSError(errno.EIO, f"{said}: the upload has ended, completed or aborted")
    if status == 404 and operation == "HeadObject":
        return UnconfirmedError(errno.EIO, said)
    absent = status == 404 and code == "NoSuchKey"
    if watch.versioned and (status == 412 or (absent and operation != "DeleteObject")):
        return StaleVersionError(errno.ESTALE, f"{url} does not have the expected version any more")
    if absent:
        return FileNotFoundError(errno.ENOENT, f"nothing is at {url}")
    if status == 404:
        return foreign_answer(said)
    if status == 412:
        return FileExistsError(errno.EEXIST, f"something is at {url}")
    if status == 409:  # ConditionalRequestConflict: another request was under way, and who won is not said
        return OSError(errno.EBUSY, said)
    if status in (405, 501):  # the store does not know what was asked for
        return OSError(errno.EOPNOTSUPP, said)
    if status == 400 and code not in _PASSING_CODES:
        return OSError(errno.EINVAL, said)
    return OSError(errno.EIO, said)


def _refusal(status: int | None, code: str, text: str, watch: Watch) -> Refusal | None:
    named = _CODES.get(code)
    if named is None and status not in (401, 403):
        return None
    why = named or refusal_of(code, text, {}) or Refusal.RIGHTS_OR_PAYER
    # the reply to a HEAD has no code
    watch.is_stale = watch.is_stale or why.is_of_credentials or status == 401 or code == str(status)
    return why


def _unless_sent(said: str, why: Refusal, watch: Watch) -> Exception:
    if watch.writes and watch.sent > 1:
        # the client's first try, which had no answer, may have been carried out: only the second was refused
        return OSError(errno.EIO, f"{said} when it was sent again: {why.value}")
    return why.error(said)
