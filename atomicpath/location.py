"""From what a user passes as a path to the place it names: backend, path there, and access to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from upath import UPath

from .abc import Backend, Storage
from .environment import current
from .errors import ValidationError
from .registry import backend_for

__all__ = ["Location", "PathLike", "locate"]

PathLike: TypeAlias = "str | os.PathLike[str] | UPath"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A path on one backend. Never shows its storage options, which may hold credentials."""

    backend: Backend = field(repr=False)
    path: str
    storage_options: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)

    def __str__(self) -> str:
        return self.backend.url(self.path)

    @property
    def name(self) -> str:
        """The last component."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """The directory or prefix this is in."""
        return replace(self, path=self.path.rpartition("/")[0] or "/")

    def child(self, name: str) -> Location:
        """A name below this one."""
        return replace(self, path=f"{self.path.rstrip('/')}/{name}")

    def at(self, path: str) -> Location:
        """Another path with the same backend and options."""
        return replace(self, path=path)

    @property
    def upath(self) -> UPath:
        """The same place for users, with the storage options in it."""
        options: dict[str, Any] = dict(self.storage_options)
        path: UPath = UPath(str(self), **options)
        return path

    @property
    def place(self) -> str:
        """A text equal for equal places only; without credentials."""
        return self.backend.place(self.path, self.storage_options)

    def open(self) -> Storage:
        """Access to it, in the environment now in force. No I/O."""
        return self.backend.open(self.storage_options, current())


def locate(url: PathLike, storage_options: Mapping[str, object] | None = None) -> Location:
    """The location a user means. No I/O, but a relative local path is made absolute at once.

    ValidationError for an empty or impossible one, BackendError if nobody serves it.
    """
    options = dict(storage_options or {})
    if isinstance(url, UPath):
        options = {**url.storage_options, **options}
    text = str(url) if isinstance(url, UPath) else os.fspath(url)
    if not isinstance(text, str):
        raise ValidationError(f"a path is text, not {type(text).__name__}")
    if not text.strip():
        raise ValidationError("the path is empty: pass a directory or a URL such as s3://bucket/run/step_100")
    if "\0" in text:
        raise ValidationError("a path cannot have a NUL in it")
    protocol, separator, rest = text.partition("://")
    if not separator:
        protocol = "file"
    elif not rest.strip("/"):
        raise ValidationError(f"{text!r} names no directory: add its path, as in {protocol}://bucket/run/step_100")
    elif _has_password(rest):
        raise ValidationError(f"a {protocol} URL must not carry a password: pass credentials in storage_options")
    backend = backend_for(protocol)
    path, left = backend.located(text, options)
    return Location(backend=backend, path=path, storage_options=left)


def _has_password(rest: str) -> bool:
    """Whether what follows "://" begins like `user:password@`; secret keys often have a "/" in them."""
    user, colon, tail = rest.partition("@")[0].partition(":")
    port, _, _ = tail.partition("/")
    return "@" in rest and bool(colon) and "/" not in user and not port.isdigit()
