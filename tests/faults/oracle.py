"""The judgement of one run: is what the caller was told true, is everything whole, and is nothing of others lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import atomicpath
from atomicpath import aio
from atomicpath._core.environment import use
from tests.support.roots import LocalRoot

from .faults import Fault
from .scenes import EMERGENCY, FOREIGN, LIVE, NEIGHBOUR, Scene, Target, content_of
from .seam import Later, Point, Seam

__all__ = ["Told", "Verdict", "judge_after", "judge_now"]


@dataclass
class Told:
    """What the caller of an operation was told.

    `returned`: it came to its end, with `value`. `kind` is the class of what was raised, `classes` those it is of.
    `own`: what was raised is the caller's own object, or of the very class that the interruption has.
    """

    returned: bool = False
    value: Any = None
    kind: str = ""
    classes: tuple[str, ...] = ()
    text: str = ""
    notes: str = ""
    own: bool = False
    killed: bool = False
    kept_some: bool = False
    """A fault has happened, and `value`, a list of what went, need not have all in it."""

    @classmethod
    def of(cls, error: BaseException, *, own: bool) -> Told:
        return cls(
            kind=type(error).__name__,
            classes=tuple(base.__name__ for base in type(error).__mro__),
            text=str(error),
            notes="; ".join(getattr(error, "__notes__", ())),
            own=own,
        )

    @property
    def outcome(self) -> str:
        """One word for the table: what the caller knows now."""
        if self.killed:
            return "killed"
        if self.returned:
            return "done"
        if "OutcomeUnknownError" in self.classes:
            return "unknown"
        return "interrupted" if self.own else "not done"

    def __str__(self) -> str:
        if self.killed:
            return "the process was killed"
        if self.returned and not self.kind:
            return "it returned"
        raised = f"{self.kind}: {self.text}" + (f" [{self.notes}]" if self.notes else "")
        return f"it returned, and then {raised}" if self.returned else raised


@dataclass
class Verdict:
    """What is wrong, in words; empty if nothing is."""

    complaints: list[str] = field(default_factory=list)

    def expect(self, fine: bool, complaint: str) -> None:
        if not fine:
            self.complaints.append(complaint)

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """An error in the block is a complaint."""
        try:
            yield
        except Exception as error:
            self.complaints.append(f"{what}: {type(error).__name__}: {error}")


def judge_now(
    scene: Scene, told: Told, fault: Fault, fired: Point | None, verdict: Verdict, *, synced_again: bool = False
) -> None:
    """Right after the operation, or after its process was killed, by a reader who knows nothing."""
    _judge_class(told, fault, fired, verdict)
    told.kept_some = fired is not None and fault.kind == "storage"
    writes = any(target.changes and target.new is not None for target in scene.targets)  # a removal promises no sync
    if (
        writes
        and told.returned
        and fault.kind == "storage"
        and not fault.after
        and fired is not None
        and fired.is_a_sync
        and not synced_again
    ):
        verdict.expect(False, "it returned, though a sync had failed: what it promises may be lost by a power cut")
    if isinstance(told.value, list):
        there = scene.place.read_all()
        for name in told.value:
            verdict.expect(not any(path.startswith(f"{name}/") for path in there), f"{name} was to be gone")
    asyncio.run(_judge_readers(scene, told, fault.kind == "nested" and fired is not None, verdict))


async def _judge_readers(scene: Scene, told: Told, emergency: bool, verdict: Verdict) -> None:
    states = {target.name: await _state(scene, target) for target in scene.targets}
    for target in scene.targets:
        _judge_state(target, states[target.name], verdict)
    _judge_truth(scene.targets, states, told, verdict)
    await _judge_others(scene, verdict, [NEIGHBOUR])
    with verdict.trying("the root cannot be listed"):
        listed = {commit.name for commit in await aio.committed(scene.place.url, **scene.access)}
        expected = {
            target.name for target in scene.targets if not target.local and states[target.name] in ("old", "new")
        }
        expected |= {NEIGHBOUR, EMERGENCY} if emergency else {NEIGHBOUR}
        verdict.expect(listed == expected, f"committed() lists {sorted(listed)}, and there are {sorted(expected)}")


def judge_after(scene: Scene, finish_live: Callable[[], str], verdict: Verdict) -> None:
    """What comes next: the same names work at once, a sweep clears what is left, and what is live is unharmed."""
    rest = Seam()
    for target in scene.targets:
        if target.new == target.old and target.old is not None:
            continue
        with verdict.trying(f"{target.name} cannot be used at once"), use(rest):
            _use_again(scene, target, verdict)
    verdict.expect(not any(rest.slept), f"what came next had to wait: {rest.slept}")
    said: list[str] = []
    with verdict.trying("it cannot be swept"), use(Later()):
        said = [str(one) for one in atomicpath.sweep(scene.place.url, older_than=timedelta(0), **scene.access)]
    left = [path.name for path in scene.staging.rglob("*/*")]  # an empty one, made and not noted, may be anybody's
    verdict.expect(not left, f"the staging directory keeps {left}")
    live = finish_live()
    verdict.expect(not live, f"the live attempt of another could not commit any more: {live}")
    asyncio.run(_judge_others(scene, verdict, [NEIGHBOUR, LIVE]))
    names = {name for name in scene.place.names() if not _is_empty_housekeeping(scene, name)}
    expected = {NEIGHBOUR, LIVE, *(name.partition("/")[0] for name in FOREIGN)}
    expected |= {target.name for target in scene.targets if not target.local and target.name.startswith("step_")}
    more = sorted(names - expected - {EMERGENCY})
    verdict.expect(not more, f"a sweep leaves {more}, and says: {said}")


def _use_again(scene: Scene, target: Target, verdict: Verdict) -> None:
    """Commit under the same name, or for `get` fetch it again, whatever has become of the operation."""
    if target.local:
        if not atomicpath.is_committed(scene.url(target)):
            atomicpath.get(scene.url("step_5"), scene.url(target), **scene.access)
        verdict.expect(atomicpath.verify(scene.url(target)).ok, f"{target.name}, fetched again, is not whole")
        return
    url = scene.url(target)
    if atomicpath.is_committed(url, **scene.access):
        atomicpath.remove(url, **scene.access)
    again = content_of("again")
    scene.commit(target.name, "again", **scene.setting.takes_over)
    verdict.expect(atomicpath.verify(url, **scene.access).ok, f"{target.name}, committed again, is not whole")
    verdict.expect(scene.content(target) == again, f"{target.name}, committed again, has other files")


def _judge_class(told: Told, fault: Fault, fired: Point | None, verdict: Verdict) -> None:
    """Whether what was raised, if anything, is what the fault calls for."""
    if told.killed or fired is None:
        verdict.expect(told.killed or told.returned, f"without a fault: {told}")
        return
    if fault.kind == "storage" and not told.returned:
        if fired.is_of_the_storage:
            verdict.expect("AtomicPathError" in told.classes, f"an error of the storage came out as {told}")
    elif fault.kind == "interruption":
        verdict.expect(bool(told.kind), "the interruption was swallowed")
        verdict.expect(told.own or not told.kind, f"not the caller's own exception came out, but {told}")
    elif fault.kind == "nested":
        verdict.expect(told.returned and not told.kind, f"a commit in a signal handler disturbed it: {told}")


def _ends(target: Target) -> tuple[str, str]:
    """The states before and after."""
    return ("nothing" if target.old is None else "old"), ("nothing" if target.new is None else "new")


def _judge_state(target: Target, state: str, verdict: Verdict) -> None:
    """Readers see what was there before or what is there afterwards, whole."""
    before, after = _ends(target)
    if target.changes:
        verdict.expect(state in (before, after), f"{target.name} is {state}: expected {before} or {after}")
    else:
        verdict.expect(state == before, f"{target.name} was not to be touched, and is {state}")


def _judge_truth(targets: list[Target], states: dict[str, str], told: Told, verdict: Verdict) -> None:
    """What the caller was told is so: of several targets, one after the other, an error is about the last one."""
    changing = [target for target in targets if target.changes]
    if told.returned:
        if isinstance(told.value, list) and told.kept_some:
            changing = [target for target in changing if target.name in told.value]
        for target in changing:
            verdict.expect(
                states[target.name] == _ends(target)[1], f"{target.name} is {states[target.name]}, and: {told}"
            )
        return
    if told.killed or told.own or told.outcome == "unknown" or not changing:
        return
    done = [states[target.name] == _ends(target)[1] for target in changing]
    removed = changing[-1].new is None and "is removed for readers" in told.notes
    if all(done) and not removed:
        verdict.expect(False, f"{changing[-1].name} is {states[changing[-1].name]}, and: {told}")


async def _state(scene: Scene, target: Target) -> str:
    """Return "nothing", "old", "new", or what is wrong with it."""
    access = {} if target.local else scene.access
    try:
        committed = await aio.is_committed(scene.url(target), **access)
        whole = committed and (await aio.verify(scene.url(target), **access)).ok
    except Exception as error:
        return f"not to be read ({type(error).__name__}: {error})"
    content = scene.content(target)
    if not committed:
        visible = target.local or "rename" in scene.setting.name  # there a final name is only ever a whole one
        names = scene.root_of(target).names()
        return f"a directory with {sorted(content)}" if visible and target.name in names else "nothing"
    if not whole:
        return f"committed, and not whole: {sorted(content)}"
    if content == target.old:
        return "old"
    if content == target.new:
        return "new"
    return f"a mixture: {sorted(content)}"


async def _judge_others(scene: Scene, verdict: Verdict, committed: list[str]) -> None:
    """What belongs to others is there as it was."""
    stored = scene.place.read_all()
    for name, data in FOREIGN.items():
        verdict.expect(stored.get(name) == data, f"the user's file {name} was lost")
    for name in committed:
        state = await _state(scene, Target(name, None, content_of(name)))
        verdict.expect(state == "new", f"the directory {name!r} of another is {state}")


def _is_empty_housekeeping(scene: Scene, name: str) -> bool:
    if name != ".atomicpath" or scene.place.read_all(name):
        return False
    return not (isinstance(scene.place, LocalRoot) and any((scene.place.path / name).iterdir()))
