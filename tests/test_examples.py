"""The trainer of the examples, as a user runs it: interrupted in a save, it ends as if it never had been."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import atomicpath
from tests.waiting import PATIENCE

TRAIN = Path(__file__).parents[1] / "examples" / "train.py"
LENGTH = ["--steps", "60", "--every", "15"]


def train(out: Path) -> str:
    """Train to the end; the last line printed."""
    command = [sys.executable, str(TRAIN), "--out", str(out), *LENGTH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.splitlines()[-1]


def test_a_trainer_killed_in_the_middle_of_a_save_resumes_and_ends_bit_equal(tmp_path: Path) -> None:
    uninterrupted = train(tmp_path / "whole")
    out = tmp_path / "killed"
    for _ in range(20):  # a save takes milliseconds, so a kill may come after it; then the next run is killed
        trainer = subprocess.Popen([sys.executable, str(TRAIN), "--out", str(out), *LENGTH], stdout=subprocess.DEVNULL)
        while trainer.poll() is None and not (left := list(out.glob("*.atomicpath-tmp-*"))):
            time.sleep(0.0005)
        trainer.kill()
        trainer.wait()
        if left and any(path.exists() for path in left):
            break
    else:
        pytest.fail("no kill fell into a save")
    assert not any(atomicpath.is_committed(path) for path in left)
    assert train(out) == uninterrupted
    assert [commit.step for commit in atomicpath.committed(out)] == [15, 30, 45, 60]
    assert all(atomicpath.verify(commit.path).ok for commit in atomicpath.committed(out))


def test_a_finished_training_that_is_run_again_changes_nothing(tmp_path: Path) -> None:
    first = train(tmp_path)
    before = {name: os.stat(tmp_path / name).st_mtime_ns for name in os.listdir(tmp_path)}
    assert train(tmp_path) == first
    assert {name: os.stat(tmp_path / name).st_mtime_ns for name in os.listdir(tmp_path)} == before
