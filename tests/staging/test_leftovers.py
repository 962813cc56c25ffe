"""What dead processes have staged is deleted with proof only, and nothing else is, whatever its name."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

import atomicpath
from atomicpath._commit.staging import Staging
from atomicpath._core.environment import Environment, use
from atomicpath._core.liveness import this_process
from atomicpath._core.record import CommitRecord, State, Writer
from tests.staging.users import NOBODY, needs_root
from tests.support.roots import MemoryRoot

P = ParamSpec("P")
T = TypeVar("T")

TOP = Path(__file__).parents[2]
RECORD = "_commit_record.json"
TOKEN = "0123456789abcdef0123"

_STAGES = """
import sys, atomicpath
with atomicpath.commit("memory://run/step_1", staging_dir=sys.argv[1]) as path:
    (path / "x").write_bytes(b"1")
    print(path, flush=True)
    sys.stdin.read()
"""

_STAGES_WITHOUT_A_MAIN_THREAD = """
import ctypes, os, sys, threading, atomicpath

def stage():
    with atomicpath.commit("memory://run/step_1", staging_dir=sys.argv[1]) as path:
        (path / "x").write_bytes(b"1")
        while open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
            pass
        print(path, flush=True)
        sys.stdin.readline()
        (path / "y").write_bytes(b"2")
    print("committed", flush=True)
    os._exit(0)

