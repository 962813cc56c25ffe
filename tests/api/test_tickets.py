"""Processes that a framework coordinates write into one commit, by a ticket of the one that began it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import atomicpath
from tests.api.threads import Board
from tests.support.roots import LocalRoot, Root, S3Root
from tests.support.waiting import PATIENCE


def _begin(root: Root, **options: Any) -> atomicpath.Handle:
    return atomicpath.begin(root / "step_1", storage_options=root.storage_options, **options)


def _join(root: Root, handle: atomicpath.Handle, rank: int) -> atomicpath.Joined:
    return atomicpath.join(handle.ticket(), rank=rank, storage_options=root.storage_options)


_RANK = """
import json, sys, atomicpath
joined = atomicpath.join(sys.argv[1].encode(), rank=int(sys.argv[2]), storage_options=eval(sys.argv[3]))
(joined.path / f"shard_{sys.argv[2]}").write_text(sys.argv[2])
print(json.dumps(joined.upload()))
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize("checksums", [False, True])
def test_processes_write_into_one_commit(kind: str, checksums: bool, request: pytest.FixtureRequest) -> None:
    root: Root = request.getfixturevalue(kind)
    handle = _begin(root, checksums=checksums)
    (handle.path / "shard_0").write_text("0")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, handle.ticket().decode(), str(rank), repr(root.storage_options)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 2)
    ]
    entries = [entry for rank in ranks for entry in json.loads(rank.communicate(timeout=PATIENCE)[0])]
    assert not atomicpath.is_committed(root / "step_1", storage_options=root.storage_options)
    done = handle.finish(entries=entries)
    assert done.record is not None
    assert [file.name for file in done.record.files] == ["shard_0", "shard_1", "shard_2"]
    assert [file.sha256 is not None for file in done.record.files] == [checksums] * 3
    assert atomicpath.verify(root / "step_1", storage_options=root.storage_options).ok
    assert root.read_all("step_1")["shard_2"] == b"2"


async def test_the_coroutines_do_the_same(root: Root) -> None:
    handle = await atomicpath.aio.begin(root / "step_1", storage_options=root.storage_options)
    joined = await atomicpath.aio.join(handle.ticket(), rank=0, storage_options=root.storage_options)
    await anyio.Path(joined.path / "x").write_bytes(b"1")
    await handle.finish(entries=await joined.upload())
    assert root.read_all("step_1")["x"] == b"1"


def test_a_ticket_has_no_credentials_in_it(s3: S3Root) -> None:
    handle = _begin(s3)
    assert str(s3.storage_options["secret"]).encode() not in handle.ticket()
    handle.abandon()


def test_of_two_that_add_one_name_nothing_is_committed(store: Root, staging: Path) -> None:
    handle, entries = _begin(store), []
    joined = [_join(store, handle, rank) for rank in (1, 2)]
    (joined[0].path / "x").write_text("1")
    (joined[1].path / "x").write_text("2")
    entries += joined[0].upload()
    with pytest.raises(atomicpath.ValidationError, match="'x'"):
        joined[1].upload()
    (handle.path / "x").write_text("0")
    with pytest.raises(atomicpath.ValidationError, match="'x'"):
        handle.finish(entries=entries)
    assert store.names() == []


def test_what_joined_processes_have_added_goes_with_the_attempt(root: Root) -> None:
    handle = _begin(root)
    joined = _join(root, handle, 1)
    (joined.path / "x").write_text("1")
    joined.upload()
    with pytest.raises(atomicpath.CommitError, match="before"):
        joined.upload()
    handle.abandon()
    assert root.names() == []
    with pytest.raises(atomicpath.CommitError):
        handle.ticket()


def test_one_that_comes_too_late_is_told(root: Root) -> None:
    handle = _begin(root)
    ticket = handle.ticket()
    handle.abandon()
    with pytest.raises(atomicpath.CommitError):
        atomicpath.join(ticket, rank=1, storage_options=root.storage_options)


def test_one_that_gives_up_leaves_the_commit_to_the_others(root: Root) -> None:
    handle = _begin(root)
    joined = _join(root, handle, 1)
    directory = joined.path
    joined.abandon()
    assert root.kind == "local" or not os.path.exists(directory)
    (handle.path / "y").write_text("0")
    assert handle.finish().name == "step_1"


def test_all_write_beside_what_is_kept(root: Root) -> None:
    first = _begin(root)
    (first.path / "x").write_text("first")
    first.finish()
    handle = _begin(root, exists="keep")
    joined = _join(root, handle, 1)
    (joined.path / "x").write_text("again")
    handle.finish(entries=joined.upload())
    assert root.read_all("step_1")["x"] == b"first"
    assert root.names() == ["step_1"]


def test_what_cannot_be_meant_is_refused(local: LocalRoot) -> None:
    for ticket in (b"", b"{}", b'{"kind": "else", "format": 1}', b"\xff", None):
        with pytest.raises(atomicpath.ValidationError, match="no ticket"):
            atomicpath.join(ticket, rank=1)  # type: ignore[arg-type]
    with pytest.raises(atomicpath.ValidationError, match="newer"):
        atomicpath.join(b'{"kind": "atomicpath.ticket", "format": 2}', rank=1)
    handle = _begin(local)
    for rank in (-1, True, "1"):
        with pytest.raises(atomicpath.ValidationError, match="rank="):
            atomicpath.join(handle.ticket(), rank=rank)  # type: ignore[arg-type]
    with pytest.raises(atomicpath.ValidationError, match="upload"):
        handle.finish(entries=[{"what": 1}])
    assert local.names() == []

    class Own(atomicpath.AtomicRenameTemporaryPath):
        pass

    handle = _begin(local, temporary_path_class=Own)
    with pytest.raises(atomicpath.ValidationError, match="caller's"):
        handle.ticket()
    handle.abandon()


def test_a_commit_with_a_coordinator_has_no_tickets(local: LocalRoot) -> None:
    import threading

    board = Board(2)
    said: list[str] = []

    def rank(number: int) -> None:
        handle = _begin(local, coordinator=board.member(number))
        try:
            handle.ticket()
        except atomicpath.ValidationError as error:
            said.append(str(error))
        (handle.path / f"x{number}").write_text("1")
        handle.finish()

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 2
    assert "coordinator" in said[0]
    assert sorted(name for name in local.read_all("step_1") if name.startswith("x")) == ["x0", "x1"]


def test_processes_that_join_keep_nothing_open(local: LocalRoot) -> None:
    handle = _begin(local)
    _join(local, handle, 0).abandon()
    before = len(os.listdir("/proc/self/fd"))
    for rank in range(1, 6):
        _join(local, handle, rank).upload()
    assert len(os.listdir("/proc/self/fd")) <= before
    handle.abandon()
