"""Row A9: a private copy of a committed directory takes its place, or becomes another; or something is added to it."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

import atomicpath
from atomicpath import AtomicRenameTemporaryPath, FileOptions, Snapshot, SnapshotType
from atomicpath._core import environment, liveness
from atomicpath._core.layout import PENDING_PREFIX, TMP_DIR_SUFFIX
from atomicpath.abc import AttemptOptions
from atomicpath_local import copies
from atomicpath_local.locks import lock_file
from atomicpath_local.rename import exchange, no_replace
from atomicpath_local.storage import LocalStorage
from atomicpath_local.system import System
from tests.support.processes import Child, Killer, content_of, edit_in_place, known, write_tree
from tests.support.roots import Root
from tests.support.servers.base import find

from .conftest import World
from .test_replace import (
    Impatient,
    a_live_attempt,
    check_whole,
    content,
    files,
    leftovers,
    lock_file_of,
    moments,
    publish,
)

IN_PLACE, EMPTY = SnapshotType.IN_PLACE, SnapshotType.EMPTY


@pytest.fixture
def final(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "step_1"
    publish(path, "old", replace=False)
    return path


def attempt(final: Path, snapshot_type: SnapshotType, **options: Any) -> AtomicRenameTemporaryPath:
    return AtomicRenameTemporaryPath.from_final(UPath(final), snapshot_type=snapshot_type, **options)


def beside(final: Path) -> list[str]:
    return leftovers(final.parent)


def pending(final: Path) -> list[Path]:
    return sorted(path for path in final.iterdir() if path.name.startswith(PENDING_PREFIX))


# In place


async def test_edits_of_a_copy_are_invisible_until_it_takes_the_place_of_its_source(final: Path) -> None:
    before = files(final)
    made = attempt(final, IN_PLACE)
    path = Path(await made.create())
    assert path == Path(made.get())
    assert content(path) == content_of("old")
    assert not (path / "_commit_record.json").exists(), "the record of an attempt lies beside its directory"
    assert not (path / "commit_success.txt").exists(), "record and marker are of the commit that was copied"
    (path / "model.bin").write_bytes(b"edited")
    (path / "notes").write_bytes(b"added")
    (path / "optimizer" / "state.bin").unlink()
    assert files(final) == before
    assert not atomicpath.is_committed(path)
    await made.finalize()
    assert content(final) == {"model.bin": b"edited", "notes": b"added"}
    record = await atomicpath.aio.read_record(final)
    assert record.based_on is not None
    assert record.based_on.token.encode() in before["_commit_record.json"]
    assert (await atomicpath.aio.verify(final)).ok
    assert beside(final) == []


async def test_given_up_the_source_is_as_it_was(final: Path) -> None:
    before = files(final)
    made = attempt(final, IN_PLACE)
    write_tree(Path(await made.create()), {"new": b"x"})
    await made.discard()
    assert files(final) == before
    assert beside(final) == []


async def test_another_object_and_process_can_finish_it(final: Path) -> None:
    for wrong in (None, EMPTY):
        made = attempt(final, IN_PLACE)
        path = await made.create()
        (path / "new").write_bytes(b"x")
        with pytest.raises(atomicpath.ValidationError, match="was created with snapshot_type=SnapshotType.IN_PLACE"):
            await AtomicRenameTemporaryPath.from_temporary(path, snapshot_type=wrong).finalize()
    other = AtomicRenameTemporaryPath.from_temporary(path, snapshot_type=IN_PLACE)
    assert other.get_final() == made.get_final()
    await other.finalize()
    assert content(final) == {**content_of("old"), "new": b"x"}


async def test_a_source_that_was_replaced_meanwhile_is_a_conflict_and_nothing_is_lost(final: Path) -> None:
    made = attempt(final, IN_PLACE)
    path = Path(await made.create())
    (path / "notes").write_bytes(b"hours of work")
    publish(final, "a rival")
    with pytest.raises(atomicpath.ConflictError, match="snapshot"):
        await made.finalize()
    check_whole(final, "a rival")
    assert (path / "notes").read_bytes() == b"hours of work"
    assert not atomicpath.is_committed(path)
    with pytest.raises(atomicpath.CommitError, match="could not be published"):
        await made.finalize()
    assert (path / "notes").exists()
    await made.discard()
    assert beside(final) == []


@pytest.mark.parametrize("snapshot_type", [IN_PLACE, EMPTY])
async def test_a_source_that_was_removed_meanwhile_is_a_conflict_and_the_snapshot_is_kept(
    final: Path, snapshot_type: SnapshotType
) -> None:
    for come in (lambda: None, final.mkdir, lambda: final.write_bytes(b"precious"), lambda: a_live_attempt(final)):
        if not final.exists():
            publish(final, "old")
        made = attempt(final, snapshot_type)
        path = Path(await made.create())
        (path / "notes").write_bytes(b"hours of work")
        shutil.rmtree(final)
        come()
        with pytest.raises(atomicpath.ConflictError):
            await made.finalize()
        assert (path / "notes").exists()
        await made.discard()
        assert beside(final) == []
        if final.exists():
            shutil.rmtree(final) if final.is_dir() else final.unlink()


async def test_a_source_that_another_holds_is_a_conflict_and_the_snapshot_is_kept(final: Path) -> None:
    hold = lock_file(System(environment.Environment()), lock_file_of(final))
    assert hold is not None
    with environment.use(Impatient(lambda times: None)):
        snapshot = Snapshot(final)
        path = await snapshot.create_snapshot()
        (path / "notes").write_bytes(b"hours of work")
        with pytest.raises(atomicpath.ConflictError, match="another process"):
            await snapshot.replace_source()
        assert (path / "notes").exists()
        hold.release()
        await snapshot.release_snapshot()
    check_whole(final, "old")


async def test_a_source_replaced_while_it_is_copied_is_no_mixture(final: Path) -> None:
    world = World()
    moments = itertools.count()

    def replaced_in_between(*args: Any, **kwargs: Any) -> int:
        if next(moments) == 1:
            publish(final, "a rival")
        return os.copy_file_range(*args, **kwargs)

    world.faults[os.copy_file_range] = replaced_in_between
    with environment.use(world), pytest.raises(atomicpath.ConflictError, match="while it was being copied"):
        await attempt(final, IN_PLACE).create()
    check_whole(final, "a rival")
    assert beside(final) == []


async def test_a_damaged_source_is_not_laundered_by_a_copy(final: Path) -> None:
    (final / "model.bin").write_bytes(b"short")
    with pytest.raises(atomicpath.IntegrityError, match="model.bin"):
        await attempt(final, IN_PLACE).create()
    assert beside(final) == []


async def test_modes_are_those_of_the_source_unless_another_is_asked_for(final: Path) -> None:
    final.chmod(0o750)
    (final / "model.bin").chmod(0o440)
    (final / "optimizer").chmod(0o555)
    for mode, expected in ((None, 0o750), (0o700, 0o700)):
        made = attempt(final, IN_PLACE, file_options=FileOptions(path_permission_mode=mode))
        path = Path(await made.create())
        found = [p.stat().st_mode & 0o777 for p in (path, path / "model.bin", path / "optimizer")]
        assert found == [expected, 0o440, 0o555]
        (path / "optimizer").chmod(0o755)
        await made.discard()


async def test_many_files_are_copied_and_a_link_is_refused(tmp_path: Path) -> None:
    final, tree = tmp_path / "step_1", {f"{n % 7}/{n}": bytes([n]) * n for n in range(100)}
    async with atomicpath.aio.commit(final) as path:
        write_tree(path, tree)
    made = attempt(final, IN_PLACE)
    assert content(Path(await made.create())) == tree
    await made.finalize()
    assert content(final) == tree
    (final / "link").symlink_to("0/0")
    with pytest.raises(atomicpath.ValidationError, match="a symbolic link"):
        await attempt(final, IN_PLACE).create()
    assert beside(final) == []


async def test_without_an_exchange_it_is_refused_before_anything_is_copied(final: Path, world: World) -> None:
    world.mount(f"1 0 0:1 / {final.parent} rw - nfs4 server:/export rw\n")
    with environment.use(world), pytest.raises(atomicpath.GuaranteeError, match=r"(?s)IN_PLACE.*RENAME_EXCHANGE"):
        await attempt(final, IN_PLACE).create()
    assert "mkdir" not in world.calls
    with environment.use(world), pytest.raises(atomicpath.GuaranteeError, match="RENAME_EXCHANGE"):
        await Snapshot(final).create_snapshot()


async def test_what_cannot_be_a_source_is_said_clearly(final: Path, tmp_path: Path) -> None:
    live = tmp_path / "live"
    await atomicpath.CommitFileTemporaryPath.from_final(UPath(live)).create()
    write_tree(tmp_path / "theirs", {"x": b"", "commit_success.txt": b""})
    write_tree(tmp_path / "foreign", {"x": b""})
    for snapshot_type in (IN_PLACE, EMPTY):
        for name, error, words in (
            ("missing", atomicpath.NotCommittedError, "missing"),
            ("live", atomicpath.NotCommittedError, "not one"),
            ("foreign", atomicpath.NotCommittedError, "not one"),
            ("theirs", atomicpath.ValidationError, "another tool"),
        ):
            with pytest.raises(error, match=words):
                await attempt(tmp_path / name, snapshot_type).create()
            with pytest.raises(error, match=words):
                await Snapshot(tmp_path / name).create_snapshot()
        with pytest.raises(atomicpath.ValidationError, match="relative"):
            AtomicRenameTemporaryPath.from_final(UPath("run/step_1"), snapshot_type=snapshot_type)
        with pytest.raises(atomicpath.ValidationError, match="relative"):
            AtomicRenameTemporaryPath.from_temporary(UPath(f"step_1{TMP_DIR_SUFFIX}0"), snapshot_type=snapshot_type)
    for relative in (("run/step_1",), (final, "run/step_2")):
        with pytest.raises(ValueError, match="relative"):
            Snapshot(*relative)
    assert leftovers(tmp_path) == []


async def test_replace_and_a_snapshot_exclude_each_other(final: Path) -> None:
    made = attempt(final, EMPTY)
    made.configure(AttemptOptions(replace=True))
    with pytest.raises(atomicpath.ValidationError, match="exclude"):
        await made.create()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_call_the_source_or_the_edited_copy_is_there_whole(final: Path, after: bool) -> None:
    def run(killer: Killer) -> int | None:
        count: int | None = Child(edit_in_place, str(final), killer, known()).result()
        return count

    outcomes = []
    for killer in moments(run, after):
        atomicpath.sweep(final.parent, older_than=timedelta(0))  # which the next attempt looks at
        publish(final, "old")
        assert (run(killer) is None) == (killer.at is not None)
        outcomes.append((final / "edited").exists())
        assert content(final) == {**content_of("old"), **({"edited": b"x"} if outcomes[-1] else {})}
        assert atomicpath.verify(final).ok
    assert outcomes == sorted(outcomes)
    assert {*outcomes[:-1]} == {False, True}


# Added


async def test_what_is_added_is_a_committed_directory_in_the_other_and_no_part_of_it(
    final: Path, tmp_path: Path
) -> None:
    before = files(final)
    made = attempt(final, EMPTY)
    path = Path(await made.create())
    assert content(path) == {}
    write_tree(path, {"more/data": b"x"})
    assert files(final) == before
    await made.finalize()
    (added,) = pending(final)
    assert content(added) == {"more/data": b"x"}
    found = await atomicpath.aio.committed(final)
    assert [commit.path for commit in found] == [UPath(added)]
    assert found[0].step is None
    assert (await atomicpath.aio.verify(added)).ok
    assert (await atomicpath.aio.verify(final)).ok
    assert {name: data for name, data in files(final).items() if not name.startswith(PENDING_PREFIX)} == before
    assert beside(final) == []
    await atomicpath.aio.get(final, tmp_path / "got")
    await atomicpath.aio.put(final, tmp_path / "copied")
    for copy in ("got", "copied"):
        assert content(tmp_path / copy) == content_of("old")


async def test_a_copy_in_place_takes_what_was_added_along_where_it_can_be_merged(final: Path) -> None:
    for number in range(2):
        addition = attempt(final, EMPTY)
        write_tree(Path(await addition.create()), {f"added-{number}": b"x"})
        await addition.finalize()
    made = attempt(final, IN_PLACE)
    path = Path(await made.create())
    merged, left = pending(path)
    name = next(iter(content(merged)))
    (merged / name).rename(path / name)
    shutil.rmtree(merged)
    await made.finalize()
    assert pending(final) == [final / left.name]
    assert (await atomicpath.aio.verify(final)).ok
    assert (await atomicpath.aio.verify(final / left.name)).ok
    names = [file.name for file in (await atomicpath.aio.read_record(final)).files]
    assert sorted(names) == sorted([*content_of("old"), name])


async def test_what_was_added_since_the_copy_was_made_is_not_lost_by_the_swap(final: Path) -> None:
    made = attempt(final, IN_PLACE)
    await made.create()
    addition = attempt(final, EMPTY)
    write_tree(Path(await addition.create()), {"added": b"x"})
    await addition.finalize()
    with pytest.raises(atomicpath.ConflictError, match="added"):
        await made.finalize()
    assert len(pending(final)) == 1
    await made.discard()


async def test_nothing_is_added_to_another_than_the_one_it_was_begun_for(final: Path) -> None:
    made = attempt(final, EMPTY)
    path = Path(await made.create())
    (path / "x").write_bytes(b"hours of work")
    publish(final, "a rival")
    with pytest.raises(atomicpath.ConflictError):
        await made.finalize()
    assert pending(final) == []
    assert (path / "x").exists()
    await made.discard()


def test_a_name_of_ours_is_refused_for_a_users_own_directory(tmp_path: Path) -> None:
    with (
        pytest.raises(atomicpath.ValidationError, match="atomicpath-pending"),
        atomicpath.commit(tmp_path / "x") as path,
    ):
        write_tree(path, {f"{PENDING_PREFIX}mine/x": b""})


# The class


async def test_a_snapshot_replaces_its_source_or_is_released(final: Path) -> None:
    snapshot = Snapshot(final)
    path = await snapshot.create_snapshot()
    assert path == snapshot.path
    (path / "new").write_bytes(b"x")
    assert content(final) == content_of("old")
    await snapshot.replace_source()
    assert content(final) == {**content_of("old"), "new": b"x"}
    other = Snapshot(str(final))
    path = await other.create_snapshot()
    (path / "new").write_bytes(b"not this")
    await other.release_snapshot()
    assert content(final) == {**content_of("old"), "new": b"x"}
    assert beside(final) == []


async def test_a_snapshot_becomes_a_new_directory(final: Path, tmp_path: Path) -> None:
    snapshot = Snapshot(final, final.with_name("step_2"))
    path = await snapshot.create_snapshot()
    (path / "new").write_bytes(b"x")
    with pytest.raises(atomicpath.ValidationError, match="publish"):
        await snapshot.replace_source()
    await snapshot.publish()
    check_whole(final, "old")
    assert content(final.with_name("step_2")) == {**content_of("old"), "new": b"x"}
    assert (await atomicpath.aio.verify(final.with_name("step_2"))).ok
    with pytest.raises(atomicpath.AlreadyCommittedError):
        await Snapshot(final, final.with_name("step_2")).create_snapshot()
    write_tree(tmp_path / "foreign", {"precious": b""})
    with pytest.raises(atomicpath.ConflictError):
        await Snapshot(final, tmp_path / "foreign").create_snapshot()
    with pytest.raises(atomicpath.ValidationError, match="different storages"):
        Snapshot(final, "memory://run/step_2")


async def test_what_is_called_out_of_order_is_said_and_changes_nothing(final: Path) -> None:
    snapshot = Snapshot(final)
    for call in (snapshot.replace_source, snapshot.release_snapshot):
        with pytest.raises(ValueError, match="create_snapshot"):
            await call()
    with pytest.raises(ValueError, match="no destination"):
        await snapshot.publish()
    await snapshot.create_snapshot()
    with pytest.raises(ValueError, match="created already"):
        await snapshot.create_snapshot()
    await snapshot.replace_source()
    for call in (snapshot.replace_source, snapshot.release_snapshot, snapshot.create_snapshot):
        with pytest.raises(ValueError, match="published"):
            await call()  # type: ignore[operator]
    check_whole(final, "old")
    snapshot = Snapshot(final)
    await snapshot.create_snapshot()
    await snapshot.release_snapshot()
    for call in (snapshot.release_snapshot, snapshot.replace_source):
        with pytest.raises(ValueError, match="over"):
            await call()
    check_whole(final, "old")


async def test_a_stale_snapshot_keeps_its_edits_until_it_is_released(final: Path) -> None:
    snapshot = Snapshot(final)
    path = await snapshot.create_snapshot()
    (path / "new").write_bytes(b"hours of work")
    publish(final, "a rival")
    with pytest.raises(atomicpath.ConflictError):
        await snapshot.replace_source()
    with pytest.raises(atomicpath.ValidationError, match="could not be published"):
        await snapshot.replace_source()
    assert (path / "new").read_bytes() == b"hours of work"
    await snapshot.release_snapshot()
    check_whole(final, "a rival")
    assert beside(final) == []


async def test_a_release_that_cannot_delete_says_so(final: Path, world: World) -> None:
    with environment.use(world):
        snapshot = Snapshot(final)
        await snapshot.create_snapshot()
        world.refuse(no_replace, errno.EIO)
        with pytest.raises(atomicpath.CommitError, match="sweep"):
            await snapshot.release_snapshot()
    assert len(beside(final)) == 1


async def test_a_swap_without_an_answer_is_unknown_and_nothing_is_cleaned_up(final: Path, world: World) -> None:
    def call(*args: Any) -> None:
        exchange(*args)
        world.refuse(os.lstat, errno.EIO)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    world.faults[exchange] = call
    with environment.use(world):
        snapshot = Snapshot(final)
        await snapshot.create_snapshot()
        with pytest.raises(atomicpath.OutcomeUnknownError):
            await snapshot.replace_source()
        with pytest.raises(atomicpath.ValidationError, match="is_committed"):
            await snapshot.release_snapshot()
    assert len(beside(final)) == 1
    check_whole(final, "old")


@pytest.mark.parametrize("place", ["memory", "moto"], indirect=True)
async def test_a_store_without_directories_refuses(place: Root) -> None:
    options = place.storage_options
    with atomicpath.commit(place / "step_1", storage_options=options) as path:
        (path / "x").write_bytes(b"1")
    for arguments in ((place / "step_1",), (place / "step_1", place / "step_2")):
        with pytest.raises(atomicpath.GuaranteeError, match="ATOMIC_RENAME"):
            await Snapshot(*arguments, storage_options=options).create_snapshot()


# How files are copied


@pytest.mark.parametrize("code", [None, errno.EXDEV])
def test_bytes_are_copied_where_no_extents_can_be_shared(tmp_path: Path, world: World, code: int | None) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from" / "x").write_bytes(data)
    world.refuse(fcntl.ioctl, errno.EOPNOTSUPP)
    if code is not None:
        world.refuse(os.copy_file_range, code)
    system = LocalStorage(world)._system
    copies.copy_files(system, str(tmp_path / "from"), str(tmp_path / "to"), ["x"])
    assert (tmp_path / "to" / "x").read_bytes() == data
    assert ("write" in world.calls) == (code is not None)


def test_a_file_that_is_there_is_not_written_over_and_a_short_copy_is_an_error(tmp_path: Path, world: World) -> None:
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(name.encode())
    system = LocalStorage(world)._system
    with pytest.raises(FileExistsError):
        copies.copy_files(system, str(tmp_path / "from"), str(tmp_path / "to"), ["x"])
    assert (tmp_path / "to" / "x").read_bytes() == b"to"
    (tmp_path / "to" / "x").unlink()
    world.refuse(fcntl.ioctl, errno.EOPNOTSUPP)
    world.faults[os.copy_file_range] = lambda *args: 0
    world.faults[os.read] = lambda *args: b""
    with pytest.raises(OSError, match="announced"):
        copies.copy_files(system, str(tmp_path / "from"), str(tmp_path / "to"), ["x"])


FILE_SYSTEMS = {
    "xfs": (["mkfs.xfs", "-q", "-m", "reflink=1"], "apt-get install xfsprogs"),
    "btrfs": (["mkfs.btrfs", "-q"], "apt-get install btrfs-progs"),
}


@pytest.fixture(params=FILE_SYSTEMS)
def sharing(request: pytest.FixtureRequest, tmp_path: Path, mount: Callable[..., Path]) -> Iterator[Path]:
    """A mounted file system whose files can share extents."""
    (program, *arguments), how = FILE_SYSTEMS[request.param]
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([find(program, how), *arguments, str(image)], check=True)
    yield mount("-o", "loop", "-t", request.param, str(image))


def shared_bytes(path: Path) -> int:
    """How much of a file is in extents that another file has too, by the file-extent map (FIEMAP)."""
    header, extent = struct.Struct("=QQLLLL"), struct.Struct("=QQQQQLLLL")
    room = 64
    request = bytearray(header.pack(0, 1 << 62, 1, 0, room, 0) + bytes(room * extent.size))  # 1: sync it first
    with path.open("rb") as file:
        fcntl.ioctl(file, 0xC020660B, request)
    count = header.unpack_from(request)[3]
    extents = [extent.unpack_from(request, header.size + n * extent.size) for n in range(count)]
    return sum(found[2] for found in extents if found[5] & 0x2000)


@pytest.mark.parametrize("refused", [os.copy_file_range, fcntl.ioctl], ids=["by FICLONE", "by copy_file_range"])
async def test_a_snapshot_shares_its_blocks_with_the_source_where_the_file_system_can(
    sharing: Path, world: World, refused: Callable[..., object]
) -> None:
    size = 8 << 20
    final = sharing / "step_1"
    async with atomicpath.aio.commit(final) as path:
        (path / "model.bin").write_bytes(os.urandom(size))
    assert shared_bytes(final / "model.bin") == 0
    world.refuse(refused, errno.EOPNOTSUPP)
    with environment.use(world):
        snapshot = Snapshot(final)
    path = Path(await snapshot.create_snapshot())
    assert shared_bytes(path / "model.bin") == size
    with (path / "model.bin").open("r+b") as file:
        file.write(b"edited")
    assert (final / "model.bin").read_bytes()[:6] != b"edited"
    await snapshot.replace_source()
    assert (final / "model.bin").read_bytes()[:6] == b"edited"
    assert (await atomicpath.aio.verify(final)).ok


async def test_a_snapshot_whose_caller_is_interrupted_as_it_is_made_leaves_nothing_and_can_be_made_again(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Snapshot(final)

    async def too_late_for_it(main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        monkeypatch.undo()
        await main()
        raise SystemExit("by a signal handler, in the event loop")

    monkeypatch.setattr("atomicpath._strategies.snapshot.run_protected", too_late_for_it)
    with pytest.raises(SystemExit):
        await snapshot.create_snapshot()
    assert beside(final) == []
    assert liveness._held == {}
    await snapshot.create_snapshot()
    await snapshot.release_snapshot()
    assert beside(final) == []
