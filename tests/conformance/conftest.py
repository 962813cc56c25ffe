"""Which runs are left out while somebody is developing."""

from __future__ import annotations

import os

import pytest

_BOTH_LOOPS = ("local", "memory", "moto")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Both event loops on every backend with ATOMICPATH_FULL=1; without it, trio on the three that start at once."""
    if os.environ.get("ATOMICPATH_FULL") == "1":
        return
    left_out = [item for item in items if _is_repetition(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_repetition(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None or item.get_closest_marker("parametrize") is None or "make_place" not in callspec.params:
        return False
    return callspec.params["loop"] == "trio" and callspec.params["make_place"] not in _BOTH_LOOPS
