"""The directories above a path: links in them are followed, and their names are durable before any commit."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atomicpath._core.environment import Environment
from atomicpath.abc import EntryKind, Put
from atomicpath.errors import AccessError, ValidationError
from atomicpath_local import ancestors
from atomicpath_local.statx import see
from atomicpath_local.storage import LocalStorage
from tests.support.disk import Disk

from .conftest import World


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ancestors, "_settled", {})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A link to a directory on another disk, as clusters have them."""
    (tmp_path / "scratch/runs").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "scratch/runs")
    return tmp_path / "runs"


async def write_durably(storage: LocalStorage, path: str) -> None:
    """As a durable commit does: the parent is opened before, and synced after its new name."""
    await storage.make_parents(path, durable=True)
    await storage.make_directory(f"{path}.tmp", mode=None, durable=False)
    parent = await storage.open_directory(os.path.dirname(path))
    assert parent
    await storage.put(f"{path}.tmp/file", b"data", mode=Put.PRIVATE)
    await storage.sync_tree(f"{path}.tmp")
    await storage.rename_directory(f"{path}.tmp", path)
    await parent.sync()
    parent.close()


async def test_a_parent_that_is_a_link_to_a_directory_works_everywhere(
    storage: LocalStorage, world: World, runs: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    await write_durably(storage, f"{runs}/step_1")
    await storage.sync_directory(str(runs))
    assert world.synced[-1] == str(runs.resolve())
    await write_durably(storage, f"{runs}/new/deep/step_1")
    await storage.put(f"{runs}/record", b"1", mode=Put.CREATE)
    await storage.put(f"{runs}/record", b"2", mode=Put.OVERWRITE)
    assert (await storage.get(f"{runs}/record")).data == b"2"
    await storage.upload(runs / "record", f"{runs}/a/b", owner="", multipart=False)
    await storage.download(f"{runs}/a/b", runs / "copy")
    (runs / "copies").mkdir()
    await storage.copy_files(f"{runs}/a", f"{runs}/copies", ["b"])
    assert [entry.name for entry in await storage.list(str(runs), recursive=True)] == [
        "a/b",
        "copies/b",
        "copy",
        "new/deep/step_1/file",
        "record",
        "step_1/file",
    ]
    assert "step_1" in [entry.name for entry in await storage.list(str(runs), recursive=False)]
    await storage.exchange_directories(f"{runs}/a", f"{runs}/copies")
    held = await storage.lock_file(f"{runs}/lock")
    assert held
    held.release()
    await storage.delete(f"{runs}/lock")
    assert await storage.kind(f"{runs}/step_1") == EntryKind.DIRECTORY
    await storage.remove_tree(f"{runs}/step_1")
    assert await storage.kind(f"{runs}/step_1") is None
    no_descriptor_leaks()


async def test_the_last_component_of_a_path_is_never_followed(storage: LocalStorage, runs: Path) -> None:
    (runs / "theirs").mkdir()
    (runs / "theirs/file").write_bytes(b"theirs")
    (runs / "step_1").symlink_to("theirs")
    (runs / "file").symlink_to("theirs/file")
    assert await storage.kind(f"{runs}/step_1") == EntryKind.LINK
    for attempt in (
        lambda: storage.remove_tree(f"{runs}/step_1"),
        lambda: storage.get(f"{runs}/file"),
        lambda: storage.put(f"{runs}/file", b"", mode=Put.PRIVATE),
        lambda: storage.download(f"{runs}/file", runs / "copy"),
    ):
        with pytest.raises((ValidationError, OSError)):
            await attempt()
    assert (runs / "theirs/file").read_bytes() == b"theirs"
    assert sorted(os.listdir(runs)) == ["file", "step_1", "theirs"]


async def test_a_link_to_nothing_above_a_path_is_refused_with_advice(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to("nowhere")
    with pytest.raises(ValidationError, match=f"{tmp_path}/runs is a symbolic link to 'nowhere'.*create that"):
        await storage.make_directory(f"{tmp_path}/runs/step_1", mode=None, durable=True)
    assert os.listdir(tmp_path) == ["runs"]


async def test_ancestors_that_were_made_without_a_sync_are_durable_before_a_commit_depends_on_them(
    tmp_path: Path,
) -> None:
    plain = LocalStorage(Environment())
    root = tmp_path / "disk"
    root.mkdir()
    (tmp_path / "link").symlink_to("disk/new")

    async def survives(path: str, real: Path) -> None:
        disk = Disk(root, real, lambda found: None)
        os.makedirs(real.parent)  # by another process, which syncs nothing
        try:
            await write_durably(LocalStorage(disk), path)
            found: list[object] = []
            disk.cut(judge=found.append)
            assert found == [{"file": b"data"}] * len(found)
        finally:
            disk.close()

    await survives(f"{root}/new/run/step_1", root / "new/run/step_1")
    await survives(f"{tmp_path}/link/other/step_1", root / "new/other/step_1")
    await plain.remove_tree(f"{root}/new")
    await survives(f"{root}/new/run/step_1", root / "new/run/step_1")  # made again, with inodes given again


@pytest.fixture
def later(world: World) -> None:
    """A clock by which nothing changed just now."""
    world.faults[time.time_ns] = lambda: time.time_ns() + 10**12


@pytest.mark.usefixtures("later")
async def test_a_name_that_is_known_to_be_durable_is_not_synced_again_until_it_leads_elsewhere(
    storage: LocalStorage, world: World, tmp_path: Path
) -> None:
    parent = tmp_path / "a/b"
    parent.mkdir(parents=True)

    async def synced() -> list[str]:
        world.synced.clear()
        await storage.make_parents(f"{parent}/step_1", durable=True)
        return [path for path in world.synced if path.startswith(str(tmp_path))]

    assert await synced() == [f"{tmp_path}/a", str(tmp_path)]
    assert await synced() == []
    await LocalStorage(world).make_parents(f"{parent}/step_1", durable=True)
    assert world.synced == []
    (tmp_path / "a/c").mkdir()  # another's name in there, as in a busy /tmp
    assert await synced() == []
    parent.rmdir()
    parent.mkdir()
    assert await synced() == [f"{tmp_path}/a"]
    assert await synced() == []
    parent.rename(tmp_path / "a/d")
    (tmp_path / "a/c").rename(parent)
    assert await synced() == [f"{tmp_path}/a"]


@pytest.mark.usefixtures("later")
async def test_an_inode_that_was_given_again_is_not_taken_for_the_directory_that_had_it(
    storage: LocalStorage, world: World, tmp_path: Path
) -> None:
    """XFS gives the number of a deleted directory to the next one, ext4 after a while."""
    parent = tmp_path / "a"
    parent.mkdir()
    first = see(str(parent))
    assert first.birth is not None, "the test needs a file system that tells when a directory was made"
    world.faults[see] = lambda path: see(path)._replace(number=first.number) if path == str(parent) else see(path)
    await storage.make_parents(f"{parent}/step_1", durable=True)
    world.synced.clear()
    await storage.make_parents(f"{parent}/step_1", durable=True)
    assert world.synced == []
    parent.rmdir()
    parent.mkdir()
    await storage.make_parents(f"{parent}/step_1", durable=True)
    assert world.synced == [str(tmp_path)]


@pytest.fixture
def without_birth(world: World) -> None:
    """A file system that does not tell when a directory was made."""
    world.faults[see] = lambda path: see(path)._replace(birth=None)


@pytest.mark.usefixtures("later", "without_birth")
async def test_where_the_moment_of_birth_is_not_told_a_directory_that_changes_is_synced_again(
    storage: LocalStorage, world: World, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()

    async def synced() -> list[str]:
        world.synced.clear()
        await storage.make_parents(f"{tmp_path}/a/step_1", durable=True)
        return [path for path in world.synced if path == str(tmp_path)]

    assert await synced() == [str(tmp_path)]
    assert await synced() == []
    (tmp_path / "c").mkdir()
    assert await synced() == [str(tmp_path)]


@pytest.mark.usefixtures("without_birth")
async def test_a_directory_that_changed_just_now_is_synced_again(
    storage: LocalStorage, world: World, tmp_path: Path
) -> None:
    world.faults[time.time_ns] = lambda: os.stat(tmp_path).st_ctime_ns
    (tmp_path / "a").mkdir()
    for _ in range(2):
        world.synced.clear()
        await storage.make_parents(f"{tmp_path}/a/step_1", durable=True)
        assert str(tmp_path) in world.synced


@pytest.mark.usefixtures("later")
async def test_above_a_directory_where_this_process_may_not_write_nothing_is_synced(
    storage: LocalStorage, world: World, tmp_path: Path
) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    world.faults[os.access] = lambda path, mode: path not in (f"{tmp_path}/a", "/")
    await storage.make_parents(f"{tmp_path}/a/b/c/step_1", durable=True)
    assert world.synced == [f"{tmp_path}/a/b"]


async def test_nothing_is_synced_beyond_a_mount_point(
    storage: LocalStorage, world: World, mount: Callable[..., Path]
) -> None:
    point = mount("-t", "tmpfs", "tmpfs")
    (point / "a").mkdir()
    await storage.make_parents(f"{point}/a/step_1", durable=True)
    assert world.synced == [str(point)]


async def test_an_ancestor_that_cannot_be_synced_is_told_before_anything_happens(
    storage: LocalStorage, world: World, tmp_path: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    (tmp_path / "a").mkdir()
    world.refuse(os.fsync, errno.EIO)
    with pytest.raises(OSError, match="sync failed") as caught:
        await storage.make_parents(f"{tmp_path}/a/step_1", durable=True)
    assert caught.value.filename == str(tmp_path)
    no_descriptor_leaks()


@pytest.fixture
def unreadable(tmp_path: Path) -> Iterator[Path]:
    """A directory that others may write to and not list, seen as another user."""
    if os.geteuid():
        pytest.skip("needs root, to become another user")
    path = tmp_path / "dropbox"
    path.mkdir()
    path.chmod(0o733)
    for above in (tmp_path, *tmp_path.parents):
        if not os.stat(above).st_mode & 0o001:
            os.chmod(above, os.stat(above).st_mode | 0o011)
    os.seteuid(65534)
    try:
        yield path
    finally:
        os.seteuid(0)


async def test_a_parent_that_may_not_be_read_is_told_when_it_is_opened(storage: LocalStorage, unreadable: Path) -> None:
    with pytest.raises(AccessError, match=f"{unreadable}: .*needs permission to read it.*durable=False"):
        await storage.open_directory(str(unreadable))
