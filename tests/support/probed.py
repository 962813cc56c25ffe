"""What probes found at a place of a server, told of its other places: on some servers a probe takes seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import atomicpath
from atomicpath._profile import probing
from atomicpath._profile.location import locate
from tests.support.roots import Root

__all__ = ["probed"]

P = TypeVar("P", bound=Root)

_found: dict[str, probing._Findings] = {}


def probed(server: str, place: P) -> P:
    """The place, with the findings known; the first of a server in this process is put to the test.

    A local disk and the memory are, each time: it costs nothing there.
    """
    if place.kind in ("local", "memory"):
        return place
    location = locate(place.url, place.storage_options)
    if server not in _found:
        atomicpath.profile(place / "any", storage_options=place.storage_options)
        _found[server] = probing._known[location.identity]
    for known in (location.identity, location.parent.identity):
        found = _found[server]
        probing._known[known] = replace(found, evidence=dict(found.evidence))
    return place
