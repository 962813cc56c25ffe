"""What the tests of staging share: places to stage in, and a commit that is staged."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.staging.users import shared_place
from tests.support.roots import MemoryRoot


@pytest.fixture
def memory() -> MemoryRoot:
    return MemoryRoot()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that everybody may write to."""
    with shared_place() as place:
        yield place


@pytest.fixture
def temporary(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary directory, for as long as the test runs."""
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    monkeypatch.delenv("ATOMICPATH_STAGING_DIR", raising=False)
    return shared
