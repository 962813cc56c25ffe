"""What a local URL means: its path, its place, and access to it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from atomicpath.abc import Backend, Environment
from atomicpath.errors import ValidationError

from .storage import LocalStorage

__all__ = ["LocalBackend"]


class LocalBackend(Backend):
    """Local disks and mounts. Storage options are fsspec's own; nothing here depends on one."""

    protocols = ("file", "local")

    def path(self, url: str) -> str:
        rest = url
        for protocol in self.protocols:
            if url.startswith(f"{protocol}:"):
                rest = url.removeprefix(f"{protocol}:").removeprefix("//")
        try:
            path = os.path.abspath(os.path.expanduser(rest)).replace(os.sep, "/")
        except FileNotFoundError as error:
            raise ValidationError(
                f"{url!r} is relative, and the current directory no longer exists: pass an absolute path"
            ) from error
        if path.startswith("//") and os.name == "posix":  # POSIX lets "//x" be elsewhere; Linux and macOS do not
            path = f"/{path.lstrip('/')}"
        if os.path.dirname(path) == path:
            raise ValidationError(f"{url!r} is the root of a file system: name a directory below it")
        return path

    def url(self, path: str) -> str:
        return path

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> LocalStorage:  # noqa: ARG002  see the class
        return LocalStorage(environment)

    def place(self, path: str, storage_options: Mapping[str, object]) -> str:  # noqa: ARG002  see the class
        return f"file://{platform.node()}{path}"
