"""A backend for `webdav://` URLs: what fsspec's methods do not promise, and what WebDAV does."""

from __future__ import annotations

import errno
from typing import Any
from urllib.parse import quote

from webdav4.client import Client, HTTPError, ResourceAlreadyExists, ResourceConflict, ResourceLocked, ResourceNotFound
from webdav4.fsspec import WebdavFileSystem

from atomicpath.guarantees import Guarantee
from atomicpath.storage import FsspecBackend

__all__ = ["WebdavBackend"]

_MEANT = {
    ResourceNotFound: FileNotFoundError,
    ResourceConflict: FileNotFoundError,
    ResourceAlreadyExists: FileExistsError,
}
_STATUSES = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 409: FileNotFoundError}


class _Client(Client):
    def join_url(self, path: str, add_trailing_slash: bool = False) -> Any:
        return super().join_url(quote(path), add_trailing_slash)  # webdav4 takes "%41" for "A", and "?" for a query


class _FileSystem(WebdavFileSystem):
    def __init__(self, base_url: str, auth: Any = None, **options: Any) -> None:
        client = _Client(base_url, auth=auth, retry=False, **options)  # a delete is sent once
        super().__init__(base_url, client=client)


class WebdavBackend(FsspecBackend):
    """`webdav://run/step_100`, with the server in `storage_options={"base_url": "https://host/dav", "auth": ...}`.

    RFC 4918 has MKCOL, which fails on what exists, and MOVE with `Overwrite: F`, which replaces nothing. It does not
    say that a MOVE is one step, and servers differ: so probes find out.
    """

    protocols = ("webdav", "dav")
    observable = Guarantee.DIRECTORIES | Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE

    def filesystem_class(self) -> type[WebdavFileSystem]:
        return _FileSystem

    def mkdir(self, filesystem: WebdavFileSystem, path: str) -> None:
        filesystem.client.mkdir(path)

    def rename(self, filesystem: WebdavFileSystem, source: str, target: str) -> None:
        filesystem.client.move(source, target, overwrite=False)

    def translated(self, error: Exception) -> Exception:
        if isinstance(error, ResourceLocked):
            return OSError(errno.EBUSY, "locked")
        if isinstance(error, HTTPError) and error.status_code in _STATUSES:
            return _STATUSES[error.status_code]()
        return _MEANT[type(error)]() if type(error) in _MEANT else error

    def close(self, filesystem: WebdavFileSystem) -> None:
        filesystem.client.http.close()
