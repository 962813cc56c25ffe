"""Which runs are left out while somebody is developing."""

from __future__ import annotations

import os

import pytest

_BOTH_LOOPS = ("local", "memory", "moto")
_SLOW = ("seaweedfs",)  # a second for every contended write; tests/s3 and tests/test_race.py are on it in any case


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every backend under both event loops with ATOMICPATH_FULL=1; without it, the slow not at all, trio on three."""
    if os.environ.get("ATOMICPATH_FULL") == "1":
        return
    left_out = [item for item in items if _is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_left_out(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None or "make_place" not in callspec.params:
        return False
    place, loop = callspec.params["make_place"], callspec.params["loop"]
    return place in _SLOW or (loop == "trio" and place not in _BOTH_LOOPS)
