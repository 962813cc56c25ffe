"""A root whose directories are not all in order: the others are listed, and all readers agree about each."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._core.environment import Environment, use
from atomicpath._core.record import CommitRecord, marker_of
from tests.support.roots import LocalRoot, Root

RECORD = "_commit_record.json"


def commit(root: Root, *names: str, **options: Any) -> None:
    for name in names:
        with atomicpath.commit(root / name, storage_options=root.storage_options or None, **options) as path:
            (path / "x").write_bytes(b"1")


def _fifo(path: Path) -> None:
    os.mkfifo(path / RECORD)


def _sparse(path: Path) -> None:
    with open(path / RECORD, "wb") as file:
        file.truncate(3 << 30)


def _directory(path: Path) -> None:
    (path / RECORD).mkdir()


def _newer(path: Path) -> None:
    (path / RECORD).write_text('{"format": 99, "state": "committed"}')


def _garbage(path: Path) -> None:
    (path / RECORD).write_bytes(b"\xff\x00")


def _impossible_process(path: Path) -> None:
    record = json.loads((path.parent / "step_1" / RECORD).read_bytes())
    record["writer"]["pid"] = 10**30
    record["state"] = "writing"
    (path / RECORD).write_text(json.dumps(record))


def _marker_is_a_fifo(path: Path) -> None:
    os.mkfifo(path / "commit_success.txt")


def _loop(path: Path) -> None:
    path.rmdir()
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.rmdir()
    path.symlink_to("nowhere")


ODD = [_fifo, _sparse, _directory, _newer, _garbage, _impossible_process, _marker_is_a_fifo, _loop, _dangling]


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__.strip("_"))
def test_one_odd_neighbour_is_skipped_and_named_and_the_others_are_listed(
    make: Callable[[Path], None], local: LocalRoot, caplog: pytest.LogCaptureFixture
) -> None:
    commit(local, "step_1", "step_2")
    odd = local.path / "step_3"
    odd.mkdir()
    make(odd)
    newest = atomicpath.latest(local.url)
    assert newest is not None
    assert newest.name == "step_2"
    assert str(odd) in caplog.text, "it is named"
    assert [found.name for found in atomicpath.committed(local.url)] == ["step_1", "step_2"]
    assert isinstance(atomicpath.attempts(local.url), list)
    try:
        assert not atomicpath.is_committed(odd)
    except (atomicpath.AtomicPathError, OSError):
        pass
    with pytest.raises((atomicpath.AtomicPathError, OSError)):
        atomicpath.resolve(odd)
    assert [found.name for found in atomicpath.keep_last(local.url, 1)] == ["step_1"]


def test_an_odd_name_of_a_temporary_directory_spoils_nothing(local: LocalRoot) -> None:
    commit(local, "step_1")
    (local.path / ".atomicpath-tmp-x").mkdir()
    assert [found.name for found in atomicpath.committed(local.url)] == ["step_1"]
    assert isinstance(atomicpath.attempts(local.url), list)


def test_a_key_with_two_slashes_spoils_nothing(s3: Any) -> None:
    commit(s3, "run/step_1")
    s3.write("run//x", b"1")
    options = {"storage_options": s3.storage_options}
    assert [found.name for found in atomicpath.committed(s3 / "run", **options)] == ["step_1"]
    assert atomicpath.attempts(s3 / "run", **options) == []
    assert atomicpath.keep_last(s3 / "run", 1, **options) == []


class _Refusing(Environment):
    """Every read of a file below names that have a word in them fails."""

    def __init__(self, word: str) -> None:
        self.word = word

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if function is os.open and self.word in str(args[0]):
            raise PermissionError(13, "Permission denied", args[0])
        return function(*args, **kwargs)


def test_one_that_nobody_may_read_is_skipped_but_refusing_everything_is_an_error(local: LocalRoot) -> None:
    commit(local, "step_1", "step_2")
    with use(_Refusing("step_2")):
        newest = atomicpath.latest(local.url)
        assert newest is not None
        assert newest.name == "step_1"
    with use(_Refusing(RECORD)):
        for read in (atomicpath.latest, atomicpath.committed):
            with pytest.raises(atomicpath.AccessError):
                read(local.url)


def test_one_alone_that_nobody_may_read_leaves_an_empty_list(local: LocalRoot) -> None:
    commit(local, "step_1")
    with use(_Refusing("step_1")):
        assert atomicpath.committed(local.url) == []


def test_a_record_of_a_newer_version_is_not_said_to_be_no_commit(root: Root) -> None:
    options = {"storage_options": root.storage_options or None}
    root.write(f"step_1/{RECORD}", b'{"format": 2, "anything": "else"}')
    with pytest.raises(atomicpath.IntegrityError, match="pip install -U atomicpath"):
        atomicpath.is_committed(root / "step_1", **options)


def test_a_directory_that_was_moved_and_linked_back_is_followed_by_every_reader(
    local: LocalRoot, tmp_path: Path
) -> None:
    commit(local, "step_1", "step_2", "step_3")
    (local.path / "step_3").rename(tmp_path / "other disk")
    (local.path / "step_3").symlink_to(tmp_path / "other disk")
    assert atomicpath.is_committed(local / "step_3")
    newest = atomicpath.latest(local.url)
    assert newest is not None
    assert newest.name == "step_3"
    assert atomicpath.verify(local / "step_3").ok
    assert (atomicpath.get(local / "step_3", tmp_path / "got") / "x").read_bytes() == b"1"
    with pytest.raises(atomicpath.ValidationError, match="remove the link yourself"):
        atomicpath.remove(local / "step_3")
    assert [found.name for found in atomicpath.keep_last(local.url, 2)] == ["step_1"]
    assert (tmp_path / "other disk" / "x").exists()


def test_a_link_is_no_second_directory_to_count_and_what_it_points_to_stays(
    local: LocalRoot, caplog: pytest.LogCaptureFixture
) -> None:
    commit(local, "a", "b", "c")
    (local.path / "best").symlink_to("a")
    assert [found.name for found in atomicpath.keep_last(local.url, 1)] == ["b"]
    assert sorted(name for name in local.names() if name != ".atomicpath") == ["a", "best", "c"]


def test_a_directory_that_an_earlier_version_committed_is_read(root: Root) -> None:
    options = {"storage_options": root.storage_options or None}
    commit(root, "step_1")
    stored = root.read_all("step_1")
    record = CommitRecord.decode(stored[RECORD], where="the test")
    root.write("step_2/x", b"1")
    root.write("step_2/commit_record.json", replace(record, place="").encode())
    marker = json.dumps({"record": "commit_record.json", "token": record.token}).encode()
    assert not atomicpath.is_committed(root / "step_2", **options)
    root.write("step_2/commit_success.txt", marker)
    assert atomicpath.is_committed(root / "step_2", **options)
    assert atomicpath.read_record(root / "step_2", **options).token == record.token
    assert atomicpath.verify(root / "step_2", **options).ok
    assert [found.name for found in atomicpath.committed(root.url, **options)] == ["step_1", "step_2"]


def test_a_marker_of_ours_alone_counts_for_nothing(root: Root) -> None:
    root.write("step_1/commit_success.txt", marker_of("0123"))
    assert not atomicpath.is_committed(root / "step_1", storage_options=root.storage_options or None)


def test_a_path_that_is_always_committed_and_often_replaced_is_never_said_not_to_be(
    local: LocalRoot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "atomicpath")
    commit(local, "step_1")
    over = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            while not over.is_set():
                commit(local, "step_1", replace=True, durable=False)
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(25):
            assert atomicpath.is_committed(local / "step_1")
            assert atomicpath.latest(local.url) is not None
            assert (atomicpath.get(local / "step_1", tmp_path / str(number)) / "x").read_bytes() == b"1"
    finally:
        over.set()
        writer.join()
    assert failures == []
