"""The cleaner: what was left behind, what is to be removed, what is to be kept; public at the top level."""

from .removal import remove
from .results import Action, LeftoverKind, SweepResult
from .retention import keep_last
from .sweeper import sweep

__all__ = ["Action", "LeftoverKind", "SweepResult", "keep_last", "remove", "sweep"]
