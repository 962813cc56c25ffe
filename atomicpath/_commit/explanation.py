"""What was found at a location and what follows, in words for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from atomicpath._core.text import WIDTH, Notes, wrapped
from atomicpath._strategies.commit_file import CommitFileTemporaryPath
from atomicpath._strategies.fences import Fence
from atomicpath.abc import TemporaryPath
from atomicpath.errors import GuaranteeError
from atomicpath.guarantees import Guarantee, Profile

from .selection import STRATEGIES, refusal, select

__all__ = ["Explanation", "explained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A profile, the strategy that follows from it or None, and the reason. `str()` is for people, on one screen.

    Attributes:
        profile: The guarantees of the location, with evidence.
        strategy: The strategy that commits there use; None if none is safe.
        reason: What commits there assume and use, or what is missing and what to do about it.
    """

    profile: Profile
    strategy: type[TemporaryPath] | None
    reason: str

    def __str__(self) -> str:
        profile = self.profile
        rows = [member for member in Guarantee if self._matters(member)]
        width = max(len(str(member)) for member in rows)
        uses = Counter(piece for member in rows for piece in profile.evidence.get(member, "").splitlines())
        notes, lines = Notes(), [profile.location]
        for member in rows:
            row = f"  {member!s:<{width}}  {_status(member, profile):<8}  "
            evidence = profile.evidence.get(member, "")
            if uses[evidence] != 1 or len(row + evidence) > WIDTH:
                evidence = notes.refer(evidence)
            lines.append((row + evidence).rstrip())
        return "\n".join([*lines, *notes.lines(), self.reason])

    def _matters(self, member: Guarantee) -> bool:
        """Tell whether something is known of the guarantee, or a commit needs it."""
        needing = [self.strategy] if self.strategy else STRATEGIES
        known = self.profile.effective | self.profile.refuted
        return member in known or member in self.profile.evidence or any(member in one.requires for one in needing)


def explained(profile: Profile, *, is_local: bool = False) -> Explanation:
    """Return the explanation of a profile. Pure.

    Args:
        profile: What holds at the place.
        is_local: Whether it is on a file system of this host, where `durable=True` takes syncs.
    """
    try:
        strategy = select(profile)
    except GuaranteeError:
        lacks, remedy = refusal(profile)
        reason = "\n".join(["No commit strategy is safe here:", *lacks, *remedy])
        return Explanation(profile=profile, strategy=None, reason=reason)
    lines = wrapped(Fence.of(profile.effective).in_words()) if strategy is CommitFileTemporaryPath else []
    if is_local and profile.missing(Guarantee.SYNC):
        lines.append("SYNC is not known to hold: pass durable=False, and a power cut may undo a commit.")
    lines.append(f"Commits here use {strategy.__name__} (needs {strategy.requires}).")
    return Explanation(profile=profile, strategy=strategy, reason="\n".join(lines))


def _status(member: Guarantee, profile: Profile) -> str:
    for status in ("refuted", "observed", "declared", "asserted"):
        if member & getattr(profile, status):
            return status
    return "unknown"
