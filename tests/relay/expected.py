"""Where an operation has to succeed, and not only to tell the truth."""

from __future__ import annotations

from .behaviours import Behaviour
from .operations import Operation
from .places import Server

__all__ = ["must_work"]

_READS = frozenset({"latest", "get", "verify"})
_WRITES = frozenset({"commit", "take-over"})
_REMOVES = frozenset({"remove", "keep_last", "sweep"})
_ALL = _READS | _WRITES | _REMOVES

_WORKS = {
    "as it is": _ALL,
    "DELETE conditions ignored": _ALL,
    "If-Match quoted only": _ALL,
    "If-Match unquoted only": _ALL,
    "501 for conditions": _READS,
    "403 on delete": _READS | {"commit"},
    "429 bursts": _ALL,
    "other version in listings": _READS | {"commit"},
    "no metadata": _READS | {"commit"},
    "replies lost": _ALL,
    "replies delayed past a lease": _READS,
}


def must_work(server: Server, behaviour: Behaviour, operation: Operation) -> bool:
    """Whether anything but success would be a shortcoming."""
    if server.dialect.name == "Azure" and behaviour.name == "429 bursts":
        return False  # it says 503 itself when it is busy, and Azure's client repeats that only
    return operation.name in _WORKS.get(behaviour.name, frozenset())
