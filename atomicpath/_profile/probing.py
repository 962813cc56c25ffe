"""What holds at a location: its backend's declaration, put to the test by live probes where it must be.

Each guarantee is judged alone. What was seen to fail is refuted; what would prove nothing if it went well
(`Declaration.refutable`) is never observed. Both findings are kept per place for the life of the process. Silence,
throttling and lost replies are no finding: what they leave undecided is tried again the next time that somebody asks.

How a probe is carried out is in `probes`, and what is tried in `trials`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from atomicpath._core.bounded import NoAnswerError
from atomicpath.abc import Declaration, DirectoryStorage
from atomicpath.errors import ValidationError
from atomicpath.guarantees import NONE, Guarantee, Profile

from .abilities import has_directories, need, out_of_reach
from .contests import NotShown, Refuted
from .location import Location
from .probes import bounded, probing
from .trials import SUCCESS, TRIALS, leaves_its_directory

__all__ = ["are_beside", "attempts_beside", "profile_of"]

_LOG = logging.getLogger("atomicpath")


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
    """Return the profile of a location.

    `wanted` limits the probes to those guarantees. With `probe` false, nothing is tried.
    """
    findings = _findings_of(location)
    declaration = await _declare(location, findings)
    if probe and (declaration.observable or declaration.refutable):
        due = (declaration.observable & ~declaration.declared | declaration.refutable) & ~findings.tried
        if wanted is not None:
            due &= wanted
        if declaration.is_tried_if_asserted:
            due &= asserted
        if due:
            try:
                await _probe(location, due, declaration, findings)
            except FileNotFoundError as error:
                raise ValidationError(f"nothing can be written at {location}: {error}") from error
            if not location.open().is_local:  # a store's replies may have told what it is
                declaration = await _declare(location, findings)
    storage = location.open()
    unable = asserted & out_of_reach(storage)
    return Profile(
        location=str(location),
        declared=declaration.declared,
        observed=findings.observed & declaration.observable,
        refuted=findings.refuted | declaration.impossible | unable,
        asserted=asserted,
        evidence=dict.fromkeys(asserted, "asserted by the caller")
        | dict.fromkeys(unable, f"{type(storage).__name__} has no way to do it")
        | _told(declaration, findings),
    )


async def attempts_beside(location: Location) -> bool:
    """Tell whether attempts at `location` must be hidden siblings of it.

    Otherwise they lie in the house-keeping directory.

    Distributed metadata may refuse to rename from one directory into another. Where the declaration does not exclude
    that, a rename out of the house-keeping directory is tried, once per place and process.

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
        async with probing(location, with_directories=True) as probe:
            target = probe.base.parent.parent.child(probe.base.name)
            try:
                source = f"{probe.base.path}/directory"
                storage = need(probe.storage, DirectoryStorage, Guarantee.ATOMIC_RENAME)
                findings.beside = not await leaves_its_directory(storage, source, target.path)
            finally:
                await probe.clean(target)
    return findings.beside


def are_beside(location: Location) -> bool:
    """Tell what `attempts_beside` has found out in this process. No I/O."""
    return bool(_findings_of(location).beside)


def _findings_of(location: Location) -> _Findings:
    place = location.parent.identity
    return _known.get(place) or _known.setdefault(place, _Findings())


async def _declare(location: Location, findings: _Findings) -> Declaration:
    storage = location.open() if findings.renames_between_directories else bounded(location)[0]
    try:
        declaration = await storage.declare(location.path)
    except NoAnswerError as error:
        reason = f"the mount that {location} is on could not be found out: {error}"
        return Declaration(evidence=dict.fromkeys(Guarantee, reason), renames_between_directories=None)
    findings.is_declared = True
    findings.renames_between_directories = declaration.renames_between_directories
    return declaration


async def _probe(location: Location, due: Guarantee, declaration: Declaration, findings: _Findings) -> None:
    pending = [guarantee for guarantee in TRIALS if guarantee & due]
    try:
        async with probing(location, with_directories=has_directories(location.open(), declaration)) as probe:
            await probe.learn(due)
            while pending:
                guarantee = pending.pop(0)
                try:
                    await probe.run(guarantee)
                except Refuted as finding:
                    findings.refuted |= guarantee
                    findings.evidence[guarantee] = _piece(f"a probe found: {finding}")
                except NotShown as finding:
                    _leave_open(findings, guarantee, declaration, finding)
                    continue
                else:
                    findings.evidence.pop(guarantee, None)
                    if guarantee & declaration.observable:
                        findings.observed |= guarantee
                        findings.evidence[guarantee] = SUCCESS[guarantee]
                findings.tried |= guarantee
    except NoAnswerError as error:
        for guarantee in pending:
            _leave_open(findings, guarantee, declaration, error)


def _told(declaration: Declaration, findings: _Findings) -> dict[Guarantee, str]:
    """Return the evidence: what was found.

    What is known of the storage is added to the evidence of a refuted guarantee, because it may say why.
    """
    told = dict(declaration.evidence) | findings.evidence
    for guarantee in findings.refuted:
        if guarantee in declaration.evidence and guarantee in findings.evidence:
            told[guarantee] = f"{findings.evidence[guarantee]}\n{declaration.evidence[guarantee]}"
    return told


def _leave_open(findings: _Findings, guarantee: Guarantee, declaration: Declaration, reason: Exception) -> None:
    """Note why a guarantee was neither shown nor refuted.

    What is declared stands meanwhile.
    """
    _LOG.debug("the probe of %s could not be carried out: %s", guarantee, reason)
    known = declaration.evidence.get(guarantee) if guarantee & declaration.declared else None
    said = _piece(f"the probe could not be carried out: {reason}")
    findings.evidence[guarantee] = f"{known}\n{said}" if known else said


def _piece(text: str) -> str:
    """Return a piece of evidence as one line, whatever a storage put into its error."""
    return " ".join(text.split())
