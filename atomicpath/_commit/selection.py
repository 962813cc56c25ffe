"""What follows from a profile: the commit strategy, or why there is none. Pure."""

from __future__ import annotations

from atomicpath._core.text import Notes
from atomicpath._strategies.atomic_rename import AtomicRenameTemporaryPath
from atomicpath._strategies.commit_file import CommitFileTemporaryPath
from atomicpath.abc import TemporaryPath
from atomicpath.errors import GuaranteeError
from atomicpath.guarantees import Guarantee, Profile, advice, check_replacing, shortage

__all__ = ["STRATEGIES", "refusal", "select"]

STRATEGIES: tuple[type[TemporaryPath], ...] = (AtomicRenameTemporaryPath, CommitFileTemporaryPath)
"""In order of preference."""


def select(profile: Profile, *, replace: bool = False) -> type[TemporaryPath]:
    """Return the preferred strategy whose needs the profile meets; nothing weaker is ever chosen unasked. Pure.

    Args:
        profile: What holds at the place.
        replace: Whether a committed directory is to be replaced, which takes more.

    Raises:
        GuaranteeError: There is none. It says for each strategy what is missing, and what to do about it.
    """
    able = [strategy for strategy in STRATEGIES if not profile.missing(strategy.requires)]
    if able and replace:
        nearest = next((strategy for strategy in able if strategy.replacing is not None), able[0])
        check_replacing(nearest.__name__, nearest.replacing, "replace=True", profile)
        return nearest
    if able:
        return able[0]
    notes = Notes()
    shortages, remedy = refusal(profile, notes)
    head = f"no commit strategy is safe at {profile.location or 'this location'}:"
    raise GuaranteeError("\n".join([head, *shortages, *notes.lines(), *remedy]))


def refusal(profile: Profile, notes: Notes | None = None) -> tuple[list[str], list[str]]:
    """Return lines that say what each strategy lacks, with evidence if there are `notes`, and what to do about it."""
    lacks = [line for one in STRATEGIES for line in shortage(one.__name__, one.requires, profile, notes)]
    nearest = min(STRATEGIES, key=lambda strategy: _distance(profile.missing(strategy.requires), profile))
    return lacks, advice(profile.missing(nearest.requires), profile)


def _distance(missing: Guarantee, profile: Profile) -> tuple[bool, bool, int]:
    """Return a sort key that says how far a strategy is from being safe.

    The key compares in this order: whether the strategy renames directories where no directories are known, whether a
    guarantee that it lacks is refuted, and how many it lacks.
    """
    renames = bool(missing & Guarantee.ATOMIC_RENAME) and Guarantee.DIRECTORIES not in profile.effective
    return renames, bool(missing & profile.refuted), len(missing)
