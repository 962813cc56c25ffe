"""The cleaner: what was left behind, what is to be removed, what is to be kept; public at the top level."""

from .policies import Mode, Rules
from .removal import remove
from .results import Action, LeftoverKind, SweepResult
from .retention import METRICS, TEMPORARY, Metric, Retained, Selection, Wanted, is_temporary, keep_last, retain
from .sweeper import sweep

__all__ = [
    "METRICS",
    "TEMPORARY",
    "Action",
    "LeftoverKind",
    "Metric",
    "Mode",
    "Retained",
    "Rules",
    "Selection",
    "SweepResult",
    "Wanted",
    "is_temporary",
    "keep_last",
    "remove",
    "retain",
    "sweep",
]
