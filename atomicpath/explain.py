"""What was found at a location and what follows, in words for people."""

from __future__ import annotations

from dataclasses import dataclass

from .abc import TemporaryPath
from .errors import GuaranteeError
from .guarantees import Guarantee, Profile
from .selection import select
from .strategies.commit_file import CommitFileTemporaryPath
from .strategies.fences import Fence

__all__ = ["Explanation", "explained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A profile, the strategy that follows from it or None, and why. `str()` is for people."""

    profile: Profile
    strategy: type[TemporaryPath] | None
    reason: str

    def __str__(self) -> str:
        profile, evidence = self.profile, dict(self.profile.evidence)
        width = max(len(member.name or "") for member in Guarantee)
        lines = [
            f"  {member.name:<{width}}  {_status(member, profile):<8}  {evidence.get(member, '')}".rstrip()
            for member in Guarantee
        ]
        return "\n".join([profile.location, *lines, self.reason])


def explained(profile: Profile) -> Explanation:
    """The explanation of a profile. Pure."""
    try:
        strategy = select(profile)
    except GuaranteeError as error:
        return Explanation(profile=profile, strategy=None, reason=str(error))
    reason = f"Commits here use {strategy.__name__}: it needs {strategy.requires}, all of which hold."
    if strategy is CommitFileTemporaryPath and (assumed := Fence.of(profile.effective).in_words()):
        reason += f"\n{assumed}"
    return Explanation(profile=profile, strategy=strategy, reason=reason)


def _status(member: Guarantee, profile: Profile) -> str:
    for status in ("refuted", "observed", "declared", "asserted"):
        if member & getattr(profile, status):
            return status
    return "unknown"
