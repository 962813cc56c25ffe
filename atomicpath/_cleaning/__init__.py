"""The cleaner: what was left behind, what is to be removed, what is to be kept; public at the top level."""

from .remove import remove
from .results import Action, LeftoverKind, SweepResult
from .retain import keep_last
from .sweep import sweep

__all__ = ["Action", "LeftoverKind", "SweepResult", "keep_last", "remove", "sweep"]
