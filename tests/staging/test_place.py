"""Where a block is staged: in a directory of this user alone, whatever others have put in the way."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

import atomicpath
from tests.staging.users import NOBODY, as_user, needs_root
from tests.support.roots import MemoryRoot

OWN = f"atomicpath-{os.geteuid()}"


def staged_in(memory: MemoryRoot, name: str = "step_1", **options: object) -> Path:
    """The directory above the staging directory of a commit."""
    with atomicpath.commit(memory / name, **options) as path:  # type: ignore[arg-type]
        (path / "x").write_bytes(b"1")
        assert isinstance(path, Path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert atomicpath.verify(memory / name).ok
    return path.parent.parent


def test_a_block_is_staged_in_a_private_directory_of_this_user(memory: MemoryRoot, temporary: Path) -> None:
    assert staged_in(memory) == temporary / OWN
    status = (temporary / OWN).lstat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, os.geteuid())
    assert list((temporary / OWN).iterdir()) == []
    assert staged_in(memory, "step_2") == temporary / OWN


def test_a_named_place_of_this_user_alone_is_used_itself(memory: MemoryRoot, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert staged_in(memory, staging_dir=tmp_path) == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_named_place_that_all_may_write_to_gets_a_private_directory(memory: MemoryRoot, shared: Path) -> None:
    assert staged_in(memory, staging_dir=str(shared)) == shared / OWN


def test_the_environment_variable_names_the_place_and_the_argument_wins(
    memory: MemoryRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("variable", "argument"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setenv("ATOMICPATH_STAGING_DIR", str(tmp_path / "variable"))
    assert staged_in(memory, "step_1") == tmp_path / "variable"
    assert staged_in(memory, "step_2", staging_dir=tmp_path / "argument") == tmp_path / "argument"


def test_a_tilde_is_the_home_directory(
    memory: MemoryRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    (tmp_path / "scratch").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert staged_in(memory, "step_1", staging_dir="~/scratch") == tmp_path / "scratch"
    monkeypatch.setenv("ATOMICPATH_STAGING_DIR", "~/scratch")
    assert staged_in(memory, "step_2") == tmp_path / "scratch"
    with pytest.raises(atomicpath.ValidationError, match="nobody-of-this-name"):
        staged_in(memory, "step_3", staging_dir="~nobody-of-this-name/x")


def test_a_place_that_is_missing_is_named_with_what_to_pass(memory: MemoryRoot, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(atomicpath.ValidationError, match="ATOMICPATH_STAGING_DIR") as caught:
        staged_in(memory, staging_dir=missing)
    assert str(missing) in str(caught.value)
    assert "staging_dir=" in str(caught.value)
    assert not atomicpath.is_committed(memory / "step_1")


def test_a_link_with_the_name_of_the_private_directory_is_not_followed(
    memory: MemoryRoot, temporary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    (target / "kept").write_bytes(b"kept")
    (temporary / OWN).symlink_to(target)
    with caplog.at_level(logging.WARNING, logger="atomicpath"):
        first = staged_in(memory, "step_1")
    assert first.parent == temporary
    assert first.name.startswith(f"{OWN}-")
    assert str(temporary / OWN) in caplog.text
    assert [path.name for path in target.iterdir()] == ["kept"]
    assert staged_in(memory, "step_2") == first, "the same private directory serves again"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755])
def test_a_directory_of_that_name_that_others_may_enter_is_left_as_it_is(
    mode: int, memory: MemoryRoot, temporary: Path
) -> None:
    (temporary / OWN).mkdir()
    (temporary / OWN).chmod(mode)
    assert staged_in(memory).name.startswith(f"{OWN}-")
    assert stat.S_IMODE((temporary / OWN).stat().st_mode) == mode
    assert list((temporary / OWN).iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_what_is_no_directory_under_that_name_is_left_as_it_is(kind: str, memory: MemoryRoot, temporary: Path) -> None:
    if kind == "file":
        (temporary / OWN).write_bytes(b"mine")
    else:
        os.mkfifo(temporary / OWN)
    before = (temporary / OWN).lstat()
    assert staged_in(memory).name.startswith(f"{OWN}-")
    assert (temporary / OWN).lstat().st_ino == before.st_ino


@needs_root
def test_a_directory_that_another_user_made_first_keeps_nobody_from_staging(
    memory: MemoryRoot, temporary: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_bytes(b"precious")

    def plant() -> None:
        own = temporary / OWN
        own.mkdir(mode=0o777)
        staged = own / "atomicpath-staging-00000000000000000000"
        staged.mkdir()
        (staged / "files").symlink_to(victim)
        os.mkfifo(staged / "_commit_record.json")
        (own / "atomicpath-staging-11111111111111111111").symlink_to(victim)

    as_user(NOBODY, plant)
    place = staged_in(memory)
    assert place.name.startswith(f"{OWN}-")
    assert place.stat().st_uid == os.geteuid()
    assert (victim / "precious").read_bytes() == b"precious"
    assert len(list((temporary / OWN).iterdir())) == 2


@needs_root
def test_every_user_of_a_host_stages_in_a_directory_of_their_own(memory: MemoryRoot, temporary: Path) -> None:
    mine = staged_in(memory)

    def stage() -> None:
        theirs = staged_in(MemoryRoot())
        assert theirs == temporary / f"atomicpath-{NOBODY}"
        assert theirs.stat().st_uid == NOBODY

    as_user(NOBODY, stage)
    assert mine == temporary / OWN
    assert {path.name for path in temporary.iterdir()} == {OWN, f"atomicpath-{NOBODY}"}