threading.Thread(target=stage).start()
ctypes.CDLL(None).pthread_exit(None)
"""

Process = subprocess.Popen[str]


def started(script: str, place: Path) -> Process:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=TOP,
    )


def line_of(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "staging").mkdir(mode=0o700)
    return tmp_path / "staging"


@pytest.fixture
def holder(place: Path) -> Iterator[Process]:
    """A process of this host with a staged commit under way."""
    with started(_STAGES, place) as process:
        yield process
        process.kill()


def publish(memory: MemoryRoot, place: Path) -> None:
    with atomicpath.commit(memory / "step_1", staging_dir=place) as path:
        (path / "x").write_bytes(b"1")
    assert atomicpath.verify(memory / "step_1").ok


def dead_process() -> Writer:
    """The identity of a process of this host that has ended."""
    here = this_process(Environment())
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pid = child.pid
    return replace(here, pid=pid, start=0)


def leftover(place: Path, writer: Writer | None = None, *, locked: bool = True, token: str = TOKEN) -> Path:
    """A staging directory as a process that died has left it."""
    outer = place / f"atomicpath-staging-{token}"
    (outer / "files" / "sub").mkdir(parents=True, mode=0o700)
    (outer / "files" / "sub" / "x").write_bytes(b"1")
    record = CommitRecord(
        state=State.WRITING,
        token=token,
        strategy="staging",
        started=1,
        writer=writer or dead_process(),
        metadata={"locked": locked},
    )
    (outer / RECORD).write_bytes(record.encode())
    return outer


def test_what_a_killed_process_staged_is_removed(memory: MemoryRoot, place: Path, holder: Process) -> None:
    staged = Path(line_of(holder))
    publish(memory, place)
    assert staged.is_dir(), "its process lives"
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    publish_as = memory / "step_2"
    with atomicpath.commit(publish_as, staging_dir=place, allow_empty=True) as path:
        assert not staged.parent.exists()
        assert path.is_dir()
    assert list(place.iterdir()) == []


def test_a_process_whose_main_thread_has_ended_keeps_what_it_staged(memory: MemoryRoot, place: Path) -> None:
    with started(_STAGES_WITHOUT_A_MAIN_THREAD, place) as process:
        staged = Path(line_of(process))
        publish(memory, place)
        assert (staged / "x").read_bytes() == b"1"
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert line_of(process) == "committed"


def test_the_leftover_of_a_dead_process_is_removed(memory: MemoryRoot, place: Path) -> None:
    outer = leftover(place)
    publish(memory, place)
    assert not outer.exists()


def test_a_locked_directory_stays_whatever_its_record_says(memory: MemoryRoot, place: Path) -> None:
    outer = leftover(place)
    with open(outer / RECORD, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        publish(memory, place)
        assert (outer / "files/sub/x").exists()
    with atomicpath.commit(memory / "step_2", staging_dir=place, allow_empty=True):
        assert not outer.exists()


def test_a_process_of_another_container_that_has_let_go_of_its_lock_is_dead(memory: MemoryRoot, place: Path) -> None:
    writer = replace(dead_process(), namespace="pid:[1]", host="another-container")
    outer = leftover(place, writer)
    publish(memory, place)
    assert not outer.exists()


@pytest.mark.parametrize(
    "writer",
    [
        pytest.param({"boot": "another boot"}, id="another-boot"),
        pytest.param({"boot": ""}, id="no-boot"),
        pytest.param({"namespace": "pid:[1]"}, id="another-namespace"),
        pytest.param({"pid": 10**30}, id="pid-beyond-range"),
        pytest.param({"pid": -1}, id="negative-pid"),
        pytest.param({"pid": 0}, id="pid-0"),
        pytest.param({"start": 10**30}, id="start-beyond-range"),
        pytest.param({"start": -1}, id="negative-start"),
        pytest.param({"start": None}, id="no-start"),
        pytest.param({"host": "a-clone"}, id="another-host-name"),
    ],
)
def test_without_a_lock_only_a_proof_of_death_counts(
    writer: dict[str, object], memory: MemoryRoot, place: Path
) -> None:
    outer = leftover(place, replace(dead_process(), **writer), locked=False)  # type: ignore[arg-type]
    publish(memory, place)
    assert (outer / "files/sub/x").exists()


def test_a_committed_directory_whose_name_has_the_prefix_stays(memory: MemoryRoot, place: Path) -> None:
    kept = place / f"atomicpath-staging-{TOKEN}"
    with atomicpath.commit(kept) as path:
        (path / "x").write_bytes(b"1")
    publish(memory, place)
    assert atomicpath.verify(kept).ok


@pytest.mark.parametrize("state", [State.COMMITTED, State.DISCARDED])
def test_a_record_in_another_state_is_no_leftover(state: State, memory: MemoryRoot, place: Path) -> None:
    outer = leftover(place)
    record = CommitRecord.decode((outer / RECORD).read_bytes(), where="the test")
    (outer / RECORD).write_bytes(record.moved_to(state).encode())
    publish(memory, place)
    assert outer.exists()


def test_a_copy_of_a_leftover_under_another_name_stays(memory: MemoryRoot, place: Path) -> None:
    leftover(place)
    copy = place / "atomicpath-staging-my-copy"
    os.rename(place / f"atomicpath-staging-{TOKEN}", copy)
    publish(memory, place)
    assert (copy / "files/sub/x").exists()


def test_a_link_with_the_name_of_a_leftover_is_not_followed(memory: MemoryRoot, place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = leftover(tmp_path / "elsewhere")
    (place / real.name).symlink_to(real)
    publish(memory, place)
    assert (real / "files/sub/x").exists()
    assert (place / real.name).is_symlink()


def test_a_link_in_a_leftover_is_removed_and_not_followed(memory: MemoryRoot, place: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_bytes(b"precious")
    outer = leftover(place)
    (outer / "files" / "link").symlink_to(victim)
    (outer / "link").symlink_to(victim)
    publish(memory, place)
    assert not outer.exists()
    assert (victim / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["fifo", "directory", "sparse", "link", "empty", "garbage"])
def test_an_odd_record_neither_blocks_nor_hurts(kind: str, memory: MemoryRoot, place: Path, tmp_path: Path) -> None:
    outer = leftover(place)
    record = outer / RECORD
    data = record.read_bytes()
    record.unlink()
    if kind == "fifo":
        os.mkfifo(record)
    elif kind == "directory":
        record.mkdir()
    elif kind == "sparse":
        record.write_bytes(data)
        os.truncate(record, 3 << 30)
    elif kind == "link":
        (tmp_path / "record").write_bytes(data)
        record.symlink_to(tmp_path / "record")
    else:
        record.write_bytes(b"" if kind == "empty" else b"\xff\x00{")
    publish(memory, place)
    assert (outer / "files/sub/x").exists()


@needs_root
@pytest.mark.parametrize("which", ["directory", "record"])
def test_what_belongs_to_another_user_stays(which: str, memory: MemoryRoot, place: Path) -> None:
    outer = leftover(place)
    os.chown(outer if which == "directory" else outer / RECORD, NOBODY, NOBODY)
    publish(memory, place)
    assert (outer / "files/sub/x").exists()


class FailingAt(Environment):
    """The k-th system call fails."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls = 0

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        number, self.calls = self.calls, self.calls + 1
        if number == self.at:
            if function is os.close:
                function(*args, **kwargs)  # as Linux does: the descriptor is gone, whatever close says
            raise OSError(errno.EIO, "as the test asked")
        return super().call(function, *args, **kwargs)


