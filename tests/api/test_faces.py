"""The blocking face wherever blocking code runs, and every way out of the block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import atomicpath
from atomicpath._profile.location import PathLike
from atomicpath.testing.cancelling import Caller
from tests.support.roots import LocalRoot, MemoryRoot, Root, S3Root


def _write(root: Root, name: str = "step_1", **options: Any) -> None:
    with atomicpath.commit(root / name, storage_options=root.storage_options, **options) as path:
        (path / "x").write_bytes(b"1")


def _is_there(root: Root, name: str = "step_1") -> bool:
    return atomicpath.is_committed(root / name, storage_options=root.storage_options)


_SCRIPT = """
import sys, atomicpath
url, options = sys.argv[1], eval(sys.argv[2])
with atomicpath.commit(url, storage_options=options) as path:
    (path / "x").write_bytes(b"1")
print(atomicpath.is_committed(url, storage_options=options), atomicpath.verify(url, storage_options=options).ok)
"""


def test_from_a_plain_script_which_ends_by_itself_and_says_nothing(root: Root, python: Any) -> None:
    done = python(_SCRIPT, root / "step_1", repr(root.storage_options))
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")
    if root.kind != "memory":
        assert _is_there(root)


def test_from_a_thread(root: Root) -> None:
    thread = threading.Thread(target=_write, args=(root,))
    thread.start()
    thread.join()
    assert _is_there(root)


async def test_inside_a_running_event_loop_as_in_a_notebook(root: Root) -> None:
    _write(root)
    assert _is_there(root)
    with pytest.raises(atomicpath.AlreadyCommittedError):
        _write(root)
    assert root.names() == ["step_1"]


async def test_in_a_worker_thread_of_an_event_loop(root: Root) -> None:
    await anyio.to_thread.run_sync(_write, root)
    assert await anyio.to_thread.run_sync(_is_there, root)


def test_in_a_callback_of_a_running_loop_where_no_task_runs(root: Root) -> None:
    import asyncio

    found: list[object] = []

    def callback() -> None:
        try:
            _write(root)
            found.append(_is_there(root))
        except BaseException as error:
            found.append(error)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert found == [True]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_after_a_fork(kind: str, request: pytest.FixtureRequest, python: Any) -> None:
    """As a data loader's worker does: the parent has used everything before."""
    root: Root = request.getfixturevalue(kind)
    script = """
import os, sys, warnings, atomicpath
warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
url, options = sys.argv[1], eval(sys.argv[2])
def write(name):
    with atomicpath.commit(f"{url}/{name}", storage_options=options) as path:
        (path / "x").write_bytes(b"1")
    assert atomicpath.is_committed(f"{url}/{name}", storage_options=options)
write("step_1")
child = os.fork()
if not child:
    try:
        write("step_2")
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
status = os.waitpid(child, 0)[1]
write("step_3")
sys.exit(os.waitstatus_to_exitcode(status))
"""
    done = python(script, root.url, repr(root.storage_options))
    assert done.returncode == 0, done.stderr
    names = [commit.name for commit in atomicpath.committed(root.url, storage_options=root.storage_options)]
    assert names == ["step_1", "step_2", "step_3"]


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize("leaves", ["by its end", "by an exception"])
def test_fork_inherits_attempt_and_cleans_it(
    kind: str, leaves: str, request: pytest.FixtureRequest, python: Any
) -> None:
    """A child forked inside the block leaves it: the attempt is its parent's, who then commits."""
    root: Root = request.getfixturevalue(kind)
    script = """
import os, sys, warnings, atomicpath
warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
url, options, leaves = sys.argv[1], eval(sys.argv[2]), sys.argv[3]
child = None
try:
    with atomicpath.commit(url, storage_options=options) as path:
        (path / "x").write_bytes(b"1")
        child = os.fork()
        if not child and leaves == "by an exception":
            raise ZeroDivisionError
        if child:
            status = os.waitpid(child, 0)[1]
except (ZeroDivisionError, atomicpath.CommitError) as error:
    os._exit(7 if child == 0 and (leaves == "by an exception" or "forked child" in str(error)) else 8)
if child == 0:
    os._exit(9)
print(os.waitstatus_to_exitcode(status))
"""
    done = python(script, root / "step_1", repr(root.storage_options), leaves)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
    assert atomicpath.verify(root / "step_1", storage_options=root.storage_options).ok
    assert root.read_all("step_1")["x"] == b"1"
    assert root.names() == ["step_1"]


