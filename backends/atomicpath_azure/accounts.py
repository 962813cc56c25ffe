"""The SDK's clients for an account, made of what adlfs knows of its endpoint and credentials."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import adlfs
import fsspec.asyn
from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob.aio import BlobServiceClient, LinearRetry
from azure.storage.filedatalake.aio import DataLakeServiceClient

from atomicpath.errors import AccessError, ValidationError
from atomicpath.storage import (
    AsyncFilesystem,
    IOLoop,
    PerProcess,
    WatchedBytes,
    bounds_lookups,
    client_class,
    forget_cached,
    missing_link,
    repeats_nothing,
    silence_for,
)

from .errors import NoContactError, Watch
from .names import Address
from .settings import Settings, normal

__all__ = ["WATCH", "WINDOW", "Account", "Accounts"]

WINDOW = 4 * 2**20
"""Bytes of a reply, each of which the SDK has in memory."""

WATCH: ContextVar[Watch] = ContextVar("atomicpath_azure_watch")
"""What watches the requests of the task at hand."""

# Sooner than half of a lease of 60 s: a cleaner must not delete after the lease it waited for was renewed.
_TIMEOUTS = {"connection_timeout": 5, "read_timeout": 20}
_RETRIES = 3
_BACKOFF = 2.0  # seconds before a repetition; the SDK's own 15 would outlast any patience
_LARGEST_PUT = 5000 * 2**20  # "Put Blob": one request only, because the condition is on the request
_DATA_TIMEOUT = 60.0  # seconds without a sign from the endpoint during a large transfer
_CLOSING = 5.0  # seconds


class _Filesystem(AsyncFilesystem, Protocol):
    """What is used of `adlfs.AzureBlobFileSystem`."""

    service_client: BlobServiceClient


class _Transport(AioHttpTransport):  # type: ignore[misc]  # azure.core hides its type
    """Tells the `Watch` in force what is sent, and gives aiohttp a body in pieces that say how they are taken.

    In one piece a large body would hold up the event loop, as aiohttp warns.
    """

    has_answered = False

    def __init__(self, **timeouts: Any) -> None:
        super().__init__(**timeouts)
        self._read_timeout = timeouts.get("read_timeout")

    async def open(self) -> None:
        await super().open()
        repeats_nothing(self.session)
        bounds_lookups(self.session)

    async def send(self, request: Any, **options: Any) -> Any:
        watch, body = WATCH.get(), request.data
        watch.sent += 1
        if watch.patient:
            options["read_timeout"] = _DATA_TIMEOUT
        if isinstance(body, bytes):
            request.data = WatchedBytes(body, silence_for(options.get("read_timeout", self._read_timeout)))
        try:
            response = await super().send(request, **options)
        except ServiceRequestError as error:
            if not self.has_answered and missing_link(error.__cause__) is not None:
                raise NoContactError from error.__cause__
            raise
        finally:
            request.data = body  # kept for a repetition
        self.has_answered = True
        watch.headers = {name.lower(): value for name, value in response.headers.items()}
        return response


class Account:
    """One account under one set of credentials; its methods are called in fsspec's event loop only."""

    def __init__(self, service: BlobServiceClient, timeouts: Mapping[str, object]) -> None:
        self._transport = _Transport(**timeouts)
        retry: Any = LinearRetry(retry_total=_RETRIES)
        retry.backoff, retry.random_jitter_range = _BACKOFF, _BACKOFF / 2  # typed as whole seconds
        self._shared: dict[str, Any] = {"transport": self._transport, "retry_policy": retry, **timeouts}
        self._url, self._credential = service.url, service.credential
        self._lake: DataLakeServiceClient | None = None
        self._blobs = BlobServiceClient(
            self._url,
            credential=self._credential,
            max_single_put_size=_LARGEST_PUT,
            max_single_get_size=WINDOW,
            max_chunk_get_size=WINDOW,
            **self._shared,
        )
        self.name = service.account_name or ""
        self.host = urlsplit(self._url).hostname or ""
        self.endpoint = normal(self._url)
        self.is_anonymous = self._credential is None and "sig=" not in self._url
        self.hierarchical: bool | None = None
        """Whether it has a hierarchical namespace; None until that was found out."""
        self.unknown: Exception | None = None
        """Why that cannot be found out: what the account itself answered."""

    def container(self, address: Address) -> Any:
        """Return the SDK's client for a container."""
        return self._blobs.get_container_client(address.container)

    def blob(self, address: Address) -> Any:
        """Return the SDK's client for a blob."""
        return self._blobs.get_blob_client(address.container, address.key)

    def lake(self) -> Any:
        """Return the SDK's client for the account's Data Lake endpoint, which stands beside the endpoint for blobs."""
        if self._lake is None:
            parts = urlsplit(self._url)
            credential: Any = self._credential
            if hasattr(credential, "account_key"):  # each library knows only its own class for this
                credential = {"account_name": credential.account_name, "account_key": credential.account_key}
            url = parts._replace(netloc=parts.netloc.replace(".blob.", ".dfs.", 1)).geturl()
            self._lake = DataLakeServiceClient(url, credential=credential, **self._shared)
        return self._lake

    async def close(self) -> None:
        """End the connections of the account's client."""
        await self._transport.close()


