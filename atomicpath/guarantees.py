"""The vocabulary of promises: what a location may guarantee, and on what evidence."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import GuaranteeError

__all__ = [
    "NONE",
    "RENAMING",
    "WRITING",
    "Guarantee",
    "Profile",
    "advice",
    "check",
    "check_replacing",
    "shortage",
]


class Guarantee(enum.Flag):
    """One promise that a location makes. A guarantee that is absent is unknown; absence never means "no"."""

    ATOMIC_WRITE = enum.auto()
    """A file or object appears whole or not at all."""
    LIST_AFTER_WRITE = enum.auto()
    """A listing begun after a write returned shows it."""
    EXCLUSIVE_CREATE = enum.auto()
    """Of many concurrent creations of one name exactly one succeeds."""
    EXCLUSIVE_MULTIPART = enum.auto()
    """Of many concurrent completions of multi-part uploads to one name exactly one succeeds."""
    COMPARE_AND_SWAP = enum.auto()
    """A write can be made conditional on the version that was read."""
    CONDITIONAL_DELETE = enum.auto()
    """A delete can be made conditional on the version that was read."""
    ATOMIC_RENAME = enum.auto()
    """A directory is renamed in one indivisible step, or an error says that it was not."""
    RENAME_NOREPLACE = enum.auto()
    """That rename fails if anything, an empty directory included, is at the target."""
    RENAME_EXCHANGE = enum.auto()
    """Two directories swap names indivisibly."""
    DIRECTORIES = enum.auto()
    """Directories exist by themselves and have modes."""
    SYNC = enum.auto()
    """fsync of files and directories is meaningful."""

    def names(self) -> list[str]:
        """Return the names of the members, in the order of their definition."""
        return [member.name for member in self if member.name]

    def __str__(self) -> str:
        return " | ".join(self.names()) or "none"


NONE = Guarantee(0)
RENAMING = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE
"""The guarantees that publishing by a directory rename needs."""
WRITING = Guarantee.EXCLUSIVE_CREATE | Guarantee.ATOMIC_WRITE | Guarantee.LIST_AFTER_WRITE
"""The guarantees that publishing by a commit file needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The guarantees of one location, and how each is known.

    A guarantee belongs to a location, never to a URL scheme.

    Attributes:
        location: The URL, without credentials.
        declared: The backend knows these from documentation of this kind of location.
        observed: A probe at the target's parent saw that these hold.
        refuted: A probe saw that these do not hold.
        asserted: The user said that these hold.
        evidence: Says for each guarantee, in words, where the answer comes from.
    """

    location: str = ""
    declared: Guarantee = NONE
    observed: Guarantee = NONE
    refuted: Guarantee = NONE
    asserted: Guarantee = NONE
    evidence: Mapping[Guarantee, str] = field(default_factory=dict, hash=False)

    @property
    def effective(self) -> Guarantee:
        """The guarantees that may be relied on: declared, observed or asserted, and not refuted."""
        return (self.declared | self.observed | self.asserted) & ~self.refuted

    def missing(self, needed: Guarantee) -> Guarantee:
        """Return those of `needed` that may not be relied on."""
        return needed & ~self.effective


def check(who: str, needed: Guarantee, profile: Profile) -> None:
    """GuaranteeError unless the profile has all that is needed; it says what is missing and what would accept it."""
    missing = profile.missing(needed)
    if missing:
        raise GuaranteeError(
            f"{who} is not safe at {profile.location or 'this location'}:\n"
            f"  {shortage(who, needed, profile)}\n{advice(missing, profile)}"
        )


def check_replacing(who: str, needed: Guarantee | None, what: str, profile: Profile) -> None:
    """GuaranteeError unless `who` may put a directory in the place of a committed one; `what` asked for it.

    `needed`: what that takes beside what a commit needs; None if it is no way of `who` at all.
    """
    if needed is not None and not profile.missing(needed):
        return
    where = profile.location or "this location"
    if needed is None:
        reason = f"{who} has no way to do that: it takes {Guarantee.RENAME_EXCHANGE}, two directories that swap names"
    else:
        reason = f"{shortage(who, needed, profile)}: two directories that swap names in one step"
    asserted = f" {advice(profile.missing(needed), profile)}." if needed is not None else ""
    raise GuaranteeError(
        f"{what} is not safe at {where}: there would be a moment at which neither directory, or a mixture, is seen.\n"
        f"  {reason}.\nCommit under another name, and let readers take latest(...); or remove(...) what is there first,"
        f" and accept that for a while nothing is there.{asserted}"
    )


def shortage(who: str, needed: Guarantee, profile: Profile) -> str:
    """In words, what is missing and how that is known."""
    reasons = []
    for guarantee in profile.missing(needed):
        status = "was refuted" if guarantee & profile.refuted else "is not known to hold"
        evidence = dict(profile.evidence).get(guarantee)
        reasons.append(f"{guarantee}, which {status}" + (f" ({evidence})" if evidence else ""))
    return f"{who} needs {'; '.join(reasons)}"


def advice(missing: Guarantee, profile: Profile) -> str:
    """What a caller can do about it."""
    if missing & profile.refuted:
        return "What was refuted cannot be asserted: use another location. atomicpath.explain(url) shows what was tried"
    asserted = " | ".join(f"Guarantee.{name}" for name in missing.names())
    return (
        f"If you know that they hold there, say so: guarantees={asserted}. atomicpath.explain(url) shows what was tried"
    )
