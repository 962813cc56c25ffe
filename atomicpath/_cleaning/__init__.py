"""The cleaner: what was left behind, what is to be removed, what is to be kept; public at the top level."""

from .remove import remove
from .results import Action, Found, Swept
from .retain import keep_last
from .sweep import sweep

__all__ = ["Action", "Found", "Swept", "keep_last", "remove", "sweep"]