def test_many_threads_at_once(root: Root) -> None:
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            _write(root, f"step_{number}")
            assert _is_there(root, f"step_{number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = atomicpath.committed(root.url, storage_options=root.storage_options)
    assert [commit.step for commit in found] == list(range(12))


async def test_many_tasks_at_once(root: Root) -> None:
    async def write(number: int) -> None:
        async with atomicpath.aio.commit(root / f"step_{number}", storage_options=root.storage_options) as path:
            (path / "x").write_bytes(b"1")
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(write, number)
    assert len(await atomicpath.aio.committed(root.url, storage_options=root.storage_options)) == 12


# ways out of the block


class _Odd(BaseException):
    pass


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, _Odd, StopIteration])
@pytest.mark.parametrize("direct", [False, True])
def test_whatever_the_block_raises_comes_out_as_it_was_and_nothing_is_visible(
    root: Root, error: type[BaseException], direct: bool
) -> None:
    raised = error("the first")
    with (
        pytest.raises(error) as caught,
        atomicpath.commit(root / "step_1", storage_options=root.storage_options, direct=direct) as path,
    ):
        (path / "x").write_bytes(b"1")
        raise raised
    assert caught.value is raised
    assert caught.value.__cause__ is None
    assert root.names() == []
    _write(root)
    assert _is_there(root)


def test_a_generator_that_is_closed_inside_the_block_leaves_nothing(root: Root) -> None:
    def generate() -> Iterator[int]:
        with atomicpath.commit(root / "step_1", storage_options=root.storage_options) as path:
            (path / "x").write_bytes(b"1")
            yield 1
            yield 2

    generator = generate()
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert root.names() == []


def test_a_return_out_of_the_block_commits(root: Root) -> None:
    def write() -> int:
        with atomicpath.commit(root / "step_1", storage_options=root.storage_options) as path:
            (path / "x").write_bytes(b"1")
            return 5

    assert write() == 5
    assert _is_there(root)


