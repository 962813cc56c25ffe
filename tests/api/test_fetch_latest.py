"""A local copy of the newest directory: complete, made once for each host, the same path for the same commit."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._commit import fetching
from tests.support.roots import Root
from tests.support.waiting import PATIENCE


def _commit(root: Root, name: str, text: str = "1") -> None:
    with atomicpath.commit(root / name, storage_options=root.storage_options) as path:
        (path / "x").write_text(text)


def _fetch(root: Root, into: Path, **options: Any) -> Path | None:
    return atomicpath.fetch_latest(root.url, into, storage_options=root.storage_options, **options)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "run"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    get = fetching.get

    async def counted(location: Any, local_dir: Path, *, verify: bool) -> Path:
        made.append(local_dir.name)
        return await get(location, local_dir, verify=verify)

    monkeypatch.setattr(fetching, "get", counted)
    return made


def test_the_newest_is_copied_once_and_has_the_same_path_again(root: Root, into: Path, downloads: list[str]) -> None:
    assert _fetch(root, into) is None
    _commit(root, "step_1")
    _commit(root, "step_2")
    assert _fetch(root, into) == _fetch(root, into) == into / "step_2"
    assert (into / "step_2" / "x").read_text() == "1"
    assert downloads == ["step_2"]
    source = atomicpath.read_record(root / "step_2", storage_options=root.storage_options)
    assert atomicpath.read_record(into / "step_2").copied_from == source.token
    _commit(root, "step_3")
    assert _fetch(root, into) == into / "step_3"
    assert _fetch(root, into, step=r"step_([12])$") == into / "step_2"
    assert downloads == ["step_2", "step_3"]


async def test_the_coroutine_does_the_same(root: Root, into: Path) -> None:
    assert await atomicpath.aio.fetch_latest(root.url, into, storage_options=root.storage_options) is None


def test_another_commit_of_the_same_name_has_another_path(root: Root, into: Path, downloads: list[str]) -> None:
    _commit(root, "step_1", "first")
    first = _fetch(root, into)
    atomicpath.remove(root / "step_1", storage_options=root.storage_options)
    _commit(root, "step_1", "second")
    second = _fetch(root, into)
    assert first is not None
    assert second is not None
    assert (first / "x").read_text() == "first"
    assert (second / "x").read_text() == "second"
    assert _fetch(root, into) == second
    assert len(downloads) == 2


def test_what_is_no_copy_of_it_is_left_alone(root: Root, into: Path) -> None:
    _commit(root, "step_1")
    (into / "step_1").mkdir(parents=True)
    (into / "step_1" / "theirs").write_text("1")
    found = _fetch(root, into)
    assert found is not None
    assert found.name.startswith("step_1-")
    assert [file.name for file in (into / "step_1").iterdir()] == ["theirs"]


def test_a_copy_that_was_damaged_is_not_used(root: Root, into: Path, caplog: pytest.LogCaptureFixture) -> None:
    _commit(root, "step_1")
    first = _fetch(root, into)
    assert first is not None
    (first / "x").unlink()
    second = _fetch(root, into)
    assert second is not None
    assert second != first
    assert (second / "x").read_text() == "1"
    assert "not whole any more" in caplog.text
    (second / "x").unlink()
    with pytest.raises(atomicpath.ConflictError, match="damaged copy"):
        _fetch(root, into)


def test_of_many_threads_one_downloads_and_all_get_the_copy(root: Root, into: Path, downloads: list[str]) -> None:
    _commit(root, "step_1")
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(_fetch(root, into))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [into / "step_1"] * 6
    assert downloads == ["step_1"]
    assert sorted(path.name for path in into.iterdir()) == ["step_1"]


_RANK = """
import sys, atomicpath
print(atomicpath.fetch_latest(sys.argv[1], sys.argv[2], storage_options=eval(sys.argv[3])))
"""


def test_processes_that_start_at_once_share_one_copy_and_one_that_dies_does_not_matter(root: Root, into: Path) -> None:
    if root.kind == "memory":
        pytest.skip("the memory of another process is not to be seen")
    _commit(root, "step_1", "x" * 100_000)
    command = [sys.executable, "-c", _RANK, root.url, str(into), repr(root.storage_options)]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    ranks[0].kill()
    answers = [rank.communicate(timeout=PATIENCE)[0].strip() for rank in ranks]
    assert answers[1:] == [str(into / "step_1")] * 3
    assert atomicpath.verify(into / "step_1").ok


def test_the_next_newest_is_fetched_if_the_newest_is_removed_meanwhile(
    root: Root, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _commit(root, "step_1")
    _commit(root, "step_2")
    get = fetching.get

    async def late(location: Any, local_dir: Path, *, verify: bool) -> Path:
        if location.name == "step_2":
            await atomicpath.aio.remove(root / "step_2", storage_options=root.storage_options)
        return await get(location, local_dir, verify=verify)

    monkeypatch.setattr(fetching, "get", late)
    assert _fetch(root, into) == into / "step_1"


def test_what_cannot_be_meant_is_refused(root: Root, into: Path) -> None:
    with pytest.raises(atomicpath.ValidationError, match="on this host"):
        atomicpath.fetch_latest(root.url, "s3://bucket/cache", storage_options=root.storage_options)
    root.write("step_1/commit_success.txt", b"")
    with pytest.raises(atomicpath.ValidationError, match="another tool"):
        _fetch(root, into)
