"""Row B11: a committed directory is replaced by one exchange of names, or it is refused."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._core import environment
from atomicpath._core.layout import TMP_DIR_SUFFIX, lock_of
from atomicpath._core.record import CommitRecord, State
from atomicpath.guarantees import Guarantee
from atomicpath_local import trees
from atomicpath_local.locks import lock_file
from atomicpath_local.rename import exchange, no_replace
from atomicpath_local.system import System
from tests.api.test_rows_a import FromScratch
from tests.support.disk import Disk
from tests.support.processes import (
    CONTEXT,
    FILES,
    Child,
    Killer,
    commit_files,
    content_of,
    known,
    replace_again_and_again,
    write_tree,
)
from tests.support.roots import LocalRoot, Root
from tests.support.waiting import PATIENCE

from .conftest import World

FULL = os.environ.get("ATOMICPATH_FULL") == "1"
RECORD, MARKER = "_commit_record.json", "commit_success.txt"


@pytest.fixture
def final(tmp_path: Path) -> Path:
    """A committed directory, by the writer "old"."""
    path = tmp_path / "run" / "step_1"
    publish(path, "old", replace=False)
    return path


def publish(final: Path, writer: object, *, replace: bool = True, **options: Any) -> None:
    with atomicpath.commit(final, replace=replace, metadata={"writer": str(writer)}, **options) as path:
        write_tree(path, content_of(writer))


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def content(directory: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(directory).items() if name not in (RECORD, MARKER)}


def leftovers(directory: Path) -> list[str]:
    """What is not committed beside what is: the directories in the house-keeping directory."""
    return sorted(path.name for path in (directory / ".atomicpath").glob("*") if path.is_dir())


def lock_file_of(final: Path) -> str:
    """The file that is locked while the directory at `final` is replaced or removed."""
    path = lock_of(str(final))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def check_whole(final: Path, writer: object) -> None:
    assert content(final) == content_of(writer)
    assert atomicpath.verify(final).ok


def test_a_committed_directory_is_replaced_and_nothing_of_it_is_left(final: Path, tmp_path: Path) -> None:
    before = atomicpath.read_record(final).token
    publish(final, "new")
    check_whole(final, "new")
    assert atomicpath.read_record(final).token != before
    assert os.listdir(final.parent) == ["step_1"]
    (tmp_path / "made").mkdir()
    write_tree(tmp_path / "made", content_of("put"))
    atomicpath.put(tmp_path / "made", final, replace=True)
    check_whole(final, "put")
    assert os.listdir(final.parent) == ["step_1"]


def test_nothing_is_held_any_more_when_it_was_replaced_or_could_not_be(
    final: Path, no_descriptor_leaks: Callable[[], None]
) -> None:
    publish(final, "new")
    no_descriptor_leaks()
    with environment.use(failing(exchange, done=False)), pytest.raises(atomicpath.CommitError):
        publish(final, "newer")
    no_descriptor_leaks()
    write_tree(final.with_name("foreign"), {"x": b""})
    step_2 = final.with_name("step_2")
    with pytest.raises(atomicpath.ConflictError), atomicpath.commit(step_2, replace=True, allow_empty=True):
        final.with_name("foreign").rename(final.with_name("step_2"))


async def test_the_async_face_replaces_too(tmp_path: Path) -> None:
    for writer in ("old", "new"):
        async with atomicpath.aio.commit(tmp_path / "step_1", replace=True) as path:
            write_tree(path, content_of(writer))
        assert content(tmp_path / "step_1") == content_of(writer)
    assert os.listdir(tmp_path) == ["step_1"]


def test_without_replace_a_committed_directory_is_in_the_way_as_ever(final: Path) -> None:
    with pytest.raises(atomicpath.AlreadyCommittedError):
        publish(final, "new", replace=False)
    check_whole(final, "old")


def test_what_another_tool_committed_is_replaced(tmp_path: Path) -> None:
    write_tree(tmp_path / "step_1", {"theirs": b"x", MARKER: b""})
    publish(tmp_path / "step_1", "new")
    check_whole(tmp_path / "step_1", "new")
    assert os.listdir(tmp_path) == ["step_1"]


def test_a_block_that_raises_leaves_the_old_one_untouched(final: Path) -> None:
    before, inode = files(final), final.stat().st_ino
    with pytest.raises(ZeroDivisionError), atomicpath.commit(final, replace=True) as path:
        write_tree(path, content_of("new"))
        raise ZeroDivisionError
    assert (files(final), final.stat().st_ino) == (before, inode)
    assert os.listdir(final.parent) == ["step_1"]


def a_live_attempt(path: Path) -> None:
    path.mkdir()
    record = CommitRecord(state=State.WRITING, token="0123", strategy="commit_file", started=0)
    (path / RECORD).write_bytes(record.encode())


def an_orphaned_marker(path: Path) -> None:
    publish(path, "old")
    (path / RECORD).unlink()


TARGETS: dict[str, Callable[[Path], object]] = {
    "a live attempt": a_live_attempt,
    "foreign files": lambda path: write_tree(path, {"precious": b"data"}),
    "an empty directory": Path.mkdir,
    "a file": lambda path: path.write_bytes(b"precious"),
    "a link to a committed directory": lambda path: (
        publish(path.with_name("elsewhere"), "old"),
        path.symlink_to("elsewhere"),
    ),
    "a marker without its record": an_orphaned_marker,
}


@pytest.mark.parametrize("late", [False, True], ids=["at first", "meanwhile"])
@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)
def test_only_a_committed_directory_is_replaced(make: Callable[[Path], object], late: bool, tmp_path: Path) -> None:
    final = tmp_path / "step_1"
    if not late:
        make(final)
    with pytest.raises(atomicpath.ConflictError), atomicpath.commit(final, replace=True) as path:
        assert late
        write_tree(path, content_of("new"))
        make(final)
    there, link = (files(final) if final.is_dir() else final.read_bytes()), final.is_symlink()
    shutil.rmtree(final) if final.is_dir() and not link else final.unlink()
    assert not leftovers(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    make(other / "step_1")
    expected = other / "step_1"
    if make is not an_orphaned_marker and not link:  # whose bytes name a token
        assert there == (files(expected) if expected.is_dir() else expected.read_bytes())


# Elsewhere


@pytest.mark.parametrize("place", ["memory", "moto"], indirect=True)
def test_a_store_without_an_exchange_refuses_and_says_what_to_do(place: Root) -> None:
    with atomicpath.commit(place / "step_1", storage_options=place.storage_options) as path:
        (path / "x").write_bytes(b"old")
    before = place.read_all()
    with (
        pytest.raises(atomicpath.GuaranteeError, match=r"(?s)RENAME_EXCHANGE.*another name.*latest.*remove") as raised,
        atomicpath.commit(place / "step_1", storage_options=place.storage_options, replace=True),
    ):
        raise AssertionError
    assert "s3cr3t" not in str(raised.value)
    assert place.read_all() == before


@pytest.mark.parametrize("strategy", [atomicpath.CommitFileTemporaryPath, FromScratch])
def test_a_strategy_that_cannot_replace_is_refused(final: Path, strategy: type[atomicpath.TemporaryPath]) -> None:
    with pytest.raises(atomicpath.GuaranteeError, match="RENAME_EXCHANGE"):
        publish(final, "new", temporary_path_class=strategy)
    check_whole(final, "old")


def test_nfs_has_no_exchange_and_says_so_before_anything_is_written(final: Path, world: World) -> None:
    world.mount(f"1 0 0:1 / {final.parent} rw - nfs4 server:/export rw\n")
    with (
        environment.use(world),
        pytest.raises(atomicpath.GuaranteeError, match=r"(?s)RENAME_EXCHANGE.*guarantees=Guarantee.RENAME_EXCHANGE"),
    ):
        publish(final, "new")
    assert "mkdir" not in world.calls
    check_whole(final, "old")


def test_a_kernel_without_the_exchange_that_was_asserted_changes_nothing(final: Path, world: World) -> None:
    world.refuse(exchange, errno.EINVAL)
    with environment.use(world), pytest.raises(atomicpath.GuaranteeError, match="RENAME_EXCHANGE does not hold"):
        publish(final, "new", guarantees=Guarantee.RENAME_EXCHANGE)
    check_whole(final, "old")
    assert os.listdir(final.parent) == ["step_1"]


# Others at the same moment


def test_readers_never_see_a_mixture_or_nothing_while_it_is_replaced(final: Path, tmp_path: Path) -> None:
    barrier = CONTEXT.Barrier(2)
    rounds = 200
    writer = Child(replace_again_and_again, 1, str(final), rounds, barrier, known())
    barrier.wait(PATIENCE)
    seen, fetched = set(), 0
    for turn in itertools.count():
        name = str(atomicpath.read_record(final).metadata["writer"])
        assert atomicpath.is_committed(final)
        found = {}
        for file in FILES:
            assert final.exists()
            with open(final / file, "rb") as opened:
                found[file] = opened.read()
        if atomicpath.read_record(final).metadata["writer"] == name:
            assert found == content_of(name)
            seen.add(name)
        if turn % 20 == 0:
            try:
                got = atomicpath.get(final, tmp_path / f"got-{turn}", verify=True)
            except atomicpath.NotCommittedError as error:
                assert "while it was read" in str(error)
            else:
                check_whole(got, atomicpath.read_record(got).metadata["writer"])
                fetched += 1
        if name == f"1-{rounds - 1}":
            break
    assert writer.result() == 0
    assert len(seen) > 3
    assert fetched
    assert os.listdir(final.parent) == ["step_1"]


def test_of_replacers_at_the_same_moment_each_comes_through_and_the_last_one_stays(final: Path) -> None:
    rounds = 200 if FULL else 30
    barrier = CONTEXT.Barrier(3)
    writers = [Child(replace_again_and_again, n, str(final), rounds, barrier, known()) for n in range(3)]
    assert [writer.result() for writer in writers] == [0, 0, 0]
    last = str(atomicpath.read_record(final).metadata["writer"])
    assert last.endswith(f"-{rounds - 1}")
    check_whole(final, last)
    assert os.listdir(final.parent) == ["step_1"]


class Meddling(World):
    """Does something once, right before one of some functions is called for the time of that number."""

    def __init__(self, *functions: Callable[..., object], act: Callable[[], object], at: int = 0) -> None:
        super().__init__()
        counter = itertools.count()
        self.done = False

        def call(function: Callable[..., object], *args: Any, **kwargs: Any) -> object:
            if next(counter) == at:
                self.done = True
                with environment.use(environment.Environment()):
                    act()
            return function(*args, **kwargs)

        self.faults.update({function: partial(call, function) for function in functions})


def another_tools(final: Path) -> None:
    write_tree(final, {**content_of("old"), MARKER: b""})


def one_decided_by_its_marker(final: Path) -> None:
    publish(final, "old", replace=False, temporary_path_class=atomicpath.CommitFileTemporaryPath, checksums=True)
    record = CommitRecord.decode((final / RECORD).read_bytes(), where="")
    assert record.decided_by == "marker"


def ours(final: Path) -> None:
    publish(final, "old", replace=False, checksums=True)


@pytest.mark.parametrize(
    ("reader", "make"),
    [
        (reader, make)
        for reader in ("is_committed", "get", "verify", "replace")
        for make in (another_tools, one_decided_by_its_marker, ours)
        if (reader, make) != ("verify", another_tools)  # there is no manifest to compare with
    ],
)
def test_a_reader_is_right_wherever_between_its_reads_the_directory_is_replaced(
    reader: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    for at in itertools.count():
        final, copy = tmp_path / f"step_{at}", tmp_path / f"copy_{at}"
        make(final)
        act = partial(publish, final, "a rival", checksums=True)
        world = Meddling(os.open, open, trees._scan, act=act, at=at)
        with environment.use(world):
            if reader == "is_committed":
                assert atomicpath.is_committed(final)
            elif reader == "get":
                assert content(atomicpath.get(final, copy)) in (content_of("old"), content_of("a rival"))
            elif reader == "verify":
                assert atomicpath.verify(final, checksums=True).ok
            else:
                publish(final, "new")
                world.done = at < 6  # what is read when it begins, and no more
        if not world.done:
            break
        check_whole(final, "new" if reader == "replace" else "a rival")
    assert at > 0


def test_one_that_vanishes_in_between_is_not_missed(final: Path) -> None:
    world = Meddling(exchange, act=lambda: final.rename(final.with_name("moved-away")))
    with environment.use(world):
        publish(final, "new")
    check_whole(final, "new")
    check_whole(final.with_name("moved-away"), "old")
    assert sorted(os.listdir(final.parent)) == ["moved-away", "step_1"]


def test_one_that_appears_in_between_is_replaced(tmp_path: Path) -> None:
    final = tmp_path / "step_1"
    world = Meddling(no_replace, act=lambda: publish(final, "a rival"))
    with environment.use(world):
        publish(final, "new")
    check_whole(final, "new")
    assert os.listdir(tmp_path) == ["step_1"]


def test_a_directory_that_was_put_there_by_hand_meanwhile_is_not_deleted(
    final: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever does not take the lock can get in between; what made room is looked at again before it is deleted."""

    def by_hand() -> None:
        shutil.move(final, final.with_name("moved-away"))
        write_tree(final, {"precious": b"data"})

    with environment.use(Meddling(exchange, act=by_hand)):
        publish(final, "new")
    check_whole(final, "new")
    left = next(path for path in (final.parent / ".atomicpath").iterdir() if path.is_dir())
    assert files(left) == {"precious": b"data"}
    assert f"{left}" in caplog.text


