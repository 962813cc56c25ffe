"""What holds at a location: its backend's declaration, put to the test by live probes where it must be.

A probe works at the target's parent, under a random name, with several writers where concurrency is the
point, and removes what it wrote. One refusal that should have been is enough to refute; what would prove
nothing if it went well (`Declaration.refutable`) is never observed. Results are kept per place for the
life of the process.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from .abc import Declaration, Storage
from .environment import cleaning_up
from .errors import AccessError, AtomicPathError, GuaranteeError, ValidationError
from .guarantees import NONE, Guarantee, Profile
from .layout import PROBE_PREFIX
from .location import Location
from .trials import SUCCESS, TRIALS, Refuted, has_directories

__all__ = ["are_beside", "attempts_beside", "profile_of"]

_LOG = logging.getLogger("atomicpath")


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
    storage = location.open()
    declaration = await storage.declare(location.path)
    findings = _known.setdefault(location.parent.place, _Findings())
    if probe and (unsure := declaration.observable | declaration.refutable):
        due = unsure & ~findings.tried & ~declaration.declared
        if wanted is not None:
            due &= wanted
        if due:
            try:
                await _probe(storage, location, due, declaration, findings)
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


async def attempts_beside(location: Location) -> bool:  # noqa: ARG001 - tried only on mounts that are not known disks
    """Tell whether attempts at `location` must be hidden siblings, as the mount cannot rename out of a directory."""
    return False


def are_beside(location: Location) -> bool:  # noqa: ARG001 - as above
    """Tell the same as far as it is known already. No I/O."""
    return False


async def _probe(
    storage: Storage, location: Location, due: Guarantee, declaration: Declaration, findings: _Findings
) -> None:
    with_directories = has_directories(storage, declaration)
    nearest = await _nearest_directory(storage, location) if with_directories else location.parent
    base = nearest.child(PROBE_PREFIX + storage.environment.token())
    for guarantee, trial in TRIALS.items():
        if not guarantee & due:
            continue
        place = base.at(f"{base.path}-{(guarantee.name or '').lower()}")
        try:
            await trial(storage, place.path)
        except Refuted as finding:
            findings.refuted |= guarantee
            findings.evidence[guarantee] = f"refuted by a probe: {finding}"
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
            with cleaning_up(place):
                await _clean(storage, place.path, with_directories=with_directories)
        findings.tried |= guarantee


async def _clean(storage: Storage, path: str, *, with_directories: bool) -> None:
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
