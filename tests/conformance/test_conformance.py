"""The conformance kit, as any third party runs it, over every backend and server."""

from __future__ import annotations

import pytest

from atomicpath.testing import Factory
from atomicpath.testing.suite import ConformanceTests
from tests.support.probed import probed

PLACES = ["local", "memory", "moto", "seaweedfs", "gcs", "gcs_flat", "gcs_hns", "azure", "adls", "sftp"]
"""The fixture `NAME_place` of tests/conftest.py gives the place; a backend without one here is a defect."""


class TestEveryBackend(ConformanceTests):
    @pytest.fixture(params=PLACES)
    def make_place(self, request: pytest.FixtureRequest) -> Factory:
        place = request.getfixturevalue(f"{request.param}_place")
        probed(request.param, place)
        return lambda: place
