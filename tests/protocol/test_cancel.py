"""A commit that is cancelled, or interrupted by Ctrl-C, at any point is whole or not at all, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import pytest

import atomicpath
from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._core.liveness import untrack_attempt
from atomicpath.testing.cancelling import Caller
from tests.protocol.worlds import (
    ALL,
    MARKER,
    RECORD,
    Quick,
    attempt,
    decoded,
    files_below,
    nothing_above,
    swaps_to,
    trust,
    written,
)
from tests.support.proxy import Proxy, Rule, answer_after
from tests.support.waiting import PATIENCE

P = ParamSpec("P")
T = TypeVar("T")


class Cancelling(Quick):
    """Cancels `scope` at the k-th step or request: right before it, or right after it was done."""

    def __init__(self, at: int, *, after: bool) -> None:
        super().__init__()
        self.at = at
        self.after = after
        self.hooks = 0
        self.caller = Caller()

    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        number = self._before()
        try:
            return await super().step(function, *args, **kwargs)
        finally:
            self._after(number)

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        number = self._before()
        try:
            return await super().request(function, *args, **kwargs)
        finally:
            self._after(number)

    def _before(self) -> int:
        number, self.hooks = self.hooks, self.hooks + 1
        if number == self.at and not self.after:
            self.caller.cancel()
        return number

    def _after(self, number: int) -> None:
        if number == self.at and self.after:
            self.caller.cancel()


def renewing() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "atomicpath-lease"]


async def commit(url: str, environment: Cancelling, staging: Path, options: dict[str, Any] | None = None) -> bool:
    """Whether it got to its end."""
    with use(environment), environment.caller:
        async with aio.commit(url, storage_options=options, staging_dir=staging) as path:
            Path(path, "data").write_bytes(b"the data")
            Path(path, "more").write_bytes(b"more of it")
        return True
    return False


async def at_every_hook(
    url: str,
    staging: Path,
    look: Callable[[], dict[str, bytes]],
    again: Callable[[], object],
    *,
    after: bool,
    own: tuple[str, ...] = (RECORD, MARKER),
) -> tuple[int, int]:
    """Cancel at each hook in turn; how often that came to a commit, and how often not."""
    staging.mkdir(exist_ok=True)
    nothing_above(url)  # else only the first commit of many would look
    counting = Cancelling(-1, after=after)
    assert await commit(url, counting, staging)
    again()
    committed = 0
    for at in range(counting.hooks):
        environment = Cancelling(at, after=after)
        finished = await commit(url, environment, staging)
        assert environment.hooks > at
        assert renewing() == []
        assert list(staging.iterdir()) == []
        files = look()
        really = RECORD in files and decoded(files[RECORD]).state == "committed"
        assert really or not finished
        if really:
            assert set(files) == {*own, "data", "more"}, f"at {at}"
            committed += 1
        else:
            assert set(files) <= {RECORD}, f"at {at}"
            if files:  # the claim was cancelled under way: nobody knows whether it was done, but it is nobody's
                assert decoded(files[RECORD]).state == "writing"
            following = Cancelling(-1, after=False)
            assert await commit(url, following, staging)
            assert following.slept == []
        again()
    return committed, counting.hooks - committed


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_cancelled_at_every_await_in_memory(after: bool, tmp_path: Path, memory: dict[str, Any]) -> None:
    committed, not_committed = await at_every_hook(
        "memory://run/step_1",
        tmp_path / "staging",
        lambda: files_below(memory, "/run/step_1"),
        memory.clear,
        after=after,
    )
    assert committed >= 3  # the swap, the marker, and leaving the staging directory
    assert not_committed >= 6


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_cancelled_at_every_await_on_disk(after: bool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    rounds: list[Path] = []

    def look() -> dict[str, bytes]:
        left = sorted(root.iterdir())
        assert left in ([], [root / "step_1"]), left  # no temporary directory, whatever became of it
        return {path.name: path.read_bytes() for path in left and left[0].iterdir()}

    def again() -> None:
        for path in root.iterdir():
            rounds.append(path.rename(tmp_path / f"round-{len(rounds)}"))

    committed, not_committed = await at_every_hook(
        str(root / "step_1"), tmp_path / "staging", look, again, after=after, own=(RECORD,)
    )
    assert committed >= 1
    assert not_committed >= 4


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_cancelled_at_every_await_of_a_takeover(after: bool, tmp_path: Path, memory: dict[str, Any]) -> None:
    url = "memory://run/step_1"

    async def cancelled(environment: Cancelling) -> None:
        memory.clear()
        old = attempt(url, environment=Quick())
        await old.create()
        for name in ("data", "another"):
            await old.add(name, written(tmp_path, name, b"of the old"))
        assert old._register is not None
        await old._register.stop_renewal()
        untrack_attempt(old.token)  # as if its process had died
        await commit(url, environment, tmp_path)
        assert renewing() == []

    counting = Cancelling(-1, after=after)
    await cancelled(counting)
    for at in range(counting.hooks):
        await cancelled(Cancelling(at, after=after))
        if not await aio.is_committed(url):
            following = Cancelling(-1, after=False)
            assert await commit(url, following, tmp_path)
            assert following.slept == []
        assert set(files_below(memory, "/run/step_1")) == {RECORD, MARKER, "data", "more"}


async def test_once_the_commit_has_begun_the_outcome_is_settled(
    tmp_path: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Callable[[], dict[str, bytes]]
) -> None:
    environment = Cancelling(-1, after=False)
    backend = anyio.lowlevel.current_token()

    def cancel(request: Any, send: Any) -> Any:
        # while the store is at it, whose reply then is lost: the settlement too is past cancellation
        anyio.from_thread.run_sync(environment.caller.scope.cancel, token=backend)
        return answer_after(500, "InternalError")(request, send)

    proxy.rules.append(Rule(match=swaps_to("committed"), action=cancel))
    await commit(url, environment, tmp_path, options)
    assert proxy.rules[0].times == 0
    assert environment.caller.scope.cancel_called
    assert {f"run/step_1/{name}" for name in (RECORD, MARKER, "data", "more")} == set(truth())
    assert await aio.is_committed(url, storage_options=options)


# Ctrl-C in a script

_SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import atomicpath
from atomicpath._core.environment import use
from atomicpath._core.liveness import untrack_attempt
from tests.protocol.worlds import ALL, Quick, trust

class Interrupting(Quick):
    at, hooks = -1, 0
    def interrupt(self):
        number, self.hooks = self.hooks, self.hooks + 1
        if number == self.at:
            os.kill(os.getpid(), signal.SIGINT)
    async def request(self, function, /, *args, **kwargs):
        self.interrupt()
        return await super().request(function, *args, **kwargs)
    def call(self, function, /, *args, **kwargs):
        if local:
            self.interrupt()
        return super().call(function, *args, **kwargs)

root, options = sys.argv[1], json.loads(sys.argv[2])
local = not options
if not local:
    trust(root + "/step", options, ALL)

def commit(name, environment):
    with use(environment), atomicpath.commit(f"{root}/{name}", storage_options=options) as path:
        Path(path, "data").write_bytes(b"the data")
        Path(path, "more").write_bytes(b"more of it")

counting = Interrupting()
commit("first", counting)
for at in range(0, counting.hooks, int(sys.argv[3])):
    environment = Interrupting()
    environment.at = at
    said = "committed"
    try:
        commit(f"step_{at}", environment)
    except KeyboardInterrupt:
        said = "interrupted"
    except Exception as error:
        said = repr(error)
    print(json.dumps([at, said, atomicpath.is_committed(f"{root}/step_{at}", storage_options=options)]), flush=True)
"""


