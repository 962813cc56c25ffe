"""Managers of one root on each kind of place, closed at the end of a test whatever it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import atomicpath
from tests.support.roots import Root

Open = Callable[..., atomicpath.CheckpointManager]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Open a manager of a root."""
    managers: list[atomicpath.CheckpointManager] = []

    def open_(place: Root, **options: Any) -> atomicpath.CheckpointManager:
        managers.append(
            atomicpath.CheckpointManager(place.url, storage_options=place.storage_options or None, **options)
        )
        return managers[-1]

    yield open_
    for manager in managers:
        with suppress(atomicpath.AtomicPathError):
            manager.close()
