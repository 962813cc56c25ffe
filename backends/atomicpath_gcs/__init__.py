"""The `gcs` backend: URLs, endpoints and options of Google Cloud Storage and of servers that speak its JSON API."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from atomicpath.abc import Backend, Environment
from atomicpath.errors import BackendError

from .names import DIRECTORY_BYTES, join, split

if TYPE_CHECKING:
    from .storage import GcsStorage

__all__ = ["GcsBackend"]

_ENDPOINT_VARIABLE = "STORAGE_EMULATOR_HOST"  # the one that gcsfs and Google's own clients look at


class GcsBackend(Backend):
    """`gs://bucket/key`, whose path is `bucket/key`; `storage_options` are those of `gcsfs.GCSFileSystem`.

    The `UPath`s that users get are gcsfs's own. At an emulator its first request waits for minutes for an answer by
    gRPC, unless GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT is "false" when it is imported; nothing of ours does.
    """

    protocols = ("gs", "gcs")

    def path(self, url: str) -> str:
        return join(*split(url.partition("://")[2].rstrip("/"), longest=DIRECTORY_BYTES))

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> GcsStorage:
        try:
            import gcsfs  # noqa: F401 - with the next, the only reasons why the line after them could fail
            import google_crc32c  # noqa: F401 - as above
        except ImportError as error:
            raise BackendError("gs:// needs gcsfs: pip install 'atomicpath[gcs]'") from error
        from .storage import open_gcs

        return open_gcs(storage_options, environment)

    def place(self, path: str, storage_options: Mapping[str, object]) -> str:
        endpoint = _endpoint(storage_options)
        return f"{self.url(path)} at {endpoint}" if endpoint else self.url(path)


def _endpoint(options: Mapping[str, object]) -> str:
    """The endpoint these options ask for, without user and password; "" for the vendor's own."""
    chosen = str(options.get("endpoint_url") or os.environ.get(_ENDPOINT_VARIABLE) or "")
    if chosen in ("", "default"):
        domain = os.environ.get("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "")
        return "" if domain in ("", "googleapis.com") else f"https://storage.{domain}"
    parts = urlsplit(chosen if "://" in chosen else f"http://{chosen}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"
