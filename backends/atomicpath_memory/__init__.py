"""The `memory` backend: URLs and access for fsspec's in-process file system."""

from __future__ import annotations

from collections.abc import Mapping

from atomicpath.abc import Backend, Environment
from atomicpath.errors import ValidationError

from .storage import MemoryStorage, open_memory

__all__ = ["MemoryBackend", "MemoryStorage"]


class MemoryBackend(Backend):
    """`memory://a/b`, whose path is fsspec's and universal-pathlib's: `/a/b`."""

    protocols = ("memory",)

    def parse_url(self, url: str) -> str:
        rest = url.partition("://")[2].strip("/")
        if any(part in ("", ".", "..") for part in rest.split("/")):
            raise ValidationError(
                f"{url!r} has an empty part, '.' or '..' in it: name a directory as in memory://run/step_100"
            )
        return f"/{rest}"

    def url(self, path: str) -> str:
        return f"memory://{path.lstrip('/')}"

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> MemoryStorage:
        return MemoryStorage(open_memory(storage_options), environment)
