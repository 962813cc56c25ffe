"""A place that a caller has named, on its backend: its path there, its parts, and access to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upath import UPath

from atomicpath._core.concurrency import unforked
from atomicpath._core.environment import current
from atomicpath.abc import Backend, Storage
from atomicpath.errors import ValidationError

from .places import PathLike, Place, read
from .registry import backend_for

__all__ = ["Location", "PathLike", "local_directory", "locate", "located_like", "name_in", "upath_of"]


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
        return self.at(self.path.rpartition("/")[0] or "/")

    def child(self, name: str) -> Location:
        """A name below this one."""
        return self.at(f"{self.path.rstrip('/')}/{name}")

    def at(self, path: str) -> Location:
        """Another path with the same backend and options."""
        return Location(backend=self.backend, path=path, storage_options=self.storage_options)

    @property
    def upath(self) -> UPath:
        """The same place for users, with the storage options in it."""
        options: dict[str, Any] = dict(self.storage_options)
        path: UPath = UPath(str(self), **options)
        return path

    @property
    def identity(self) -> str:
        """A text equal for equal places only; without credentials."""
        with _first_use(self.backend):
            return self.backend.identity(self.path, self.storage_options)

    def open(self) -> Storage:
        """Access to it, in the environment now in force. No I/O."""
        with _first_use(self.backend):
            return self.backend.open(self.storage_options, current())


_used: set[type[Backend]] = set()


@contextmanager
def _first_use(backend: Backend) -> Iterator[None]:
    """Let no fork break into the block while a backend has not been used yet: it may import what it needs only now."""
    if type(backend) in _used:
        yield
        return
    with unforked:
        yield
    _used.add(type(backend))


def locate(url: PathLike, storage_options: Mapping[str, object] | None = None) -> Location:
    """The location a user means. No I/O, but a relative local path is made absolute at once.

    ValidationError for an empty or impossible one, BackendError if nobody serves it.
    """
    place = read(url)
    return _located(place, {**place.storage_options, **(storage_options or {})})


def local_directory(path: PathLike, argument: str) -> Path:
    """The absolute path of an argument that must be a directory on this host; ValidationError for any other place."""
    place = read(path)
    if not place.is_local:
        raise ValidationError(
            f"{argument} takes a directory on this host, and {place} is on {place.protocol}://. Pass a local path:"
            " put(local_dir, url) copies from this host to a store, get(url, local_dir) from a store to this host"
        )
    return Path(_located(place, {}).path)


def located_like(
    source: PathLike,
    url: PathLike,
    source_options: Mapping[str, object] | None,
    storage_options: Mapping[str, object] | None,
) -> Location:
    """The location of the source of a copy: without options of its own it has those of the target, on one protocol."""
    place = read(source)
    if source_options is None and not place.storage_options and place.protocol == read(url).protocol:
        return locate(source, locate(url, storage_options).storage_options)
    return locate(source, source_options)


def name_in(root: Location, one: PathLike, argument: str) -> str:
    """The name right below a root that an argument means, by itself or as a URL; ValidationError for another place."""
    if isinstance(one, str) and "/" not in one and one.strip():
        return one
    place = locate(one, root.storage_options)
    if place.parent.identity != root.identity:
        raise ValidationError(f"{argument} names {place}, which is not right below {root}: pass a name or a URL there")
    return place.name


def upath_of(path: PathLike) -> UPath:
    """A UPath of any place that fsspec can reach, served by a backend or not; a local one is made absolute at once."""
    place = read(path)
    if place.is_local:
        return _located(place, {}).upath
    return path if isinstance(path, UPath) else UPath(place.text)


def _located(place: Place, storage_options: Mapping[str, object]) -> Location:
    backend = backend_for(place.protocol)
    path, left = backend.normalize(place.text, storage_options)
    if not place.is_local:
        place.check_read()
    return Location(backend=backend, path=path, storage_options=left)
