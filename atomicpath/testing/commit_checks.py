"""Checks of whole commits: what readers see, and what a commit says when the storage fails it at any moment."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio
import anyio.lowlevel
from upath import UPath

from atomicpath import aio
from atomicpath._core.environment import Environment, use
from atomicpath._core.layout import RECORD_FILE
from atomicpath._core.record import CommitRecord
from atomicpath._profile.contests import race
from atomicpath.errors import (
    AlreadyCommittedError,
    AtomicPathError,
    NotCommittedError,
    OutcomeUnknownError,
)

from .cancelling import Caller
from .check import Subject, check, expect

__all__: list[str] = []

P = ParamSpec("P")
T = TypeVar("T")

_RACERS = 6
_ROUNDS = 3
_TREE = {"model.bin": b"weights" * 100, "sub/state.bin": b"state" * 50, "empty": b""}


@check(commits=True)
async def a_commit_is_there_whole(at: Subject) -> None:
    """Its files, its record and its marker are stored; reading, verifying and downloading agree."""
    await _put(at, "step_1", _TREE)
    stored = await at.stored("step_1")
    expect({name: stored.get(name) for name in _TREE} == _TREE, f"a file is stored as something else: {sorted(stored)}")
    record = await aio.read_record(at.place / "step_1", storage_options=at.place.storage_options)
    expect(stored.keys() == _TREE.keys() | _ours(record), f"stored: {sorted(stored)}")
    sizes = {file.name: file.size for file in record.files}
    expect(sizes == {name: len(data) for name, data in _TREE.items()}, f"the manifest says {sizes}")
    await _expect_complete(at, "step_1", _TREE)
    await aio.get(at.place / "step_1", at.scratch / "got", storage_options=at.place.storage_options)
    got = {name: (at.scratch / "got" / name).read_bytes() for name in _TREE}
    expect(got == _TREE, "a downloaded file is something else")


@check(commits=True)
async def an_unfinished_commit_is_not_seen(at: Subject) -> None:
    """In the block, and after one that raised, readers find nothing; afterwards nothing is stored either."""
    options = at.place.storage_options
    try:
        async with aio.commit(at.place / "step_1", storage_options=options) as path:
            _fill(path, _TREE)
            expect(not await aio.is_committed(at.place / "step_1", storage_options=options), "seen too early")
            expect(await aio.latest(at.place.url, storage_options=options) is None, "`latest` found it too early")
            try:
                await aio.resolve(at.place / "step_1", storage_options=options)
            except NotCommittedError:
                pass
            else:
                expect(False, "`resolve` found it too early")
            raise _OnPurpose
    except _OnPurpose:
        pass
    expect(await at.stored() == {}, f"a block that raised left {sorted(await at.stored())}")


@check(commits=True)
async def what_is_committed_stays(at: Subject) -> None:
    """A second commit is `AlreadyCommittedError`, and changes nothing."""
    await _put(at, "step_1", _TREE)
    before = await at.stored()
    try:
        await _put(at, "step_1", {"other": b"other"})
    except AlreadyCommittedError:
        pass
    else:
        expect(False, "a committed directory was committed again")
    expect(await at.stored() == before, "a refused commit changed something")


@check(commits=True)
async def of_many_commits_one_wins(at: Subject) -> None:
    """Commits of one name at the same moment: one returns, and what is there is all its own."""
    for number in range(_ROUNDS):

        async def commit(racer: bytes, number: int = number) -> None:
            await _put(at, f"step_{number}", _of(racer))

        won = await race(commit, _RACERS)
        expect(len(won) == 1, f"{len(won)} of {_RACERS} commits of one name returned")
        await _expect_complete(at, f"step_{number}", _of(won[0]))
        stored = await at.stored(f"step_{number}")
        record = await aio.read_record(at.place / f"step_{number}", storage_options=at.place.storage_options)
        expect(stored.keys() == _of(won[0]).keys() | _ours(record), f"beside the winner's: {sorted(stored)}")


@check(commits=True)
async def damage_is_found(at: Subject) -> None:
    """`verify` names what was removed, shortened or added by another client."""
    await _put(at, "step_1", _TREE)
    await _put(at, "step_2", _TREE)
    at.place.delete("step_1/sub/state.bin")
    at.place.write("step_1/model.bin", _TREE["model.bin"][:-1])
    at.place.write("step_1/extra", b"extra")
    found = await aio.verify(at.place / "step_1", storage_options=at.place.storage_options)
    told = ([*found.missing], [*found.altered], [*found.extra])
    expect(told == (["sub/state.bin"], ["model.bin"], ["extra"]), f"found missing, altered and extra: {told}")
    found = await aio.verify(at.place / "step_2", storage_options=at.place.storage_options)
    expect(found.ok, f"in an untouched one: {found}")


@check(commits=True)
async def the_newest_complete_one_is_found(at: Subject) -> None:
    """`latest` and `committed` leave out what has no record, or an unfinished one."""
    options = at.place.storage_options
    for step in (2, 10, 1):
        await _put(at, f"step_{step}", _TREE)
    at.place.write("step_11/model.bin", b"half of it")
    newest = await aio.latest(at.place.url, storage_options=options)
    expect(newest is not None and newest.step == 10, f"the newest is {newest and newest.name}")
    names = [commit.name for commit in await aio.committed(at.place.url, storage_options=options)]
    expect(names == ["step_1", "step_2", "step_10"], f"complete are {names}")


@check(commits=True)
async def a_lost_reply_is_settled(at: Subject) -> None:
    """Whichever operation is done but not answered: committed is what is there, unknown is what nobody can tell."""
    await _fail_at_each(at, lambda number: _Failing(number, done=True))


@check(commits=True)
async def a_failed_request_commits_nothing_by_halves(at: Subject) -> None:
    """The same for operations that are not done."""
    await _fail_at_each(at, lambda number: _Failing(number, done=False))


@check(commits=True)
async def a_cancelled_commit_is_whole_or_absent(at: Subject) -> None:
    """Cancelled at any operation, a commit has happened or has not."""
    for number in range(_MOST):
        environment = _Cancelling(number)
        name = f"step_{number}"
        with use(environment), environment.caller:
            await _put(at, name, _TREE)
        await _expect_whole_or_absent(at, name)
        if not environment.reached:
            return
    expect(False, f"a commit took more than {_MOST} operations")


class _OnPurpose(Exception):  # noqa: N818 - no error of anybody's
    """What the block raises."""


class _Counting(Environment):
    """Gives every operation its number, and takes no time to sleep."""

    def __init__(self) -> None:
        self.operations = 0
        self._slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._slept

    async def sleep(self, seconds: float) -> None:
        self._slept += seconds
        await anyio.lowlevel.checkpoint()

    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        number, self.operations = self.operations, self.operations + 1
        self.before(number)
        result = await super().step(function, *args, **kwargs)
        self.after(number)
        return result

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        number, self.operations = self.operations, self.operations + 1
        self.before(number)
        result = await super().request(function, *args, **kwargs)
        self.after(number)
        return result

    def before(self, number: int) -> None:
        """Act before an operation; subclasses decide how."""

    def after(self, number: int) -> None:
        """Act after an operation that succeeded; subclasses decide how."""


class _Failing(_Counting):
    def __init__(self, at: int, *, done: bool) -> None:
        super().__init__()
        self._at = at
        self._done = done

    def before(self, number: int) -> None:
        if number == self._at and not self._done:
            raise OSError(errno.EIO, "not done, as the check asked")

    def after(self, number: int) -> None:
        if number == self._at and self._done:
            raise OSError(errno.EIO, "done but not answered, as the check asked")


class _Cancelling(_Counting):
    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at
        self.caller = Caller()
        self.reached = False

    def before(self, number: int) -> None:
        if number == self._at:
            self.reached = True
            self.caller.cancel()


_MOST = 200


async def _fail_at_each(at: Subject, environment_of: Callable[[int], _Counting]) -> None:
    for number in range(_MOST):
        name = f"step_{number}"
        environment = environment_of(number)
        committed: bool | None = True
        with use(environment):
            try:
                await _put(at, name, _TREE)
            except OutcomeUnknownError:
                committed = None
            except (OSError, AtomicPathError):
                committed = False
        found = await _expect_whole_or_absent(at, name)
        expect(committed in (None, found), f"operation {number}: said {committed}, and it is {found}")
        if environment.operations <= number:
            expect(committed is True, "a commit that met no failure did not succeed")
            return
    expect(False, f"a commit took more than {_MOST} operations")


async def _expect_whole_or_absent(at: Subject, name: str) -> bool:
    found = await aio.is_committed(at.place / name, storage_options=at.place.storage_options)
    if found:
        await _expect_complete(at, name, _TREE)
    return found


async def _expect_complete(at: Subject, name: str, tree: Mapping[str, bytes]) -> None:
    found = await aio.verify(at.place / name, storage_options=at.place.storage_options)
    expect(found.ok, f"{name} is committed, but {found}")
    stored = await at.stored(name)
    expect({file: stored.get(file) for file in tree} == tree, f"{name} is committed with another's files")


async def _put(at: Subject, name: str, tree: Mapping[str, bytes]) -> None:
    source = at.scratch / f"source-{abs(hash(frozenset(tree.items())))}"
    if not source.exists():
        _fill(source, tree)
    await aio.put(source, at.place / name, storage_options=at.place.storage_options)


def _fill(directory: Path | UPath, tree: Mapping[str, bytes]) -> None:
    for name, data in tree.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _ours(record: CommitRecord) -> set[str]:
    """Return the names that atomicpath itself writes into a committed directory."""
    return {RECORD_FILE} | ({record.marker} if record.marker else set())


def _of(racer: bytes) -> dict[str, bytes]:
    return {f"by-{racer.decode()}": racer, "shared": racer * 10}
