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

_DELETES = "what holds without conditional deletes is refused"
_ABSENT = "what is no answer of the store's counts as absence"


_TO_MEND: dict[tuple[str, str], str] = {
    **{("DELETE conditions ignored", name): _DELETES for name in ("take-over", "remove", "keep_last")},
    **{("404 page of a load balancer", name): _ABSENT for name in (*_READS, *_REMOVES)},
}
"""On S3, as moto speaks it."""

_ELSEWHERE: dict[str, dict[tuple[str, str], str]] = {
    "fake-gcs-server": {  # it ignores conditions on deletes as it is
        (name, operation): _DELETES
        for name, working in _WORKS.items()
        for operation in ("take-over", "remove", "keep_last")
        if operation in working
    }
    | {("replies delayed past a lease", name): "" for name in _ALL},
}
"""What is otherwise on other servers; "" where nothing is to be mended there."""


def must_work(server: Server, behaviour: Behaviour, operation: Operation) -> bool:
    """Whether anything but success would be a shortcoming."""
    if server.dialect.name == "Azure" and behaviour.name == "429 bursts":
        return False  # it says 503 itself when it is busy, and Azure's client repeats that only
    return operation.name in _WORKS.get(behaviour.name, frozenset())


def to_mend(server: Server | str, behaviour: Behaviour, operation: Operation) -> str | None:
    """Return why a cell is not yet as it has to be; None if it is."""
    name = server if isinstance(server, str) else server.name
    found = _ELSEWHERE.get(name, {}).get((behaviour.name, operation.name))
    return _TO_MEND.get((behaviour.name, operation.name)) if found is None else found or None
