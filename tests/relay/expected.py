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

_PROBES = "a probe takes silence, throttling or a refused delete for a refutation, or ends with it (K10)"
_DELETES = "what holds without conditional deletes is refused (K16)"
_ABSENT = "what is no answer of the store's counts as absence (K4)"
_FORM = "the form of versions is not learnt (K10)"

_TO_MEND: dict[tuple[str, str, str], str] = {}


def must_work(behaviour: Behaviour, operation: Operation) -> bool:
    """Whether anything but success would be a shortcoming."""
    return operation.name in _WORKS.get(behaviour.name, frozenset())


def to_mend(server: Server | str, behaviour: Behaviour, operation: Operation) -> str | None:
    """Return why a cell is not yet as it has to be; None if it is."""
    name = server if isinstance(server, str) else server.name
    return _TO_MEND.get((name, behaviour.name, operation.name))
