"""The port of key-value stores, as little as the coordinators need of one."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from atomicpath._core.environment import Environment

__all__ = ["KeyValues", "poll"]

T = TypeVar("T")

_SHORTEST, _LONGEST = 0.00005, 0.1  # seconds between two looks


class KeyValues(abc.ABC):
    """Text keys, values of at least one byte, shared by all processes of a job.

    Every call blocks, in a worker thread, and several threads may be in it at once. A store that is gone,
    was shut down or refuses is CoordinationError.
    """

    @abc.abstractmethod
    def create(self, key: str, value: bytes) -> bytes:
        """Write the value unless the key has one; the value it has afterwards. Of many at once one writes."""

    @abc.abstractmethod
    def put(self, key: str, value: bytes) -> None:
        """Write the value, over another if there is one. It may be sent without waiting for the store's answer."""

    @abc.abstractmethod
    def collect(self, keys: Sequence[str], seconds: float, waited: float) -> Mapping[str, bytes]:
        """Return the values of those keys that have one, waiting at most `seconds` for all of them.

        With `seconds` 0, do not wait. `waited` says how long the caller has waited for the keys already; a store that
        has to be asked again and again needs it.
        """

    @abc.abstractmethod
    def count(self, key: str) -> int:
        """Add one to the number under the key, in one indivisible step; 1 at the first time."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove the key, if it is there."""


def poll(environment: Environment, look: Callable[[], T | None], seconds: float, waited: float) -> T | None:
    """Ask again and again, less and less often: what `look` finds, or None when the time is up.

    The pause is an eighth of the time waited so far, so little is lost on who comes soon or late.
    """
    began = environment.monotonic()
    while True:
        found = look()
        elapsed = environment.monotonic() - began
        if found is not None or elapsed >= seconds:
            return found
        pause = min(max(_SHORTEST, (waited + elapsed) / 8), _LONGEST, seconds - elapsed)
        environment.call(time.sleep, pause)
