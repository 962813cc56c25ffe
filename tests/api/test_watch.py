"""Waiting for new complete directories: each once, in order, whatever the root and the storage go through."""

from __future__ import annotations

import shutil
import threading
from typing import Any

import anyio
import pytest

import atomicpath
from atomicpath._commit import watching
from atomicpath._core.environment import Environment, use
from tests.support.roots import LocalRoot, Root, S3Root
from tests.support.waiting import PATIENCE


def _commit(root: Root, *names: str) -> None:
    for name in names:
        with atomicpath.commit(root / name, storage_options=root.storage_options) as path:
            (path / "x").write_text(name)


def _watch(root: Root, **options: Any) -> Any:
    return atomicpath.watch(root.url, storage_options=root.storage_options, **options)


def _names(root: Root, **options: Any) -> list[str]:
    return [commit.name for commit in _watch(root, timeout=0, **options)]


def test_what_is_there_comes_first_in_order_and_then_what_is_committed(root: Root) -> None:
    _commit(root, "step_10", "step_9")
    root.write("step_11/x", b"1")  # not committed
    watched = _watch(root, timeout=PATIENCE)
    assert [next(watched).name, next(watched).name] == ["step_9", "step_10"]
    writer = threading.Thread(target=_commit, args=(root, "step_12", "step_13"))
    writer.start()
    found = [next(watched), next(watched)]
    writer.join()
    assert [commit.name for commit in found] == ["step_12", "step_13"]
    assert found == atomicpath.committed(root.url, storage_options=root.storage_options)[2:]


def test_the_iteration_ends_when_nothing_new_has_come_in_time_and_may_go_on(root: Root) -> None:
    watched = _watch(root, timeout=0)
    assert list(watched) == []
    _commit(root, "step_1")
    assert [commit.name for commit in watched] == ["step_1"]
    assert list(watched) == []


def test_after_step_and_prefix_choose_what_is_told(root: Root) -> None:
    _commit(root, "step_1", "step_2", "other", "eval_3")
    assert sorted(_names(root)) == ["eval_3", "other", "step_1", "step_2"]
    assert _names(root, after=1, prefix="step_") == ["step_2"]
    assert _names(root, after=2) == ["eval_3"]
    assert _names(root, step=r"^step_(\d+)$") == ["step_1", "step_2"]


def test_an_alias_is_not_told_and_what_was_committed_anew_is(root: Root) -> None:
    _commit(root, "step_1")
    atomicpath.alias(root / "last", "step_1", storage_options=root.storage_options)
    watched = _watch(root, timeout=0)
    assert [commit.name for commit in watched] == ["step_1"]
    atomicpath.remove(root / "last", storage_options=root.storage_options)
    atomicpath.remove(root / "step_1", storage_options=root.storage_options)
    assert list(watched) == []
    _commit(root, "step_1")
    assert [commit.name for commit in watched] == ["step_1"]


def test_a_root_that_is_not_there_yet_or_is_deleted_is_waited_for(local: LocalRoot) -> None:
    shutil.rmtree(local.path)
    watched = _watch(local, timeout=0)
    assert list(watched) == []
    _commit(local, "step_1")
    assert [commit.name for commit in watched] == ["step_1"]
    shutil.rmtree(local.path)
    assert list(watched) == []
    _commit(local, "step_2")
    assert [commit.name for commit in watched] == ["step_2"]


def test_what_cannot_be_watched_says_so_at_once(local: LocalRoot, s3: S3Root) -> None:
    local.write("file", b"1")
    with pytest.raises(atomicpath.ValidationError, match="is a file"):
        next(atomicpath.watch(local / "file"))
    with pytest.raises(atomicpath.NotCommittedError):
        next(atomicpath.watch("s3://no-such-bucket-here/run", storage_options=s3.storage_options))
    for wrong in ({"after": "step_1"}, {"after": True}, {"timeout": -1}, {"timeout": "1"}, {"step": "("}):
        with pytest.raises(atomicpath.ValidationError):
            atomicpath.watch(local.url, **wrong)  # type: ignore[arg-type]


class _Failing(Environment):
    """A disk that fails for a while, by a clock of its own."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return super().monotonic() + sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if getattr(function, "__name__", "") in ("scandir", "open") and self.failures > 0:
            self.failures -= 1
            raise OSError(5, "input/output error")
        return super().call(function, *args, **kwargs)


def test_a_storage_that_fails_for_a_while_is_looked_at_again_less_and_less_often(
    local: LocalRoot, caplog: pytest.LogCaptureFixture
) -> None:
    _commit(local, "step_1")
    with use(_Failing(36)) as world:
        assert next(_watch(local)).name == "step_1"
    assert isinstance(world, _Failing)
    assert world.slept == sorted(world.slept)
    assert max(world.slept) == watching._LONGEST_ON_A_DISK
    assert caplog.text.count("is looked at again") == 1
    assert len([one for one in caplog.records if one.levelname == "WARNING" and "skipping" in one.getMessage()]) == 1


def test_a_storage_that_fails_for_long_is_an_error(local: LocalRoot) -> None:
    _commit(local, "step_1")
    with use(_Failing(10**9)), pytest.raises(atomicpath.StorageError, match="cannot watch"):
        next(_watch(local))


async def test_the_async_iterator_does_the_same_and_can_be_cancelled(root: Root) -> None:
    options = {"storage_options": root.storage_options}
    await anyio.to_thread.run_sync(_commit, root, "step_1")
    found = []
    with anyio.move_on_after(PATIENCE) as scope:
        async for commit in atomicpath.aio.watch(root.url, **options):  # type: ignore[arg-type]
            found.append(commit.name)
            if len(found) == 2:
                break
            await anyio.to_thread.run_sync(_commit, root, "step_2")
    assert found == ["step_1", "step_2"]
    assert not scope.cancelled_caught
    watched = atomicpath.aio.watch(root.url, after=2, **options)  # type: ignore[arg-type]
    with anyio.move_on_after(0.01) as scope:
        await anext(watched)
    assert scope.cancelled_caught
    await anyio.to_thread.run_sync(_commit, root, "step_3")
    assert (await anext(watched)).name == "step_3"


_WAITING = """
import signal, sys, threading, atomicpath
timer = threading.Timer(0.5, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
timer.start()
try:
    for commit in atomicpath.watch(sys.argv[1]):
        print(commit.name)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_the_wait(local: LocalRoot, python: Any) -> None:
    done = python(_WAITING, local.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
