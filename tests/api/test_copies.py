"""Copies of committed directories from one storage to another: whole, verified, and with their metadata."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

import atomicpath
from atomicpath._commit import fetch
from atomicpath.storage.budget import Budget
from tests.support.roots import LocalRoot, MemoryRoot, Root, S3Root

FILES = {"weights.bin": b"w" * 1000, "a/b/c.txt": b"1", "empty": b""}


@pytest.fixture(params=["local", "memory", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    if request.param == "local":
        (tmp_path / "target").mkdir()
        return LocalRoot(tmp_path / "target")
    if request.param == "memory":
        return MemoryRoot()
    return S3Root(request.getfixturevalue("raw"), request.getfixturevalue("bucket"), request.getfixturevalue("server"))


def _commit(root: Root, name: str = "step_1", **options: Any) -> None:
    with atomicpath.commit(root / name, storage_options=root.storage_options, **options) as path:
        for file, data in FILES.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_bytes(data)


def _copy(source: Root, target: Root, name: str = "copy", of: str = "step_1", **options: Any) -> atomicpath.Commit:
    return atomicpath.copy(
        source / of,
        target / name,
        source_options=source.storage_options,
        storage_options=target.storage_options,
        **options,
    )


@pytest.mark.parametrize("checksums", [False, True])
def test_a_copy_is_committed_with_the_files_the_metadata_and_a_record_of_its_own(
    root: Root, target: Root, checksums: bool, staging: Path
) -> None:
    _commit(root, metadata={"loss": 0.5, "step": 7}, checksums=checksums)
    told: list[tuple[int, int]] = []
    done = _copy(root, target, staging_dir=staging, progress=lambda *sizes: told.append(sizes))
    assert {name: data for name, data in target.read_all("copy").items() if name in FILES} == FILES
    record = atomicpath.read_record(target / "copy", storage_options=target.storage_options)
    assert done.record == record
    assert record.metadata == {"loss": 0.5, "step": 7}
    assert done.step == 7
    assert [file.sha256 is not None for file in record.files] == [checksums] * len(FILES)
    assert atomicpath.verify(target / "copy", checksums=checksums, storage_options=target.storage_options).ok
    assert record.token != atomicpath.read_record(root / "step_1", storage_options=root.storage_options).token
    assert told[-1] == (1001, 1001)
    assert os.listdir(staging) == []


def test_the_same_options_serve_both_sides_of_one_store(s3: S3Root) -> None:
    _commit(s3)
    atomicpath.copy(s3 / "step_1", s3 / "copy", storage_options=s3.storage_options, metadata={"mine": True})
    record = atomicpath.read_record(s3 / "copy", storage_options=s3.storage_options)
    assert record.metadata == {"mine": True}


async def test_the_coroutine_does_the_same(local: LocalRoot, s3: S3Root) -> None:
    _commit(local)
    done = await atomicpath.aio.copy(local / "step_1", s3 / "copy", storage_options=s3.storage_options)
    assert (done.name, done.record is not None) == ("copy", True)


def test_an_alias_is_followed_and_an_empty_directory_copied(root: Root, target: Root) -> None:
    _commit(root)
    atomicpath.alias(root / "last", "step_1", storage_options=root.storage_options)
    _copy(root, target, of="last")
    with atomicpath.commit(root / "nothing", storage_options=root.storage_options, allow_empty=True):
        pass
    _copy(root, target, "nothing_too", of="nothing")
    names = [commit.name for commit in atomicpath.committed(target.url, storage_options=target.storage_options)]
    assert sorted(names) == ["copy", "nothing_too"]


@pytest.mark.parametrize("checksums", [False, True])
def test_what_is_not_as_it_was_committed_is_not_copied(
    root: Root, target: Root, checksums: bool, staging: Path
) -> None:
    _commit(root, checksums=checksums)
    root.write("step_1/weights.bin", b"x" * (1000 if checksums else 999))
    with pytest.raises(atomicpath.IntegrityError, match=r"weights\.bin"):
        _copy(root, target, staging_dir=staging)
    assert target.read_all("copy") == {}
    root.delete("step_1/weights.bin")
    with pytest.raises(atomicpath.IntegrityError):
        _copy(root, target, staging_dir=staging)
    assert target.read_all("copy") == {}
    assert os.listdir(staging) == []


def test_what_is_not_complete_or_is_there_already_is_an_error(root: Root, target: Root) -> None:
    with pytest.raises(atomicpath.NotCommittedError):
        _copy(root, target)
    assert target.read_all() == {}
    _commit(root)
    first = _copy(root, target)
    with pytest.raises(atomicpath.AlreadyCommittedError):
        _copy(root, target)
    assert _copy(root, target, exists="keep") == first


def test_the_commit_of_another_tool_is_copied_with_a_manifest(root: Root, target: Root) -> None:
    root.write("step_1/commit_success.txt", b"")
    root.write("step_1/x", b"theirs")
    done = _copy(root, target)
    assert done.record is not None
    assert [file.name for file in done.record.files] == ["x"]


def test_a_copy_inside_its_source_is_refused(local: LocalRoot) -> None:
    _commit(local)
    with pytest.raises(atomicpath.ValidationError, match="inside"):
        atomicpath.copy(local / "step_1", local / "step_1/copy")


def test_the_local_space_on_the_way_is_bounded(memory: MemoryRoot, s3: S3Root, staging: Path) -> None:
    with atomicpath.commit(memory / "step_1") as path:
        for number in range(40):
            (path / f"f{number}").write_bytes(b"x" * 1000)
    most = 0

    def look(*_: int) -> None:
        nonlocal most
        sizes = [file.stat().st_size for file in staging.rglob("*") if file.is_file() and file.name.isdigit()]
        most = max(most, sum(sizes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "_LOCAL_SPACE", 3000)
        _copy(memory, s3, staging_dir=staging, progress=look)
    assert 0 < most <= 3000
    assert atomicpath.verify(s3 / "copy", storage_options=s3.storage_options).ok


async def test_a_file_larger_than_the_space_comes_alone() -> None:
    space, at_once, most = Budget(10, 64), 0, 0

    async def one(size: int) -> None:
        nonlocal at_once, most
        async with space.hold(size):
            at_once += min(size, 10)
            most = max(most, at_once)
            await anyio.lowlevel.checkpoint()
            at_once -= min(size, 10)

    async with anyio.create_task_group() as group:
        for size in (3, 100, 4, 9, 100, 0, 7):
            group.start_soon(one, size)
    assert most == 10
