"""A place that a caller has named, on its backend: its path there, its parts, and access to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from upath import UPath

from atomicpath._core.environment import current
from atomicpath._core.forks import unforked
from atomicpath.abc import Backend, Storage
from atomicpath.errors import ValidationError

from .places import PathLike, Place, read
from .registry import backend_for

__all__ = ["Location", "PathLike", "local_directory", "locate", "located_like", "name_in", "upath_of"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A path on one backend. Never shows its storage options, which may hold credentials."""

    backend: Backend = field(repr=False)
    path: str
    storage_options: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)
    _parent: Location | None = field(default=None, init=False, repr=False, compare=False)
    _identity: str | None = field(default=None, init=False, repr=False, compare=False)

    def __str__(self) -> str:
        return self.backend.url(self.path)

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """The directory or prefix that this location is in."""
        if self._parent is None:  # kept: a commit asks eight times, and four times for its identity
            object.__setattr__(self, "_parent", self.at(self.path.rpartition("/")[0] or "/"))
        return cast("Location", self._parent)

    def child(self, name: str) -> Location:
        """Return the location of `name` below this one."""
        return self.at(f"{self.path.rstrip('/')}/{name}")

    def at(self, path: str) -> Location:
        """Return another path with the same backend and options."""
        return Location(backend=self.backend, path=path, storage_options=self.storage_options)

    @property
    def upath(self) -> UPath:
        """The same place as a UPath for users, with the storage options in it."""
        options: dict[str, Any] = dict(self.storage_options)
        path: UPath = UPath(str(self), **options)
        return path

    @property
    def identity(self) -> str:
        """A text that is equal only for equal places, without credentials."""
        if self._identity is None:
            identity = _ask(self.backend, self.backend.identity, self.path, self.storage_options)
            object.__setattr__(self, "_identity", identity)
        return cast("str", self._identity)

    def open(self) -> Storage:
        """Open the storage of this location, in the environment now in force. No I/O."""
        return _ask(self.backend, self.backend.open, self.storage_options, current())


_ready: set[type[Backend]] = set()


def _ask(backend: Backend, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a method of a backend.

    At the first use of the backend no fork of another thread breaks in, because the backend may import modules then.
    """
    if type(backend) in _ready:
        return method(*args, **kwargs)
    with unforked:
        result = method(*args, **kwargs)
    _ready.add(type(backend))
    return result


def locate(url: PathLike, storage_options: Mapping[str, object] | None = None) -> Location:
    """Return the location that a user means. No I/O.

    A relative local path is made absolute at once.

    Raise ValidationError for an empty or impossible path, and BackendError if no backend serves it.
    """
    place = read(url)
    return _located(place, {**place.storage_options, **(storage_options or {})})


def local_directory(path: PathLike, argument: str) -> Path:
    """Return the absolute path of an argument that must be a directory on this host.

    Raise ValidationError for any other place.
    """
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
    """Return the location of the source of a copy.

    A source without options of its own has those of the target, if both are on one protocol.
    """
    place = read(source)
    if source_options is None and not place.storage_options and place.protocol == read(url).protocol:
        return locate(source, locate(url, storage_options).storage_options)
    return locate(source, source_options)


def name_in(root: Location, one: PathLike, argument: str) -> str:
    """Return the name directly below a root that an argument means, by itself or as a URL.

    Raise ValidationError for another place.
    """
    if isinstance(one, str) and "/" not in one and one.strip():
        return one
    place = locate(one, root.storage_options)
    if place.parent.identity != root.identity:
        raise ValidationError(f"{argument} names {place}, which is not right below {root}: pass a name or a URL there")
    return place.name


def upath_of(path: PathLike) -> UPath:
    """Return a UPath of any place that fsspec can reach, served by a backend or not.

    A local path is made absolute at once.
    """
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
