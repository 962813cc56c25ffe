"""What does not fit is refused before anything is written, and what is full is named with what to pass."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import ParamSpec, TypeVar

import pytest

import atomicpath
from atomicpath._core.environment import Environment, use
from tests.staging.users import needs_root
from tests.support.roots import MemoryRoot

P = ParamSpec("P")
T = TypeVar("T")

FULL = [
    pytest.param(errno.ENOSPC, "the file system is full", id="full"),
    pytest.param(errno.EDQUOT, "the disk quota is used up", id="quota"),
    pytest.param(errno.EROFS, "the file system is read-only", id="read-only"),
]


class Small(Environment):
    """Every file system has so many bytes free; `None`: it tells that it has no size at all."""

    def __init__(self, free: int | None) -> None:
        self.free = free

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is os.statvfs:
            free, size = self.free or 0, 0 if self.free is None else 10**9
            told = {"f_bavail": free, "f_bfree": free, "f_frsize": 1, "f_blocks": size, "f_fsid": 0}
            return SimpleNamespace(**told)  # type: ignore[return-value]
        return super().call(function, *args, **kwargs)


class Refusing(Environment):
    """Calls of a function fail with an error of this number."""

    def __init__(self, function: object, number: int) -> None:
        self.function, self.number = function, number

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is self.function:
            raise OSError(self.number, os.strerror(self.number))
        return super().call(function, *args, **kwargs)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source" / "sub").mkdir(parents=True)
    (tmp_path / "source" / "sub" / "x").write_bytes(os.urandom(8192))
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs" / "step_1"


def test_put_refuses_what_does_not_fit_before_it_begins(source: Path, target: Path) -> None:
    with use(Small(8191)), pytest.raises(atomicpath.ValidationError, match="not enough room") as caught:
        atomicpath.put(source, target)
    for told in (str(target.parent), "8,192 bytes are needed", "8,191 bytes are free"):
        assert told in str(caught.value)
    assert list(target.parent.iterdir()) == []
    with use(Small(10**9)):
        atomicpath.put(source, target)


def test_get_refuses_what_does_not_fit_before_it_begins(source: Path, target: Path) -> None:
    memory = MemoryRoot()
    atomicpath.put(source, memory / "step_1")
    with use(Small(8191)), pytest.raises(atomicpath.ValidationError, match="8,192 bytes are needed") as caught:
        atomicpath.get(memory / "step_1", target)
    assert str(target.parent) in str(caught.value)
    assert list(target.parent.iterdir()) == []
    with use(Small(10**9)):
        assert atomicpath.verify(atomicpath.get(memory / "step_1", target)).ok


def test_a_file_system_that_tells_no_size_is_written_to(source: Path, target: Path) -> None:
    with use(Small(None)):
        atomicpath.put(source, target)
    assert atomicpath.verify(target).ok


def test_a_file_with_holes_needs_no_more_room_than_it_takes(source: Path, target: Path) -> None:
    with (source / "holes").open("wb") as file:
        file.truncate(1 << 20)
    with use(Small(1 << 19)):
        atomicpath.put(source, target)


@pytest.mark.parametrize(("number", "reason"), FULL)
def test_staging_that_cannot_begin_names_the_place_and_what_to_pass(number: int, reason: str, tmp_path: Path) -> None:
    memory = MemoryRoot()
    with use(Refusing(os.mkdir, number)), pytest.raises(atomicpath.ValidationError, match=reason) as caught:
        _commit(memory, staging_dir=tmp_path)
    for told in (str(tmp_path), "staging_dir=", "ATOMICPATH_STAGING_DIR"):
        assert told in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def _commit(memory: MemoryRoot, **options: object) -> None:
    with atomicpath.commit(memory / "step_1", **options) as path:  # type: ignore[arg-type]
        (path / "x").write_bytes(b"1")


@pytest.mark.parametrize(("number", "reason"), FULL)
def test_a_commit_to_a_disk_that_is_full_names_the_directory(
    number: int, reason: str, source: Path, target: Path
) -> None:
    with use(Refusing(os.write, number)), pytest.raises(atomicpath.CommitError, match=reason) as caught:
        atomicpath.put(source, target)
    assert str(target.parent) in str(caught.value)
    assert "commit to another file system" in str(caught.value)
    assert not target.exists()


def test_a_download_to_a_disk_that_fills_up_names_the_directory(source: Path, target: Path) -> None:
    memory = MemoryRoot()
    atomicpath.put(source, memory / "step_1")
    tiny = Refusing(os.write, errno.ENOSPC)
    with use(tiny), pytest.raises(atomicpath.CommitError, match="the file system is full") as caught:
        atomicpath.get(memory / "step_1", target)
    assert str(target.parent) in str(caught.value)
    assert not target.exists()


def test_an_error_of_the_block_is_its_own_with_a_note_of_what_is_full(tmp_path: Path) -> None:
    memory = MemoryRoot()
    with (
        pytest.raises(OSError, match="No space left") as caught,
        atomicpath.commit(memory / "step_1", staging_dir=tmp_path) as path,
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    (note,) = caught.value.__notes__
    for told in (str(path), "staging_dir=", "ATOMICPATH_STAGING_DIR"):
        assert told in note


def test_other_errors_of_the_block_get_no_note(tmp_path: Path) -> None:
    with pytest.raises(KeyError) as caught, atomicpath.commit(MemoryRoot() / "step_1", staging_dir=tmp_path):
        raise KeyError
    assert not hasattr(caught.value, "__notes__")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", place],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"this root may not mount: {mounted.stderr!r}")
    yield place
    subprocess.run(["umount", place], check=True)


@needs_root
def test_a_library_that_hides_the_full_disk_behind_an_error_of_its_own_gets_the_note(tiny: Path) -> None:
    def save(path: Path) -> None:
        try:
            (path / "x").write_bytes(bytes(1 << 20))
        except OSError:
            raise RuntimeError("the writer failed") from None

    memory = MemoryRoot()
    with (
        pytest.raises(RuntimeError, match="the writer failed") as caught,
        atomicpath.commit(memory / "step_1", staging_dir=tiny) as path,
    ):
        save(Path(str(path)))
    assert "staging_dir=" in caught.value.__notes__[0]
    assert list(tiny.iterdir()) == []


@needs_root
def test_a_checkpoint_that_does_not_fit_a_real_file_system_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").write_bytes(bytes(1 << 20))
    with pytest.raises(atomicpath.ValidationError, match="1,048,576 bytes are needed"):
        atomicpath.put(tmp_path / "source", tiny / "step_1", durable=False)
    assert list(tiny.iterdir()) == []