def interrupted(root: str, options: dict[str, Any], every: int) -> list[tuple[int, str, bool]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _SCRIPT, root, json.dumps(options), str(every)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_keyboardinterrupt_between_commit_and_return_on_disk(tmp_path: Path) -> None:
    told = interrupted(str(tmp_path), {}, 3)
    assert {said for _, said, _ in told} <= {"interrupted", "committed"}, told
    assert "interrupted" in {said for _, said, _ in told}
    for at, said, really in told:
        directory = tmp_path / f"step_{at}"
        assert really or said == "interrupted"
        if really:
            assert {path.name for path in directory.iterdir()} == {RECORD, "data", "more"}
            assert atomicpath.verify(directory).ok
        else:
            assert not directory.exists()
    assert not [path for path in tmp_path.iterdir() if ".atomicpath-tmp-" in path.name]
    assert {really for _, _, really in told} == {True, False}


def test_keyboardinterrupt_between_commit_and_return_on_s3(
    bucket: str, server: str, options: dict[str, Any], truth: Callable[[], dict[str, bytes]]
) -> None:
    options = {**options, "endpoint_url": server}  # the proxy would complete a request that was broken off
    told = interrupted(f"s3://{bucket}/run", options, 1)
    assert {said for _, said, _ in told} <= {"interrupted", "committed"}, told
    assert "interrupted" in {said for _, said, _ in told}
    objects = truth()
    trust(f"s3://{bucket}/run/step", options, ALL)
    for at, said, really in told:
        prefix = f"run/step_{at}/"
        there = {name.removeprefix(prefix) for name in objects if name.startswith(prefix)}
        assert really or said == "interrupted"
        if really:
            assert there == {RECORD, MARKER, "data", "more"}
        elif there:
            # The claim was cancelled under way: nobody knows whether it was done. It is a dead process's now.
            assert there == {RECORD}
            with (
                use(Quick()) as quick,
                atomicpath.commit(f"s3://{bucket}/{prefix}", storage_options=options) as path,
            ):
                Path(path, "data").write_bytes(b"the data")
            assert quick.slept == []
    assert {really for _, _, really in told} == {True, False}
