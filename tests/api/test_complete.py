"""Complete means complete: of copies, of what `put` copies, of blocks that are still written, of empty ones."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._core.environment import Environment, use
from tests.support.roots import LocalRoot, MemoryRoot, Root

FILES = {"model.bin": b"w" * 100, "sub/state.bin": b"s" * 50}


def fill(path: Any, files: dict[str, bytes] = FILES) -> None:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def commit(root: Root, name: str, **options: Any) -> None:
    with atomicpath.commit(root / name, storage_options=root.storage_options or None, **options) as path:
        fill(path)


def names(root: Root) -> list[str]:
    return [found.name for found in atomicpath.committed(root.url, storage_options=root.storage_options or None)]


# copies


def test_a_copy_that_was_cut_short_counts_for_nothing_until_it_is_whole(
    root: Root, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"storage_options": root.storage_options or None}
    commit(root, "step_1")
    root.copy("step_1", "step_2")
    whole = root.read_all("step_2")["sub/state.bin"]
    root.delete("step_2/sub/state.bin")
    assert not atomicpath.is_committed(root / "step_2", **options)
    assert names(root) == ["step_1"]
    newest = atomicpath.latest(root.url, **options)
    assert newest is not None
    assert newest.name == "step_1"
    assert "sub/state.bin" in caplog.text, "what is missing is named"
    assert atomicpath.keep_last(root.url, 1, **options) == [], "the whole one does not go for it"
    with pytest.raises(atomicpath.NotCommittedError, match="not complete"):
        atomicpath.resolve(root / "step_2", **options)
    assert atomicpath.verify(root / "step_2", **options).missing == ("sub/state.bin",)
    root.write("step_2/sub/state.bin", whole[:-1])
    assert names(root) == ["step_1"], "nor with a file that is too short"
    root.write("step_2/sub/state.bin", whole)
    assert names(root) == ["step_1", "step_2"]


def test_a_copy_in_the_place_of_the_original_is_a_copy(local: LocalRoot, tmp_path: Path) -> None:
    """Neither the path nor the number of the directory makes it the original: numbers are given again."""
    commit(local, "step_1")
    shutil.copytree(local.path / "step_1", tmp_path / "backup")
    for _ in range(20):
        shutil.rmtree(local.path / "step_1")
        shutil.copytree(tmp_path / "backup", local.path / "step_1")
        os.unlink(local.path / "step_1" / "model.bin")
        assert not atomicpath.is_committed(local / "step_1")


def test_a_copy_made_of_hard_links_is_a_copy(local: LocalRoot) -> None:
    commit(local, "step_1")
    (local.path / "step_2").mkdir()
    os.link(local.path / "step_1" / "_commit_record.json", local.path / "step_2" / "_commit_record.json")
    assert names(local) == ["step_1"]


class _Listings(Environment):
    def __init__(self) -> None:
        self.count = 0

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.count += getattr(function, "__name__", "") == "_scan"
        return function(*args, **kwargs)


def test_the_original_is_not_listed_also_after_it_was_renamed(local: LocalRoot) -> None:
    commit(local, "step_1")
    (local.path / "step_1").rename(local.path / "step_7")
    with use(_Listings()) as world:
        assert atomicpath.is_committed(local / "step_7")
    assert isinstance(world, _Listings)
    assert world.count == 0


def test_a_file_that_was_deleted_from_the_original_is_for_verify_to_find(local: LocalRoot) -> None:
    commit(local, "step_1")
    (local.path / "step_1" / "model.bin").unlink()
    assert atomicpath.is_committed(local / "step_1")
    assert atomicpath.verify(local / "step_1").missing == ("model.bin",)


# put


def test_a_damaged_committed_directory_is_not_put(root: Root, tmp_path: Path) -> None:
    with atomicpath.commit(tmp_path / "source") as path:
        fill(path)
    (tmp_path / "source" / "model.bin").write_bytes(b"short")
    with pytest.raises(atomicpath.IntegrityError, match=r"model\.bin"):
        atomicpath.put(tmp_path / "source", root / "step_1", storage_options=root.storage_options or None)
    assert root.read_all() == {}


def test_what_describes_an_earlier_commit_is_not_put(root: Root, tmp_path: Path) -> None:
    with atomicpath.commit(tmp_path / "source", marker="_SUCCESS") as path:
        fill(path)
    atomicpath.put(tmp_path / "source", root / "step_1", storage_options=root.storage_options or None)
    stored = root.read_all("step_1")
    assert {name: data for name, data in stored.items() if name in FILES} == FILES
    assert stored.keys() - FILES.keys() <= {"_commit_record.json", "commit_success.txt"}


@pytest.mark.parametrize("change", ["grows", "is replaced", "appears", "vanishes"])
def test_a_directory_that_changes_while_it_is_put_is_refused(change: str, root: Root, tmp_path: Path) -> None:
    source = tmp_path / "source"
    fill(source)

    def act(done: int, total: int) -> None:
        if done == total:
            if change == "grows":
                (source / "model.bin").write_bytes(b"w" * 101)
            elif change == "is replaced":
                source.rename(tmp_path / "old")
                fill(source)
            elif change == "appears":
                (source / "late.bin").write_bytes(b"1")
            else:
                (source / "model.bin").unlink()

    with pytest.raises(atomicpath.ValidationError, match=r"changed or replaced while it was copied"):
        atomicpath.put(source, root / "step_1", storage_options=root.storage_options or None, progress=act)
    assert names(root) == []


def test_of_a_committed_directory_that_is_replaced_meanwhile_no_mixture_is_put(tmp_path: Path) -> None:
    source, over = tmp_path / "source", threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            with atomicpath.commit(source, replace=True, durable=False) as path:
                for name in ("a", "b", "c", "d"):
                    (path / name).write_bytes(b"%08d" % (number % 10**8))

    with atomicpath.commit(source) as path:
        for name in ("a", "b", "c", "d"):
            (path / name).write_bytes(b"%08d" % 0)
    writer = threading.Thread(target=write)
    writer.start()
    refused = 0
    try:
        for number in range(20):
            try:
                atomicpath.put(source, tmp_path / "to" / f"step_{number}", durable=False)
            except (atomicpath.ValidationError, atomicpath.CommitError, atomicpath.IntegrityError):
                refused += 1
                continue
            found = {(tmp_path / "to" / f"step_{number}" / name).read_bytes() for name in ("a", "b", "c", "d")}
            assert len(found) == 1, "a mixture of two"
    finally:
        over.set()
        writer.join()
    assert len([*(tmp_path / "to").glob("step_*")]) == 20 - refused if refused < 20 else True


# blocks


class _LateWriter(Environment):
    """Somebody writes to a file of the block when the directory has been listed for the manifest."""

    def __init__(self, act: Callable[[Path], object]) -> None:
        self.act = act
        self.path: Path | None = None
        self.listed = 0

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if self.path is not None and getattr(function, "__name__", "") == "_scan" and str(args[0]) == str(self.path):
            self.listed += 1
            if self.listed == 2:  # the first was for the manifest
                time.sleep(0.02)  # more than one tick of the clock that gives files their times
                self.act(self.path)
        return function(*args, **kwargs)


@pytest.mark.parametrize(
    "act",
    [
        lambda path: (path / "model.bin").write_bytes(b"w" * 101),
        lambda path: (path / "model.bin").write_bytes(b"v" * 100),
        lambda path: (path / "late.bin").write_bytes(b"1"),
        lambda path: (path / "model.bin").unlink(),
    ],
    ids=["grows", "changes", "appears", "vanishes"],
)
@pytest.mark.parametrize("strategy", [None, atomicpath.CommitFileTemporaryPath])
def test_a_file_that_still_changes_when_the_block_has_ended_is_refused(
    act: Callable[[Path], object], strategy: Any, local: LocalRoot
) -> None:
    world = _LateWriter(act)
    with (
        use(world),
        pytest.raises(atomicpath.ValidationError, match=r"still being written.*inside the block"),
        atomicpath.commit(local / "step_1", temporary_path_class=strategy, durable=False) as path,
    ):
        fill(path)
        world.path = Path(path)
    assert names(local) == []


@pytest.mark.parametrize(
    "name",
    [
        "state.orbax-checkpoint-tmp-1700000000/array",
        ".metadata.tmp",
        "0.metadata.tmp",
        "model.safetensors.incomplete",
        "model.ckpt.data-00000-of-00001.tempstate123456",
        "manifest.ocdbt.__lock",
        ".nfs00000000012345670000abcd",
        "model.bin.0123abcd.partial",
    ],
)
def test_a_file_that_another_tool_has_not_finished_is_refused_by_its_name(
    name: str, root: Root, tmp_path: Path
) -> None:
    options = {"storage_options": root.storage_options or None}
    with (
        pytest.raises(atomicpath.ValidationError, match="has not finished") as raised,
        atomicpath.commit(root / "step_1", **options) as path,
    ):
        fill(path, {name: b"1", "model.bin": b"1"})
    assert name in str(raised.value)
    fill(tmp_path / "source", {name: b"1"})
    with pytest.raises(atomicpath.ValidationError, match="has not finished"):
        atomicpath.put(tmp_path / "source", root / "step_1", **options)
    assert names(root) == []


@pytest.mark.parametrize("name", ["a.tmp", "tmp", "incomplete", "x.incomplete.bin", "metadata.tmp.json", ".metadata"])
def test_a_name_that_only_looks_like_one_is_an_ordinary_one(name: str, memory: MemoryRoot) -> None:
    with atomicpath.commit(memory / "step_1") as path:
        fill(path, {name: b"1"})
    assert names(memory) == ["step_1"]


def test_an_empty_block_is_refused_unless_it_is_meant(root: Root, tmp_path: Path) -> None:
    options = {"storage_options": root.storage_options or None}
    with pytest.raises(atomicpath.ValidationError, match="allow_empty=True"), atomicpath.commit(root / "a", **options):
        pass
    (tmp_path / "empty").mkdir()
    with pytest.raises(atomicpath.ValidationError, match="allow_empty=True"):
        atomicpath.put(tmp_path / "empty", root / "a", **options)
    assert names(root) == []
    with atomicpath.commit(root / "a", allow_empty=True, **options):
        pass
    atomicpath.put(tmp_path / "empty", root / "b", allow_empty=True, **options)
    assert names(root) == ["a", "b"]
    assert atomicpath.get(root / "a", tmp_path / "got", **options).is_dir()


# copies that keep what they do not name


def test_directories_keep_their_modes_and_empty_ones_stay_on_a_disk(local: LocalRoot, tmp_path: Path) -> None:
    source = tmp_path / "source"
    fill(source)
    (source / "sub" / "empty" / "deeper").mkdir(parents=True)
    (source / "sub").chmod(0o711)
    (source / "sub" / "empty").chmod(0o500)
    atomicpath.put(source, local / "step_1")
    atomicpath.get(local / "step_1", tmp_path / "got")
    for top in (local.path / "step_1", tmp_path / "got"):
        for name in ("sub", "sub/empty", "sub/empty/deeper"):
            assert (top / name).stat().st_mode == (source / name).stat().st_mode, name


def test_an_inherited_group_stays_inherited(local: LocalRoot, tmp_path: Path) -> None:
    fill(tmp_path / "source")
    local.path.chmod(0o2775)
    atomicpath.put(tmp_path / "source", local / "step_1")
    assert (local.path / "step_1" / "sub").stat().st_mode & 0o2000


def test_what_a_store_does_not_keep_is_said(
    memory: MemoryRoot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "source", {"run.sh": b"1"})
    (tmp_path / "source" / "run.sh").chmod(0o755)
    (tmp_path / "source" / "empty").mkdir()
    atomicpath.put(tmp_path / "source", memory / "step_1")
    assert "1 empty directories" in caplog.text
