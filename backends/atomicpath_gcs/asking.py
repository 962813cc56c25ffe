"""Asking the store, bounded in time, and again where it could not serve: what every operation is made of."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import anyio

from atomicpath.abc import Environment
from atomicpath.errors import AccessError, ValidationError
from atomicpath.storage import Answer, FsspecStorage, RangeRequest, Refusal, Watch, of_the_client

from .errors import AGAIN, expect_no_page, in_time, refused, translate_errors
from .exchange import GcsFilesystem, Reply, Request, exchange, location, receive_into, url_of
from .settings import FILES, VENDOR, normal

__all__ = ["Asking"]

# Sooner than half of a lease of 60 s: a cleaner must not delete after the lease it waited for was renewed.
_PATIENCE = 20.0  # seconds for a request about one small object, repetitions included
_PAUSE = 0.5  # seconds before the first repetition; then twice as long each time

_answered: set[str] = set()
"""Endpoints that have answered this process: until one has, what keeps a connection from being made is not mended."""


class Asking(FsspecStorage[GcsFilesystem]):
    """A storage that speaks the JSON API; not yet what is said."""

    _ready_in: int | None = None

    def __init__(self, open: Callable[[], GcsFilesystem], endpoint: str, environment: Environment) -> None:  # noqa: A002 - as its base
        super().__init__(open, environment)
        self._expected = endpoint

    def forget(self, used: object) -> None:
        super().forget(used)
        self._ready_in = None

    async def ready(self, path: str) -> None:
        """Have this process's file system made, in a worker thread: finding credentials may ask a metadata server."""
        if self._ready_in == os.getpid():
            return
        try:
            await self.environment.step(self._open)
        except (FileNotFoundError, PermissionError) as error:
            raise of_the_client(error, f"gs://{path}", sent=False, variables=FILES) from None
        except Exception as error:  # noqa: BLE001 - gcsfs raises whatever it stumbles over in what it was given
            # not chained: credentials may be in the text
            raise Refusal.CREDENTIALS.error(f"gs://{path}: no usable credentials ({type(error).__name__})") from None
        self._check_endpoint(path)
        self._ready_in = os.getpid()

    def url(self, *parts: str, upload: bool = False) -> str:
        """Return the address of a resource; only once `ready`."""
        return url_of(self.filesystem, *parts, upload=upload)

    def _check_endpoint(self, path: str) -> None:
        """Raise ValidationError if the client asks another endpoint than that of this storage's place."""
        found = normal(location(self.filesystem))
        if found != self._expected and (self._expected or not found.endswith(VENDOR)):
            raise ValidationError(
                f"gs://{path}: the environment names another endpoint by now than when it was opened: open it again"
            )

    @property
    def endpoint(self) -> str:
        """Return the scheme and host of the address; only once `ready`."""
        return location(self.filesystem)

    async def look(
        self, path: str, what: str, *parts: str, query: Mapping[str, str], of_object: bool = False
    ) -> Answer:
        """Get a resource."""
        await self.ready(path)
        request = Request(what=what, method="GET", url=self.url(*parts), query=query, of_object=of_object)
        return (await self.ask(path, request)).resource

    async def ask(self, path: str, request: Request, *, into: RangeRequest | None = None) -> Reply:
        """Make a request about an object; its reply, of a success. `into`: takes the reply's body."""
        bound = nullcontext() if request.patient else anyio.fail_after(_PATIENCE)
        watch = Watch(writes=request.method != "GET", client=self.filesystem)
        try:
            with in_time(path), bound:
                return await self._ask(path, request, into, watch)
        finally:
            if watch.is_stale:
                self.forget(watch.client)

    async def _ask(self, path: str, request: Request, into: RangeRequest | None, watch: Watch) -> Reply:
        left = request.tries
        while True:
            left -= 1
            try:
                with translate_errors(path, watch):
                    reply = await self.request(self._exchange, request, into)
            except AccessError as error:
                if watch.writes and watch.sent:  # credentials were missing when the request was sent again
                    raise OSError(errno.EIO, str(error)) from None
                raise
            except (ConnectionError, TimeoutError) as error:
                lasts = isinstance(error, ConnectionRefusedError) and self.endpoint not in _answered
                if not left or lasts:
                    raise
            else:
                _answered.add(self.endpoint)
                if 200 <= reply.status < 300 or reply.status in request.accept:
                    if request.method == "DELETE":
                        expect_no_page(reply, request, path)
                    return replace(reply, where=f"gs://{path}", what=request.what)
                if not left or reply.status not in AGAIN:
                    raise refused(reply, request, path, watch)
            watch.sent += 1
            await self.environment.sleep(_PAUSE * 2 ** (request.tries - 1 - left))

    async def _exchange(self, request: Request, into: RangeRequest | None) -> Reply:  # in the file system's event loop
        if into is None:
            return await exchange(self.filesystem, request)
        return await receive_into(self.filesystem, request, into)
