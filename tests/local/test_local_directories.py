"""Exclusive directories, their modes and the lock on them."""

import errno
import fcntl
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atomicpath.errors import ValidationError
from atomicpath_local.locks import LockHold
from atomicpath_local.storage import LocalStorage

from .conftest import World

HOLDER = """
import os, signal, sys, anyio
from atomicpath.environment import Environment, in_this_thread
from atomicpath_local import LocalBackend

async def main():
    return await LocalBackend().open({}, Environment()).make_directory(sys.argv[1], mode=None, durable=True)

with in_this_thread():
    hold = anyio.run(main)
child = os.fork() if sys.argv[2] != "alone" else None
if child == 0:
    if sys.argv[2] == "releasing child":
        hold.release()
        os._exit(0)
    os.write(1, b"running\\n")
    signal.pause()
if sys.argv[2] == "releasing child":
    os.waitpid(child, 0)
os.write(1, f"{child}\\n".encode())  # one call: two processes write here
sys.stdin.readline()
hold.release()
hold.release()
print("released", flush=True)
sys.stdin.readline()
"""


def held(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


async def test_a_directory_and_its_ancestors_are_created_and_held(storage: LocalStorage, tmp_path: Path) -> None:
    hold = await storage.make_directory(f"{tmp_path}/a/b/c", mode=None, durable=True)
    assert hold
    assert held(f"{tmp_path}/a/b/c")
    hold.release()
    assert not held(f"{tmp_path}/a/b/c")
    hold.release()


async def test_a_released_hold_is_given_up_even_if_a_copy_of_its_descriptor_lives_on(
    storage: LocalStorage, tmp_path: Path
) -> None:
    hold = await storage.make_directory(f"{tmp_path}/a", mode=None, durable=False)
    assert isinstance(hold, LockHold)
    assert hold._fd is not None
    copy = os.dup(hold._fd)
    hold.release()
    assert not held(f"{tmp_path}/a")
    os.close(copy)


@pytest.mark.parametrize("there", ["directory", "file", "link"])
async def test_a_directory_is_created_exclusively(storage: LocalStorage, tmp_path: Path, there: str) -> None:
    target = tmp_path / "a"
    if there == "directory":
        target.mkdir()
    elif there == "file":
        target.write_bytes(b"")
    else:
        target.symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        await storage.make_directory(str(target), mode=None, durable=True)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777, 0o2775])
@pytest.mark.usefixtures("umask")
async def test_the_mode_is_exact_whatever_the_umask(storage: LocalStorage, tmp_path: Path, mode: int) -> None:
    hold = await storage.make_directory(f"{tmp_path}/a", mode=mode, durable=False)
    assert hold
    hold.release()
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == mode


@pytest.mark.usefixtures("umask")
async def test_without_a_mode_the_umask_decides(storage: LocalStorage, tmp_path: Path) -> None:
    hold = await storage.make_directory(f"{tmp_path}/a", mode=None, durable=False)
    assert hold
    hold.release()
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o700


async def test_new_ancestor_not_synced(storage: LocalStorage, world, tmp_path: Path) -> None:
    hold = await storage.make_directory(f"{tmp_path}/a/b/c", mode=None, durable=True)
    assert hold
    hold.release()
    assert world.synced == [str(tmp_path), f"{tmp_path}/a"]


async def test_nothing_is_synced_when_not_durable(storage: LocalStorage, world, tmp_path: Path) -> None:
    hold = await storage.make_directory(f"{tmp_path}/a/b/c", mode=None, durable=False)
    assert hold
    hold.release()
    assert world.synced == []


async def test_an_ancestor_that_another_process_makes_meanwhile_is_used_and_synced(
    storage: LocalStorage, world, tmp_path: Path
) -> None:
    def made_twice(path: str) -> None:
        os.mkdir(path)
        if path == f"{tmp_path}/a":
            os.mkdir(path)

    world.faults[os.mkdir] = made_twice
    hold = await storage.make_directory(f"{tmp_path}/a/b", mode=None, durable=True)
    assert hold
    hold.release()
    assert world.synced == [str(tmp_path)]


