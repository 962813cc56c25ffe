"""A conformance kit for backends: checks that a storage does what it says, selected by the guarantees it claims.

    from atomicpath.testing import conform

    print(conform(lambda: AcmePlace()))  # every check, at a new place each

Or subclass `atomicpath.testing.suite.ConformanceTests` for pytest. `docs/writing-a-backend.md` tells more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from atomicpath._profile.registry import serving

from . import commit_checks, directory_checks, storage_checks
from .check import CHECKS, Check, ConformanceError, Factory, Finding, Verdict
from .place import Place

__all__ = [
    "CHECKS",
    "Check",
    "ConformanceError",
    "Factory",
    "Finding",
    "Place",
    "Report",
    "Verdict",
    "conform",
    "serving",
]

_IN_ORDER = (storage_checks, directory_checks, commit_checks)  # imported for the checks that they define


@dataclass(frozen=True, slots=True)
class Report:
    """What came of every check; `str()` is for people."""

    findings: Sequence[Finding]

    @property
    def ok(self) -> bool:
        """Tell whether no check failed."""
        return not any(finding.verdict is Verdict.FAILED for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join(str(finding) for finding in self.findings)


def conform(make: Factory, *, loop: str = "asyncio") -> Report:
    """Run every check, each at a new place from `make`, under `loop` ("asyncio" or "trio")."""
    return Report([check(make, loop=loop) for check in CHECKS])
