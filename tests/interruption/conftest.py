"""Where the interrupted scripts commit."""

from __future__ import annotations

import pytest

from tests.support.roots import Root


@pytest.fixture(params=["local", "moto"])
def place_of_scripts(request: pytest.FixtureRequest) -> Root:
    """A local disk, and moto's S3, about which everything a commit needs to know is known already."""
    found: Root = request.getfixturevalue(f"{request.param}_place")
    return found
