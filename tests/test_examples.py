"""The trainer of the examples, as a user runs it: interrupted in a save, it ends as if it never had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import atomicpath
from tests.support.waiting import PATIENCE

TRAIN = Path(__file__).parents[1] / "examples" / "train.py"
LENGTH = ["--steps", "60", "--every", "15"]


def train(out: Path) -> str:
    """Train to the end; the last line printed."""
    command = [sys.executable, str(TRAIN), "--out", str(out), *LENGTH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.splitlines()[-1]


_KILLED = """
import os, runpy, signal, sys
import numpy

whole, saves = numpy.savez, []

def dying(file, **arrays):
    saves.append(file)
    whole(file, **arrays)
    if len(saves) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

numpy.savez = dying
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_trainer_killed_in_the_middle_of_a_save_resumes_and_ends_bit_equal(tmp_path: Path) -> None:
    uninterrupted = train(tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, "-c", _KILLED, str(TRAIN), "--out", str(out), *LENGTH]
    killed = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=PATIENCE, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [commit.step for commit in atomicpath.committed(out)] == [15]
    (left,) = atomicpath.attempts(out)
    assert left.final.name == "step_30"
    assert left.alive is False
    assert train(out) == uninterrupted
    assert [commit.step for commit in atomicpath.committed(out)] == [15, 30, 45, 60]
    assert all(atomicpath.verify(commit.path).ok for commit in atomicpath.committed(out))


def test_a_finished_training_that_is_run_again_changes_nothing(tmp_path: Path) -> None:
    first = train(tmp_path)
    before = {name: os.stat(tmp_path / name).st_mtime_ns for name in os.listdir(tmp_path)}
    assert train(tmp_path) == first
    assert {name: os.stat(tmp_path / name).st_mtime_ns for name in os.listdir(tmp_path)} == before
