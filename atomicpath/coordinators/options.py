"""Which processes of a job create directories together, who of them does it, and how long they wait."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from atomicpath._core.one_shot import bounded
from atomicpath.abc import Coordinator
from atomicpath.errors import ValidationError

__all__ = ["MultiprocessingOptions", "check_coordinator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiprocessingOptions:
    """How the processes of a job share the work.

    `primary_host`: the rank that creates and finalizes; None: every process does, each its own paths.
    `active_processes`: the ranks that take part, and call; None: all. `barrier_sync_key_prefix`: what the
    keys of their messages begin with, where several groups of callers are to be kept apart. `timeout`:
    seconds, or a timedelta, that others are waited for; None: what the coordinator says. `coordinator`: the
    engine of the job; "auto": the one that is initialised in this process, or this process alone if there is none.
    "auto" is the default here, unlike in `commit`: what takes these options is by its own contract called in every
    active process. None is this process alone, and ValidationError if an engine of several is initialised.
    """

    primary_host: int | None = 0
    active_processes: AbstractSet[int] | None = None
    barrier_sync_key_prefix: str | None = None
    timeout: timedelta | float | None = None
    coordinator: Coordinator | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        check_coordinator(self.coordinator)
        if self.primary_host is not None and not _is_rank(self.primary_host):
            raise ValidationError(
                f"primary_host cannot be {self.primary_host!r}: it is a rank from 0 on, or None for all"
            )
        active = self.active_processes
        if active is not None:
            if not active or not all(_is_rank(rank) for rank in active):
                raise ValidationError(f"active_processes cannot be {active!r}: name at least one rank, from 0 on")
            object.__setattr__(self, "active_processes", frozenset(active))
            if self.primary_host is not None and self.primary_host not in active:
                raise ValidationError(
                    f"primary_host={self.primary_host} is not among active_processes={sorted(active)}: nobody would"
                    " create anything"
                )
        if self.barrier_sync_key_prefix is not None and not self.barrier_sync_key_prefix.strip():
            raise ValidationError("barrier_sync_key_prefix is empty: leave it out, or give a name")
        if self.timeout is not None:
            bounded(self.seconds(1.0))

    def seconds(self, default: float) -> float:
        """Return the time-out in seconds, or `default` if there is none."""
        if self.timeout is None:
            return default
        return self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else self.timeout


def check_coordinator(value: object) -> None:
    """Raise ValidationError for an object that can be no `coordinator=`."""
    if value not in (None, "auto") and not isinstance(value, Coordinator):
        raise ValidationError(
            f'coordinator= takes a Coordinator (see atomicpath.coordinators), "auto" or None, not {value!r}'
        )


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
