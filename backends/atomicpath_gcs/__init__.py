"""The `gcs` backend: URLs, endpoints and options of Google Cloud Storage and of servers that speak its JSON API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from atomicpath.abc import Backend, Environment
from atomicpath.errors import BackendError

from .names import DIRECTORY_BYTES, join, split
from .spellings import in_gcsfs_words

if TYPE_CHECKING:
    from .settings import Settings
    from .storage import GcsStorage

__all__ = ["GcsBackend"]


class GcsBackend(Backend):
    """`gs://bucket/key`, whose path is `bucket/key`; `storage_options` are those of `gcsfs.GCSFileSystem`.

    The `UPath`s that users get are gcsfs's own. At an emulator its first request waits for minutes for an answer by
    gRPC, unless GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT is "false" when it is imported; nothing of ours does. What other
    libraries call the options is understood where the meaning is certain, and otherwise `ValidationError`.
    """

    protocols = ("gs", "gcs")

    def parse_url(self, url: str) -> str:
        return join(*split(url.partition("://")[2].rstrip("/"), longest=DIRECTORY_BYTES))

    def normalize(self, url: str, storage_options: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        return self.parse_url(url), in_gcsfs_words(storage_options)

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> GcsStorage:
        settings = _resolved(storage_options)
        from .storage import open_gcs

        return open_gcs(settings, environment)

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:
        return f"{self.url(path)}{_resolved(storage_options).place}"


def _resolved(storage_options: Mapping[str, object]) -> Settings:
    try:
        import gcsfs  # noqa: F401 - with the next, the only reasons why the line after them could fail
        import google_crc32c  # noqa: F401 - as above
    except ImportError as error:
        raise BackendError("gs:// needs gcsfs: pip install 'atomicpath[gcs]'") from error
    from .settings import resolve

    return resolve(storage_options)