class Impatient(World):
    """Waits for nothing, and lets `on_sleep` do what others do meanwhile."""

    def __init__(self, on_sleep: Callable[[int], object]) -> None:
        super().__init__()
        self.slept: list[float] = []
        self.on_sleep = on_sleep

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.on_sleep(len(self.slept))


def test_one_that_another_holds_is_waited_for_but_not_for_ever(final: Path) -> None:
    hold = lock_file(System(environment.Environment()), lock_file_of(final))
    assert hold is not None
    world = Impatient(lambda times: None)
    with environment.use(world), pytest.raises(atomicpath.ConflictError, match="another process") as raised:
        publish(final, "new")
    assert raised.value.record is not None
    assert 1 < sum(world.slept) < 10
    check_whole(final, "old")
    assert leftovers(final.parent) == []
    world = Impatient(lambda times: hold.release() if times == 3 else None)
    with environment.use(world):
        publish(final, "new")
    assert len(world.slept) == 3
    check_whole(final, "new")


def test_a_remover_and_a_replacer_get_along(final: Path) -> None:
    """The remover holds it, renames it away, deletes it; the replacer then finds nothing there."""
    hold = lock_file(System(environment.Environment()), lock_file_of(final))
    assert hold is not None

    def remove(times: int) -> None:
        final.rename(final.parent / ".atomicpath" / f"step_1{TMP_DIR_SUFFIX}4567.discarded")
        hold.release()

    with environment.use(Impatient(remove)):
        publish(final, "new")
    check_whole(final, "new")


