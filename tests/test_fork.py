"""Whose attempt is whose: forked children, pids that were given again, tokens that were drawn twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

import atomicpath
from atomicpath._core import environment, liveness
from atomicpath._core.environment import Environment
from atomicpath._core.layout import temporary_of
from tests.support.processes import FILES, Child, Killer, commit_files, content_of, fork_in_the_block, known, write_tree

Look = Callable[[], dict[str, bytes]]
TOKEN = "0123456789abcdef0123"
LEAVES = pytest.mark.parametrize(("leave", "code"), [("exception", 11), ("sys.exit", 12), ("end", 13)])


class SameToken(Environment):
    def token(self) -> str:
        return TOKEN


class Impatient(Environment):
    """Waits for nothing, and notes that it should have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@LEAVES
def test_fork_inherits_attempt_and_cleans_it(tmp_path: Path, leave: str, code: int) -> None:
    final = tmp_path / "step_1"
    assert Child(fork_in_the_block, str(final), leave).result() == code
    assert atomicpath.verify(final).ok
    assert {name: (final / name).read_bytes() for name in FILES} == content_of("the parent")
    assert [*tmp_path.iterdir()] == [final]


@LEAVES
def test_a_forked_child_leaves_the_staging_directory_and_the_record_on_s3_alone(
    s3_root: tuple[str, Look], s3_options: dict[str, Any], tmp_path: Path, leave: str, code: int
) -> None:
    url = f"{s3_root[0]}/step_1"
    atomicpath.profile(url, storage_options=s3_options)
    child = Child(fork_in_the_block, url, leave, storage_options=s3_options, staging_dir=str(tmp_path))
    assert child.result() == code
    assert atomicpath.verify(url, storage_options=s3_options).ok
    committed = atomicpath.resolve(url, storage_options=s3_options)
    assert {name: (committed / name).read_bytes() for name in FILES} == content_of("the parent")
    assert [*tmp_path.iterdir()] == []


@pytest.fixture
def left_behind(s3_root: tuple[str, Look], s3_options: dict[str, Any]) -> tuple[str, UPath, dict[str, Any]]:
    """An attempt on S3 whose process was killed: its URL, and its record, to be edited."""
    url = f"{s3_root[0]}/step_1"
    atomicpath.profile(url, storage_options=s3_options)
    killer = Killer(of="request", at=5)  # after two looks at the places above, and the record
    assert Child(commit_files, url, "killed", killer, known(), storage_options=s3_options).result() is None
    record = UPath(url, **s3_options) / "_commit_record.json"
    return url, record, json.loads(record.read_bytes())


@pytest.mark.parametrize(
    ("pid", "same_start"),
    [
        pytest.param(os.getpid, False, id="ours-with-another-start"),
        pytest.param(os.getpid, True, id="ours-with-our-start-and-not-held"),
        pytest.param(os.getppid, False, id="a-running-process-with-another-start"),
    ],
)
def test_pid_reuse_adopts_foreign_attempt(
    left_behind: tuple[str, UPath, dict[str, Any]], s3_options: dict[str, Any], pid: Callable[[], int], same_start: bool
) -> None:
    """A record that names a pid that runs is not alive by that: it is dead, and taken over at once, files and all."""
    url, path, record = left_behind
    ours = liveness.this_process(Environment())
    record["writer"] |= {"pid": pid(), "start": ours.start if same_start else (ours.start or 0) // 2}  # since the boot
    path.write_bytes(json.dumps(record).encode())
    world = Impatient()
    with environment.use(world), atomicpath.commit(url, storage_options=s3_options) as directory:
        (directory / "new.bin").write_bytes(b"new")
    assert not any(world.slept)
    found = atomicpath.read_record(url, storage_options=s3_options)
    assert found.token != record["token"]
    assert [file.name for file in found.files] == ["new.bin"]
    assert atomicpath.verify(url, storage_options=s3_options).ok, "of the old attempt nothing is left"


def test_an_attempt_that_this_process_holds_is_alive(
    left_behind: tuple[str, UPath, dict[str, Any]], s3_options: dict[str, Any], s3_root: tuple[str, Look]
) -> None:
    url, path, record = left_behind
    record["writer"] |= {"pid": os.getpid(), "start": liveness.this_process(Environment()).start}
    path.write_bytes(json.dumps(record).encode())
    before = s3_root[1]()
    liveness.track_attempt(record["token"])
    try:
        with pytest.raises(atomicpath.ConflictError), atomicpath.commit(url, storage_options=s3_options):
            pass
    finally:
        liveness.untrack_attempt(record["token"])
    assert s3_root[1]() == before


def test_stale_temp_name_collision(tmp_path: Path) -> None:
    final = tmp_path / "step_1"
    others = Path(temporary_of(str(final), TOKEN))
    others.mkdir(parents=True)
    (others / "model.bin").write_bytes(b"the other's")
    with (
        environment.use(SameToken()),
        pytest.raises(atomicpath.CommitError, match="another attempt has the name"),
        atomicpath.commit(final) as path,
    ):
        write_tree(path, content_of("us"))
    assert (others / "model.bin").read_bytes() == b"the other's"
    assert [file.name for file in others.iterdir()] == ["model.bin"]
    assert [*tmp_path.iterdir()] == [others.parent]
    assert [*others.parent.iterdir()] == [others]


def test_a_live_attempt_of_the_same_token_still_commits(tmp_path: Path) -> None:
    final = tmp_path / "step_1"
    with environment.use(SameToken()), atomicpath.commit(final) as path:
        write_tree(path, content_of("the first"))
        with pytest.raises(atomicpath.CommitError), atomicpath.commit(final) as other:
            write_tree(other, content_of("the second"))
    assert atomicpath.verify(final).ok
    assert {name: (final / name).read_bytes() for name in FILES} == content_of("the first")


def test_a_staging_directory_of_the_same_token_is_not_deleted(
    s3_root: tuple[str, Look], s3_options: dict[str, Any], tmp_path: Path
) -> None:
    others = tmp_path / f"atomicpath-staging-{TOKEN}"
    (others / "files").mkdir(parents=True)
    (others / "files" / "model.bin").write_bytes(b"the other's")
    url = f"{s3_root[0]}/step_1"
    with (
        environment.use(SameToken()),
        pytest.raises(atomicpath.ValidationError),
        atomicpath.commit(url, storage_options=s3_options, staging_dir=str(tmp_path)),
    ):
        pass
    assert (others / "files" / "model.bin").read_bytes() == b"the other's"
    assert s3_root[1]() == {}
