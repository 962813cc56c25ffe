"""The rename that never replaces, merges or copies."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath_local.rename import exchange, no_replace
from atomicpath_local.storage import LocalStorage

from .conftest import World

NFS = "1 0 0:1 / / rw - ext4 /dev/root rw\n2 1 0:2 / {} rw - nfs4 server:/export rw\n"
FUSE = "1 0 0:1 / / rw - ext4 /dev/root rw\n2 1 0:2 / {} rw - fuse.sshfs server: rw\n"

RACE = """
import errno, os, sys, anyio
from atomicpath._core.environment import Environment, in_this_thread
from atomicpath_local import LocalBackend
from atomicpath_local.lookup import read_proc
from atomicpath_local.rename import no_replace

class Nfs(Environment):
    def call(self, function, /, *args, **kwargs):
        if function is no_replace:
            raise OSError(errno.EINVAL, "no such flag")
        if function is read_proc:
            return "1 0 0:1 / / rw - nfs server:/ rw" if args[0].endswith("mountinfo") else ""
        return function(*args, **kwargs)

async def main(root, me, world):
    storage = LocalBackend().open({}, world)
    for number in range(40):
        os.mkdir(f"{root}/{me}.{number}")
        os.mkdir(f"{root}/{me}.{number}/{me}")
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(40):
        try:
            await storage.rename_directory(f"{root}/{me}.{number}", f"{root}/{number}")
        except FileExistsError:
            continue
        print(number, flush=True)