# Outcomes


def failing(function: object, *, done: bool, code: int = errno.EIO) -> World:
    world = World()

    def call(*args: Any, **kwargs: Any) -> None:
        if done:
            function(*args, **kwargs)  # type: ignore[operator]
        raise OSError(code, os.strerror(code))

    world.faults[function] = call
    return world


def test_an_exchange_that_happened_and_was_said_to_have_failed_is_a_commit(final: Path) -> None:
    with environment.use(failing(exchange, done=True)):
        publish(final, "new")
    check_whole(final, "new")
    assert os.listdir(final.parent) == ["step_1"]


@pytest.mark.parametrize("code", [errno.EIO, errno.EXDEV, errno.EBUSY, errno.EACCES])
def test_an_exchange_that_failed_leaves_the_old_one(final: Path, code: int) -> None:
    with environment.use(failing(exchange, done=False, code=code)), pytest.raises(atomicpath.AtomicPathError) as raised:
        publish(final, "new")
    assert not isinstance(raised.value, atomicpath.OutcomeUnknownError)
    check_whole(final, "old")
    assert os.listdir(final.parent) == ["step_1"]


@pytest.mark.parametrize("done", [False, True])
def test_an_exchange_without_an_answer_and_without_a_look_is_unknown_and_nothing_is_cleaned_up(
    final: Path, done: bool
) -> None:
    world = World()

    def call(*args: Any) -> None:
        if done:
            exchange(*args)
        world.faults[os.lstat] = fail_once
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def fail_once(*args: Any) -> None:
        del world.faults[os.lstat]
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    world.faults[exchange] = call
    with environment.use(world), pytest.raises(atomicpath.OutcomeUnknownError, match="is_committed"):
        publish(final, "new")
    check_whole(final, "new" if done else "old")
    beside = next(path for path in (final.parent / ".atomicpath").iterdir() if path.is_dir())
    assert content(beside) == content_of("old" if done else "new")


