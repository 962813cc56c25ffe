"""The vocabulary of promises: what a location may guarantee, and on what evidence."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from ._core.text import Notes, wrapped
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
        evidence: Says for each guarantee, in words, where the answer comes from; one piece of evidence a line.
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
    """Raise GuaranteeError unless the profile has all of `needed`; it says what is missing and what to do about it."""
    missing = profile.missing(needed)
    if missing:
        notes = Notes()
        lines = shortage("it", needed, profile, notes)
        head = f"{who} is not safe at {profile.location or 'this location'}:"
        raise GuaranteeError("\n".join([head, *lines, *notes.lines(), *advice(missing, profile)]))


def check_replacing(who: str, needed: Guarantee | None, what: str, profile: Profile) -> None:
    """Raise GuaranteeError unless `who` may put a directory in the place of a committed one; `what` asked for it.

    Args:
        who: The strategy.
        needed: What that takes beside what a commit needs; None if the strategy has no way to do it.
        what: The caller's argument.
        profile: What holds at the place.
    """
    if needed is not None and not profile.missing(needed):
        return
    notes = Notes()
    if needed is None:
        lines = wrapped(f"  {who} has no way to let two directories swap names ({Guarantee.RENAME_EXCHANGE})", hang=4)
    else:
        lines = shortage(who, needed, profile, notes)
    raise GuaranteeError(
        "\n".join(
            [
                f"{what} is not safe at {profile.location or 'this location'}:",
                *lines,
                *notes.lines(),
                "Readers would see neither directory for a moment, or a mixture of both.",
                "Commit under another name, and let readers take latest(...); or remove(...) what is there first,",
                "and accept that for a while nothing is there.",
                *(advice(profile.missing(needed), profile) if needed is not None else ()),
            ]
        )
    )


def shortage(who: str, needed: Guarantee, profile: Profile, notes: Notes | None = None) -> list[str]:
    """Return lines that say what is missing, and refer to how that is known where there are `notes`."""
    missing: dict[tuple[bool, str], Guarantee] = {}
    for guarantee in profile.missing(needed):
        known = bool(guarantee & profile.refuted), profile.evidence.get(guarantee, "") if notes else ""
        missing[known] = missing.get(known, NONE) | guarantee
    reasons = []
    for (is_refuted, evidence), guarantees in missing.items():
        one = len(guarantees) == 1
        status = "refuted" if is_refuted else "not known to hold"
        verb = ("was" if one else "were") if is_refuted else ("is" if one else "are")
        reference = notes.refer(evidence) if notes else ""
        reasons.append(f"{guarantees}, which {verb} {status} {reference}".rstrip())
    return wrapped(f"  {who} needs {'; '.join(reasons)}", hang=4)


def advice(missing: Guarantee, profile: Profile) -> list[str]:
    """Return lines that say what a caller can do about what is missing."""
    if missing & profile.refuted:
        return ["What was refuted cannot be asserted: use another location."]
    it = "it holds" if len(missing) == 1 else "they hold"
    asserted = " | ".join(f"Guarantee.{name}" for name in missing.names())
    return [f"If you know that {it} there, pass", *wrapped(f"  guarantees={asserted}", hang=4)]
