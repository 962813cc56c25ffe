"""Commits that begin without a block: ended once, by any thread, and given up with the interpreter."""

from __future__ import annotations

import gc
import threading
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

import atomicpath
from tests.support.roots import LocalRoot, Root


def _begin(root: Root, name: str = "step_1", **options: Any) -> atomicpath.Handle:
    handle = atomicpath.begin(root / name, storage_options=root.storage_options, **options)
    (handle.path / "x").write_bytes(b"1")
    return handle


def _is_there(root: Root, name: str = "step_1") -> bool:
    return atomicpath.is_committed(root / name, storage_options=root.storage_options)


@pytest.mark.parametrize("direct", [False, True])
def test_begun_in_one_thread_and_finished_in_another(root: Root, direct: bool) -> None:
    begun: list[atomicpath.Handle] = []
    done: list[atomicpath.Commit] = []
    for work in (lambda: begun.append(_begin(root, direct=direct)), lambda: done.append(begun[0].finish())):
        assert not _is_there(root)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert done == [atomicpath.latest(root.url, storage_options=root.storage_options)]
    assert root.read_all("step_1")["x"] == b"1"


async def test_the_coroutines_do_the_same_in_two_tasks_and_a_thread(root: Root) -> None:
    handle = await atomicpath.aio.begin(root / "step_1", storage_options=root.storage_options)
    (handle.path / "x").write_bytes(b"1")
    done: list[atomicpath.Commit] = []

    async def finish() -> None:
        done.append(await handle.finish())

    await anyio.to_thread.run_sync(partial(anyio.run, finish))
    assert done == [await atomicpath.aio.latest(root.url, storage_options=root.storage_options)]
    with pytest.raises(atomicpath.CommitError, match="committed already"):
        await handle.finish()
    other = await atomicpath.aio.begin(root / "step_2", storage_options=root.storage_options)
    await other.abandon()
    with pytest.raises(atomicpath.CommitError, match="given up"):
        await other.finish()
    assert root.names() == ["step_1"]


def test_of_many_threads_that_finish_one_commits_and_the_others_are_told(root: Root) -> None:
    handle = _begin(root)
    results: list[object] = []

    def finish() -> None:
        try:
            results.append(handle.finish())
        except atomicpath.CommitError as error:
            results.append(error)

    threads = [threading.Thread(target=finish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in results if isinstance(one, atomicpath.Commit)]) == 1
    assert all(isinstance(one, atomicpath.Commit | atomicpath.CommitError) for one in results)
    assert atomicpath.verify(root / "step_1", storage_options=root.storage_options).ok


def test_a_second_end_is_an_error_that_says_how_the_first_one_ended(root: Root) -> None:
    handle = _begin(root)
    handle.finish()
    for end in (handle.finish, handle.abandon):
        with pytest.raises(atomicpath.CommitError, match="committed already"):
            end()
    given_up = _begin(root, "step_2")
    given_up.abandon(ZeroDivisionError())
    given_up.abandon()
    with pytest.raises(atomicpath.CommitError, match=r"given up, and nothing was committed. Call begin\(\)"):
        given_up.finish()
    assert root.names() == ["step_1"]


def test_after_a_finish_that_failed_giving_up_masks_nothing(root: Root) -> None:
    """`except: handle.abandon(error); raise` around both is what people write."""
    handle = atomicpath.begin(root / "step_1", storage_options=root.storage_options)
    with pytest.raises(atomicpath.ValidationError, match="allow_empty"):
        try:
            handle.finish()
        except BaseException as error:
            handle.abandon(error)
            raise
    with pytest.raises(atomicpath.CommitError, match="failed"):
        handle.finish()
    assert root.names() == []


def test_what_cannot_begin_says_so_at_once_and_leaves_nothing(root: Root) -> None:
    _begin(root).finish()
    with pytest.raises(atomicpath.AlreadyCommittedError):
        _begin(root)
    with pytest.raises(atomicpath.ValidationError):
        atomicpath.begin("")
    assert root.names() == ["step_1"]


def test_a_handle_that_nobody_has_any_more_is_an_attempt_to_be_swept(local: LocalRoot) -> None:
    handle = _begin(local)
    swept = atomicpath.sweep(local.url, older_than=timedelta(0))
    assert [one.done for one in swept] == [False]
    del handle
    gc.collect()
    swept = atomicpath.sweep(local.url, older_than=timedelta(0))
    assert [one.done for one in swept] == [True]
    assert local.names() == []


_ENDS = """
import logging
logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
handle = atomicpath.begin(f"{root}/step_1", storage_options=options)
(handle.path / "x").write_bytes(b"1")
if arguments["finished"]:
    threading.Thread(target=lambda: (threading.main_thread().join(), handle.finish())).start()
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize("finished", [False, True])
def test_at_the_end_of_the_interpreter_it_is_given_up_unless_a_thread_still_finishes_it(
    kind: str, finished: bool, request: pytest.FixtureRequest, python: Any
) -> None:
    root: Root = request.getfixturevalue(kind)
    script = f"import sys, threading, atomicpath\nroot, options, arguments = {root.url!r}, {root.storage_options!r}, "
    done = python(script + repr({"finished": finished}) + _ENDS)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("begun and never finished" in done.stdout) is not finished
    assert root.names() == (["step_1"] if finished else [])
    assert _is_there(root) is finished


_FORKED = """
import os, sys, warnings, atomicpath
warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
handle = atomicpath.begin(sys.argv[1], storage_options=eval(sys.argv[2]))
(handle.path / "x").write_bytes(b"1")
child = os.fork()
if not child:
    try:
        handle.finish()
    except atomicpath.CommitError as error:
        assert "forked child" in str(error), error
        handle.abandon(error)
        sys.exit(7)  # with all that runs at the end of an interpreter
    sys.exit(8)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
handle.finish()
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_forked_child_neither_finishes_nor_gives_up_what_its_parent_began(
    kind: str, request: pytest.FixtureRequest, python: Any
) -> None:
    root: Root = request.getfixturevalue(kind)
    done = python(_FORKED, root / "step_1", repr(root.storage_options))
    assert (done.returncode, done.stderr) == (0, "")
    assert root.read_all("step_1")["x"] == b"1"


_INTERRUPTED = """
import os, signal, sys, threading, atomicpath
handle = atomicpath.begin(sys.argv[1], storage_options=eval(sys.argv[2]), progress=lambda done, total: interrupt())
def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
for number in range(20):
    (handle.path / f"f{number}").write_bytes(b"1")
try:
    handle.finish()
except KeyboardInterrupt as error:
    handle.abandon(error)
    print("interrupted")
"""


def test_an_interrupted_finish_has_given_up_or_committed_whole(root: Root, python: Any) -> None:
    if root.kind == "memory":
        pytest.skip("the memory of another process is not to be seen")
    done = python(_INTERRUPTED, root / "step_1", repr(root.storage_options))
    if done.returncode:  # Ctrl-C came after the commit: abandon says that it is committed
        assert "committed already" in done.stderr
        assert atomicpath.verify(root / "step_1", storage_options=root.storage_options).ok
    elif not _is_there(root):
        assert root.read_all() == {}