def test_exception_in_cleanup_masks_the_first_error(local: LocalRoot, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(atomicpath.AtomicRenameTemporaryPath):
        async def discard(self) -> None:
            await super().discard()
            raise OSError("second")

    with (
        pytest.raises(ZeroDivisionError) as caught,
        atomicpath.commit(local / "step_1", temporary_path_class=Failing),
    ):
        raise ZeroDivisionError("first")
    assert str(caught.value) == "first"
    assert "second" in caplog.text


@pytest.mark.parametrize("nested", [True, False])
def test_entering_a_commit_twice_is_an_error_and_the_first_goes_on(root: Root, nested: bool) -> None:
    committing = atomicpath.commit(root / "step_1", storage_options=root.storage_options)
    with committing as path:
        (path / "x").write_bytes(b"1")
        if nested:
            with pytest.raises(atomicpath.CommitError, match="entered before"):
                committing.__enter__()
    if not nested:
        with pytest.raises(atomicpath.CommitError, match="entered before"), committing:
            pytest.fail("entered")
    assert root.read_all("step_1")["x"] == b"1"
    assert root.names() == ["step_1"]


def test_a_commit_never_entered_does_nothing(root: Root) -> None:
    committing = atomicpath.commit(root / "step_1", storage_options=root.storage_options)
    del committing
    assert root.read_all() == {}
    ended = atomicpath.commit(root / "step_1", storage_options=root.storage_options)
    with pytest.raises(atomicpath.CommitError, match="never begun"):
        ended.__exit__(None, None, None)
    assert root.read_all() == {}


def test_the_block_may_end_in_another_thread_than_it_began(root: Root) -> None:
    committing = atomicpath.commit(root / "step_1", storage_options=root.storage_options)
    path = committing.__enter__()
    (path / "x").write_bytes(b"1")
    thread = threading.Thread(target=committing.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert _is_there(root)


@pytest.mark.parametrize("times", [1, 3, 50])
def test_keyboardinterrupt_between_commit_and_return(local: LocalRoot, s3: S3Root, python: Any, times: int) -> None:
    """Ctrl-C while the upload runs: not committed and nothing left, or committed whole.

    To the main thread, which the kernel prefers, too: another one would not wake it.
    """
    script = """
import os, signal, sys, threading, atomicpath
url, options, staging = sys.argv[1], eval(sys.argv[2]), sys.argv[3]
times = int(sys.argv[4])
def interrupt(done, total):
    global times
    if done and times:
        times -= 1
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
try:
    with atomicpath.commit(url, storage_options=options, staging_dir=staging, progress=interrupt) as path:
        for number in range(50):
            (path / f"f{number}").write_bytes(b"1")
except KeyboardInterrupt:
    print("interrupted")
print([thread.name for thread in threading.enumerate() if thread.name.startswith("atomicpath")], os.listdir(staging))
"""
    done = python(script, s3 / "step_1", repr(s3.storage_options), local.url, str(times))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("interrupted\n")
    assert done.stdout.endswith("[] []\n")
    if not _is_there(s3):
        assert s3.read_all() == {}
    else:
        assert atomicpath.verify(s3 / "step_1", storage_options=s3.storage_options).ok


@pytest.mark.parametrize("make", [str, Path, "upath"])
def test_every_kind_of_path_is_taken(local: LocalRoot, make: Any) -> None:
    from upath import UPath

    url: PathLike = UPath(local / "step_1") if make == "upath" else make(local / "step_1")
    with atomicpath.commit(url) as path:
        (path / "x").write_bytes(b"1")
    assert atomicpath.is_committed(url)
    assert atomicpath.is_committed(f"file://{local / 'step_1'}")
    assert atomicpath.is_committed(f"local://{local / 'step_1'}/")


def test_the_options_of_a_upath_are_used(s3: S3Root) -> None:
    from upath import UPath

    options: dict[str, Any] = s3.storage_options
    url = UPath(s3 / "step_1", **options)
    with atomicpath.commit(url) as path:
        (path / "x").write_bytes(b"1")
    assert atomicpath.is_committed(url)


def test_memory_seen_from_fsspec_is_the_same(memory: MemoryRoot) -> None:
    from upath import UPath

    _write(memory)
    assert (UPath(memory / "step_1") / "x").read_bytes() == b"1"


def test_an_interrupt_while_the_attempt_begins_leaves_nothing(local: LocalRoot, s3: S3Root, python: Any) -> None:
    _write(s3, "step_0")
    script = """
import os, signal, sys, threading, atomicpath
from atomicpath._core.environment import Environment, use
url, options, staging = sys.argv[1], eval(sys.argv[2]), sys.argv[3]
class Interrupting(Environment):
    async def request(self, function, /, *args, **kwargs):
        found = await super().request(function, *args, **kwargs)
        if "put_object" in args and args[-1].get("Key", "").endswith("_commit_record.json") and not sent:
            sent.append(True)  # the clean-up writes the record, too, and a second interrupt would end the wait for it
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return found
sent = []
try:
    with use(Interrupting()), atomicpath.commit(url, storage_options=options, staging_dir=staging):
        print("entered")
except KeyboardInterrupt:
    print("interrupted")
print([thread.name for thread in threading.enumerate()], os.listdir(staging))
"""
    done = python(script, s3 / "step_1", repr(s3.storage_options), local.url)
    assert done.returncode == 0, done.stderr
    assert "interrupted\n" in done.stdout
    assert "'atomicpath'" not in done.stdout
    assert "atomicpath-lease" not in done.stdout
    assert done.stdout.endswith(" []\n")
    assert s3.names() == ["step_0"]


async def test_a_claim_cancelled_after_it_reached_the_store_is_discarded(store: Root) -> None:
    from atomicpath._core.environment import Environment, use

    caller = Caller()

    class Cancelling(Environment):
        async def step(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            found = await super().step(function, *args, **kwargs)
            await self._look()
            return found

        async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            found = await super().request(function, *args, **kwargs)
            await self._look()
            return found

        async def _look(self) -> None:
            if not caller.scope.cancel_called and "step_1/_commit_record.json" in store.read_all():
                caller.cancel()
                await anyio.lowlevel.checkpoint()

    with use(Cancelling()), caller:
        async with atomicpath.aio.commit(store / "step_1", storage_options=store.storage_options):
            pytest.fail("entered")
    assert caller.scope.cancelled_caught
    assert store.read_all() == {}
