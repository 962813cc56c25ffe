"""Whole directories: listing, syncing, deleting."""

import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from atomicpath.abc import Entry, EntryKind, Put
from atomicpath.errors import GuaranteeError, ValidationError
from atomicpath_local.storage import LocalStorage

from .conftest import World


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("b", "a/x", "a/y/deep", "a-b", "c/z"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    (root / "empty").mkdir()
    return root


@pytest.fixture
async def abyss(storage: LocalStorage, tmp_path: Path) -> AsyncIterator[Path]:
    """10,000 directories one in the other."""
    root = tmp_path / "abyss"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(10_000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    yield root
    await storage.remove_tree(str(root))  # pytest's own clean-up is recursive


async def test_a_recursive_listing_has_every_file_in_order_with_its_size(storage: LocalStorage, tree: Path) -> None:
    assert await storage.list(str(tree), recursive=True) == [
        Entry(name=name, size=len(name)) for name in ("a-b", "a/x", "a/y/deep", "b", "c/z")
    ]


async def test_a_flat_listing_has_the_children_directories_included(storage: LocalStorage, tree: Path) -> None:
    found = await storage.list(str(tree), recursive=False)
    assert [(entry.name, entry.kind) for entry in found] == [
        ("a", EntryKind.DIRECTORY),
        ("a-b", EntryKind.FILE),
        ("b", EntryKind.FILE),
        ("c", EntryKind.DIRECTORY),
        ("empty", EntryKind.DIRECTORY),
    ]


@pytest.mark.parametrize("recursive", [True, False])
async def test_what_is_neither_file_nor_directory_is_named_and_no_link_is_followed(
    storage: LocalStorage, tmp_path: Path, tree: Path, recursive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    monkeypatch.chdir(root)  # the name of a socket has at most 107 bytes
    os.mkfifo("fifo")
    os.symlink(tree, "link")
    os.symlink("nowhere", "dangling")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket")
    listener.close()
    kinds = {"dangling": EntryKind.LINK, "fifo": EntryKind.FIFO, "link": EntryKind.LINK, "socket": EntryKind.SOCKET}
    if os.geteuid() == 0:
        os.mknod("device", 0o20600, os.makedev(1, 3))
        kinds["device"] = EntryKind.DEVICE
    found = await storage.list(str(root), recursive=recursive)
    assert {entry.name: entry.kind for entry in found} == kinds
    for name, kind in kinds.items():
        assert await storage.kind(f"{root}/{name}") == kind


async def test_a_file_deleted_while_listing_is_left_out(storage: LocalStorage, world, tree: Path) -> None:
    from atomicpath_local.trees import _lstat

    def vanishing(item: "os.DirEntry[str]") -> os.stat_result:
        if item.name == "b":
            os.unlink(item.path)
        return _lstat(item)

    world.faults[_lstat] = vanishing
    assert [entry.name for entry in await storage.list(str(tree), recursive=True)] == ["a-b", "a/x", "a/y/deep", "c/z"]


@pytest.mark.parametrize("files", [3, 100])
async def test_files_are_synced_before_directories_and_children_before_parents(
    storage: LocalStorage, world, tree: Path, files: int
) -> None:
    """nested-subdir-not-synced, staging-dirent-lost."""
    for number in range(files):
        (tree / f"a/y/{number}").write_bytes(b"")
    await storage.sync_tree(str(tree))
    expected_files = {os.path.join(top, name) for top, _, names in os.walk(tree) for name in names}
    expected_directories = {top for top, _, _ in os.walk(tree)}
    split = len(expected_files)
    assert set(world.synced[:split]) == expected_files
    assert set(world.synced[split:]) == expected_directories
    assert len(world.synced) == len(expected_files) + len(expected_directories)
    directories = world.synced[split:]
    for directory in directories[:-1]:
        assert directories.index(directory) < directories.index(os.path.dirname(directory))
    assert directories[-1] == str(tree)


async def test_the_parent_of_a_target_is_synced_by_itself(storage: LocalStorage, world, tree: Path) -> None:
    await storage.sync_directory(str(tree.parent))
    assert world.synced == [str(tree.parent)]


@pytest.mark.parametrize("files", [3, 100])
@pytest.mark.parametrize("name", ["a/y/deep", "a/y", ""])
async def test_a_failing_sync_is_raised_and_never_tried_again(
    storage: LocalStorage,
    world,
    tree: Path,
    files: int,
    name: str,
    no_descriptor_leaks: Callable[[], None],
) -> None:
    """fsync-retry-lies."""
    for number in range(files):
        (tree / f"b{number}").write_bytes(b"")
    bad = str(tree / name)

    def failing(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == bad:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(fd)

    world.faults[os.fsync] = failing
    with pytest.raises(OSError, match="write it all again") as caught:
        await storage.sync_tree(str(tree))
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, bad)
    assert world.synced.count(bad) == 1
    assert str(tree) not in world.synced or bad == str(tree)
    no_descriptor_leaks()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
async def test_fsync_unsupported_backend(storage: LocalStorage, world, tree: Path, code: int) -> None:
    world.refuse(os.fsync, code)
    with pytest.raises(GuaranteeError, match=r"SYNC.*durable=False") as caught:
        await storage.sync_tree(str(tree))
    assert isinstance(caught.value, OSError)
    with pytest.raises(GuaranteeError, match=r"SYNC.*durable=False"):
        await storage.sync_directory(str(tree))


async def test_emfile_during_dir_sync(
    storage: LocalStorage, world, tree: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    def failing(path: str, flags: int, mode: int, *, dir_fd: int | None) -> int:
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, "Too many open files")
        return os.open(path, flags, mode, dir_fd=dir_fd)

    world.faults[os.open] = failing
    with pytest.raises(OSError) as caught:
        await storage.sync_tree(str(tree))
    assert caught.value.errno == errno.EMFILE
    no_descriptor_leaks()


@pytest.mark.parametrize("what", ["a symbolic link", "a FIFO"])
async def test_what_cannot_be_synced_is_refused_by_name_before_anything_is(
    storage: LocalStorage, world, tree: Path, what: str
) -> None:
    odd = tree / "a/y/odd"
    if what == "a FIFO":
        os.mkfifo(odd)
    else:
        odd.symlink_to("deep")
    with pytest.raises(ValidationError, match=f"{odd} is {what}"):
        await storage.sync_tree(str(tree))
    assert world.synced == []


async def test_syncing_what_is_not_there_is_an_error(storage: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.sync_tree(f"{tmp_path}/missing")


@pytest.mark.parametrize("anyio_backend", ["asyncio", pytest.param("trio", marks=pytest.mark.full)], indirect=True)
async def test_a_tree_too_deep_to_name_is_refused_with_advice_and_can_be_removed(
    storage: LocalStorage, world, abyss: Path
) -> None:
    with pytest.raises(ValidationError, match="nest less deeply"):
        await storage.list(str(abyss), recursive=True)
    with pytest.raises(ValidationError, match="nest less deeply"):
        await storage.sync_tree(str(abyss))
    assert world.synced == []
    await storage.remove_tree(str(abyss))
    assert abyss.name not in os.listdir(abyss.parent)


async def test_a_tree_is_removed_and_what_its_links_name_is_not(
    storage: LocalStorage, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").write_bytes(b"")
    (tree / "a/link").symlink_to(tmp_path / "theirs")
    (tree / "a/file link").symlink_to(tmp_path / "theirs/file")
    os.mkfifo(tree / "a/fifo")
    await storage.remove_tree(str(tree))
    assert os.listdir(tmp_path) == ["theirs"]
    assert os.listdir(tmp_path / "theirs") == ["file"]
    await storage.remove_tree(str(tree))


async def test_a_link_is_not_removed_as_a_tree(storage: LocalStorage, tree: Path) -> None:
    link = tree.with_name("link")
    link.symlink_to(tree)
    with pytest.raises(ValidationError):
        await storage.remove_tree(str(link))
    assert len(os.listdir(tree)) == 5


async def test_a_directory_exchanged_for_a_link_while_removing_is_not_followed(
    storage: LocalStorage, world, tree: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_bytes(b"")

    def exchanging(path: str, flags: int, *args: object, dir_fd: int | None = None) -> int:
        if path == "y":
            os.rename(tree / "a/y", tmp_path / "moved")
            os.symlink(theirs, tree / "a/y")
        return os.open(path, flags, dir_fd=dir_fd)

    world.faults[os.open] = exchanging
    with pytest.raises(ValidationError):
        await storage.remove_tree(str(tree))
    assert os.listdir(theirs) == ["file"]


async def test_a_directory_moved_away_while_removing_does_not_take_its_new_parent_with_it(
    storage: LocalStorage, world, tree: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "y").mkdir(parents=True)

    def moving(path: str, flags: int, *args: object, dir_fd: int | None = None) -> int:
        if path == "..":
            os.rename(tree / "a/y", theirs / "moved")
            del world.faults[os.open]
        return os.open(path, flags, dir_fd=dir_fd)

    for name in ("c", "empty"):
        os.rename(tree / name, tmp_path / name)
    world.faults[os.open] = moving
    with pytest.raises(OSError, match="moved while it was being deleted"):
        await storage.remove_tree(str(tree))
    assert sorted(os.listdir(theirs)) == ["moved", "y"]


@pytest.mark.parametrize(
    "method",
    ["read", "create", "write", "private", "upload", "download", "list", "make", "rename", "sync", "remove", "delete"],
)
async def test_any_failing_call_is_an_error_and_leaves_no_descriptor_open(
    storage: LocalStorage, world, tmp_path: Path, method: str, no_descriptor_leaks: Callable[[], None]
) -> None:
    """Two are not: a close while deleting loses nothing, and without a look at /proc only the age is not known."""

    async def run(root: Path) -> None:
        if method == "read":
            await storage.get(f"{root}/a/f")
        elif method in ("create", "write"):
            await storage.put(f"{root}/a/new", b"data", mode=Put.CREATE if method == "create" else Put.OVERWRITE)
        elif method == "private":
            await storage.put(f"{root}/a/new", b"data", mode=Put.PRIVATE)
        elif method == "upload":
            await storage.upload(root / "a/f", f"{root}/b/c/new", owner="", multipart=False)
        elif method == "download":
            await storage.download(f"{root}/a/f", root / "new")
        elif method == "list":
            await storage.list(str(root), recursive=True)
        elif method == "make":
            await storage.make_directory(f"{root}/b/c/new", mode=0o700, durable=True)
        elif method == "rename":
            await storage.rename_directory(f"{root}/a", f"{root}/b")
        elif method == "sync":
            await storage.sync_tree(str(root))
        elif method == "remove":
            await storage.remove_tree(str(root))
        else:
            await storage.delete(f"{root}/a/f")

    world.error = OSError(errno.EIO, "injected")
    for number in range(200):
        root = tmp_path / str(number)
        (root / "a").mkdir(parents=True)
        (root / "a/f").write_bytes(b"data")
        world.calls.clear()
        world.fail_at = number
        failure = None
        try:
            await run(root)
        except OSError as error:
            failure = error
        world.fail_at = None
        if failure:
            assert failure.errno == errno.EIO
            assert not [
                name
                for _, _, names in os.walk(root)
                for name in names
                if "atomicpath" in name and world.calls[number] != "unlink"
            ]
            assert method != "make" or not (root / "b/c/new").exists()
        else:
            if len(world.calls) <= number or method == "make":
                break
            assert (method, world.calls[number]) in (("remove", "close"), ("read", "read_proc"), ("read", "see"))
        no_descriptor_leaks()
    else:
        pytest.fail("it never succeeded")
    assert number


async def test_the_mount_table_is_read_only_where_something_may_be_mounted(
    storage: LocalStorage, world: World, tmp_path: Path, mount: Callable[..., Path]
) -> None:
    """A busy host has thousands of mounts, and a commit lists its directory three times."""
    point = mount("-t", "tmpfs", "tmpfs")
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/file").write_bytes(b"data")
    await storage.list(str(tree), recursive=True)
    await storage.sync_tree(str(tree))
    assert "read_proc" not in world.calls
    found = await storage.list(str(tmp_path), recursive=True)
    assert Entry(name=point.name, kind=EntryKind.MOUNT_POINT) in found
    assert world.calls.count("read_proc") == 1
