"""The conformance checks as a pytest class."""

from __future__ import annotations

import pytest

from .check import CHECKS, LOOPS, Check, ConformanceError, Factory, Verdict

__all__ = ["ConformanceTests"]


class ConformanceTests:
    """Subclass it, and give a fixture `make_place` that returns a `Factory`:

        class TestAcme(ConformanceTests):
            @pytest.fixture
            def make_place(self, acme_server):
                return lambda: AcmePlace(acme_server)

    A check fails where a claimed guarantee does not hold. It is skipped, with the guarantee's name, where
    one is not claimed; the reason then says whether it held all the same.
    """

    @pytest.mark.parametrize("loop", LOOPS)
    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    def test_conformance(self, check: Check, loop: str, make_place: Factory) -> None:
        """Run one check under one event loop."""
        finding = check(make_place, loop=loop)
        if finding.verdict is Verdict.FAILED:
            raise finding.error or ConformanceError(str(finding))
        if finding.verdict is not Verdict.PASSED:
            pytest.skip(str(finding))
