"""What holds at a location: its backend's declaration, put to the test by live probes where it must be.

A probe works at the target's parent, under a random name, with several writers where concurrency is the
point, and removes what it wrote. One refusal that should have been is enough to refute; what would prove
nothing if it went well (`Declaration.refutable`) is never observed. Results are kept per place for the
life of the process.

Everything that a probe does is bounded in time and runs beside the caller's thread (`bounded`), in both faces: a mount
whose server is gone, or one that answers its callers one at a time, keeps nobody waiting for ever.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from .abc import Declaration, Storage
from .bounded import BoundedEnvironment, NoAnswerError
from .environment import cleaning_up, current, use
from .errors import AccessError, AtomicPathError, GuaranteeError, ValidationError
from .guarantees import NONE, Guarantee, Profile
from .layout import HOUSEKEEPING, PROBE_PREFIX
from .location import Location
from .trials import SUCCESS, TRIALS, Refuted, has_directories, leaves_its_directory

__all__ = ["are_beside", "attempts_beside", "profile_of"]

_LOG = logging.getLogger("atomicpath")
_PATIENCE = 60.0  # seconds for one trial, and for its clean-up: stores under contention take several
_TRIES = 10  # to make a directory in the house-keeping directory, which others remove when it is empty


@dataclass(slots=True)
class _Findings:
    tried: Guarantee = NONE
    observed: Guarantee = NONE
    refuted: Guarantee = NONE
    evidence: dict[Guarantee, str] = field(default_factory=dict)
    is_declared: bool = False
    renames_between_directories: bool | None = None
    """As declared last: True also means that this is no mount that may stop to answer."""
    beside: bool | None = None
    """The finding of `attempts_beside`; None before it was tried."""


_known: dict[str, _Findings] = {}
"""By place. Only ever added to; a second prober of one place at worst repeats the work."""


async def profile_of(
    location: Location,
    *,
    wanted: Guarantee | None = None,
    asserted: Guarantee = NONE,
    probe: bool = True,
) -> Profile:
    """The profile of a location. `wanted` limits the probes to those; with `probe` false nothing is tried."""
    findings = _findings_of(location)
    declaration = await _declare(location, findings)
    if probe and (unsure := declaration.observable | declaration.refutable):
        due = unsure & ~findings.tried & ~declaration.declared
        if wanted is not None:
            due &= wanted
        if due:
            try:
                await _probe(location, due, declaration, findings)
            except FileNotFoundError as error:
                raise ValidationError(f"nothing can be written at {location}: {error}") from error
    return Profile(
        location=str(location),
        declared=declaration.declared,
        observed=findings.observed & declaration.observable,
        refuted=findings.refuted,
        asserted=asserted,
        evidence=dict.fromkeys(asserted, "asserted by the caller") | dict(declaration.evidence) | findings.evidence,
    )


async def attempts_beside(location: Location) -> bool:
    """Tell whether attempts at `location` must be hidden siblings of it, and not lie in the house-keeping directory.

    Distributed metadata may refuse to rename from one directory into another. Where the declaration does not exclude
    that, a rename out of the house-keeping directory is tried, once per place and process.

    Raises:
        OSError: It could not be found out; it is tried again next time.
    """
    findings = _findings_of(location)
    if not findings.is_declared:
        await _declare(location, findings)
    if findings.renames_between_directories is not None:
        findings.beside = not findings.renames_between_directories
    if findings.beside is None:
        async with _probing(location, with_directories=True) as (storage, _, base):
            target = base.parent.parent.child(base.name)
            try:
                findings.beside = not await leaves_its_directory(storage, f"{base.path}/directory", target.path)
            finally:
                with cleaning_up(target):
                    await _clean(storage, target.path, with_directories=True)
    return findings.beside


def are_beside(location: Location) -> bool:
    """Tell the same as far as `attempts_beside` has found it out in this process. No I/O."""
    return bool(_findings_of(location).beside)


def _findings_of(location: Location) -> _Findings:
    return _known.setdefault(location.parent.place, _Findings())


async def _declare(location: Location, findings: _Findings) -> Declaration:
    storage = location.open() if findings.renames_between_directories else _bounded(location)[0]
    try:
        declaration = await storage.declare(location.path)
    except NoAnswerError as error:
        reason = f"the mount that {location} is on could not be found out: {error}"
        return Declaration(evidence=dict.fromkeys(Guarantee, reason), renames_between_directories=None)
    findings.is_declared = True
    findings.renames_between_directories = declaration.renames_between_directories
    return declaration


def _bounded(location: Location) -> tuple[Storage, BoundedEnvironment]:
    """Open a location so that everything done there is bounded in time."""
    environment = BoundedEnvironment(current(), seconds=_PATIENCE)
    with use(environment):
        return location.open(), environment


async def _probe(location: Location, due: Guarantee, declaration: Declaration, findings: _Findings) -> None:
    tried = NONE
    with_directories = has_directories(location.open(), declaration)
    try:
        async with _probing(location, with_directories=with_directories) as (storage, environment, base):
            for guarantee, trial in TRIALS.items():
                if not guarantee & due:
                    continue
                tried |= guarantee
                place = base.child((guarantee.name or "").lower())
                try:
                    with environment.limit():
                        await trial(storage, place.path)
                except Refuted as finding:
                    findings.refuted |= guarantee
                    findings.evidence[guarantee] = f"refuted by a probe: {finding}"
                except NoAnswerError as error:
                    findings.evidence[guarantee] = _not_carried_out(error)
                    continue
                except (AccessError, FileNotFoundError, ConnectionError, TimeoutError):
                    raise  # nothing can be written there at all, so there is nothing to find out
                except GuaranteeError as error:
                    findings.refuted |= guarantee
                    findings.evidence[guarantee] = f"refused when tried: {error}"
                except (OSError, AtomicPathError) as error:
                    # Neither seen to hold nor seen to fail: it stays unknown, and is tried again next time.
                    findings.evidence[guarantee] = _not_carried_out(error)
                    _LOG.debug("probe of %s at %s: %s", guarantee, location, error)
                    continue
                else:
                    if guarantee & declaration.observable:
                        findings.observed |= guarantee
                        findings.evidence[guarantee] = SUCCESS[guarantee]
                finally:
                    with cleaning_up(place), environment.limit():
                        await _clean(storage, place.path, with_directories=with_directories)
                findings.tried |= guarantee
    except NoAnswerError as error:
        findings.evidence |= dict.fromkeys(due & ~tried, _not_carried_out(error))


def _not_carried_out(error: Exception) -> str:
    return f"the probe could not be carried out: {error}"


@asynccontextmanager
async def _probing(
    location: Location, *, with_directories: bool
) -> AsyncIterator[tuple[Storage, BoundedEnvironment, Location]]:
    """Open the place of a location, bounded in time, with a base of a random name in the house-keeping directory.

    With `with_directories` the base is a directory, which is removed again.
    """
    storage, environment = _bounded(location)
    nearest = await _nearest_directory(storage, location) if with_directories else location.parent
    base = nearest.child(HOUSEKEEPING).child(PROBE_PREFIX + environment.token())
    try:
        if with_directories:
            await _make_base(storage, base)
        yield storage, environment, base
    finally:
        if with_directories:
            with cleaning_up(base), environment.limit():
                await _clean(storage, base.path, with_directories=True, after=base.parent.path)


async def _make_base(storage: Storage, base: Location) -> None:
    for _ in range(_TRIES):
        await storage.make_shared_directory(base.parent.path)
        try:
            await storage.make_directory(base.path, mode=None, durable=False)
        except FileNotFoundError:
            continue  # another attempt or probe that has ended removed the house-keeping directory meanwhile
        return
    raise FileNotFoundError(errno.ENOENT, "it is removed again and again while something is written there", base.path)


async def _clean(storage: Storage, path: str, *, with_directories: bool, after: str | None = None) -> None:
    """Remove what is at `path`, and then the directory `after` if it is empty; log what could not be removed."""
    try:
        if with_directories and await storage.kind(path) == "directory":
            await storage.remove_tree(path)
        else:
            for entry in await storage.list(path, recursive=True):
                await storage.delete(f"{path}/{entry.name}")
            await storage.delete(path)
        if after is not None:
            await storage.remove_empty(after)
    except (AccessError, FileNotFoundError):
        return  # then the probe itself could not write either
    except (OSError, AtomicPathError) as error:
        _LOG.warning("a probe left %s behind, which can be removed: %s", path, error)


async def _nearest_directory(storage: Storage, location: Location) -> Location:
    """Where the probes go if directories have to exist: the target's parent, or its nearest ancestor that does."""
    place = location.parent
    while place.path != "/" and "/" in place.path and await storage.kind(place.path) is None:
        place = place.parent
    return place
