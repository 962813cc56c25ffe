"""One run in processes of its own, and all runs of a cell of the table: an operation, a setting, a fault.

Each run forks: in the first process the scene is prepared and the fault happens in the operation; in the second, which
knows of nothing, what comes next is tried (unless `same`: then the first one goes on). A third process holds the live
attempt that belongs to somebody else.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import pickle
import re
import select
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import atomicpath
from atomicpath._core.environment import Environment, use
from tests.support.trees import write_tree

from .faults import Fault, Happening
from .leaks import Snapshot, locks_below
from .operations import Asynchronous, Blocking, Operation, drive
from .oracle import Told, Verdict, judge_after, judge_now
from .places import Setting
from .scenes import EMERGENCY, LIVE, Scene, content_of
from .seam import Point, Seam

__all__ = ["Cell", "Density", "Run", "run_cell", "run_once"]

_PATIENCE = 60.0  # seconds for what takes some milliseconds: who needs longer hangs
_HANGS = 2  # so many in a cell are enough


@dataclass
class Run:
    """What came of one run."""

    fired: Point | None = None
    points: int = 0
    told: Told = field(default_factory=lambda: Told(killed=True))
    complaints: list[str] = field(default_factory=list)
    seen: list[Point] = field(default_factory=list)
    turned: int | None = None
    """The number of the point at which what readers see changed, where that was watched for."""

    def __str__(self) -> str:
        where = f"at {self.fired}" if self.fired else f"without a fault, at {self.points} points"
        text = "\n".join([f"{where}, told: {self.told}", *map("  - {}".format, self.complaints)])
        return re.sub(r"[\w./-]*/atomicpath-battery-\w+/", "", text)


@dataclass
class Cell:
    """All runs of an operation in a setting with a fault."""

    operation: str
    setting: str
    fault: str
    runs: int = 0
    points: int = 0
    whole: bool = False
    """Every point was tried: the last run met no fault."""
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Density:
    """Which points are tried every day: some of all, and more of those around the one at which readers see a change.

    `everywhere` and `at_the_change` are strides; None is no point, and only the first one. The second stride is in use
    from so many points `before` the change to so many `beyond`.
    """

    everywhere: int | None
    at_the_change: int | None
    first: int = 0
    before: int = 2
    beyond: int = 8


def run_cell(
    operation: Operation, setting: Setting, fault: Fault, density: Density | None = None, *, wanted: str | None = None
) -> Cell:
    """Let the fault happen at each point in turn until a run meets none, or with a `density` at some.

    `wanted`: the complaint that is looked for, which ends it.
    """
    cell = Cell(operation.name, setting.name, fault.name)
    setting.rehearse()
    gc.freeze()  # else a collection in each child would copy all that they share
    hangs = 0
    for at, same in _plan(operation, setting, fault, density, cell):
        run = run_once(operation, setting, fault, at, same=same)
        _count(cell, run, f"{operation.name!r} {setting.name!r} {fault.name!r} {at} --{'same' if same else 'fresh'}")
        if density is None and run.fired is None and run.points <= at and not run.told.killed:
            cell.whole = True
            break
        hangs += any("hangs" in complaint for complaint in run.complaints)
        if hangs == _HANGS or (wanted is not None and any(wanted in complaint for complaint in run.complaints)):
            break
    return cell


def _count(cell: Cell, run: Run, which: str) -> None:
    cell.runs += 1
    if run.fired is not None:
        cell.outcomes[run.told.outcome] += 1
    else:
        cell.points = run.points
    if run.complaints:
        cell.failures.append(f"{run}\npython -m tests.faults --one {which}")


def _plan(
    operation: Operation, setting: Setting, fault: Fault, density: Density | None, cell: Cell
) -> Iterator[tuple[int, bool]]:
    """At which points, and whether the same process goes on afterwards."""
    both = [False, True] if fault.kind != "kill" else [False]
    if not setting.survives:
        both = [True]
    if density is None:
        first = sum(fault.name.encode())  # so that of faults that differ in little one goes on here, another there
        yield from ((at, both[(first + at) % len(both)]) for at in range(10**6))
        return
    counting = _without_a_fault(operation, setting, fault, cell)
    last = counting.points
    change = last if counting.turned is None else counting.turned
    # short of the end, which other runs reach at another number: the protocols do some things at once
    begin = min(max(change - density.before, 0), last - max(last // 10, 1))
    at_the_change = range(begin, max(min(change + density.beyond, last), begin + 1), density.at_the_change or last)
    everywhere = range(density.first, last, density.everywhere) if density.everywhere else ()
    for number, at in enumerate(sorted({*everywhere, *at_the_change})):
        yield at, both[number % len(both)]


_COUNTED: dict[tuple[str, str, str, bool], Run] = {}


def _without_a_fault(operation: Operation, setting: Setting, fault: Fault, cell: Cell) -> Run:
    """The run that says how many points there are and where readers see the change; one serves all faults of a face."""
    key = (operation.name, setting.name, str(setting.options), fault.on_asyncio)
    if key not in _COUNTED:
        _COUNTED[key] = run_once(operation, setting, fault, None, same=True, watching=True)
        _count(cell, _COUNTED[key], f"{operation.name!r} {setting.name!r} {fault.name!r} {10**6} --same")
    return _COUNTED[key]


def run_once(
    operation: Operation, setting: Setting, fault: Fault, at: int | None, *, same: bool, watching: bool = False
) -> Run:
    """One run, in processes of its own."""
    with _directory() as base, _Holder(setting) as holder:
        scene = Scene(setting, base)
        first = _in_child(lambda report: _first(scene, operation, fault, at, holder, same, watching, report))
        run: Run = first.value or Run()
        run.complaints += first.complaints
        if first.sent:
            scene.targets = first.sent[0]
        if first.killed:
            run.fired = first.sent[1] if len(first.sent) > 1 else None
            run.points = (run.fired.number if run.fired else 0) + 1
            if fault.kind != "kill":
                run.complaints.append("the process was killed")
        elif run.told.killed:
            return run
        if first.killed or not (same or not setting.survives):
            second = _in_child(lambda _: _second(scene, operation, fault, run, holder))
            run.complaints += second.complaints + (second.value or [])
        return run


def _first(
    scene: Scene,
    operation: Operation,
    fault: Fault,
    at: int | None,
    holder: _Holder,
    same: bool,
    watching: bool,
    report: Callable[[object], None],
) -> Run:
    scene.plant()
    finish_live = holder.begin(scene)
    scene.targets = operation.prepare(scene)
    report(scene.targets)
    happening = Happening(nested=lambda: _emergency(scene))
    happening.install(fault)
    run = Run()
    before = [scene.is_marked(target) for target in scene.targets] if watching else []

    def watch(point: Point) -> None:
        run.seen.append(point)
        with suppress(FileNotFoundError):  # of a file that another thread has just given its name
            if run.turned is None and [scene.is_marked(target) for target in scene.targets] != before:
                run.turned = point.number

    def fire() -> None:
        if fault.kind == "kill":
            report(seam.fired)
        fault.fire(happening)

    seam = Seam(at, fire, after=fault.after, watch=watch if watching else None)
    Snapshot()  # whatever a first look opens for good is open now
    snapshot = Snapshot()
    run.told = _operate(scene, operation, fault, seam, happening)
    run.fired, run.points = seam.fired, seam.points
    verdict = Verdict(run.complaints)
    run.complaints += snapshot.left(of_anyio=not fault.on_asyncio)
    if scene.setting.on_disk:
        run.complaints += locks_below(scene.base / "root", except_for=LIVE)
    if fault.kind == "nested" and seam.fired is not None:
        verdict.expect(happening.nested_outcome == "committed", f"the handler's commit: {happening.nested_outcome!r}")
    judge_now(scene, run.told, fault, seam.fired, verdict, synced_again=seam.synced_again)
    if same or not scene.setting.survives:
        judge_after(scene, finish_live, verdict)
    return run


def _second(scene: Scene, operation: Operation, fault: Fault, run: Run, holder: _Holder) -> list[str]:
    verdict = Verdict()
    if run.told.killed:
        judge_now(scene, run.told, fault, run.fired, verdict)
    judge_after(scene, holder.finish, verdict)
    return verdict.complaints


def _operate(scene: Scene, operation: Operation, fault: Fault, seam: Seam, happening: Happening) -> Told:
    """Do it, by the face that the fault asks for; what the caller was told."""
    told = Told()

    async def act() -> None:
        happening.task = asyncio.current_task()
        told.value = await operation.act(scene, Asynchronous())
        told.returned = True
        await asyncio.sleep(0)  # a cancellation that came at the very end

    try:
        with use(seam):
            if fault.on_asyncio:
                asyncio.run(act())
            else:
                told.value = drive(operation.act(scene, Blocking()))
                told.returned = True
    except BaseException as error:
        own = _is_own(error, fault, happening)
        raised = Told.of(error, own=own)
        raised.returned, raised.value = told.returned, told.value
        if os.environ.get("ATOMICPATH_FAULTS_TRACE"):
            traceback.print_exc()
        return raised
    return told


def _is_own(error: BaseException, fault: Fault, happening: Happening) -> bool:
    if fault.name.startswith("SystemExit"):
        return error is happening.exit
    if fault.name.startswith("KeyboardInterrupt"):
        return type(error) is KeyboardInterrupt
    return fault.name.startswith("cancel") and type(error) is asyncio.CancelledError


def _emergency(scene: Scene) -> None:
    with use(Environment()):  # its calls are no points of the operation
        scene.commit(EMERGENCY, EMERGENCY)


class _Holder:
    """A process that has an attempt under way at `live` all the time, and commits it when it is told to.

    Where the storage does not outlive a process it is the one that runs the operation itself.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._entered: Any = None
        self._process: int | None = None

    def __enter__(self) -> _Holder:
        if self._setting.survives:
            orders, self._orders = os.pipe()
            self._replies, replies = os.pipe()
            self._process = _fork()
            if not self._process:
                os.close(self._orders)
                os.close(self._replies)
                logging.disable()
                _hold(orders, replies)
            os.close(orders)
            os.close(replies)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            os.close(self._orders)
            os.close(self._replies)

    def begin(self, scene: Scene) -> Callable[[], str]:
        """Enter the block; what ends it returns an error in words, or nothing."""
        if self._process is None:
            self._entered = atomicpath.commit(scene.url(LIVE), **scene.of_another)
            write_tree(self._entered.__enter__(), content_of(LIVE))
        else:
            self._ask((scene.url(LIVE), scene.of_another))
        return self.finish

    def finish(self) -> str:
        if self._process is not None:
            return self._ask(None)
        try:
            self._entered.__exit__(None, None, None)
        except atomicpath.AtomicPathError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _ask(self, order: object) -> str:
        _send(self._orders, order)
        reply: str = _receive(self._replies)
        return reply


