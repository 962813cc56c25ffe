"""What follows from a profile: the commit strategy, or why there is none. Pure."""

from __future__ import annotations

from .abc import TemporaryPath
from .errors import GuaranteeError
from .guarantees import Profile, advice, shortage
from .strategies.atomic_rename import AtomicRenameTemporaryPath
from .strategies.commit_file import CommitFileTemporaryPath

__all__ = ["STRATEGIES", "select"]

STRATEGIES: tuple[type[TemporaryPath], ...] = (AtomicRenameTemporaryPath, CommitFileTemporaryPath)
"""In order of preference."""


def select(profile: Profile) -> type[TemporaryPath]:
    """The preferred strategy whose needs the profile meets.

    GuaranteeError if there is none, saying for each strategy what is missing and how to accept it: nothing
    weaker is ever chosen unasked.
    """
    for strategy in STRATEGIES:
        if not profile.missing(strategy.requires):
            return strategy
    shortages = [f"  {shortage(strategy.__name__, strategy.requires, profile)}" for strategy in STRATEGIES]
    nearest = min(
        (profile.missing(strategy.requires) for strategy in STRATEGIES),
        key=lambda one: (bool(one & profile.refuted), len(one)),
    )
    raise GuaranteeError(
        "\n".join(
            [
                f"no commit strategy is safe at {profile.location or 'this location'}:",
                *shortages,
                advice(nearest, profile),
            ]
        )
    )
