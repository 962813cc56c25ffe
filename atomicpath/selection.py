"""What follows from a profile: the commit strategy, or why there is none. Pure."""

from __future__ import annotations

from .abc import TemporaryPath
from .errors import GuaranteeError
from .guarantees import Guarantee, Profile, advice, check_replacing, shortage
from .strategies.atomic_rename import AtomicRenameTemporaryPath
from .strategies.commit_file import CommitFileTemporaryPath

__all__ = ["STRATEGIES", "select"]

STRATEGIES: tuple[type[TemporaryPath], ...] = (AtomicRenameTemporaryPath, CommitFileTemporaryPath)
"""In order of preference."""


def select(profile: Profile, *, replace: bool = False) -> type[TemporaryPath]:
    """The preferred strategy whose needs the profile meets; with `replace` those of replacing a directory, too.

    GuaranteeError if there is none, saying for each strategy what is missing and how to accept it: nothing
    weaker is ever chosen unasked.
    """
    able = [strategy for strategy in STRATEGIES if not profile.missing(strategy.requires)]
    if able and replace:
        nearest = next((strategy for strategy in able if strategy.replacing is not None), able[0])
        check_replacing(nearest.__name__, nearest.replacing, "replace=True", profile)
        return nearest
    if able:
        return able[0]
    shortages = [f"  {shortage(strategy.__name__, strategy.requires, profile)}" for strategy in STRATEGIES]
    nearest = min(STRATEGIES, key=lambda strategy: _distance(profile.missing(strategy.requires), profile))
    raise GuaranteeError(
        "\n".join(
            [
                f"no commit strategy is safe at {profile.location or 'this location'}:",
                *shortages,
                advice(profile.missing(nearest.requires), profile),
            ]
        )
    )


def _distance(missing: Guarantee, profile: Profile) -> tuple[bool, bool, int]:
    """How far a strategy is from being safe: in need of directories where none are known, refuted, or unknown."""
    renames = bool(missing & Guarantee.ATOMIC_RENAME) and Guarantee.DIRECTORIES not in profile.effective
    return renames, bool(missing & profile.refuted), len(missing)
