"""A job that ends while it saves in the background, at each moment, in each way: real processes, on a disk and S3."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import atomicpath
from atomicpath._core import environment
from atomicpath._core.environment import Environment
from tests.manager import ends
from tests.support.roots import Root
from tests.support.waiting import PATIENCE

TOP = Path(__file__).parents[2]
CODES = {"kill": {-signal.SIGKILL}, "interrupt": {-signal.SIGINT, 130, 1}, "exception": {1}, "exit": {0}}


class Noting(Environment):
    """Notes for how long it waits, as for somebody's lease."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(seconds)


@pytest.mark.parametrize("moment", ends.MOMENTS)
@pytest.mark.parametrize("end", ends.ENDS)
@pytest.mark.parametrize("place", ["local", "moto"], indirect=True)
def test_a_job_that_ends_while_it_saves(place: Root, end: str, moment: str) -> None:
    command = [sys.executable, "-m", "tests.manager.ends", place.url, json.dumps(place.storage_options), moment, end]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=PATIENCE)
    print(done.stderr, file=sys.stderr)
    assert done.returncode in CODES[end]
    options = place.storage_options or None
    newest = atomicpath.latest(place.url, storage_options=options)
    assert newest is not None
    assert newest.step == ends.expected(moment, end)
    assert place.read_all(newest.name)["model"] == b"model of %d" % newest.step
    assert atomicpath.verify(newest.path).ok
    noting = Noting()
    with (
        environment.use(noting),
        atomicpath.CheckpointManager(place.url, keep_last=1, storage_options=options) as manager,
    ):
        with manager.save(newest.step + 1) as path:
            (path / "model").write_text("of the next job")
        assert manager.wait(PATIENCE)
    assert [seconds for seconds in noting.slept if seconds > 1] == [], "the next job commits at once"
    assert [one.name for one in atomicpath.committed(place.url, storage_options=options)] == [f"step_{newest.step + 1}"]


def test_the_table_of_the_docs_is_what_is_checked_here() -> None:
    assert ends.table() in (TOP / "docs" / "saving-in-the-background.md").read_text()


_TWICE = """
import os, signal, sys, threading, time
import atomicpath
from atomicpath._manager import lanes
def progress(done, total):
    time.sleep(100)
def again():
    while not lanes._keeper.is_waiting:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
atomicpath.commit_in_background(sys.argv[1], sys.argv[2], progress=progress)
threading.Thread(target=again, daemon=True).start()
"""


def test_at_the_end_of_the_interpreter_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").write_bytes(b"1")
    command = [sys.executable, "-c", _TWICE, str(tmp_path / "source"), str(tmp_path / "step_1")]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=PATIENCE)
    assert "the interpreter ends once this has ended" in done.stderr
    assert not atomicpath.is_committed(tmp_path / "step_1")
    with atomicpath.commit(tmp_path / "step_1") as path:
        (path / "x").write_bytes(b"1")


_BOUND = """
import sys, time
import atomicpath
from atomicpath._manager import lanes
lanes.PATIENCE_AT_EXIT = 2.0
def progress(done, total):
    if done == 0:
        time.sleep(4)
for number in (1, 2):
    atomicpath.commit_in_background(sys.argv[1], f"{sys.argv[2]}/step_{number}", progress=progress)
"""


def test_the_end_of_the_interpreter_waits_for_a_bounded_time_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").write_bytes(b"1")
    command = [sys.executable, "-c", _BOUND, str(tmp_path / "source"), str(tmp_path / "root")]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert "does not wait any longer" in done.stderr
    assert atomicpath.committed(tmp_path / "root") == []
    assert atomicpath.attempts(tmp_path / "root") == [], "what was under way was given up"


_ATEXIT = """
import atexit, sys
import atomicpath
atexit.register(lambda: atomicpath.commit_in_background(sys.argv[1], sys.argv[2]))
"""


def test_what_is_begun_at_exit_is_committed(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").write_bytes(b"1")
    command = [sys.executable, "-c", _ATEXIT, str(tmp_path / "source"), str(tmp_path / "step_1")]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert atomicpath.verify(tmp_path / "step_1").ok