async def test_the_common_case_is_a_mkdir_an_open_and_a_lock(storage: LocalStorage, world, tmp_path: Path) -> None:
    hold = await storage.make_directory(f"{tmp_path}/a", mode=None, durable=True)
    assert world.calls == ["mkdir", "open", "flock"]
    assert hold
    hold.release()


async def test_a_path_below_a_file_is_refused_with_advice(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValidationError, match="choose another one, or move the file"):
        await storage.make_directory(f"{tmp_path}/file/a/b", mode=None, durable=True)


@pytest.mark.parametrize("length", [256, 5000])
async def test_a_name_that_is_too_long_is_refused_with_advice(
    storage: LocalStorage, tmp_path: Path, length: int
) -> None:
    path = f"{tmp_path}/{'x' * length}"
    with pytest.raises(ValidationError, match="shorten it") as caught:
        await storage.make_directory(path, mode=None, durable=True)
    assert len(str(caught.value)) < 600
    with pytest.raises(ValidationError, match="shorten it"):
        await storage.create(path, b"")
    with pytest.raises(ValidationError, match="shorten it"):
        await storage.read(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("function", [os.open, os.fchmod, fcntl.flock], ids=["open", "fchmod", "flock"])
async def test_a_directory_that_cannot_be_held_is_taken_away_again(
    storage: LocalStorage, world, tmp_path: Path, function: object
) -> None:
    world.refuse(function, errno.EMFILE)
    with pytest.raises(OSError) as caught:
        await storage.make_directory(f"{tmp_path}/a", mode=0o700, durable=True)
    assert caught.value.errno == errno.EMFILE
    assert os.listdir(tmp_path) == []


async def test_where_there_are_no_locks_there_is_no_hold(
    storage: LocalStorage, world, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    world.refuse(fcntl.flock, errno.ENOLCK)
    assert await storage.make_directory(f"{tmp_path}/a", mode=None, durable=True) is None
    assert (tmp_path / "a").is_dir()
    no_descriptor_leaks()


def test_a_hold_ends_with_its_process(python: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    holder = python(HOLDER, f"{tmp_path}/a", "alone")
    assert answer(holder) == "None"
    assert held(f"{tmp_path}/a")
    holder.kill()
    holder.wait()
    assert not held(f"{tmp_path}/a")


def test_fork_inherits_attempt_and_cleans_it(python: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """A forked child that releases the hold it inherited does not take it from its parent."""
    holder = python(HOLDER, f"{tmp_path}/a", "releasing child")
    assert answer(holder).isdigit()
    assert held(f"{tmp_path}/a")
    assert holder.stdin
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert answer(holder) == "released"
    assert not held(f"{tmp_path}/a")


def test_a_forked_child_does_not_keep_the_hold_of_a_dead_parent(
    python: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    holder = python(HOLDER, f"{tmp_path}/a", "living child")
    said = {answer(holder), answer(holder)} - {"running"}  # in whichever order the two come to it
    child = int(said.pop())
    try:
        assert held(f"{tmp_path}/a")
        holder.kill()
        holder.wait()
        os.kill(child, 0)
        assert not held(f"{tmp_path}/a")
    finally:
        os.kill(child, 9)


async def test_a_directory_that_another_holds_cannot_be_held(storage: LocalStorage, tmp_path: Path) -> None:
    path = str(tmp_path / "held")
    hold = await storage.make_directory(path, mode=None, durable=False)
    assert hold
    with pytest.raises(BlockingIOError):
        await storage.hold_directory(path)
    hold.release()
    again = await storage.hold_directory(path)
    assert again
    assert held(path)
    again.release()
    assert not held(path)


async def test_what_was_renamed_while_it_was_being_held_is_not_held(
    storage: LocalStorage, world: World, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    path = tmp_path / "moved"
    path.mkdir()

    def flock_late(fd: int, operation: int) -> None:
        if path.exists():
            path.rename(tmp_path / "elsewhere")
        fcntl.flock(fd, operation)

    world.faults[fcntl.flock] = flock_late
    with pytest.raises(FileNotFoundError):
        await storage.hold_directory(str(path))
    assert not held(str(tmp_path / "elsewhere"))
