"""Single files on a local file system."""

import errno
import fcntl
import filecmp
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from atomicpath._core.environment import in_this_thread
from atomicpath.abc import Put, Update
from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath_local import files
from atomicpath_local.rename import no_replace
from atomicpath_local.storage import LocalStorage

from .conftest import put_no_file

UMASK = os.umask(0)
os.umask(UMASK)

_MODES = {"create": Put.CREATE, "write": Put.OVERWRITE}

RACE = """
import sys, anyio
from atomicpath._core.environment import Environment, in_this_thread
from atomicpath_local import LocalBackend
from atomicpath.abc import Put

async def main():
    storage = LocalBackend().open({}, Environment())
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(40):
        try:
            await storage.put(f"{sys.argv[1]}/{number}", sys.argv[2].encode() * 1000, mode=Put.CREATE)
        except FileExistsError:
            continue
        print(number, flush=True)

with in_this_thread():
    anyio.run(main)
"""


class Died(BaseException):
    """Stands for the end of the process: no later call is made."""


def left_over(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if "atomicpath" in name)


def contents(path: Path) -> bytes:
    return path.read_bytes()


async def put(storage: LocalStorage, method: str, source: Path, target: Path) -> None:
    if method == "upload":
        await storage.upload(source, str(target), owner="", multipart=False)
    elif method == "download":
        await storage.download(str(source), target)
    elif method == "create":
        await storage.put(str(target), contents(source), mode=Put.CREATE)
    else:
        await storage.put(str(target), contents(source), mode=Put.PRIVATE if method == "private" else Put.OVERWRITE)


