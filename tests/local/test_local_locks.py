"""Locks on files: who holds one, on what, and what is refused."""

import errno
import fcntl
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from atomicpath import AtomicRenameTemporaryPath
from atomicpath._profile.location import locate
from atomicpath._strategies import predecessors
from atomicpath.abc import Content, LockingStorage
from atomicpath.errors import AccessError, ValidationError
from atomicpath_local.locks import LockHold
from atomicpath_local.storage import LocalStorage

from .conftest import World, put_no_file

HOLDER = """
import os, signal, sys, anyio
from atomicpath._core.environment import Environment, in_this_thread
from atomicpath_local import LocalBackend

async def main():
    return await LocalBackend().open({}, Environment()).lock_file(sys.argv[1])

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


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def locked(path: str) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


async def test_a_file_is_created_and_locked_and_stays_when_it_is_released(
    storage: LocalStorage, tmp_path: Path
) -> None:
    path = f"{tmp_path}/lock"
    hold = await storage.lock_file(path)
    assert hold
    assert locked(path)
    with pytest.raises(BlockingIOError) as caught:
        await storage.lock_file(path)
    assert caught.value.filename == path
    hold.release()
    hold.release()
    assert not locked(path)


async def test_what_a_file_contains_stays_when_it_is_locked(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "record").write_bytes(b"kept")
    hold = await storage.lock_file(f"{tmp_path}/record")
    assert hold
    hold.release()
    assert (tmp_path / "record").read_bytes() == b"kept"


@pytest.mark.parametrize("there", ["a directory", "a FIFO", "a socket", "a symbolic link", "a dangling link"])
async def test_what_is_no_file_is_refused_at_once(
    storage: LocalStorage,
    tmp_path: Path,
    there: str,
    monkeypatch: pytest.MonkeyPatch,
    no_descriptor_leaks: Callable[[], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lock"
    if not put_no_file(path, there):
        path.symlink_to("nowhere")
    with pytest.raises(ValidationError, match=f"{path} is .*: move it away"):
        await storage.lock_file(str(path))
    assert not (tmp_path / "nowhere").exists()
    no_descriptor_leaks()


async def test_a_lock_in_a_directory_that_has_gone_is_not_found(storage: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.lock_file(f"{tmp_path}/gone/lock")


async def test_a_file_that_was_replaced_while_it_was_being_locked_is_not_the_one_locked(
    storage: LocalStorage, world: World, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    path = tmp_path / "lock"
    before = len(os.listdir(tmp_path))

    def flock_late(fd: int, operation: int) -> None:
        if not (tmp_path / "moved").exists():
            path.rename(tmp_path / "moved")
        fcntl.flock(fd, operation)

    world.faults[fcntl.flock] = flock_late
    hold = await storage.lock_file(str(path))
    assert hold
    assert locked(str(path))
    assert not locked(str(tmp_path / "moved"))
    hold.release()
    assert len(os.listdir(tmp_path)) == before + 2
    no_descriptor_leaks()


async def test_a_file_that_is_always_replaced_is_given_up(
    storage: LocalStorage, world: World, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    path = tmp_path / "lock"

    def deleting(fd: int, operation: int) -> None:
        path.unlink(missing_ok=True)
        fcntl.flock(fd, operation)

    world.faults[fcntl.flock] = deleting
    with pytest.raises(OSError, match="try again later") as caught:
        await storage.lock_file(str(path))
    assert caught.value.filename == str(path)
    no_descriptor_leaks()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
async def test_where_there_are_no_locks_none_is_held(
    storage: LocalStorage, world: World, tmp_path: Path, code: int, no_descriptor_leaks: Callable[[], None]
) -> None:
    world.refuse(fcntl.flock, code)
    assert await storage.lock_file(f"{tmp_path}/lock") is None
    no_descriptor_leaks()


@pytest.mark.parametrize("function", [fcntl.flock, os.close], ids=["flock", "close"])
async def test_an_error_of_a_release_names_the_path_and_leaves_nothing_open(
    storage: LocalStorage, world: World, tmp_path: Path, function: object, no_descriptor_leaks: Callable[[], None]
) -> None:
    path = f"{tmp_path}/lock"
    hold = await storage.lock_file(path)
    assert hold

    def failing(*args: int) -> None:
        if function is os.close:
            os.close(*args)  # Linux frees the descriptor even if closing fails
        raise OSError(errno.EIO, "Input/output error")

    world.faults[function] = failing
    with pytest.raises(OSError, match="Input/output error") as caught:
        hold.release()
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, path)
    hold.release()
    assert not locked(path)
    no_descriptor_leaks()


async def test_a_new_file_is_locked_and_has_its_content(storage: LocalStorage, tmp_path: Path) -> None:
    path = f"{tmp_path}/record"
    hold = await storage.lock_new_file(path, b"data")
    assert hold
    assert locked(path)
    assert Path(path).read_bytes() == b"data"
    hold.release()
    assert not locked(path)


async def test_a_local_storage_that_says_nothing_of_new_files_locks_them_too(
    storage: LocalStorage, tmp_path: Path
) -> None:
    hold = await LockingStorage.lock_new_file(storage, f"{tmp_path}/record", b"data")
    assert hold
    assert locked(f"{tmp_path}/record")
    assert (tmp_path / "record").read_bytes() == b"data"
    hold.release()


@pytest.mark.parametrize("there", ["a file", "a directory", "a FIFO", "a symbolic link", "a dangling link"])
async def test_whatever_is_there_is_no_new_file_and_stays_as_it_is(
    storage: LocalStorage,
    tmp_path: Path,
    there: str,
    monkeypatch: pytest.MonkeyPatch,
    no_descriptor_leaks: Callable[[], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "record"
    if there == "a file":
        path.write_bytes(b"another's")
    elif not put_no_file(path, there):
        path.symlink_to("nowhere")
    before = path.lstat()
    with pytest.raises(FileExistsError):
        await storage.lock_new_file(str(path), b"ours")
    assert path.lstat() == before
    assert not (tmp_path / "nowhere").exists()
    no_descriptor_leaks()


async def test_a_new_file_that_is_deleted_before_it_is_locked_is_made_again(
    storage: LocalStorage, world: World, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    path = tmp_path / "record"
    deleted = []

    def flock_late(fd: int, operation: int) -> None:
        if not deleted:
            deleted.append(path.unlink())
        fcntl.flock(fd, operation)

    world.faults[fcntl.flock] = flock_late
    hold = await storage.lock_new_file(str(path), b"data")
    assert hold
    assert locked(str(path))
    assert path.read_bytes() == b"data"
    hold.release()
    no_descriptor_leaks()


async def test_a_new_file_is_there_where_there_are_no_locks(
    storage: LocalStorage, world: World, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    world.refuse(fcntl.flock, errno.ENOLCK)
    assert await storage.lock_new_file(f"{tmp_path}/record", b"data") is None
    assert (tmp_path / "record").read_bytes() == b"data"
    no_descriptor_leaks()


async def test_a_disk_that_is_full_leaves_no_descriptor_of_a_new_file_open(
    storage: LocalStorage, world: World, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    world.refuse(os.write, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left") as caught:
        await storage.lock_new_file(f"{tmp_path}/record", b"data")
    assert caught.value.filename == f"{tmp_path}/record"
    no_descriptor_leaks()


async def test_any_failing_call_of_a_lock_is_an_error_that_names_the_path(
    storage: LocalStorage, world: World, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    path = f"{tmp_path}/lock"
    for number in range(20):
        world.error = OSError(errno.EIO, "injected")
        world.calls.clear()
        world.fail_at = number
        try:
            hold = await storage.lock_file(path)
        except OSError as error:
            assert (error.errno, error.filename) == (errno.EIO, path)
            no_descriptor_leaks()
        else:
            world.fail_at = None
            assert hold
            hold.release()
            break
        finally:
            world.fail_at = None
    assert number == 5  # open, fstat, flock, and fstat and lstat to see whether it is still named so: each failed once


async def test_a_released_hold_is_given_up_even_if_a_copy_of_its_descriptor_lives_on(
    storage: LocalStorage, tmp_path: Path
) -> None:
    hold = await storage.lock_file(f"{tmp_path}/a")
    assert isinstance(hold, LockHold)
    assert hold._fd is not None
    copy = os.dup(hold._fd)
    hold.release()
    assert not locked(f"{tmp_path}/a")
    os.close(copy)


def test_a_hold_ends_with_its_process(python: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    holder = python(HOLDER, f"{tmp_path}/a", "alone")
    assert answer(holder) == "None"
    assert locked(f"{tmp_path}/a")
    holder.kill()
    holder.wait()
    assert not locked(f"{tmp_path}/a")


def test_fork_inherits_attempt_and_cleans_it(python: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """A forked child that releases the hold it inherited does not take it from its parent."""
    holder = python(HOLDER, f"{tmp_path}/a", "releasing child")
    assert answer(holder).isdigit()
    assert locked(f"{tmp_path}/a")
    assert holder.stdin
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert answer(holder) == "released"
    assert not locked(f"{tmp_path}/a")


def test_a_forked_child_does_not_keep_the_hold_of_a_dead_parent(
    python: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    holder = python(HOLDER, f"{tmp_path}/a", "living child")
    said = {answer(holder), answer(holder)} - {"running"}  # in whichever order the two come to it
    child = int(said.pop())
    try:
        assert locked(f"{tmp_path}/a")
        holder.kill()
        holder.wait()
        os.kill(child, 0)
        assert not locked(f"{tmp_path}/a")
    finally:
        os.kill(child, 9)


async def test_an_open_directory_is_synced_by_its_descriptor_whatever_becomes_of_its_name(
    storage: LocalStorage, world: World, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    opened = await storage.open_directory(f"{tmp_path}/link")
    assert opened
    (tmp_path / "link").unlink()
    (tmp_path / "real").rename(tmp_path / "moved")
    await opened.sync()
    assert world.synced == [f"{tmp_path}/moved"]
    opened.close()
    opened.close()
    no_descriptor_leaks()


async def test_a_directory_that_may_not_be_read_is_told_when_it_is_opened(
    storage: LocalStorage, world: World, tmp_path: Path
) -> None:
    world.refuse(os.open, errno.EACCES)
    with pytest.raises(AccessError, match=f"{tmp_path}: .*durable=False"):
        await storage.open_directory(str(tmp_path))


async def test_a_file_is_not_opened_as_a_directory(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValidationError, match="file"):
        await storage.open_directory(f"{tmp_path}/file")
    with pytest.raises(FileNotFoundError):
        await storage.open_directory(f"{tmp_path}/missing")


async def test_an_open_directory_says_where_it_cannot_be_synced(
    storage: LocalStorage, world: World, tmp_path: Path
) -> None:
    opened = await storage.open_directory(str(tmp_path))
    assert opened
    world.refuse(os.fsync, errno.EINVAL)
    with pytest.raises(OSError, match=f"{tmp_path}: .*durable=False"):
        await opened.sync()
    world.refuse(os.fsync, errno.EIO)
    with pytest.raises(OSError, match="sync failed") as caught:
        await opened.sync()
    assert caught.value.filename == str(tmp_path)
    opened.close()


async def test_a_file_that_has_to_exist_is_locked_and_one_that_is_missing_is_not_created(
    storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "record").write_bytes(b"kept")
    hold = await storage.lock_file(f"{tmp_path}/record", existing=True)
    assert hold
    hold.release()
    with pytest.raises(FileNotFoundError):
        await storage.lock_file(f"{tmp_path}/gone", existing=True)
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


async def test_an_attempt_that_ends_while_a_later_one_looks_at_it_leaves_nothing(
    storage: LocalStorage, tmp_path: Path
) -> None:
    """Two threads begin one path. The second reads the record of the first, which ends before it is judged."""

    class Ending(LocalStorage):
        async def get(self, path: str) -> Content:
            content = await super().get(path)
            await first.discard()
            return content

    final = locate(tmp_path / "step_1")
    first = AtomicRenameTemporaryPath.from_final(final.upath)
    second = AtomicRenameTemporaryPath.from_final(final.upath)
    await first.create()
    await second.create()
    await predecessors.clear_dead(Ending(storage.environment), final, locate(second.get()))
    await second.discard()
    assert list(tmp_path.iterdir()) == []
