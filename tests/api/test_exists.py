"""What becomes of a commit whose place is taken already: an error, the old one, or the new one."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from tests.api.threads import Board
from tests.support.roots import LocalRoot, Root, S3Root


def _save(root: Root, content: bytes, name: str = "step_1", **options: Any) -> atomicpath.Commit:
    session = atomicpath.commit(root / name, storage_options=root.storage_options, **options)
    with session as path:
        (path / "x").write_bytes(content)
    return session.result


@pytest.mark.parametrize("direct", [False, True])
def test_what_was_committed_before_is_kept_and_is_the_result(
    root: Root, direct: bool, staging: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = _save(root, b"first", direct=direct, exists="keep", staging_dir=staging)
    before = root.read_all()
    again = _save(root, b"second", direct=direct, exists="keep", staging_dir=staging)
    assert again == first
    assert root.read_all() == before
    assert os.listdir(staging) == []
    assert "is kept: what is written now is discarded" in caplog.text


def test_put_and_begin_keep_it_too(root: Root, tmp_path: Path) -> None:
    first = _save(root, b"first")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "x").write_bytes(b"second")
    options: dict[str, Any] = {"storage_options": root.storage_options, "exists": "keep"}
    assert atomicpath.put(tmp_path / "made", root / "step_1", **options) == first
    handle = atomicpath.begin(root / "step_1", **options)
    (handle.path / "x").write_bytes(b"second")
    assert handle.finish() == first
    with pytest.raises(atomicpath.CommitError, match="committed already"):
        handle.finish()
    assert root.read_all("step_1")["x"] == b"first"
    assert root.names() == ["step_1"]


def test_one_that_was_committed_while_this_one_was_written_is_kept(root: Root) -> None:
    if root.kind != "local":
        pytest.skip("on a store the second attempt is a conflict as soon as it begins")
    session = atomicpath.commit(root / "step_1", exists="keep")
    with session as path:
        (path / "x").write_bytes(b"second")
        first = _save(root, b"first")
    assert session.result == first
    assert root.read_all("step_1")["x"] == b"first"
    assert root.names() == ["step_1"]


def test_a_block_that_raises_raises_although_it_would_be_kept(root: Root, staging: Path) -> None:
    _save(root, b"first")
    session = atomicpath.commit(
        root / "step_1", storage_options=root.storage_options, exists="keep", staging_dir=staging
    )
    with pytest.raises(ZeroDivisionError), session:
        raise ZeroDivisionError
    with pytest.raises(atomicpath.CommitError, match="has no result"):
        session.result  # noqa: B018 - it raises
    with pytest.raises(atomicpath.CommitError, match="over, or was never begun"):
        session.__exit__(None, None, None)
    assert os.listdir(staging) == []


def test_nothing_but_a_whole_commit_is_kept(root: Root) -> None:
    first = _save(root, b"first", "step_0")
    root.copy("step_0", "step_1")
    root.delete("step_1/x")
    with pytest.raises(atomicpath.NotCommittedError, match="not complete"):
        _save(root, b"second", exists="keep")
    root.write("step_2/foreign", b"")
    with pytest.raises(atomicpath.ConflictError, match="not written by atomicpath"):
        _save(root, b"second", "step_2", exists="keep")
    assert _save(root, b"second", "step_0", exists="keep") == first


def test_the_commit_of_another_tool_is_kept(root: Root) -> None:
    root.write("step_1/commit_success.txt", b"")
    root.write("step_1/x", b"theirs")
    assert _save(root, b"ours", exists="keep").record is None
    assert root.read_all("step_1")["x"] == b"theirs"


def test_replace_is_the_same_by_both_names(local: LocalRoot) -> None:
    for number, options in enumerate(
        ({"replace": True}, {"exists": "replace"}, {"replace": True, "exists": "replace"})
    ):
        _save(local, b"%d" % number, **options)
        assert local.read_all("step_1")["x"] == b"%d" % number
    with pytest.raises(atomicpath.AlreadyCommittedError):
        _save(local, b"4", exists="error")


def test_a_store_that_cannot_replace_says_so(s3: S3Root) -> None:
    with pytest.raises(atomicpath.GuaranteeError, match="RENAME_EXCHANGE"):
        _save(s3, b"1", exists="replace")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exists": "keep", "replace": True}, "contradict each other"),
        ({"exists": "error", "replace": True}, "contradict each other"),
        ({"exists": "overwrite"}, "takes 'error', 'keep' or 'replace'"),
        ({"exists": True}, "takes 'error', 'keep' or 'replace'"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(local: LocalRoot, options: Any, message: str) -> None:
    with pytest.raises(atomicpath.ValidationError, match=message):
        atomicpath.commit(local / "step_1", **options)


@pytest.mark.parametrize("fails", [False, True])
def test_every_rank_of_a_job_keeps_it(root: Root, fails: bool) -> None:
    _save(root, b"first")
    before, board = root.read_all(), Board(3)
    results: dict[int, object] = {}

    def rank(number: int) -> None:
        try:
            session = atomicpath.commit(
                root / "step_1", storage_options=root.storage_options, exists="keep", coordinator=board.member(number)
            )
            with session as path:
                (path / f"x{number}").write_bytes(b"second")
                if fails and number == 1:
                    raise ZeroDivisionError
            results[number] = session.result.name
        except Exception as error:
            results[number] = type(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results.values()) == ({atomicpath.RankFailedError} if fails else {"step_1"})
    assert root.read_all() == before
