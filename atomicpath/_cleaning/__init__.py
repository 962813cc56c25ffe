"""The cleaner: what was left behind, what is to be removed, what is to be kept; public at the top level."""

from .results import Action, LeftoverKind, SweepResult
from .removal import remove
from .retention import keep_last
from .sweeper import sweep

__all__ = ["Action", "Found", "SweepResult", "keep_last", "remove", "sweep"]
