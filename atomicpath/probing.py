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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .abc import Declaration, Storage
from .bounded import BoundedEnvironment, NoAnswerError
from .environment import current, shielded, use
from .errors import AccessError, AtomicPathError, GuaranteeError, ValidationError
from .guarantees import NONE, Guarantee, Profile
from .layout import PROBE_PREFIX
from .location import Location
from .trials import SUCCESS, TRIALS, Refuted, has_directories, leaves_its_directory

__all__ = ["are_beside", "attempts_beside", "profile_of"]

_LOG = logging.getLogger("atomicpath")
_PATIENCE = 60.0  # seconds for one trial, and for its clean-up: stores under contention take several
_HOUSEKEEPING = ".atomicpath"


@dataclass(slots=True)
class _Findings:
    tried: Guarantee = NONE
    observed: Guarantee = NONE
    refuted: Guarantee = NONE
    evidence: dict[Guarantee, str] = field(default_factory=dict)


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
    with _bounded(location) as (storage, environment):
        findings = _known.setdefault(location.parent.place, _Findings())
        declaration = await _declaration(storage, location)
        if probe and (unsure := declaration.observable | declaration.refutable):
            due = unsure & ~findings.tried & ~declaration.declared
            if wanted is not None:
                due &= wanted
            if due:
                try:
                    await _probe(storage, environment, location, due, declaration, findings)
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
    that, a rename out of the house-keeping directory is tried once per place and process.

    Raises:
        OSError: It could not be found out, and is tried again next time.
    """
    place = location.parent.place
    if place not in _beside:
        with _bounded(location) as (storage, environment):
            if (await storage.declare(location.path)).renames_between_directories:
                return False
            nearest = await _nearest_directory(storage, location)
            base = probe_base(nearest, environment.token())
            target = nearest.child(base.name)
            try:
                _beside[place] = not await leaves_its_directory(storage, base.path, target.path)
            finally:
                with shielded(), environment.limit():
                    await _clean(storage, target.path, environment, with_directories=True)
                    await _clean(storage, base.path, environment, with_directories=True)
                    await _remove_if_empty(storage, base.parent)
    return _beside[place]


def are_beside(location: Location) -> bool:
    """Tell the same as far as `attempts_beside` has found it out in this process. No I/O."""
    return _beside.get(location.parent.place, False)


def probe_base(directory: Location, token: str) -> Location:
    """Return where a probe in `directory` puts what it makes: in the house-keeping directory there."""
    return directory.child(_HOUSEKEEPING).child(PROBE_PREFIX + token)


@contextmanager
def _bounded(location: Location) -> Iterator[tuple[Storage, BoundedEnvironment]]:
    environment = BoundedEnvironment(current(), seconds=_PATIENCE)
    with use(environment):
        yield location.open(), environment


async def _declaration(storage: Storage, location: Location) -> Declaration:
    try:
        return await storage.declare(location.path)
    except NoAnswerError as error:
        reason = f"the mount this path is on could not be found out: {error}"
        return Declaration(evidence=dict.fromkeys(Guarantee, reason))


async def _probe(
    storage: Storage,
    environment: BoundedEnvironment,
    location: Location,
    due: Guarantee,
    declaration: Declaration,
    findings: _Findings,
) -> None:
    with_directories = has_directories(storage, declaration)
    try:
        nearest = await _nearest_directory(storage, location) if with_directories else location.parent
    except NoAnswerError as error:
        findings.evidence |= dict.fromkeys(due, f"the probe could not be carried out: {error}")
        return
    base = probe_base(nearest, environment.token())
    if with_directories:
        await _make_housekeeping(storage, base.parent)
    for guarantee, trial in TRIALS.items():
        if not guarantee & due:
            continue
        place = base.at(f"{base.path}-{(guarantee.name or '').lower()}")
        try:
            with environment.limit():
                await trial(storage, place.path)
        except Refuted as finding:
            findings.refuted |= guarantee
            findings.evidence[guarantee] = f"refuted by a probe: {finding}"
        except NoAnswerError as error:
            findings.evidence[guarantee] = f"the probe could not be carried out: {error}"
            continue
        except (AccessError, FileNotFoundError, ConnectionError, TimeoutError):
            raise  # nothing can be written there at all, so there is nothing to find out
        except GuaranteeError as error:
            findings.refuted |= guarantee
            findings.evidence[guarantee] = f"refused when tried: {error}"
        except (OSError, AtomicPathError) as error:
            # Neither seen to hold nor seen to fail: it stays unknown, and is tried again next time.
            findings.evidence[guarantee] = f"the probe could not be carried out: {error}"
            _LOG.debug("probe of %s at %s: %s", guarantee, location, error)
            continue
        else:
            if guarantee & declaration.observable:
                findings.observed |= guarantee
                findings.evidence[guarantee] = SUCCESS[guarantee]
        finally:
            with shielded(), environment.limit():
                await _clean(storage, place.path, environment, with_directories=with_directories)
        findings.tried |= guarantee
    if with_directories:
        with environment.limit():
            await _remove_if_empty(storage, base.parent)


async def _clean(storage: Storage, path: str, environment: BoundedEnvironment, *, with_directories: bool) -> None:
    try:
        if with_directories and await storage.kind(path) == "directory":
            await storage.remove_tree(path)
            return
        for entry in await storage.list(path, recursive=True):
            await storage.delete(f"{path}/{entry.name}")
        await storage.delete(path)
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
