"""A cluster's file system: commits, races, kills, ranks, sweeps and readers across two mounts of a GlusterFS volume."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import atomicpath
from atomicpath import GuaranteeError
from atomicpath._core.layout import HOUSEKEEPING
from tests.cluster.host import FACES, Host, values_server
from tests.support.servers.gluster import gluster_mounts

ROUNDS = 20 if os.environ.get("ATOMICPATH_FULL") == "1" else 4


@pytest.mark.parametrize("face", FACES)
def test_a_commit_without_an_argument_is_read_on_the_other_host_at_once(
    face: str, first: Host, second: Host, root: str
) -> None:
    for number in range(3):
        url = f"{root}/step_{number}"
        assert second.do("read", url) is None
        assert first.do("commit", face, url, {"model": str(number)}) == "won"
        assert second.do("read", url) == {"model": str(number)}
        assert second.do("committed", root)[-1] == f"step_{number}"
    assert second.do("listed", root) == ["step_0", "step_1", "step_2"]


@pytest.mark.parametrize("face", FACES)
def test_of_writers_on_two_hosts_one_wins(face: str, first: Host, second: Host, root: str) -> None:
    for number in range(ROUNDS):
        url, at = f"{root}/step_{number}", time.time() + 0.2
        first.ask("race", face, url, ["a", "b", "c"], at)
        second.ask("race", face, url, ["d", "e", "f"], at)
        said = dict(zip("abcdef", first.answer() + second.answer(), strict=True))
        won = [who for who, words in said.items() if words == "won"]
        assert len(won) == 1, said
        assert {words.partition(":")[0] for words in said.values()} == {"won", "AlreadyCommittedError"}, said
        assert first.do("read", url) == second.do("read", url) == {"who": won[0]}
    for host in (first, second):
        host.do("sweep", root)  # what a host could not remove while another was at it
    assert {*second.do("listed", root)} - {HOUSEKEEPING} == {f"step_{number}" for number in range(ROUNDS)}


def test_what_a_killed_writer_leaves_is_cleared_from_the_other_host(
    start_host: Callable[[int], Host], second: Host, root: str
) -> None:
    for name in ("step_1", "step_2"):
        killed = start_host(0)
        killed.do("begin", f"{root}/{name}", {"model": "half"})
        killed.kill()
        assert second.do("read", f"{root}/{name}") is None
    assert second.do("commit", "blocking", f"{root}/step_1", {"model": "whole"}) == "won"
    assert second.do("read", f"{root}/step_1") == {"model": "whole"}
    assert len(second.do("sweep", root)) == 1, "of the two the next attempt at the same path has cleared one"
    assert second.do("listed", root) == ["step_1"]


def test_what_is_being_written_on_one_host_is_swept_on_no_other(first: Host, second: Host, root: str) -> None:
    first.do("begin", f"{root}/step_1", {"model": "whole"})
    (kept,) = second.do("sweep", root)
    assert kept.endswith("kept; its process is alive")
    first.do("finish")
    assert second.do("read", f"{root}/step_1") == {"model": "whole"}


@pytest.mark.parametrize("face", FACES)
def test_ranks_on_both_hosts_write_into_one_commit(face: str, first: Host, second: Host, root: str) -> None:
    manager = values_server()
    try:
        first.ask("rank", face, f"{root}/step_1", manager.address, [0, 1], 4)
        second.ask("rank", face, f"{root}/step_1", manager.address, [2, 3], 4)
        assert first.answer() + second.answer() == ["won"] * 4
    finally:
        manager.shutdown()
    expected = {f"rank-{number}": str(number) for number in range(4)}
    assert first.do("read", f"{root}/step_1") == second.do("read", f"{root}/step_1") == expected


def test_a_reader_on_the_other_host_never_sees_a_part(first: Host, second: Host, root: str) -> None:
    last = f"step_{5 * ROUNDS}"
    first.do("commit", "blocking", f"{root}/step_0", {f"file-{index}": "step_0" for index in range(5)})
    second.ask("read_until", root, last)
    for number in range(1, 5 * ROUNDS + 1):
        name = f"step_{number}"
        files = {f"file-{index}": name for index in range(5)}
        assert first.do("commit", "blocking", f"{root}/{name}", files) == "won"
    seen = second.answer()
    assert seen[-1] == last
    assert seen == sorted(seen, key=lambda name: int(name.removeprefix("step_")))


def test_a_volume_of_several_bricks_is_refused_with_the_reason(tmp_path: Path) -> None:
    with (
        gluster_mounts(tmp_path, bricks=2) as (mount, _),
        pytest.raises(GuaranteeError, match=r"brick\s+by\s+brick"),
        atomicpath.commit(mount / "step_1"),
    ):
        pytest.fail("the block was entered")
