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

    def parse_url(self, url: str) -> str:
        """Return the backend's own path of a URL: no protocol, no trailing "/".

        Pure. Raise ValidationError if the URL is unusable.

        The protocol is in lower case. A URL with a NUL, a password or a chain of file systems was refused before. A URL
        with a query or a fragment is refused afterwards, so that a backend may say first what to do instead.
        """
        return url.partition("://")[2].rstrip("/")

    def normalize(self, url: str, storage_options: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        """Return the path of a URL, and the options left after those that belong to the place have moved into the path.

        For backends whose host or user may stand in either. Pure, and idempotent on `UPath(self.url(path), **options)`.
        """
        return self.parse_url(url), storage_options

    def url(self, path: str) -> str:
        """Return the URL of a path; `parse_url(url(p)) == p`. Pure."""
        return f"{self.protocols[0]}://{path}"

    @abc.abstractmethod
    def open(self, storage_options: Mapping[str, object], environment: Environment) -> Storage:
        """Return access under these options; no I/O.

        Raise BackendError, which says what to install, if a library is missing.

        Called often and from any thread or event loop: keep what is expensive, bound to the process.
        """

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:
        """Return a text that is equal for equal places only. Pure.

        The text includes the host or endpoint, and no credentials.
        """
        return self.url(path)