async def test_a_created_file_is_read_back_with_its_age_and_no_version(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.put(f"{tmp_path}/a", b"data", mode=Put.CREATE)
    os.utime(tmp_path / "a", (1_000_000_000, 1_000_000_000))
    content = await storage.get(f"{tmp_path}/a")
    assert (content.data, content.version) == (b"data", None)
    assert content.age is not None
    assert content.age > 500_000_000
    assert os.listdir(tmp_path) == ["a"]


async def test_a_second_creation_is_refused_and_changes_nothing(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.put(f"{tmp_path}/a", b"first", mode=Put.CREATE)
    with pytest.raises(FileExistsError) as caught:
        await storage.put(f"{tmp_path}/a", b"second", mode=Put.CREATE)
    assert caught.value.filename == f"{tmp_path}/a"
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


def test_of_eight_racing_creators_exactly_one_wins(
    python: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    rivals = [python(RACE, str(tmp_path), str(number)) for number in range(8)]
    for rival in rivals:
        assert rival.stdout
        assert rival.stdout.readline() == "ready\n"
    for rival in rivals:
        assert rival.stdin
        rival.stdin.write("\n")
        rival.stdin.flush()
    wins = {str(number): rival.communicate()[0].split() for number, rival in enumerate(rivals)}
    assert sorted((name for won in wins.values() for name in won), key=int) == [str(number) for number in range(40)]
    for winner, won in wins.items():
        for name in won:
            assert (tmp_path / name).read_bytes() == winner.encode() * 1000
    assert len(os.listdir(tmp_path)) == 40


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
async def test_without_hard_links_creation_is_still_exclusive(
    storage: LocalStorage, world, tmp_path: Path, code: int
) -> None:
    world.refuse(os.link, code)
    await storage.put(f"{tmp_path}/a", b"first", mode=Put.CREATE)
    with pytest.raises(FileExistsError):
        await storage.put(f"{tmp_path}/a", b"second", mode=Put.CREATE)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


async def test_with_neither_links_nor_an_exclusive_rename_creation_is_refused(
    storage: LocalStorage, world, tmp_path: Path
) -> None:
    world.refuse(os.link, errno.EPERM)
    world.refuse(no_replace, errno.EINVAL)
    with pytest.raises(GuaranteeError, match="EXCLUSIVE_CREATE"):
        await storage.put(f"{tmp_path}/a", b"data", mode=Put.CREATE)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("method", ["create", "write"])
async def test_a_public_file_and_its_name_are_synced_in_that_order(
    storage: LocalStorage, world, tmp_path: Path, method: str
) -> None:
    await storage.put(f"{tmp_path}/a", b"data", mode=_MODES[method])
    first, second = world.synced
    assert os.path.dirname(first) == str(tmp_path)
    assert second == str(tmp_path)
    publishing = world.calls.index("link" if method == "create" else "replace")
    assert world.calls.index("fsync") < publishing < len(world.calls) - 1 - world.calls[::-1].index("fsync")


async def test_a_private_file_costs_four_calls_and_is_cut_only_if_it_was_longer(
    storage: LocalStorage, world, tmp_path: Path
) -> None:
    await storage.put(f"{tmp_path}/a", b"data", mode=Put.PRIVATE)
    world.calls.clear()
    await storage.put(f"{tmp_path}/a", b"longer", mode=Put.PRIVATE)
    assert world.calls == ["open", "write", "fstat", "close"]
    assert (tmp_path / "a").read_bytes() == b"longer"
    await storage.put(f"{tmp_path}/a", b"data", mode=Put.PRIVATE)
    assert (tmp_path / "a").read_bytes() == b"data"


async def test_a_private_write_does_not_follow_a_link(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"old")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        await storage.put(f"{tmp_path}/a", b"data", mode=Put.PRIVATE)
    assert (tmp_path / "elsewhere").read_bytes() == b"old"


@pytest.mark.parametrize("method", ["create", "write", "private", "upload", "download"])
async def test_short_write_ignored(storage: LocalStorage, world, tmp_path: Path, method: str) -> None:
    data = bytes(range(256)) * 20
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    world.faults[os.write] = lambda fd, part: os.write(fd, part[:100])
    await put(storage, method, source, target)
    assert target.read_bytes() == data


async def test_a_write_that_takes_nothing_is_an_error(storage: LocalStorage, world, tmp_path: Path) -> None:
    world.faults[os.write] = lambda fd, part: 0
    with pytest.raises(OSError, match="took nothing"):
        await storage.put(f"{tmp_path}/a", b"data", mode=Put.PRIVATE)


@pytest.mark.parametrize("method", ["create", "write"])
async def test_fsync_retry_lies(storage: LocalStorage, world, tmp_path: Path, method: str) -> None:
    world.refuse(os.fsync, errno.EIO)
    with pytest.raises(OSError, match="write it all again") as caught:
        await storage.put(f"{tmp_path}/a", b"data", mode=_MODES[method])
    assert caught.value.errno == errno.EIO
    assert world.calls.count("fsync") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("private", [True, False])
async def test_close_reports_eio(storage: LocalStorage, world, tmp_path: Path, private: bool) -> None:
    def failing(fd: int) -> None:
        os.close(fd)
        raise OSError(errno.EIO, "lost")

    world.faults[os.close] = failing
    with pytest.raises(OSError, match="lost"):
        await storage.put(f"{tmp_path}/a", b"data", mode=Put.PRIVATE if private else Put.OVERWRITE)
    assert left_over(tmp_path) == []


async def test_a_failing_close_does_not_mask_the_first_error(storage: LocalStorage, world, tmp_path: Path) -> None:
    def failing(fd: int) -> None:
        os.close(fd)
        raise OSError(errno.EIO, "the close")

    world.faults[os.close] = failing
    world.refuse(os.write, errno.ENOSPC)
    with pytest.raises(OSError) as caught:
        await storage.put(f"{tmp_path}/a", b"data", mode=Put.PRIVATE)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("method", ["create", "write", "upload"])
async def test_enospc_mid_file(storage: LocalStorage, mount: Callable[..., Path], tmp_path: Path, method: str) -> None:
    disk = mount("-t", "tmpfs", "-o", "size=64k", "tmpfs")
    (disk / "old").write_bytes(b"old")
    source = tmp_path / "source"
    source.write_bytes(bytes(1 << 20))
    with pytest.raises(OSError) as caught:
        await put(storage, method, source, disk / ("old" if method == "write" else "new"))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(disk) == ["old"]
    assert (disk / "old").read_bytes() == b"old"


async def test_inode_exhaustion(storage: LocalStorage, mount: Callable[..., Path]) -> None:
    disk = mount("-t", "tmpfs", "-o", "size=64k,nr_inodes=3", "tmpfs")
    await storage.put(f"{disk}/a", b"", mode=Put.CREATE)
    with pytest.raises(OSError) as caught:
        await storage.put(f"{disk}/b", b"", mode=Put.CREATE)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(disk) == ["a"]


@pytest.mark.parametrize("method", ["create", "write"])
async def test_death_at_any_call_leaves_the_old_or_the_new(
    storage: LocalStorage, world, tmp_path: Path, method: str
) -> None:
    """And success was only reported when the new one is there."""
    seen = set()
    world.error = Died()
    for number in range(100):
        directory = tmp_path / str(number)
        directory.mkdir()
        if method == "write":
            (directory / "a").write_bytes(b"old")
        world.calls.clear()
        world.fail_at, world.dead = number, False
        with in_this_thread():
            try:
                await storage.put(f"{directory}/a", b"new" * 100, mode=_MODES[method])
                finished = True
            except Died:
                finished = False
        found = (directory / "a").read_bytes() if (directory / "a").exists() else None
        seen.add(found)
        assert found in (b"old" if method == "write" else None, b"new" * 100)
        if finished:
            assert found == b"new" * 100
            break
    else:
        pytest.fail("it never finished")
    assert len(seen) == 2


async def test_an_upload_makes_the_directories_it_needs_and_syncs_them(
    storage: LocalStorage, world, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    entry = await storage.upload(source, f"{tmp_path}/a/b/c", owner="", multipart=False)
    assert (entry.size, entry.version) == (3_000_000, None)
    assert (tmp_path / "a/b/c").read_bytes() == source.read_bytes()
    assert world.synced[:2] == [str(tmp_path), f"{tmp_path}/a"]
    assert world.synced[-1] == f"{tmp_path}/a/b"
    assert os.listdir(tmp_path / "a/b") == ["c"]


@pytest.mark.parametrize("direction", ["upload", "download"])
async def test_a_copy_never_replaces(storage: LocalStorage, tmp_path: Path, direction: str) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        await put(storage, direction, tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


@pytest.mark.parametrize("direction", ["upload", "download"])
async def test_truncated_get_accepted(storage: LocalStorage, world, tmp_path: Path, direction: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    if hasattr(os, "copy_file_range"):
        world.refuse(os.copy_file_range, errno.EXDEV)
    world.faults[os.read] = lambda fd, size: os.read(fd, 300) if os.lseek(fd, 0, os.SEEK_CUR) < 600 else b""
    with pytest.raises(OSError, match="600 bytes were read where 1000"):
        await put(storage, direction, tmp_path / "source", tmp_path / "target")
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("direction", ["upload", "download"])
@pytest.mark.parametrize("at", ["shrinks", "grows"])
async def test_a_file_that_changes_its_size_while_it_is_copied_is_an_error(
    storage: LocalStorage, world, tmp_path: Path, direction: str, at: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)

    def changing(*args: int) -> int:
        os.truncate(source, 600 if at == "shrinks" else 2000)
        return os.copy_file_range(*args)

    world.refuse(fcntl.ioctl, errno.EOPNOTSUPP)
    world.faults[os.copy_file_range] = changing
    with pytest.raises(OSError, match="bytes were read where 1000 were announced"):
        await put(storage, direction, source, tmp_path / "target")
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("direction", ["upload", "download"])
@pytest.mark.parametrize("by", ["clone", "copy_file_range", "read"])
async def test_a_copy_keeps_permissions_and_holes(
    storage: LocalStorage, world, tmp_path: Path, direction: str, by: str
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.seek(20 << 20)
        file.write(b"middle")
        file.truncate(40 << 20)
    if os.stat(source).st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no sparse files")
    if by != "clone":
        world.refuse(fcntl.ioctl, errno.EOPNOTSUPP)
    if by == "read":
        world.refuse(os.copy_file_range, errno.EXDEV)
    for mode in (0o755, 0o600, 0o444):
        source.chmod(mode)
        await put(storage, direction, source, target)
        assert stat.S_IMODE(target.stat().st_mode) == mode & ~UMASK
        assert os.stat(target).st_blocks * 512 <= 1 << 20
        assert filecmp.cmp(source, target, shallow=False)
        target.unlink()


@pytest.mark.parametrize("direction", ["upload", "download"])
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
@pytest.mark.parametrize("seek", [True, False], ids=["seek", "no-seek"])
async def test_a_copy_is_exact(
    storage: LocalStorage, world, tmp_path: Path, direction: str, size: int, seek: bool
) -> None:
    (tmp_path / "source").write_bytes(os.urandom(size))
    if not seek:
        world.refuse(os.lseek, errno.EINVAL)
    await put(storage, direction, tmp_path / "source", tmp_path / "target")
    assert filecmp.cmp(tmp_path / "source", tmp_path / "target", shallow=False)


async def test_a_file_with_nothing_but_a_hole_is_copied(storage: LocalStorage, world, tmp_path: Path) -> None:
    world.refuse(fcntl.ioctl, errno.EOPNOTSUPP)
    with (tmp_path / "source").open("wb") as file:
        file.truncate(10 << 20)
    await storage.download(f"{tmp_path}/source", tmp_path / "target")
    assert (tmp_path / "target").stat().st_size == 10 << 20
    assert (tmp_path / "target").stat().st_blocks * 512 <= 1 << 20


async def test_what_is_too_large_for_memory_is_not_read(storage: LocalStorage, world, tmp_path: Path) -> None:
    with (tmp_path / "record").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ValidationError, match=rf"{tmp_path}/record has {3 << 30} bytes, where a small file"):
        await storage.get(f"{tmp_path}/record")
    assert world.calls.count("read") == 0


async def test_what_grows_without_end_is_not_read_into_memory(
    storage: LocalStorage, world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_READ", 3000)
    (tmp_path / "record").write_bytes(b"x" * 1000)
    world.faults[os.read] = lambda fd, size: b"x" * 1000
    with pytest.raises(ValidationError, match="has 4000 bytes"):
        await storage.get(f"{tmp_path}/record")
    assert world.calls.count("read") == 4


@pytest.mark.parametrize("there", ["a directory", "a FIFO", "a socket", "a symbolic link", "a device"])
async def test_what_is_no_file_is_not_read_and_does_not_wait(
    storage: LocalStorage, tmp_path: Path, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "record"
    if not put_no_file(path, there):
        if os.geteuid():
            pytest.skip("needs root, to make a device")
        os.mknod(path, 0o20600, os.makedev(1, 5))  # /dev/zero: without an end
    with pytest.raises(ValidationError, match=f"{path} is .*, not a file: move it away"):
        await storage.get(str(path))


async def test_an_error_of_a_call_on_a_descriptor_names_the_file(storage: LocalStorage, world, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    world.refuse(os.read, errno.EIO)
    with pytest.raises(OSError, match="a'") as caught:
        await storage.get(f"{tmp_path}/a")
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, f"{tmp_path}/a")


@pytest.mark.parametrize("length", [1, 210, 255])
async def test_a_name_as_long_as_the_file_system_allows_is_usable(
    storage: LocalStorage, tmp_path: Path, length: int
) -> None:
    path = tmp_path / ("x" * length)
    await storage.put(str(path), b"1", mode=Put.CREATE)
    await storage.put(str(path), b"2", mode=Put.OVERWRITE)
    await storage.put(str(path), b"3", mode=Put.PRIVATE)
    hold = await storage.lock_file(str(path))
    assert hold
    hold.release()
    await storage.upload(path, f"{tmp_path}/u/{path.name}", owner="", multipart=False)
    await storage.delete(str(path))
    await storage.rename_directory(f"{tmp_path}/u", str(path))
    assert [entry.name for entry in await storage.list(str(path), recursive=True)] == [path.name]
    await storage.remove_tree(str(path))
    assert os.listdir(tmp_path) == []


async def test_reading_a_fifo_is_refused_and_does_not_wait(storage: LocalStorage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(ValidationError, match="is a FIFO, not a file"):
        await storage.get(f"{tmp_path}/a")


@pytest.mark.parametrize("path", ["missing", "missing/below", "file/below"])
async def test_what_is_not_there_is_reported_alike(storage: LocalStorage, tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        await storage.get(f"{tmp_path}/{path}")
    with pytest.raises(FileNotFoundError):
        await storage.download(f"{tmp_path}/{path}", tmp_path / "target")
    assert await storage.kind(f"{tmp_path}/{path}") is None
    assert await storage.list(f"{tmp_path}/{path}", recursive=True) == []
    await storage.delete(f"{tmp_path}/{path}")


async def test_nothing_is_created_without_a_parent(storage: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.put(f"{tmp_path}/missing/a", b"", mode=Put.CREATE)
    with pytest.raises(FileNotFoundError):
        await storage.put(f"{tmp_path}/missing/a", b"", mode=Put.PRIVATE)
    assert os.listdir(tmp_path) == []


async def test_a_conditional_delete_is_refused_and_a_plain_one_deletes(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(GuaranteeError, match="CONDITIONAL_DELETE"):
        await storage.delete(f"{tmp_path}/a", version="1")
    assert (tmp_path / "a").exists()
    await storage.delete(f"{tmp_path}/a")
    assert not (tmp_path / "a").exists()


async def test_a_swap_is_refused(storage: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(GuaranteeError, match="COMPARE_AND_SWAP"):
        await storage.put(f"{tmp_path}/a", b"", mode=Update("1"))