async def test_wherever_making_it_fails_nothing_is_left(place: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    outcomes = []
    for at in range(1000):
        environment = FailingAt(at)
        staging = Staging(environment, place)
        try:
            await staging.create()
        except atomicpath.ValidationError:
            outcomes.append("refused")
        else:
            outcomes.append("made")
        environment.at = -1
        await staging.remove()
        assert list(place.iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) == before
        if environment.calls <= at:
            break
    assert environment.calls <= at, "every call was made to fail once"
    assert {"refused", "made"} <= set(outcomes)


@needs_root
def test_nothing_below_a_mount_is_removed(
    memory: MemoryRoot, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "precious").write_bytes(b"precious")
    outer = leftover(place)
    there = outer / "files" / "sub"
    bound = subprocess.run(["mount", "--bind", data, there], check=False, capture_output=True)
    if bound.returncode:
        pytest.skip(f"this root may not mount: {bound.stderr!r}")
    try:
        with caplog.at_level(logging.DEBUG, logger="atomicpath"):
            publish(memory, place)
        assert (data / "precious").read_bytes() == b"precious"
        assert (outer / RECORD).exists(), "the record goes last, so that the next one can end it"
        assert f"{outer} stays" in caplog.text
        assert "unmount it first: 'files/sub'" in caplog.text
    finally:
        subprocess.run(["umount", there], check=True)
    with atomicpath.commit(memory / "step_2", staging_dir=place, allow_empty=True):
        assert not outer.exists()
    assert (data / "precious").read_bytes() == b"precious"


def test_read_only_and_very_deep_directories_that_a_block_made_are_removed(memory: MemoryRoot, place: Path) -> None:
    with pytest.raises(KeyError), atomicpath.commit(memory / "step_1", staging_dir=place) as path:
        (path / "sub").mkdir()
        (path / "sub" / "x").write_bytes(b"1")
        (path / "sub").chmod(0o555)
        fd = os.open(path, os.O_RDONLY)
        for _ in range(2500):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
        raise KeyError
    assert list(place.iterdir()) == []


def test_what_an_older_version_left_in_the_temporary_directory_stays(memory: MemoryRoot, temporary: Path) -> None:
    outer = leftover(temporary)
    with atomicpath.commit(memory / "step_1") as path:
        (path / "x").write_bytes(b"1")
    assert (outer / "files/sub/x").exists()


def test_no_descriptor_is_left_open_by_staging(memory: MemoryRoot, place: Path) -> None:
    publish(memory, place)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        leftover(place, token=f"{number:020}")
        with atomicpath.commit(memory / f"step_{number + 10}", staging_dir=place) as path:
            (path / "x").write_bytes(b"1")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("where", ["the step", "its first call", "the record"])
def test_a_commit_whose_staging_cannot_be_deleted_has_happened_and_the_next_one_deletes_it(
    where: str, memory: MemoryRoot, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(Environment):
        """Deleting what was staged fails."""

        async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
            if where == "the step" and getattr(function, "__name__", "") == "_remove":
                raise OSError(errno.EIO, "it fails, says the test")
            return await super().step(function, *args, **kwargs)

        def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
            first = {"its first call": "listdir", "the record": "unlink"}.get(where)
            if getattr(function, "__name__", "") == first and self.ends:
                raise OSError(errno.EIO, "it fails, says the test")
            return function(*args, **kwargs)

        ends = False

    stuck = Stuck()
    before = set(os.listdir("/proc/self/fd"))
    with use(stuck), atomicpath.commit(memory / "step_1", staging_dir=place) as path:
        (path / "x").write_bytes(b"1")
        stuck.ends = True
    assert atomicpath.verify(memory / "step_1").ok
    assert set(os.listdir("/proc/self/fd")) == before
    (left,) = place.iterdir()
    assert str(left) in caplog.text
    assert "delete it by hand" in caplog.text
    with atomicpath.commit(memory / "step_2", staging_dir=place) as path:
        (path / "x").write_bytes(b"1")
    assert list(place.iterdir()) == []