def test_the_old_one_is_not_deleted_before_the_exchange_is_durable(final: Path) -> None:
    world = World()
    syncs = []

    def fsync(fd: int) -> None:
        syncs.append(os.readlink(f"/proc/self/fd/{fd}"))
        if syncs[-1] == str(final.parent):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)

    world.faults[os.fsync] = fsync
    with environment.use(world), pytest.raises(atomicpath.OutcomeUnknownError, match="visible"):
        publish(final, "new")
    check_whole(final, "new")
    beside = next(path for path in (final.parent / ".atomicpath").iterdir() if path.is_dir())
    assert content(beside) == content_of("old"), "a power cut may still give it its name back"
    assert syncs[-1] == str(final.parent)


def test_an_old_one_that_cannot_be_deleted_is_a_warning_and_no_error(
    final: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with environment.use(failing(os.unlink, done=False)), caplog.at_level(logging.WARNING, "atomicpath"):
        publish(final, "new")
    check_whole(final, "new")
    assert "sweep" in caplog.text
    assert atomicpath.latest(final.parent) is not None
    publish(final, "newer")
    check_whole(final, "newer")


# Crashes


def moments(run: Callable[[Killer], int | None], after: bool) -> Iterator[Killer]:
    """The calls to be killed at, and at last none: all with ATOMICPATH_FULL=1, else above all those of the exchange."""
    count = run(Killer(of="call", at=None))
    assert count is not None
    for at in range(count) if FULL else sorted({*range(0, count, 10), *range(count - 26, count, 2)}):
        yield Killer(of="call", at=at, after=after)
    yield Killer(of="call", at=None)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_call_the_old_one_or_the_new_one_is_there_whole(final: Path, after: bool) -> None:
    options = {"replace": True, "metadata": {"writer": "killed"}}

    def run(killer: Killer) -> int | None:
        count: int | None = Child(commit_files, str(final), "killed", killer, known(), **options).result()
        return count

    outcomes = []
    for killer in moments(run, after):
        atomicpath.sweep(final.parent, older_than=timedelta(0))  # which the next attempt looks at
        if atomicpath.read_record(final).metadata["writer"] != "old":
            publish(final, "old")
        assert (run(killer) is None) == (killer.at is not None)
        outcomes.append(str(atomicpath.read_record(final).metadata["writer"]))
        check_whole(final, outcomes[-1])
        assert [commit.name for commit in atomicpath.committed(final.parent)] == ["step_1"]
        if len(outcomes) % 8 == 0:
            publish(final, "restarted")
            check_whole(final, "restarted")
    assert outcomes == sorted(outcomes, key=["old", "killed"].index), "once replaced, no later kill undoes it"
    assert {*outcomes[:-1]} == {"old", "killed"}


@pytest.mark.parametrize("broken", [False, True], ids=["as it is", "without the last sync"])
def test_after_a_power_cut_at_any_call_the_old_one_or_the_new_one_is_there_whole(final: Path, broken: bool) -> None:
    class Cut(Disk):
        def perform(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            if broken and function is os.fsync and os.readlink(f"/proc/self/fd/{args[0]}") == str(final.parent):
                return None
            return super().perform(function, *args, **kwargs)

    def judge(found: dict[str, bytes] | None) -> None:
        assert found is not None
        names = {name: data for name, data in found.items() if name not in (RECORD, MARKER)}
        assert names in (content_of("old"), content_of("new"))
        assert CommitRecord.decode(found[RECORD], where="the disk").state is State.COMMITTED

    def judge_new(found: dict[str, bytes] | None) -> None:
        assert found is not None
        assert found["model.bin"] == content_of("new")["model.bin"]

    disk = Cut(final.parent, final, judge)
    try:
        with pytest.raises(AssertionError) if broken else nullcontext():
            with environment.use(disk):
                publish(final, "new")
            disk.cut(judge=judge_new)
    finally:
        disk.close()
    assert broken or disk.cuts > 200


def test_the_place_of_the_test_is_one_where_two_names_are_exchanged(local_place: LocalRoot) -> None:
    assert Guarantee.RENAME_EXCHANGE in atomicpath.profile(local_place / "step_1").effective