def _hold(orders: int, replies: int) -> None:
    try:
        url, writing = _receive(orders)
        try:
            with atomicpath.commit(url, **writing) as path:
                write_tree(path, content_of(LIVE))
                _send(replies, "")
                _receive(orders)
            said = ""
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        _send(replies, said)
        _receive(orders)
    finally:
        os._exit(0)


@dataclass
class _Child:
    """What a forked process returned, and what it sent before; whether it was killed."""

    value: Any = None
    sent: list[Any] = field(default_factory=list)
    killed: bool = False
    complaints: list[str] = field(default_factory=list)


def _in_child(function: Callable[[Callable[[object], None]], object]) -> _Child:
    """Call a function in a forked process."""
    ours, theirs = os.pipe()
    with tempfile.TemporaryFile() as trace:
        child = _fork()
        if not child:
            os.close(ours)
            logging.disable()  # the holder is reported as unfinished by every reader, as it should be
            faulthandler.register(signal.SIGUSR2, file=trace, all_threads=True)
            try:
                value: object = (True, function(lambda sent: _send(theirs, (False, sent))))
            except BaseException as error:
                value = (None, "".join(traceback.format_exception(error)))
            with suppress(BaseException):
                _send(theirs, value)
            os._exit(0)
        os.close(theirs)
        try:
            return _await(child, ours, trace.fileno())
        finally:
            os.close(ours)


