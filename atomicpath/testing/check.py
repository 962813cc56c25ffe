"""What a conformance check is, how it is run, and what comes of it."""

from __future__ import annotations

import enum
import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.to_thread

from atomicpath._commit.selection import STRATEGIES, select
from atomicpath._profile.abilities import need
from atomicpath._profile.location import Location, locate
from atomicpath._profile.probing import profile_of
from atomicpath.abc import DirectoryStorage, Storage
from atomicpath.errors import GuaranteeError
from atomicpath.guarantees import NONE, Guarantee

from .place import Place

__all__ = [
    "CHECKS",
    "LOOPS",
    "Check",
    "ConformanceError",
    "Factory",
    "Finding",
    "Subject",
    "Verdict",
    "check",
    "expect",
]

Factory = Callable[[], Place]
"""Gives a place of its own to each check."""

LOOPS = tuple(loop for loop in ("asyncio", "trio") if loop == "asyncio" or importlib.util.find_spec(loop))
"""The event loops to run under; trio only where it is installed."""

_PATIENCE = 120.0  # seconds for one check on a slow store


class ConformanceError(AssertionError):
    """The storage did not do what its specification, or a guarantee it claims, says."""


class Verdict(enum.Enum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    UNCLAIMED = "unclaimed"
    """It held, although a guarantee that it needs is not claimed: declare it, or know why not."""
    SKIPPED = "skipped"
    """A guarantee that it needs is not claimed, and it did not hold either."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's verdict; `str()` is for people, `error` what it failed with."""

    check: str
    verdict: Verdict
    missing: Guarantee = NONE
    error: Exception | None = None

    def __str__(self) -> str:
        words = {
            Verdict.PASSED: "",
            Verdict.FAILED: f": {self.error}",
            Verdict.UNCLAIMED: f": held, though {self.missing} is not claimed: declare it, or know why not",
            Verdict.SKIPPED: f": {self.missing} is not claimed, and it did not hold: {self.error}",
        }
        return f"{self.check} {self.verdict.value}{words[self.verdict]}"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a check works with: the storage under test at a place, and the truth about that place."""

    place: Place
    location: Location
    storage: Storage
    claimed: Guarantee
    scratch: Path
    """An empty local directory."""

    @property
    def directories(self) -> DirectoryStorage:
        """Return the storage as one with directories; GuaranteeError if it has none."""
        return need(self.storage, DirectoryStorage, Guarantee.DIRECTORIES)

    def path(self, name: str = "") -> str:
        """Return the storage's own path of a name in the place."""
        return f"{self.location.path}/{name}" if name else self.location.path

    async def directory(self, name: str = "") -> str:
        """Return the path of a directory; make the directory where directories have to be made."""
        path = self.path(name)
        if Guarantee.DIRECTORIES in self.claimed and await self.storage.kind(path) is None:
            await self.directories.make_directory(path, mode=None, durable=False)
        return path

    async def stored(self, below: str = "") -> dict[str, bytes]:
        """Return the files that are really there, see `Place.read_all`."""
        return await anyio.to_thread.run_sync(self.place.read_all, below)

    def file(self, name: str, data: bytes) -> Path:
        """Write a local file and return its path."""
        path = self.scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


Run = Callable[[Subject], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold, as a function of a factory; `needs` are the guarantees without which it need not."""

    run: Run = field(repr=False)
    needs: Guarantee = NONE
    commits: bool = False
    """Whether it publishes, and so needs what some strategy needs."""

    @property
    def name(self) -> str:
        """Return the name of the function."""
        return getattr(self.run, "__name__", "check")

    @property
    def meaning(self) -> str:
        """Return the first line of the function's docstring."""
        return (self.run.__doc__ or "").partition("\n")[0]

    def __call__(self, make: Factory, *, loop: str = "asyncio") -> Finding:
        """Run the check at a new place, under an event loop of its own."""
        return anyio.run(self.examine, make, backend=loop)

    async def examine(self, make: Factory) -> Finding:
        """Run the check at a new place, in the event loop that is running."""
        place = make()
        location = locate(place.url, place.storage_options)
        profile = await profile_of(location)
        missing = profile.missing(self.needs)
        try:
            if self.commits:
                select(profile)
        except GuaranteeError as error:
            return Finding(self.name, Verdict.SKIPPED, _lacking(profile.effective), error)
        with TemporaryDirectory(prefix="atomicpath-conformance-") as scratch:
            subject = Subject(place, location, location.open(), profile.effective, Path(scratch))
            try:
                with anyio.fail_after(_PATIENCE):
                    await subject.directory()
                    await self.run(subject)
            except Exception as error:  # noqa: BLE001 - whatever a storage raises is a finding
                return Finding(self.name, Verdict.SKIPPED if missing else Verdict.FAILED, missing, error)
        return Finding(self.name, Verdict.UNCLAIMED if missing else Verdict.PASSED, missing)


CHECKS: list[Check] = []
"""Every check, in the order in which they are defined."""


def check(needs: Guarantee = NONE, *, commits: bool = False) -> Callable[[Run], Check]:
    """Make a check of a coroutine function."""

    def make(run: Run) -> Check:
        made = Check(run, needs, commits)
        CHECKS.append(made)
        return made

    return make


def expect(condition: object, said: str) -> None:
    """Raise ConformanceError unless the condition holds; `said` tells what was seen instead."""
    if not condition:
        raise ConformanceError(said)


def _lacking(effective: Guarantee) -> Guarantee:
    """Return the guarantees that the nearest strategy lacks, to be named in a finding."""
    return min((strategy.requires & ~effective for strategy in STRATEGIES), key=lambda lacking: len(lacking))
