"""Directories that are handed over: deleted once they are committed, never before, and linked where possible."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._core.environment import Environment, use
from tests.support.roots import LocalRoot, Root


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "made"
    (path / "a" / "empty").mkdir(parents=True)
    (path / "x").write_bytes(b"1")
    (path / "a" / "y").write_bytes(b"22")
    return path


def _put(made: Path, root: Root, name: str = "step_1", **options: Any) -> atomicpath.Commit:
    return atomicpath.put(made, root / name, storage_options=root.storage_options, consume=True, **options)


def test_the_directory_is_gone_once_it_is_committed(root: Root, made: Path) -> None:
    told: list[tuple[int, int]] = []
    done = _put(made, root, progress=lambda *sizes: told.append(sizes))
    assert done == atomicpath.latest(root.url, storage_options=root.storage_options)
    assert not made.exists()
    assert {name: root.read_all("step_1")[name] for name in ("x", "a/y")} == {"x": b"1", "a/y": b"22"}
    assert atomicpath.verify(root / "step_1", storage_options=root.storage_options).ok
    assert told[-1] == (3, 3)


@pytest.mark.parametrize("strategy", [None, atomicpath.CommitFileTemporaryPath])
def test_on_one_file_system_the_files_are_the_same_ones(local: LocalRoot, made: Path, strategy: Any) -> None:
    (made / "x").chmod(0o640)
    numbers = {name: (made / name).stat().st_ino for name in ("x", "a/y")}
    _put(made, local, temporary_path_class=strategy)
    final = local.path / "step_1"
    assert {name: (final / name).stat().st_ino for name in numbers} == numbers
    assert {(final / name).stat().st_nlink for name in numbers} == {1}
    assert (final / "x").stat().st_mode & 0o777 == 0o640
    assert (final / "a" / "empty").is_dir()


def test_what_others_can_still_reach_is_copied(local: LocalRoot, made: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    os.link(tmp_path / "theirs", made / "hard")
    (made / "soft").symlink_to(tmp_path / "theirs")
    _put(made, local)
    (tmp_path / "theirs").write_bytes(b"changed")
    assert local.read_all("step_1")["hard"] == local.read_all("step_1")["soft"] == b"theirs"
    assert not made.exists()


class _NoLinks(Environment):
    """Another file system, as link(2) says it."""

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if function is os.link and str(args[0]).endswith(("/x", "/y")):
            raise OSError(18, "Invalid cross-device link")
        return super().call(function, *args, **kwargs)


def test_where_nothing_can_be_linked_it_is_copied_and_then_deleted(local: LocalRoot, made: Path) -> None:
    number = (made / "x").stat().st_ino
    with use(_NoLinks()):
        _put(made, local)
    assert (local.path / "step_1" / "x").stat().st_ino != number
    assert not made.exists()


def _tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_after_an_error_it_is_as_it_was(root: Root, made: Path) -> None:
    before = _tree(made)
    _put(made, root, "taken")
    made.mkdir()
    (made / "a" / "empty").mkdir(parents=True)
    for name, data in before.items():
        (made / name).write_bytes(data)
    with pytest.raises(atomicpath.AlreadyCommittedError):
        _put(made, root, "taken")
    assert _put(made, root, "taken", exists="keep").name == "taken"
    (made / "x.tmp").symlink_to("nowhere")
    with pytest.raises(atomicpath.ValidationError):
        _put(made, root)
    (made / "x.tmp").unlink()
    assert _tree(made) == before
    assert {file.stat().st_nlink for file in made.rglob("*") if file.is_file()} == {1}


def test_an_error_at_the_very_end_leaves_it_too(local: LocalRoot, made: Path) -> None:
    before = _tree(made)

    class Failing(atomicpath.AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            await self.discard()
            raise atomicpath.CommitError("no")

    with pytest.raises(atomicpath.CommitError, match="no"):
        _put(made, local, temporary_path_class=Failing)
    assert _tree(made) == before
    _put(made, local)


def test_what_came_in_meanwhile_stays_and_is_named(
    local: LocalRoot, made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(atomicpath.AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            await super().finalize()
            (made / "late").write_bytes(b"1")

    _put(made, local, temporary_path_class=Late)
    assert _tree(made) == {"late": b"1"}
    assert "something of it is left" in caplog.text


def test_a_committed_directory_is_not_taken_apart(local: LocalRoot, root: Root) -> None:
    with atomicpath.commit(local / "committed") as path:
        (path / "x").write_bytes(b"1")
    with pytest.raises(atomicpath.ValidationError, match="committed itself"):
        _put(local.path / "committed", root)
    assert atomicpath.verify(local / "committed").ok
