"""The port of backends: what an entry point names, and how its URLs are read."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar

from atomicpath._core.environment import Environment

from .storage import Storage

__all__ = ["Backend"]


class Backend(abc.ABC):
    """What an entry point of the group `atomicpath.backends` names: a class made without arguments."""

    protocols: ClassVar[tuple[str, ...]]
    """The URL schemes served, without "://"."""

    def path(self, url: str) -> str:
        """The backend's own path of a URL: no protocol, no trailing "/". Pure. ValidationError if unusable.

        The protocol is in lower case; a URL with a NUL, a password or a chain of file systems was refused before, one
        with a query or a fragment is refused afterwards, so that a backend may say first what to do instead.
        """
        return url.partition("://")[2].rstrip("/")

    def located(self, url: str, storage_options: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        """The path of a URL, and the options that are left once what belongs to the place has moved into the path.

        For backends whose host or user may stand in either. Pure, and idempotent on `UPath(self.url(path), **options)`.
        """
        return self.path(url), storage_options

    def url(self, path: str) -> str:
        """The URL of a path; `path(url(p)) == p`. Pure."""
        return f"{self.protocols[0]}://{path}"

    @abc.abstractmethod
    def open(self, storage_options: Mapping[str, object], environment: Environment) -> Storage:
        """Access under these options; no I/O. A missing library is `BackendError` saying what to install.

        Called often and from any thread or event loop: keep what is expensive, bound to the process.
        """

    def place(self, path: str, storage_options: Mapping[str, object]) -> str:
        """A text equal for equal places only, host or endpoint included, without credentials. Pure."""
        return self.url(path)
