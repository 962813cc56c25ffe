"""What survives a power cut at any moment, and what a commit does when a sync or a write fails."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio
import pytest

import atomicpath
from atomicpath._core import environment
from atomicpath._core.environment import Environment
from atomicpath._core.layout import housekeeping_of, temporary_of
from atomicpath._core.record import CommitRecord, State, token_in_marker
from atomicpath._profile.location import locate
from atomicpath_local.rename import no_replace
from tests.support.disk import Disk
from tests.support.processes import content_of, write_tree

P = ParamSpec("P")
T = TypeVar("T")
CONTENT = content_of("the job")
RECORD, MARKER = "_commit_record.json", "commit_success.txt"


class TornError(Exception):
    """Something is at the final path, or is not, that may not be so."""


def whole_or_absent(found: dict[str, bytes] | None) -> None:
    if found is not None:
        whole(found)


def whole_if_committed(found: dict[str, bytes] | None) -> None:
    """For the commit-file protocol, which writes in place: whatever a reader would take for committed is whole."""
    if found is None or not found.get(RECORD) or MARKER not in found:
        return
    record = CommitRecord.decode(found[RECORD], where="the disk")
    if record.state is State.COMMITTED and token_in_marker(found[MARKER]) == record.token:
        # a file of ours that was to be the marker may still have its first name, which counts for nothing
        whole({name: data for name, data in found.items() if not name.startswith(".atomicpath-tmp-")})


def whole(found: dict[str, bytes] | None) -> None:
    if found is None:
        raise TornError("what was committed has vanished")
    if {name: data for name, data in found.items() if name not in (RECORD, MARKER)} != CONTENT:
        raise TornError(f"files are lost or torn: {[(name, len(data)) for name, data in found.items()]}")
    try:
        record = CommitRecord.decode(found.get(RECORD, b""), where="the disk")
    except atomicpath.IntegrityError as error:
        raise TornError(str(error)) from error
    if record.state is not State.COMMITTED:
        raise TornError(f"the record says {record.state}")
    if record.strategy == "atomic_rename":
        if MARKER in found:
            raise TornError("a marker is there that nobody asked for")
    elif token_in_marker(found.get(MARKER, b"")) != record.token:
        raise TornError("the marker is lost or torn")


Make = Callable[[Path, Path, Callable[[dict[str, bytes] | None], None]], Disk]


def commit_with_cuts(make: Make, root: Path, *, strategy: type[atomicpath.TemporaryPath] | None = None) -> Disk:
    """Commit below two new ancestors on a disk that may lose power at any call; TornError if that ever shows."""
    judge = whole_if_committed if strategy is atomicpath.CommitFileTemporaryPath else whole_or_absent
    disk = make(root, root / "new" / "run" / "step_1", judge)
    try:
        with environment.use(disk), atomicpath.commit(disk.final, temporary_path_class=strategy) as path:
            write_tree(Path(disk.identity(str(path))) if isinstance(disk, WriteInPlace) else path, CONTENT)
            disk.cut()
        disk.cut(judge=whole)
    finally:
        disk.close()
    return disk


def commit_over_an_empty_directory(make: Make, root: Path) -> None:
    """TornError if an empty directory that somebody else made meanwhile is replaced."""
    disk = make(root, root / "step_1", lambda found: None)
    inode = None
    try:
        with environment.use(disk), atomicpath.commit(disk.final) as path:
            write_tree(path, CONTENT)
            os.mkdir(disk.final)
            inode = os.stat(disk.final).st_ino
    except atomicpath.ConflictError:
        pass
    finally:
        disk.close()
    if os.stat(disk.final).st_ino != inode or os.listdir(disk.final):
        raise TornError("another's directory was replaced")


class Later(Disk):
    """Long after what was left behind."""

    def perform(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        found = super().perform(function, *args, **kwargs)
        return found + 10**15 if function is time.time_ns else found  # type: ignore[operator,return-value]


@pytest.mark.parametrize("left", ["removed", "replaced"])
def test_a_sweep_makes_durable_what_was_killed_before_its_sync_and_only_then_deletes(left: str, tmp_path: Path) -> None:
    final, other = tmp_path / "step_1", tmp_path / "step_2"
    for path in (final, other):
        with atomicpath.commit(path) as writing:
            write_tree(writing, CONTENT)
    moved = Path(temporary_of(str(final), atomicpath.read_record(other).token))
    moved.parent.mkdir()
    os.rename(other, moved)
    disk = Later(tmp_path, final, whole_or_absent)
    try:
        if left == "removed":
            shutil.rmtree(moved)
            os.rename(final, f"{moved}.discarded")
        else:
            storage = locate(final).open()
            anyio.run(storage.exchange_directories, str(moved), str(final))
        with environment.use(disk):
            assert [one.done for one in atomicpath.sweep(tmp_path, older_than=timedelta(0))] == [True]
    finally:
        disk.close()
    assert disk.cuts > 10
    assert [path.name for path in tmp_path.iterdir()] == ([] if left == "removed" else ["step_1"])


# The model


@pytest.mark.parametrize("strategy", [None, atomicpath.CommitFileTemporaryPath], ids=["rename", "commit-file"])
def test_after_a_power_cut_at_any_call_a_commit_is_whole_or_absent(
    tmp_path: Path, strategy: type[atomicpath.TemporaryPath] | None
) -> None:
    disk = commit_with_cuts(Disk, tmp_path, strategy=strategy)
    assert disk.cuts > 200, "the model has many disks to offer"
    whole({file.relative_to(disk.final).as_posix(): file.read_bytes() for file in Path(disk.final).rglob("*.*")})


def test_without_durability_a_power_cut_never_leaves_half_of_what_was_replaced(tmp_path: Path) -> None:
    """What made room was durable: it is deleted only once a power cut cannot give it its name back."""
    final = tmp_path / "step_1"
    with atomicpath.commit(final) as path:
        write_tree(path, CONTENT)
    old = atomicpath.read_record(final).token

    def old_is_whole(found: dict[str, bytes] | None) -> None:
        if found is not None and f'"token": "{old}"'.encode() in found.get(RECORD, b""):
            whole(found)

    disk = Disk(tmp_path, final, old_is_whole)
    try:
        with environment.use(disk), atomicpath.commit(final, replace=True, durable=False) as path:
            (path / "model.bin").write_bytes(b"new")
    finally:
        disk.close()
    assert atomicpath.read_record(final).token != old
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]


class ParentOnce(Environment):
    """The parent of the final path cannot be opened any more once `shut`, or never if that is so from the beginning."""

    def __init__(self, parent: Path, *, shut: bool = False) -> None:
        self.parent, self.shut = str(parent), shut
        self.synced: list[str] = []

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is os.open and args[0] == self.parent and self.shut and not args[1] & os.O_PATH:  # type: ignore[operator]
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.parent)
        if function is os.fsync and isinstance(args[0], int):
            self.synced.append(os.readlink(f"/proc/self/fd/{args[0]}"))
        return function(*args, **kwargs)


@pytest.mark.parametrize("strategy", [None, atomicpath.CommitFileTemporaryPath], ids=["rename", "commit-file"])
def test_the_parent_is_opened_before_anything_is_written_and_synced_by_that_descriptor(
    tmp_path: Path, strategy: type[atomicpath.TemporaryPath] | None
) -> None:
    world = ParentOnce(tmp_path)
    with environment.use(world):
        with atomicpath.commit(tmp_path / "step_1", temporary_path_class=strategy) as path:
            write_tree(path, CONTENT)
            world.shut = True
            world.synced.clear()
        assert str(tmp_path) in world.synced
        with (
            pytest.raises(atomicpath.AtomicPathError, match="needs permission to read it"),
            atomicpath.commit(tmp_path / "step_2", temporary_path_class=strategy),
        ):
            pytest.fail("it has begun")
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]
    open_files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert str(tmp_path) not in open_files


def test_the_users_own_files_are_synced_and_directories_after_what_is_in_them(tmp_path: Path) -> None:
    disk = commit_with_cuts(Disk, tmp_path)
    temporary = next(path for path in disk.synced if path.endswith("/optimizer")).removesuffix("/optimizer")
    order = [path.removeprefix(temporary) or "." for path in disk.synced if path.startswith(temporary)]
    assert sorted(order[:3]) == ["/_commit_record.json", "/model.bin", "/optimizer/state.bin"]
    assert order[3:] == ["/optimizer", "."]
    assert disk.synced[-1] == os.path.dirname(disk.final)


def test_empty_dir_target_silently_replaced(tmp_path: Path) -> None:
    commit_over_an_empty_directory(Disk, tmp_path)


# What the model has to find


class Swallowing(Disk):
    """A library that leaves out some syncs."""

    def swallows(self, path: str) -> bool:
        raise NotImplementedError

    def perform(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is os.fsync and self.swallows(os.readlink(f"/proc/self/fd/{args[0]}")):
            return None  # type: ignore[return-value]
        return super().perform(function, *args, **kwargs)


class NoFileSync(Swallowing):
    def swallows(self, path: str) -> bool:
        return os.path.isfile(path)


class NoSyncOfTheUsersFiles(Swallowing):
    def swallows(self, path: str) -> bool:
        return path.endswith(".bin")


class NoTemporaryDirectorySync(Swallowing):
    def swallows(self, path: str) -> bool:
        return os.path.isdir(path) and path.rpartition("/")[2].startswith("step_1.atomicpath-tmp-")


class NoSubdirectorySync(Swallowing):
    def swallows(self, path: str) -> bool:
        return path.endswith("/optimizer")


class NoParentSync(Swallowing):
    def swallows(self, path: str) -> bool:
        return path == os.path.dirname(self.final)


class NoAncestorSync(Swallowing):
    def swallows(self, path: str) -> bool:
        return path == self.root


class RenameBeforeSync(Disk):
    """A library that renames first and syncs then."""

    def perform(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        late: list[str] = self.__dict__.setdefault("late", [])
        if function is os.fsync:
            path = os.readlink(f"/proc/self/fd/{args[0]}")
            if ".atomicpath-tmp-" in path:
                late.append(path)
                return None  # type: ignore[return-value]
        result = super().perform(function, *args, **kwargs)
        if function is no_replace:
            self.cut()
            for path in late:
                fd = os.open(path.replace(str(args[0]), str(args[1])), os.O_RDONLY)
                self.perform(os.fsync, fd)
                os.close(fd)
                self.cut()
        return result


class WriteInPlace(Disk):
    """A library without a temporary directory."""

    def identity(self, path: str) -> str:
        attempt = re.escape(housekeeping_of(self.final)) + r"/step_1\.atomicpath-tmp-[0-9a-f]+(?!\.json)(?![0-9a-f])"
        return re.sub(attempt, self.final, path)

    def perform(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is no_replace:
            return None  # type: ignore[return-value]
        placed = [self.identity(value) if isinstance(value, str) else value for value in args]
        return super().perform(function, *placed, **kwargs)  # type: ignore[arg-type]


class PlainRename(Disk):
    """A library that renames with `os.rename`."""

    def perform(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is no_replace:
            return super().perform(os.rename, *args)  # type: ignore[arg-type,return-value]
        return super().perform(function, *args, **kwargs)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        pytest.param(NoFileSync, commit_with_cuts, id="torn-zero-length-after-rename"),
        pytest.param(NoSyncOfTheUsersFiles, commit_with_cuts, id="the-users-files-not-synced"),
        pytest.param(NoTemporaryDirectorySync, commit_with_cuts, id="staging-dirent-lost"),
        pytest.param(NoSubdirectorySync, commit_with_cuts, id="nested-subdir-not-synced"),
        pytest.param(NoParentSync, commit_with_cuts, id="acked-commit-vanishes"),
        pytest.param(NoAncestorSync, commit_with_cuts, id="new-ancestor-not-synced"),
        pytest.param(RenameBeforeSync, commit_with_cuts, id="rename-before-sync"),
        pytest.param(WriteInPlace, commit_with_cuts, id="write-in-place"),
        pytest.param(PlainRename, commit_over_an_empty_directory, id="empty-dir-target-silently-replaced"),
    ],
)
def test_a_seeded_bug_is_found(broken: Make, check: Callable[[Make, Path], object], tmp_path: Path) -> None:
    with pytest.raises(TornError):
        check(broken, tmp_path)


def test_the_broken_variants_are_broken_in_nothing_else(tmp_path: Path) -> None:
    class Sound(Swallowing):
        def swallows(self, path: str) -> bool:
            return False

    commit_with_cuts(Sound, tmp_path)


# A real disk


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A mounted ext4, how to cut its power, and how to switch it on again."""
    tools = [tool for tool in ("mkfs.ext4", "mount", "umount", "losetup") if not shutil.which(tool)]
    if os.geteuid() or tools:
        pytest.skip(f"a real power cut needs root, e2fsprogs and util-linux (missing: {', '.join(tools) or 'root'})")
    image, point = tmp_path / "disk.img", tmp_path / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)

    def on() -> None:
        # a long commit interval: the kernel then writes nothing by itself during the test
        done = subprocess.run(
            ["mount", "-o", "loop,commit=300", str(image), str(point)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a loop-mounted ext4 is needed, and mount(8) refused: {done.stderr.strip()}")

    def cut() -> None:
        fd = os.open(point, os.O_RDONLY)
        fcntl.ioctl(fd, 0x8004587D, struct.pack("I", 2))  # EXT4_IOC_SHUTDOWN, without flushing the journal
        os.close(fd)

    def off_and_on() -> None:
        subprocess.run(["umount", str(point)], check=True)
        on()

    on()
    yield point, cut, off_and_on
    subprocess.run(["umount", "-l", str(point)], check=True)


class PowerCut(Environment):
    """Cuts the power at a function; `swallow` leaves out syncs of the paths it is true of."""

    def __init__(
        self, cut: Callable[[], None], at: object = None, swallow: Callable[[str], bool] = lambda path: False
    ) -> None:
        self.cut, self.at, self.swallow = cut, at, swallow

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is self.at:
            self.cut()
        if function is os.fsync and self.swallow(os.readlink(f"/proc/self/fd/{args[0]}")):
            return None  # type: ignore[return-value]
        return function(*args, **kwargs)


def commit_and_cut(
    ext4: tuple[Path, Callable[[], None], Callable[[], None]], swallow: Callable[[str], bool] = lambda path: False
) -> Path:
    point, cut, off_and_on = ext4
    final = point / "new" / "run" / "step_1"
    with environment.use(PowerCut(cut, swallow=swallow)), atomicpath.commit(final) as path:
        write_tree(path, CONTENT)
    cut()
    off_and_on()
    return final


def test_a_commit_that_returned_survives_a_real_power_cut(
    ext4: tuple[Path, Callable[[], None], Callable[[], None]],
) -> None:
    final = commit_and_cut(ext4)
    assert atomicpath.verify(final).ok
    whole({file.relative_to(final).as_posix(): file.read_bytes() for file in final.rglob("*.*")})


def test_a_real_power_cut_before_the_rename_leaves_nothing_at_the_final_path(
    ext4: tuple[Path, Callable[[], None], Callable[[], None]],
) -> None:
    point, cut, off_and_on = ext4
    final = point / "run" / "step_1"
    with (
        pytest.raises(atomicpath.CommitError),
        environment.use(PowerCut(cut, at=no_replace)),
        atomicpath.commit(final) as path,
    ):
        write_tree(path, CONTENT)
    off_and_on()
    assert not final.exists()
    assert not atomicpath.is_committed(final)
    with atomicpath.commit(final) as path:
        write_tree(path, CONTENT)
    assert atomicpath.verify(final).ok


@pytest.mark.parametrize(
    "swallow",
    [
        pytest.param(os.path.isfile, id="torn-zero-length-after-rename"),
        pytest.param(lambda path: path.endswith("/run"), id="acked-commit-vanishes"),
    ],
)
def test_a_real_power_cut_finds_a_missing_sync(
    ext4: tuple[Path, Callable[[], None], Callable[[], None]], swallow: Callable[[str], bool]
) -> None:
    final = commit_and_cut(ext4, swallow)
    found = {file.relative_to(final).as_posix(): file.read_bytes() for file in final.rglob("*.*")}
    with pytest.raises(TornError):
        whole(found if final.exists() else None)


# Errors of the disk


class Failing(Environment):
    """Of the syncs of a directory and of what is below it that of a number fails with EIO; every one is noted."""

    def __init__(self, root: Path, at: int | None = None) -> None:
        self.root = root
        self.at = at
        self.synced: list[tuple[int, str]] = []

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is os.fsync:
            fd = args[0]
            assert isinstance(fd, int)
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))
            if not path.is_relative_to(self.root):
                return function(*args, **kwargs)
            self.synced.append((os.fstat(fd).st_ino, str(path)))
            if self.at == len(self.synced) - 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return function(*args, **kwargs)


