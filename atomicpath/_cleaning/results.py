"""What a sweep finds and what becomes of it: the values it returns, and the rule by which age and life decide."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from upath import UPath

from atomicpath._core.record import LONGEST_LEASE, Writer

__all__ = ["Action", "Finding", "KeepError", "LeftoverKind", "SweepResult", "Verdict", "judge"]


class LeftoverKind(enum.StrEnum):
    """What is at a path that a sweep reports."""

    ATTEMPT = "attempt"
    """Begun and not committed."""
    DISCARDED = "discarded"
    """Given up, or removed, and not yet deleted."""
    REPLACED = "replaced"
    """Exchanged for another by a replacement that did not come to its end."""
    UNMARKED = "unmarked"
    """Committed, without its marker."""
    INTERRUPTED = "interrupted"
    """An empty directory that an interrupted rename has left."""
    PROBE = "probe"
    """What a probe has left."""
    LOCK = "lock"
    """A file that was locked while a directory was written, replaced or removed."""
    DAMAGED = "damaged"
    """A record that cannot be used."""
    UNKNOWN = "unknown"
    """It could not be looked at."""


class Action(enum.StrEnum):
    """What a sweep does about it."""

    REMOVE = "remove"
    MARK = "mark"
    """Add the marker."""
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """One thing that a sweep has found: `found` says what, `action` what is done about it and `why`, in words.

    `done` is whether it was done: never with `dry_run`, nor where it failed, with `error`. `writer` is the process
    that made it, and `age` the seconds since it gave the last sign, by the storage's own clock; None if not known.
    """

    path: UPath
    found: LeftoverKind
    action: Action
    done: bool = False
    reason: str = ""
    writer: Writer | None = None
    age: float | None = None
    error: Exception | None = None

    def __str__(self) -> str:
        outcome = f"failed: {self.error}" if self.error else "done" if self.done else "not done"
        doing = "kept" if self.action is Action.KEEP else f"{self.action}, {outcome}"
        return f"{self.path} ({self.found}): {doing}; {self.reason}"


class KeepError(Exception):
    """At the last look it turned out that it has to stay; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found, and how to act on it: `act` returns what else is to be said, or raises `KeepError`.

    `by_age_only`: nothing would stop the writer, should it wake up.
    """

    swept: SweepResult
    act: Callable[[], Awaitable[str]] | None = None
    by_age_only: bool = False

    def keeping(self, reason: str) -> Finding:
        """Return the same finding, with the verdict that it stays for `reason`."""
        return Finding(swept=replace(self.swept, action=Action.KEEP, reason=reason))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether something may be cleaned up, and the reason in words."""

    clean: bool
    reason: str


def judge(*, alive: bool | None, age: float | None, older_than: float, lease: float) -> Verdict:
    """Judge by life before age; where life cannot be told from here, no age below the lease is enough.

    This function is pure; times are in seconds. A lease that states more than LONGEST_LEASE counts as that.

    `older_than` holds for the provably dead too: what a job left behind is evidence, and a user may want to look.
    """
    if alive:
        return Verdict(clean=False, reason="its process is alive")
    if age is None:
        return Verdict(
            clean=False, reason="the storage does not tell how old it is: remove it by hand if nobody needs it"
        )
    least = older_than if alive is False else max(older_than, min(lease, LONGEST_LEASE))
    if age < least:
        return Verdict(clean=False, reason=f"it gave a sign {age:.0f} s ago, and may be cleaned up after {least:.0f} s")
    if alive is False:
        return Verdict(clean=True, reason="its process is gone")
    return Verdict(clean=True, reason=f"nothing was heard of it for {age:.0f} s")
