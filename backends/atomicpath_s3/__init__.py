"""The `s3` backend: URLs, places and options of S3 and of stores that speak its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from atomicpath.abc import Backend, Environment
from atomicpath.errors import BackendError

from .names import DIRECTORY_BYTES, join, split
from .spellings import in_s3fs_words

if TYPE_CHECKING:
    from .settings import Settings
    from .storage import S3Storage

__all__ = ["S3Backend"]


class S3Backend(Backend):
    """`s3://bucket/key`, whose path is `bucket/key`; `storage_options` are those of `s3fs.S3FileSystem`.

    What other libraries call them is understood where the meaning is certain, and otherwise `ValidationError`.
    """

    protocols = ("s3", "s3a")

    def parse_url(self, url: str) -> str:
        return join(*split(url.partition("://")[2].rstrip("/"), longest=DIRECTORY_BYTES))

    def normalize(self, url: str, storage_options: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        return self.parse_url(url), in_s3fs_words(storage_options)

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> S3Storage:
        settings = _resolved(storage_options)
        from .storage import open_s3

        return open_s3(settings, environment)

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:
        return f"{self.url(path)}{_resolved(storage_options).place}"


def _resolved(storage_options: Mapping[str, object]) -> Settings:
    try:
        import s3fs  # noqa: F401 - the only reason why the next line could fail
    except ImportError as error:
        raise BackendError("s3:// needs s3fs: pip install 'atomicpath[s3]'") from error
    from .settings import resolve

    return resolve(storage_options)
