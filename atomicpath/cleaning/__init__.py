"""The cleaner: what was left behind, what is to be removed, what is to be kept; public at the top level."""

from .findings import Action, Found, Swept
from .removing import remove
from .retaining import keep_last
from .sweeping import sweep

__all__ = ["Action", "Found", "Swept", "keep_last", "remove", "sweep"]
