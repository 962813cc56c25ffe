"""SIGKILL at every call through the seam: what is left, and that the restarted job commits the same path at once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._core import environment
from atomicpath._core.environment import Environment
from atomicpath._core.layout import RECORD_FILE
from tests.support.processes import FILES, Child, Killer, commit_files, content_of, known, write_tree

Look = Callable[[], dict[str, bytes]]
FULL = os.environ.get("ATOMICPATH_FULL") == "1"
SLACK = 10  # calls by which two runs differ: whether a killed process has ended is looked at until it has


class Impatient(Environment):
    """Notes every wait that was asked for, and waits for none."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Root:
    """Where steps are committed, one after the other, by jobs that are killed and jobs that are restarted."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.storage_options = options.pop("storage_options", None)
        self.options = options
        self.steps = itertools.count(1)
        self.restart(self.url_of(0), writer="the first job")

    def url_of(self, step: int) -> str:
        return f"{self.url}/step_{step}"

    def restart(self, url: str, *, writer: object, **options: Any) -> None:
        """Commit by the restarted job, which must not wait for anything."""
        world = Impatient()
        with (
            environment.use(world),
            atomicpath.commit(url, storage_options=self.storage_options, **{**self.options, **options}) as path,
        ):
            write_tree(path, content_of(writer))
        assert not any(world.slept), f"it waited: {world.slept}"

    def run(self, url: str, killer: Killer, *, writer: object = "killed", die: bool = False, **options: Any) -> Any:
        """Commit in a process that is killed; how many calls it made if it was not."""
        everything = {"storage_options": self.storage_options, **self.options, **options}
        return Child(commit_files, url, writer, killer, known(), die=die, **everything).result()

    def check_complete(self, url: str, writer: object) -> None:
        assert atomicpath.verify(url, storage_options=self.storage_options).ok
        directory = atomicpath.resolve(url, storage_options=self.storage_options)
        assert {name: (directory / name).read_bytes() for name in FILES} == content_of(writer)

    def check_and_restart(self, step: int, **options: Any) -> bool:
        """After a kill: whole or not there, `latest` is right, and the restarted job gets it done. Whether whole."""
        url = self.url_of(step)
        complete = atomicpath.is_committed(url, storage_options=self.storage_options)
        newest = atomicpath.latest(self.url, storage_options=self.storage_options)
        assert newest is not None
        assert newest.step == (step if complete else step - 1)
        if complete:
            self.check_complete(url, "killed")
            with pytest.raises(atomicpath.AlreadyCommittedError):
                self.restart(url, writer="restarted", **options)
            self.check_complete(url, "killed")
        else:
            self.restart(url, writer="restarted", **options)
            self.check_complete(url, "restarted")
        return complete


def kill_at_every(of: str, *, after: bool, run: Callable[[Killer], int | None], stride: int = 1) -> int:
    """Let `run` be killed at each call until it is not; how many there were.

    `stride`: without ATOMICPATH_FULL=1 only at each so-many-th, after calls half-way between those it is killed before.
    """
    stride = 1 if FULL else stride
    for at in itertools.count(stride // 2 if after else 0, stride):
        count = run(Killer(of=of, at=at, after=after))
        if count is not None:
            assert at - stride - SLACK < count <= at, "it was not killed where it should have been"
            return count
    raise AssertionError


@pytest.fixture
def local(tmp_path: Path) -> Root:
    return Root(str(tmp_path / "run"))


@pytest.fixture
def s3(s3_root: tuple[str, Look], s3_options: dict[str, Any], tmp_path: Path) -> Root:
    staging = tmp_path / "staging"
    staging.mkdir()
    return Root(s3_root[0], storage_options=s3_options, staging_dir=str(staging))


@pytest.fixture
def objects(s3_root: tuple[str, Look]) -> Look:
    return s3_root[1]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_call_a_local_commit_is_whole_or_absent(local: Root, after: bool) -> None:
    outcomes = []

    def run(killer: Killer) -> int | None:
        step = next(local.steps)
        count = local.run(local.url_of(step), killer)
        outcomes.append(local.check_and_restart(step))
        return count

    assert kill_at_every("call", after=after, run=run, stride=9) > 20
    assert sorted(outcomes) == outcomes, "once committed, no later kill undoes it"
    assert {*outcomes} == {False, True}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_request_a_commit_to_s3_is_whole_or_absent(s3: Root, objects: Look, after: bool) -> None:
    outcomes = []

    def run(killer: Killer) -> int | None:
        step = next(s3.steps)
        count = s3.run(s3.url_of(step), killer)
        outcomes.append(s3.check_and_restart(step))
        return count

    count = kill_at_every("request", after=after, run=run)
    assert count == 8, "two to look above the place, two to begin, one for each file, two to commit"
    assert {*outcomes} == {False, True}
    written = {*FILES, "_commit_record.json"}
    for step in range(count + 2):
        found = {key.partition(f"/step_{step}/")[2] for key in objects() if f"/step_{step}/" in key}
        assert found - {"commit_success.txt"} == written, "nothing of the killed attempt is left"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_local_call_a_commit_to_s3_leaves_no_staging_directory_for_long(
    s3: Root, tmp_path: Path, after: bool
) -> None:
    left = []

    def run(killer: Killer) -> int | None:
        step = next(s3.steps)
        staging = tmp_path / f"staging-{step}"
        staging.mkdir()
        count = s3.run(s3.url_of(step), killer, staging_dir=str(staging))
        left.append(len([*staging.iterdir()]))
        if not s3.check_and_restart(step, staging_dir=str(staging)):
            # one killed as it was made, before its record was written, is not provably abandoned: it stays, empty
            assert [(file.name, file.stat().st_size) for file in staging.rglob("*/*")] in ([], [(RECORD_FILE, 0)])
        return count

    assert kill_at_every("call", after=after, run=run, stride=7) > 5
    assert {*left} == {0, 1}


def test_killed_in_the_block_nothing_is_visible(local: Root) -> None:
    step = next(local.steps)
    assert local.run(local.url_of(step), Killer(of="call", at=None), die=True) is None
    assert not local.check_and_restart(step)


def test_oom_kill_mid_write(s3: Root) -> None:
    step = next(s3.steps)
    assert s3.run(s3.url_of(step), Killer(of="request", at=None), die=True) is None
    assert not s3.check_and_restart(step)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_killed_direct_attempt_is_taken_over_only_where_the_user_says_so(
    s3: Root, objects: Look, after: bool
) -> None:
    def run(killer: Killer) -> int | None:
        step = next(s3.steps)
        url = s3.url_of(step)
        count = s3.run(url, killer, direct=True)
        before = objects()
        if atomicpath.is_committed(url, storage_options=s3.storage_options):
            s3.check_complete(url, "killed")
            return count
        if any(f"/step_{step}/" in key for key in before):
            with pytest.raises(atomicpath.ConflictError, match="unsafe_takeover"):
                s3.restart(url, writer="restarted", direct=True)
            assert objects() == before, "what the killed one wrote was not touched"
        s3.restart(url, writer="restarted", direct=True, unsafe_takeover=True)
        s3.check_complete(url, "restarted")
        return count

    count = kill_at_every("request", after=after, run=run, stride=2)
    assert count == 7, "two looks at the places above, and five for the attempt"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_call_a_local_commit_in_place_is_whole_or_absent(local: Root, after: bool) -> None:
    """A local disk has no conditional writes, so what was left behind is taken over only on the user's word."""
    local.options = {"temporary_path_class": atomicpath.CommitFileTemporaryPath}

    def run(killer: Killer) -> int | None:
        step = next(local.steps)
        count = local.run(local.url_of(step), killer)
        local.check_and_restart(step, unsafe_takeover=True)
        return count

    assert kill_at_every("call", after=after, run=run, stride=9) > 20


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_crash_during_recovery(s3: Root, after: bool) -> None:
    uploaded = Killer(of="request", at=4)  # every file is there, the commit was not sent

    def run(killer: Killer) -> int | None:
        step = next(s3.steps)
        url = s3.url_of(step)
        assert s3.run(url, uploaded, writer="first") is None
        count = s3.run(url, killer)
        s3.check_and_restart(step)
        return count

    assert kill_at_every("request", after=after, run=run, stride=5) > 10


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_crash_during_recovery_on_a_local_disk(local: Root, after: bool) -> None:
    def run(killer: Killer) -> int | None:
        step = next(local.steps)
        url = local.url_of(step)
        assert local.run(url, Killer(of="call", at=None), writer="first", die=True) is None
        count = local.run(url, killer)
        local.check_and_restart(step)
        return count

    assert kill_at_every("call", after=after, run=run, stride=9) > 20


def test_killed_while_probing_nothing_counts_as_committed(s3: Root) -> None:
    step = next(s3.steps)
    for at in range(0, 36, 5 if FULL else 12):
        url = s3.url_of(step)
        everything = {"storage_options": s3.storage_options, **s3.options}
        killer = Killer(of="request", at=at)
        assert Child(commit_files, url, "killed", killer, {}, **everything).result() is None
        newest = atomicpath.latest(s3.url, storage_options=s3.storage_options)
        assert newest is not None
        assert newest.step == 0
        assert [found.step for found in atomicpath.committed(s3.url, storage_options=s3.storage_options)] == [0]
    assert not s3.check_and_restart(step)