with in_this_thread():
    anyio.run(main, sys.argv[1], sys.argv[2], Nfs() if sys.argv[3] == "nfs" else Environment())
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with one file in it, and beside it the place for the target."""
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "data").write_bytes(b"data")
    return directory


def put(path: Path, what: str) -> None:
    if what == "an empty directory":
        path.mkdir()
    elif what == "a directory":
        path.mkdir()
        (path / "theirs").write_bytes(b"theirs")
    elif what == "a file":
        path.write_bytes(b"theirs")
    elif what == "a dangling link":
        path.symlink_to(path.with_name("nowhere"))
    else:
        path.with_name("elsewhere").mkdir()
        path.symlink_to(path.with_name("elsewhere"))


def unmoved(source: Path) -> bool:
    return os.listdir(source) == ["data"]


EVERYTHING = ["an empty directory", "a directory", "a file", "a dangling link", "a link to an empty directory"]


async def test_a_directory_is_renamed(storage: LocalStorage, source: Path, tmp_path: Path) -> None:
    await storage.rename_directory(str(source), f"{tmp_path}/target")
    assert os.listdir(tmp_path) == ["target"]
    assert (tmp_path / "target/data").read_bytes() == b"data"


@pytest.mark.parametrize("what", EVERYTHING)
@pytest.mark.parametrize("nfs", [False, True], ids=["flag", "nfs"])
async def test_nothing_at_the_target_is_replaced(
    storage: LocalStorage, world, source: Path, tmp_path: Path, what: str, nfs: bool
) -> None:
    """empty-dir-target-silently-replaced, target-is-symlink-or-mountpoint, rename-nests-inside-existing-final."""
    if nfs:
        world.refuse(no_replace, errno.EINVAL)
        world.mount(NFS.format(tmp_path))
    target = tmp_path / "target"
    put(target, what)
    before = os.lstat(target).st_ino
    with pytest.raises(FileExistsError):
        await storage.rename_directory(str(source), str(target))
    assert unmoved(source)
    assert os.lstat(target).st_ino == before
    assert (
        target.is_symlink() or target.is_file() or os.listdir(target) == (["theirs"] if what == "a directory" else [])
    )


@pytest.mark.parametrize("world_name", ["flag", "nfs"])
def test_of_eight_racing_renames_exactly_one_wins(
    python: Callable[..., subprocess.Popen[str]], tmp_path: Path, world_name: str
) -> None:
    rivals = [python(RACE, str(tmp_path), f"r{number}", world_name) for number in range(8)]
    for rival in rivals:
        assert rival.stdout
        assert rival.stdout.readline() == "ready\n"
    for rival in rivals:
        assert rival.stdin
        rival.stdin.write("\n")
        rival.stdin.flush()
    wins = {f"r{number}": rival.communicate()[0].split() for number, rival in enumerate(rivals)}
    assert sorted((name for won in wins.values() for name in won), key=int) == [str(number) for number in range(40)]
    for winner, won in wins.items():
        for name in won:
            assert os.listdir(tmp_path / name) == [winner]


@pytest.mark.parametrize("code", [errno.EEXIST, errno.ENOTEMPTY])
async def test_eexist_vs_enotempty(storage: LocalStorage, world, source: Path, tmp_path: Path, code: int) -> None:
    world.refuse(no_replace, code)
    with pytest.raises(FileExistsError):
        await storage.rename_directory(str(source), f"{tmp_path}/target")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
async def test_renameat2_unsupported_fallback_race(
    storage: LocalStorage, world, source: Path, tmp_path: Path, code: int
) -> None:
    """Whatever the mount: what takes the place of the flag is an exclusive mkdir, and no race can be lost by it."""
    world.refuse(no_replace, code)
    world.mount(FUSE.format(tmp_path))
    await storage.rename_directory(str(source), f"{tmp_path}/target")
    assert os.listdir(tmp_path / "target") == ["data"]
    assert [call for call in world.calls if call in ("mkdir", "rename")] == ["mkdir", "rename"]
    assert not {"listdir", "lstat", "stat"} & set(world.calls)


@pytest.mark.parametrize("code", [errno.EEXIST, errno.ENOTEMPTY, errno.EINVAL, errno.ENOSYS])
async def test_a_mount_that_renames_over_no_directory_at_all_lacks_the_guarantee(
    storage: LocalStorage, world, source: Path, tmp_path: Path, code: int
) -> None:
    """That nobody else was there is shown by the empty directory, which can still be removed."""
    world.refuse(no_replace, errno.EINVAL)
    world.refuse(os.rename, code)
    world.mount(FUSE.format(tmp_path))
    with pytest.raises(GuaranteeError, match=r"fuse\.sshfs.*RENAME_NOREPLACE") as caught:
        await storage.rename_directory(str(source), f"{tmp_path}/target")
    assert str(tmp_path) in str(caught.value)
    assert os.listdir(tmp_path) == ["source"]
    assert unmoved(source)


async def test_copy_fallback_loses_atomicity(storage: LocalStorage, source: Path, mount: Callable[..., Path]) -> None:
    """Across mounts it is an error, and nothing was copied."""
    other = mount("-t", "tmpfs", "tmpfs")
    with pytest.raises(OSError, match="nothing was renamed or copied") as caught:
        await storage.rename_directory(str(source), f"{other}/target")
    assert caught.value.errno == errno.EXDEV
    assert os.listdir(other) == []
    assert unmoved(source)


async def test_exdev_with_equal_st_dev(storage: LocalStorage, source: Path, mount: Callable[..., Path]) -> None:
    same = mount("--bind", str(source.parent))
    assert os.stat(same).st_dev == os.stat(source).st_dev
    with pytest.raises(OSError, match="nothing was renamed or copied") as caught:
        await storage.rename_directory(str(source), f"{same}/target")
    assert caught.value.errno == errno.EXDEV
    assert unmoved(source)


async def test_overlay_lower_layer_exdev(storage: LocalStorage, mount: Callable[..., Path], tmp_path: Path) -> None:
    disk = mount("-t", "tmpfs", "tmpfs")
    for name in ("lower/theirs", "upper", "work"):
        (disk / name).mkdir(parents=True)
    layers = f"lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work,redirect_dir=off"
    merged = mount("-t", "overlay", "-o", layers, "overlay")
    with pytest.raises(OSError, match="overlay layers") as caught:
        await storage.rename_directory(f"{merged}/theirs", f"{merged}/target")
    assert caught.value.errno == errno.EXDEV
    (merged / "ours").mkdir()
    await storage.rename_directory(f"{merged}/ours", f"{merged}/target")
    assert sorted(os.listdir(merged)) == ["target", "theirs"]


async def test_a_mount_point_is_not_renamed(storage: LocalStorage, mount: Callable[..., Path], tmp_path: Path) -> None:
    point = mount("-t", "tmpfs", "tmpfs")
    with pytest.raises(OSError, match="mount point") as caught:
        await storage.rename_directory(str(point), f"{tmp_path}/target")
    assert caught.value.errno == errno.EBUSY


async def test_a_missing_source_is_file_not_found(storage: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.rename_directory(f"{tmp_path}/missing", f"{tmp_path}/target")


async def test_a_target_below_a_file_is_refused_with_advice(
    storage: LocalStorage, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValidationError, match="part of this path is a file"):
        await storage.rename_directory(str(source), f"{tmp_path}/file/target")


@pytest.fixture
def on_nfs(world, tmp_path: Path) -> None:
    world.refuse(no_replace, errno.EINVAL)
    world.mount(NFS.format(tmp_path))


@pytest.mark.usefixtures("on_nfs")
async def test_on_nfs_the_rename_goes_over_a_directory_of_our_own(
    storage: LocalStorage, world, source: Path, tmp_path: Path
) -> None:
    await storage.rename_directory(str(source), f"{tmp_path}/target")
    assert os.listdir(tmp_path) == ["target"]
    assert (tmp_path / "target/data").read_bytes() == b"data"
    assert [call for call in world.calls if call in ("mkdir", "rename")] == ["mkdir", "rename"]


@pytest.mark.usefixtures("on_nfs")
@pytest.mark.parametrize("code", [errno.EACCES, errno.EDQUOT, errno.ENOENT])
async def test_on_nfs_a_definite_failure_takes_the_empty_directory_away(
    storage: LocalStorage, world, source: Path, tmp_path: Path, code: int
) -> None:
    world.refuse(os.rename, code)
    with pytest.raises(OSError) as caught:
        await storage.rename_directory(str(source), f"{tmp_path}/target")
    assert caught.value.errno == code
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.usefixtures("on_nfs")
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
async def test_on_nfs_an_unknown_failure_touches_nothing(
    storage: LocalStorage, world, source: Path, tmp_path: Path, code: int
) -> None:
    world.refuse(os.rename, code)
    with pytest.raises(OSError) as caught:
        await storage.rename_directory(str(source), f"{tmp_path}/target")
    assert caught.value.errno == code
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


@pytest.mark.usefixtures("on_nfs")
async def test_nfs_retransmitted_rename_enoent(storage: LocalStorage, world, source: Path, tmp_path: Path) -> None:
    """The server renamed, and denied it to the second copy of the request: that is unknown, not "not there"."""

    def renamed_and_denied(old: str, new: str) -> None:
        os.rename(old, new)
        os.rename(old, new)

    world.faults[os.rename] = renamed_and_denied
    with pytest.raises(OSError, match="may have been renamed") as caught:
        await storage.rename_directory(str(source), f"{tmp_path}/target")
    assert not isinstance(caught.value, FileNotFoundError)
    assert os.listdir(tmp_path / "target") == ["data"]


@pytest.mark.usefixtures("on_nfs")
async def test_on_nfs_a_file_put_into_the_empty_directory_wins(
    storage: LocalStorage, world, source: Path, tmp_path: Path
) -> None:
    def disturbed(path: str) -> None:
        os.mkdir(path)
        put(Path(path) / "theirs", "a file")

    world.faults[os.mkdir] = disturbed
    with pytest.raises(FileExistsError):
        await storage.rename_directory(str(source), f"{tmp_path}/target")
    assert os.listdir(tmp_path / "target") == ["theirs"]
    assert unmoved(source)


async def test_two_directories_swap_their_names(storage: LocalStorage, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_bytes(b"old")
    await storage.exchange_directories(str(source), str(target))
    assert [path.name for path in target.iterdir()] == ["data"]
    assert [path.name for path in source.iterdir()] == ["old"]


async def test_an_exchange_with_nothing_changes_nothing(storage: LocalStorage, source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.exchange_directories(str(source), str(tmp_path / "missing"))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


async def test_where_the_file_system_cannot_exchange_the_error_names_the_guarantee(
    storage: LocalStorage, world: World, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    world.refuse(exchange, errno.EINVAL)
    with pytest.raises(GuaranteeError, match="RENAME_EXCHANGE"):
        await storage.exchange_directories(str(source), str(tmp_path / "target"))
