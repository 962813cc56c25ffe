"""Nothing is deleted, synced or listed across a mount, bind mounts of the same device included."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

import atomicpath
from atomicpath._core import environment
from atomicpath.abc import Entry
from atomicpath.errors import AccessError, ValidationError
from atomicpath_local.storage import LocalStorage
from atomicpath_local.trees import _scan_open

from .conftest import World

P = ParamSpec("P")
T = TypeVar("T")
KINDS = ["tmpfs", "bind", "bind of a file"]


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A data set of somebody else."""
    path = tmp_path / "precious"
    path.mkdir()
    (path / "data").write_bytes(b"theirs")
    return path


@pytest.fixture
def mount_at(mount: Callable[..., Path], precious: Path) -> Iterator[Callable[[Path, str], None]]:
    """Mount a data set at a path."""
    mount("-t", "tmpfs", "tmpfs")  # which skips where nothing can be mounted
    points: list[Path] = []

    def make(point: Path, kind: str) -> None:
        if kind == "bind of a file":
            point.write_bytes(b"")
            arguments = ["--bind", str(precious / "data")]
        else:
            point.mkdir()
            arguments = ["-t", "tmpfs", "tmpfs"] if kind == "tmpfs" else ["--bind", str(precious)]
        subprocess.run(["mount", *arguments, str(point)], check=True)
        points.append(point)
        if kind == "tmpfs":
            (point / "data").write_bytes(b"theirs")

    yield make
    for point in points:
        subprocess.run(["umount", "-l", str(point)], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "real/attempt"
    (root / "a/b").mkdir(parents=True)
    (root / "0").write_bytes(b"first")
    (root / "a/b/file").write_bytes(b"ours")
    (tmp_path / "link").symlink_to("real")
    return root


def files(path: Path) -> list[str]:
    return sorted(os.path.join(top, name) for top, _, names in os.walk(path) for name in names)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", ["", "mounted here", "a/b/deep"])
@pytest.mark.parametrize("through", ["real", "link"])
async def test_a_tree_with_a_mount_in_it_is_not_deleted_at_all(
    storage: LocalStorage,
    mount_at: Callable[[Path, str], None],
    precious: Path,
    tree: Path,
    kind: str,
    at: str,
    through: str,
    no_descriptor_leaks: Callable[[], None],
) -> None:
    path = tree.parents[1] / through / "attempt"
    if not at:
        if kind == "bind of a file":
            pytest.skip("a directory is wanted here")
        tree.rename(tree.with_name("elsewhere"))
    mount_at(tree / at if at else tree, kind)
    before = files(tree)
    with pytest.raises(OSError, match="umount it") as caught:
        await storage.remove_tree(str(path))
    assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, f"{path}/{at}".rstrip("/"))
    assert files(tree) == before
    assert (precious / "data").read_bytes() == b"theirs"
    no_descriptor_leaks()


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
async def test_what_is_mounted_while_a_tree_is_deleted_is_not_emptied(
    storage: LocalStorage, world: World, mount_at: Callable[[Path, str], None], precious: Path, tree: Path, kind: str
) -> None:
    point = tree / "a/deep"

    def late(fd: int) -> "list[os.DirEntry[str]]":
        if not point.exists() and os.readlink(f"/proc/self/fd/{fd}") == str(tree / "a"):
            mount_at(point, kind)
        return _scan_open(fd)

    world.faults[_scan_open] = late
    with pytest.raises(OSError, match="umount it") as caught:
        await storage.remove_tree(str(tree))
    assert caught.value.filename == str(point)
    assert (point / "data").read_bytes() == b"theirs"
    if kind == "bind":
        assert (precious / "data").read_bytes() == b"theirs"


async def test_a_mount_beside_a_tree_does_not_matter(
    storage: LocalStorage, mount_at: Callable[[Path, str], None], tree: Path
) -> None:
    mount_at(tree.with_name("attempt2"), "tmpfs")
    await storage.remove_tree(str(tree))
    assert not tree.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through", ["real", "link"])
async def test_a_mount_is_listed_as_what_it_is_and_not_looked_into(
    storage: LocalStorage, mount_at: Callable[[Path, str], None], tree: Path, kind: str, through: str
) -> None:
    mount_at(tree / "a/data set", kind)
    assert await storage.list(str(tree.parents[1] / through / "attempt"), recursive=True) == [
        Entry(name="0", size=5),
        Entry(name="a/b/file", size=4),
        Entry(name="a/data set", kind="a mount point"),
    ]


async def test_what_is_mounted_at_the_directory_listed_itself_is_listed(
    storage: LocalStorage, mount_at: Callable[[Path, str], None], tmp_path: Path
) -> None:
    mount_at(tmp_path / "root", "bind")
    assert await storage.list(f"{tmp_path}/root", recursive=True) == [Entry(name="data", size=6)]
    await storage.sync_tree(f"{tmp_path}/root")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_tree_with_a_mount_in_it_is_not_published(
    storage: LocalStorage, world: World, mount_at: Callable[[Path, str], None], tree: Path, kind: str
) -> None:
    mount_at(tree / "a/data set", kind)
    with pytest.raises(ValidationError, match=f"{tree}/a/data set is a mount point"):
        await storage.sync_tree(str(tree))
    assert world.synced == []


@pytest.mark.parametrize("function", [os.unlink, os.rmdir])
async def test_what_cannot_be_deleted_is_named_in_full(
    storage: LocalStorage, world: World, tree: Path, function: Callable[..., None]
) -> None:
    def refused(path: str, *, dir_fd: int | None = None) -> None:
        if path == ("file" if function is os.unlink else "b"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        function(path, dir_fd=dir_fd)

    world.faults[function] = refused
    named = f"{tree}/a/b/file" if function is os.unlink else f"{tree}/a/b"
    with pytest.raises(AccessError, match=f"{named}: Permission denied"):
        await storage.remove_tree(str(tree))


def test_an_attempt_with_a_mount_in_it_keeps_its_name_when_it_is_given_up(
    mount_at: Callable[[Path, str], None], precious: Path, tmp_path: Path
) -> None:
    """It is seen before the directory is moved to a name by which its user does not know it."""
    with pytest.raises(ZeroDivisionError), atomicpath.commit(tmp_path / "runs/step_1") as path:
        (path / "file").write_bytes(b"ours")
        mount_at(path / "data set", "bind")
        raise ZeroDivisionError
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.json"]
    assert (precious / "data").read_bytes() == b"theirs"


def test_a_sweep_leaves_what_has_a_mount_in_it_under_its_name(
    mount_at: Callable[[Path, str], None], tmp_path: Path
) -> None:
    attempt = tmp_path / "runs/.atomicpath/step_1.atomicpath-tmp-0123456789abcdef0123"
    attempt.mkdir(parents=True)
    (attempt / "file").write_bytes(b"ours")
    mount_at(attempt / "data set", "bind")
    with environment.use(Later()):
        (swept,) = atomicpath.sweep(tmp_path / "runs", older_than=timedelta(0))
    assert not swept.done
    assert "something is mounted there" in f"{swept.why} {swept.error}"
    assert os.listdir(attempt.parent) == [attempt.name]
    assert (attempt / "file").read_bytes() == b"ours"


class Later(environment.Environment):
    """Long after what was left behind."""

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        found = super().call(function, *args, **kwargs)
        return found + 10**15 if function is time.time_ns else found  # type: ignore[operator,return-value]
