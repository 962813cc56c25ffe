"""The names of the core that this backend writes itself, since a backend may not import the core's layout."""

from __future__ import annotations

__all__ = ["HOUSEKEEPING", "PROBE", "UNFINISHED"]

UNFINISHED = ".atomicpath-tmp-"  # what the core never counts as committed; short, so that long names fit
HOUSEKEEPING = ".atomicpath"  # the directory beside the final paths, for all that is not committed
PROBE = ".atomicpath-probe-"  # what sweep deletes, should this process be killed before it does