def _await(child: int, replies: int, trace: int) -> _Child:
    found = _Child()
    while True:
        if not select.select([replies], [], [], _PATIENCE)[0]:
            os.kill(child, signal.SIGUSR2)
            select.select([replies], [], [], 1.0)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            text = os.pread(trace, 10000, 0).decode(errors="replace")
            found.complaints.append(f"it hangs:\n{text}")
            return found
        try:
            kind, value = _receive(replies)
        except EOFError:
            _, status = os.waitpid(child, 0)
            found.killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL
            if not found.killed:
                found.complaints.append(f"the process ended with {os.waitstatus_to_exitcode(status)}")
            return found
        if kind is False:
            found.sent.append(value)
            continue
        os.waitpid(child, 0)
        if kind is None:
            found.complaints.append(f"the battery itself failed: {value}")
        else:
            found.value = value
        return found


def _fork() -> int:
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)
    return child


def _send(to: int, value: object) -> None:
    data = pickle.dumps(value)
    view = memoryview(len(data).to_bytes(8, "big") + data)
    while view:
        view = view[os.write(to, view) :]


def _receive(of: int) -> Any:
    return pickle.loads(_exactly(of, int.from_bytes(_exactly(of, 8), "big")))


def _exactly(of: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(of, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


@contextmanager
def _directory() -> Iterator[Path]:
    """An empty directory, in memory where there is such a file system: some thousand syncs are then done at once."""
    memory = Path("/dev/shm")
    within = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    path = tempfile.mkdtemp(prefix="atomicpath-battery-", dir=within)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
