"""What has to work where, and what does not yet."""

from __future__ import annotations

from .behaviours import Behaviour
from .operations import Operation
from .places import Server

__all__ = ["must_work", "to_mend"]

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


_TO_MEND: dict[tuple[str, str], str] = {}


def must_work(server: Server, behaviour: Behaviour, operation: Operation) -> bool:
    """Whether anything but success would be a shortcoming."""
    if server.dialect.name == "Azure" and behaviour.name == "429 bursts":
        return False  # it says 503 itself when it is busy, and Azure's client repeats that only
    return operation.name in _WORKS.get(behaviour.name, frozenset())


def to_mend(behaviour: Behaviour, operation: Operation) -> str | None:
    """Return why a cell is not yet as it has to be; None if it is."""
    return _TO_MEND.get((behaviour.name, operation.name))
