"""The `s3` backend: URLs, endpoints and options of S3 and of stores that speak its protocol."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from atomicpath.abc import Backend, Environment
from atomicpath.errors import BackendError

from .names import DIRECTORY_BYTES, join, split

if TYPE_CHECKING:
    from .storage import S3Storage

__all__ = ["S3Backend"]

_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # in botocore's order


class S3Backend(Backend):
    """`s3://bucket/key`, whose path is `bucket/key`; `storage_options` are those of `s3fs.S3FileSystem`."""

    protocols = ("s3", "s3a")

    def path(self, url: str) -> str:
        return join(*split(url.partition("://")[2].rstrip("/"), longest=DIRECTORY_BYTES))

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> S3Storage:
        try:
            import s3fs  # noqa: F401 - the only reason why the next line could fail
        except ImportError as error:
            raise BackendError("s3:// needs s3fs: pip install 'atomicpath[s3]'") from error
        from .storage import open_s3

        return open_s3(storage_options, environment)

    def place(self, path: str, storage_options: Mapping[str, object]) -> str:
        endpoint = _endpoint(storage_options)
        return f"{self.url(path)} at {endpoint}" if endpoint else self.url(path)


def _endpoint(options: Mapping[str, object]) -> str:
    """The endpoint these options ask for, without user and password; "" for the vendor's own."""
    client = options.get("client_kwargs")
    chosen = options.get("endpoint_url") or (client.get("endpoint_url") if isinstance(client, Mapping) else None)
    for variable in _ENDPOINT_VARIABLES:
        chosen = chosen or os.environ.get(variable)
    if not chosen:
        return ""
    parts = urlsplit(str(chosen))
    host = parts.netloc.rpartition("@")[2].lower()
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
