"""The cleaner: what was left behind, what is to be removed, what is to be kept; public at the top level."""

from atomicpath._cleaning.policies import Mode

from .remove import remove
from .results import Action, Found, Swept
from .retain import Metric, Retained, Selection, Wanted, keep_last, retain
from .sweep import sweep

__all__ = [
    "Action",
    "Found",
    "Metric",
    "Mode",
    "Retained",
    "Selection",
    "Swept",
    "Wanted",
    "keep_last",
    "remove",
    "retain",
    "sweep",
]
