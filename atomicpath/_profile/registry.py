"""Who serves a URL: backends found through the entry-point group `atomicpath.backends`."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from atomicpath._core.forks import unforked
from atomicpath._core.text import wrapped
from atomicpath.abc import Backend
from atomicpath.errors import BackendError
from atomicpath.storage import backend_without_plugin, is_known_to_fsspec

__all__ = ["GROUP", "LOCAL", "backend_for", "is_local", "is_served", "serving"]

GROUP = "atomicpath.backends"
LOCAL = "file"
"""The protocol of a path that names none."""

_LOG = logging.getLogger("atomicpath")
_before: list[Backend] = []  # those of `serving`, the latest last
_serving: dict[str, Backend] = {}  # by protocol, each only once it is there as a whole


@contextmanager
def serving(backend: Backend) -> Iterator[None]:
    """Let a backend serve its protocols in this process for the block, before any installed one: for tests."""
    _before.append(backend)
    try:
        yield
    finally:
        _before.remove(backend)


def backend_for(protocol: str) -> Backend:
    """Return the backend that serves a protocol.

    Raise BackendError if there is none or it does not load.

    A protocol of fsspec that no plug-in serves is served all the same, where the caller asserts what holds there.

    The entry point named like the protocol is tried first, then the others in alphabetical order. So a plug-in that
    does not load costs nobody but its own users.
    """
    for backend in reversed(_before):
        if protocol in backend.protocols:
            return backend
    known = _serving.get(protocol)
    if known is None:
        with unforked:
            known = _serving[protocol] = _found(protocol)
    return known


def _found(protocol: str) -> Backend:
    points = sorted(_entry_points(), key=lambda point: (point.name != protocol, point.name))
    failed: dict[str, Exception] = {}
    for point in points:
        try:
            backend = _load(point)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; kept for the message below
            failed[point.name] = error
            continue
        if protocol in backend.protocols:
            return backend
    for name, why in failed.items():
        if name == protocol:
            raise BackendError(f"the backend {name!r} does not load: {type(why).__name__}: {why}") from why
        _LOG.warning("the backend %r does not load: %s: %s", name, type(why).__name__, why)
    if is_known_to_fsspec(protocol):
        return backend_without_plugin(protocol)
    served = sorted({known for point in points if point.name not in failed for known in _load(point).protocols})
    lines = [
        f"no backend serves {protocol!r} URLs (served here: {', '.join(served) or 'none'}).",
        "fsspec does not know it either: check the spelling, or install or write a plug-in, which is an entry point of"
        f" the group {GROUP!r}",
    ]
    if failed:
        lines.append(f"Not loaded: {', '.join(sorted(failed))}")
    raise BackendError("\n".join(line for text in lines for line in wrapped(text)))


def is_local(protocol: str) -> bool:
    """Tell whether the backend of local paths serves a protocol."""
    return protocol == LOCAL or protocol in backend_for(LOCAL).protocols


def is_served(protocol: str) -> bool:
    """Tell whether a backend that loads serves a protocol."""
    try:
        backend_for(protocol)
    except BackendError:
        return False
    return True


@cache
def _entry_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=GROUP))


@cache
def _load(point: importlib.metadata.EntryPoint) -> Backend:
    backend = point.load()()
    if not isinstance(backend, Backend):
        raise TypeError(f"{point.value} is not an atomicpath.Backend")
    return backend
