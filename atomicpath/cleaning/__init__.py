"""The cleaner: what was left behind, what is to be removed, what is to be kept; public at the top level."""

from .findings import Action, Found, Swept
from .policies import Mode, Rules
from .removing import remove
from .retaining import METRICS, TEMPORARY, Metric, Retained, Selection, Wanted, keep_last, retain
from .sweeping import sweep

__all__ = [
    "METRICS",
    "TEMPORARY",
    "Action",
    "Found",
    "Metric",
    "Mode",
    "Retained",
    "Rules",
    "Selection",
    "Swept",
    "Wanted",
    "keep_last",
    "remove",
    "retain",
    "sweep",
]