class Accounts:
    """Access under one set of adlfs's options: the account they name, or one that a URL names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        options = settings.options
        self._timeouts = {name: options.get(name) or value for name, value in _TIMEOUTS.items()}
        self._kept: dict[str, PerProcess[_Filesystem]] = {}

    @property
    def loop(self) -> IOLoop:
        """fsspec's event loop in this process, which every account's requests run in."""
        return cast("IOLoop", fsspec.asyn.get_loop())

    def of(self, address: Address) -> Account:
        """Return the account that an address is in. Raise ValidationError if the options name another account."""
        filesystem = self._filesystem(address.account)
        account = vars(filesystem).get(_KEPT)
        if account is None:
            account = vars(filesystem)[_KEPT] = Account(filesystem.service_client, self._timeouts)
            weakref.finalize(filesystem, _close, os.getpid(), self.loop, account)
        if address.account and account.name != address.account:
            raise ValidationError(
                f"abfs://{address.path} is in the account {address.account!r}, but storage_options or the environment"
                f" are for {account.name!r}: make them agree"
            )
        if account.endpoint != self._settings.endpoint(address.account):
            raise ValidationError(
                f"abfs://{address.path}: the environment names another endpoint by now than when it was opened: open it"
                " again"
            )
        return cast("Account", account)

    def drop(self, address: Address, used: object) -> None:
        """Have the next request look for credentials anew, if found credentials were refused, and not given ones."""
        kept = self._kept.get(address.account)
        if kept is not None and self._settings.finds_credentials and vars(kept()).get(_KEPT) is used:
            kept.drop(kept())
            forget_cached(adlfs.AzureBlobFileSystem, self._settings.asked)

    def _filesystem(self, account: str) -> _Filesystem:
        if account not in self._kept:
            named = self._settings.options.get("account_name") or account or None
            options = {**self._settings.options, "account_name": named}
            self._kept[account] = PerProcess(_make, options, under=self._settings.surroundings)
        try:
            return self._kept[account]()
        except (TypeError, ValueError):  # not chained: adlfs's own text may quote what was passed
            raise AccessError(
                "adlfs cannot connect with these storage_options: it needs a connection_string, or an account_name with"
                " account_key, sas_token or another credential"
            ) from None


_KEPT = "_atomicpath_account"

_Client = client_class(adlfs.AzureBlobFileSystem)


def _make(options: dict[str, object]) -> _Filesystem:
    return cast("_Filesystem", _Client(**options))


def _close(process: int, loop: IOLoop, account: Account) -> None:
    if process == os.getpid():  # in a forked child nothing runs the parent's event loop
        fsspec.asyn.sync(loop, account.close, timeout=_CLOSING)


def _forget_parents() -> None:
    """Keep adlfs, in a forked child, from closing the clients of the parent.

    adlfs would close them at exit, and wait for an event loop that never runs.
    """
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else lists them
        alive = finalizer.peek()
        if alive and isinstance(alive[0], adlfs.AzureBlobFileSystem):
            finalizer.atexit = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)