SYNCS = 6  # three files, two directories, and the parent after the rename


@pytest.mark.parametrize("at", range(SYNCS - 1))
def test_fsync_retry_lies(tmp_path: Path, at: int) -> None:
    world = Failing(tmp_path, at)
    with (
        pytest.raises(atomicpath.CommitError, match="sync failed") as raised,
        environment.use(world),
        atomicpath.commit(tmp_path / "step_1") as path,
    ):
        write_tree(path, CONTENT)
    assert type(raised.value) is atomicpath.CommitError
    assert len(world.synced) == at + 1, "after the failure nothing is synced again, that file least of all"
    assert [*tmp_path.iterdir()] == [], "nothing is visible, and nothing was left"


def test_error_reported_but_committed(tmp_path: Path) -> None:
    world = Failing(tmp_path, SYNCS - 1)
    final = tmp_path / "step_1"
    with (
        pytest.raises(atomicpath.OutcomeUnknownError),
        environment.use(world),
        atomicpath.commit(final) as path,
    ):
        write_tree(path, CONTENT)
    assert world.synced[-1][1] == str(tmp_path)
    assert len(world.synced) == SYNCS
    assert atomicpath.verify(final).ok
    assert [*tmp_path.iterdir()] == [final]


def test_without_durable_nothing_is_synced(tmp_path: Path) -> None:
    world = Failing(tmp_path)
    with environment.use(world), atomicpath.commit(tmp_path / "new" / "step_1", durable=False) as path:
        write_tree(path, CONTENT)
    assert world.synced == []
    with environment.use(world), atomicpath.commit(tmp_path / "new" / "step_2") as path:
        write_tree(path, CONTENT)
    synced = [path for _, path in world.synced]
    assert synced[0] == str(tmp_path), "the parent's name, which the first did not make durable"
    assert len(synced) == 1 + SYNCS
    assert synced[-1] == str(tmp_path / "new")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 64 KiB."""
    point = tmp_path / "tiny"
    point.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("a full disk needs root and mount(8)")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(point)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a full disk needs a tmpfs, and mount(8) refused: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


def test_enospc_in_the_block(tiny: Path) -> None:
    with pytest.raises(OSError, match="No space") as raised, atomicpath.commit(tiny / "step_1") as path:
        (path / "model.bin").write_bytes(bytes(1 << 20))
    assert raised.value.errno == errno.ENOSPC
    assert [*tiny.iterdir()] == []


def fill_the_disk(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as unbuffered:
        while True:
            unbuffered.write(bytes(4096))


def test_enospc_mid_file(tiny: Path) -> None:
    """The block ends well, but of our own files there is no more room for all."""
    with pytest.raises(atomicpath.CommitError, match="No space"), atomicpath.commit(tiny / "step_1") as path:
        fill_the_disk(path / "model.bin")
    assert [*tiny.iterdir()] == []
    with atomicpath.commit(tiny / "step_1") as path:
        (path / "model.bin").write_bytes(b"smaller")
    assert atomicpath.verify(tiny / "step_1").ok
