"""How a bucket of an endpoint is to be asked and how it answers, where implementations of S3 differ.

Versions are ETags without their quotes, in records and everywhere else. Some stores take them back in `If-Match` only
with their quotes, some only without. Some keep no metadata of a user's, or list another ETag than they return. All of
that is found out by a handful of requests at a name of its own, and kept for the life of the process.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Protocol

from atomicpath.abc import Content, Entry, Put, StaleVersionError, Update
from atomicpath.errors import AccessError

from .names import split
from .stores import known

__all__ = ["Manner", "learn", "manner_of", "named"]

_LOG = logging.getLogger("atomicpath")
_OWNER = "atomicpath-learning"
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)


@dataclass(slots=True)
class Manner:
    """What is known of one bucket at one endpoint."""

    server: str = ""
    """The `Server` header of the last reply that had one."""
    quoted: bool | None = None
    """Whether `If-Match` takes the ETag with its quotes; None before that was learnt."""
    versions_agree: bool = True
    """Whether a write, a read, a look and a listing give the same ETag."""
    keeps_metadata: bool = True
    """Whether an object has the metadata that it was created with."""
    is_learnt: bool = False


class _Verbatim(str):
    """A condition that is sent as it is."""

    __slots__ = ()


class Asks(Protocol):
    """What is used of the storage."""

    def ask(self, path: str, operation: str, parameters: Mapping[str, object]) -> Awaitable[object]:
        """Make one request about an object."""

    def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> Awaitable[str]:
        """Write an object."""

    def get(self, path: str) -> Awaitable[Content]:
        """Read an object."""

    def stat(self, path: str) -> Awaitable[Entry | None]:
        """Look at an object."""

    def list(self, path: str, *, recursive: bool) -> Awaitable[list[Entry]]:
        """List what is below a path."""


_manners: dict[tuple[str, str], Manner] = {}


def manner_of(endpoint: str, bucket: str) -> Manner:
    """Return what this process knows of a bucket. All that ask that bucket share this knowledge."""
    return _manners.setdefault((endpoint, bucket), Manner())


def named(endpoint: str, manner: Manner, version: object) -> object:
    """Return a version as `If-Match` takes it at this endpoint: as learnt, else as documented, else without quotes."""
    if isinstance(version, _Verbatim):
        return str(version)
    quoted = manner.quoted
    if quoted is None:
        store = known(endpoint, manner.server)
        quoted = bool(store and store.quoted)
    return f'"{version}"' if quoted else version


async def learn(storage: Asks, path: str, manner: Manner) -> None:
    """Find out the manner of a bucket at a free name in it, or at one that an earlier call has written to.

    Raises:
        OSError: There was no answer, or not all that is needed was permitted; nothing is known then.
    """
    told, has_owner = await _place(storage, path)
    found, there = await storage.get(path), await storage.stat(path)
    versions = {told, found.version, there.version if there else None, await _listed(storage, path)} - {None}
    manner.versions_agree = len(versions) == 1
    manner.keeps_metadata = not has_owner or (there is not None and there.owner == _OWNER)
    manner.quoted = await _form(storage, path, str(found.version))
    manner.is_learnt = True
    if not manner.keeps_metadata:
        _LOG.warning(
            "s3://%s: the store keeps no metadata of objects, so that what a killed attempt leaves cannot be told from"
            " other files: remove it by hand",
            split(path)[0],
        )


async def _place(storage: Asks, path: str) -> tuple[str, bool]:
    """Write an object; its version, and whether it was given metadata."""
    try:
        return await storage.put(path, b"learn 0", mode=Put.CREATE, owner=_OWNER), True
    except FileExistsError:  # created by an earlier try, or overwritten by a later one
        return str((await storage.get(path)).version), False
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    return await storage.put(path, b"learn 0", mode=Put.OVERWRITE), False  # the store does not know conditions


async def _listed(storage: Asks, path: str) -> str | None:
    parent, _, name = path.rpartition("/")
    try:
        listing = await storage.list(parent, recursive=True)
    except AccessError:
        return None  # this writer may not list, which says nothing about versions
    return next((entry.version for entry in listing if entry.name == name), None)


async def _form(storage: Asks, path: str, version: str) -> bool | None:
    """Return the first form in which the store takes the present version and refuses an old one.

    Return None if there is no such form.
    """
    count = 0
    for quoted in (False, True):
        new = await _swapped(storage, path, version, quoted=quoted, data=b"learn %d" % (count + 1))
        if new is None:
            continue
        overwritten = await _swapped(storage, path, version, quoted=quoted, data=b"learn %d" % (count + 2))
        if overwritten is None:
            return quoted
        version, count = overwritten, count + 2  # in this form the store ignores the condition
    return None


async def _swapped(storage: Asks, path: str, version: str, *, quoted: bool, data: bytes) -> str | None:
    """Return the new version if the write was done, whatever its reply was; None if it was refused."""
    bucket, key = split(path)
    condition = _Verbatim(f'"{version}"' if quoted else version)
    try:
        await storage.ask(path, "put_object", {"Bucket": bucket, "Key": key, "Body": data, "IfMatch": condition})
    except (StaleVersionError, FileNotFoundError):
        pass
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    found = await storage.get(path)
    return str(found.version) if found.data == data else None
