"""The cleaner: what was left behind, what is to be removed, what is to be kept; public at the top level."""

from .findings import Action, Found, Swept
from .remove import remove
from .retain import keep_last
from .sweep import sweep

__all__ = ["Action", "Found", "Swept", "keep_last", "remove", "sweep"]
