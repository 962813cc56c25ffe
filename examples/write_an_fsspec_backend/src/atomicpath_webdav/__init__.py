"""A backend for `webdav://` URLs: what fsspec's methods do not promise, and what WebDAV does."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from atomicpath.guarantees import Guarantee
from atomicpath.storage import FsspecBackend
from webdav4.client import HTTPError, ResourceAlreadyExists, ResourceConflict, ResourceLocked, ResourceNotFound

__all__ = ["WebdavBackend"]

_MEANT = {ResourceNotFound: FileNotFoundError, ResourceConflict: FileNotFoundError, ResourceAlreadyExists: FileExistsError}
_STATUSES = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 409: FileNotFoundError}


class WebdavBackend(FsspecBackend):
    """`webdav://run/step_100`, with the server in `storage_options={"base_url": "https://host/dav", "auth": (..., ...)}`.

    RFC 4918 has MKCOL, which fails on what exists, and MOVE with `Overwrite: F`, which replaces nothing. It does not say
    that a MOVE is one step, and servers differ: so probes find out.
    """

    protocols = ("webdav", "dav")
    observable = Guarantee.DIRECTORIES | Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE

    def mkdir(self, filesystem: Any, path: str) -> None:
        filesystem.client.mkdir(path)

    def rename(self, filesystem: Any, source: str, target: str) -> None:
        filesystem.client.move(source, target, overwrite=False)

    def translated(self, error: Exception) -> Exception:
        if isinstance(error, ResourceLocked):
            return OSError(errno.EBUSY, "locked")
        if isinstance(error, HTTPError) and error.status_code in _STATUSES:
            return _STATUSES[error.status_code]()
        return _MEANT[type(error)]() if type(error) in _MEANT else error

    def client_options(self, options: Mapping[str, object]) -> Mapping[str, object]:
        return {"retry": False, **options}  # a delete is sent once

    def native(self, kind: type[Any], path: str) -> str:
        return quote(self.plain(kind, path))
