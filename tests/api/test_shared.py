"""A directory that the hosts of a job see differently: the primary waits until it sees all, or nothing is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atomicpath._commit.shared_directory import expect_all, seen_by_this_rank
from atomicpath._core.environment import Environment, use
from atomicpath._profile.location import locate
from atomicpath.errors import CommitError

pytestmark = pytest.mark.anyio


class _Clock(Environment):
    """Time passes only in sleeps, and something happens in the first ones."""

    def __init__(self, *then: Any) -> None:
        self.now = 0.0
        self.then = list(then)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.then:
            self.then.pop(0)()


async def _seen(path: Path) -> Any:
    location = locate(path)
    return await seen_by_this_rank(location.open(), location)


async def test_the_primary_waits_for_a_file_and_a_size_that_another_host_sees_already(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "rank0").write_bytes(b"0")
    mine = await _seen(tmp_path / "shared")
    (tmp_path / "other view").mkdir()
    (tmp_path / "other view" / "rank1").write_bytes(b"11")
    theirs = await _seen(tmp_path / "other view")
    late = tmp_path / "shared" / "rank1"
    with use(_Clock(lambda: late.write_bytes(b"1"), lambda: late.write_bytes(b"11"))) as clock:
        location = locate(tmp_path / "shared")
        await expect_all(location.open(), location, [mine, theirs])
    assert isinstance(clock, _Clock)
    assert clock.then == [], "it waited for the size, too"


@pytest.mark.parametrize("here", [None, b"1"])
async def test_what_the_primary_never_sees_is_an_error_that_names_rank_and_file(
    here: bytes | None, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    mine = await _seen(tmp_path / "shared")
    (tmp_path / "shared" / "lost.bin").write_bytes(b"11")
    theirs = await _seen(tmp_path / "shared")
    (tmp_path / "shared" / "lost.bin").unlink()
    if here is not None:
        (tmp_path / "shared" / "lost.bin").write_bytes(here)
    with use(_Clock()) as clock, pytest.raises(CommitError, match=r"'lost\.bin' has 2 bytes for rank 1"):
        location = locate(tmp_path / "shared")
        await expect_all(location.open(), location, [mine, theirs])
    assert isinstance(clock, _Clock)
    assert clock.now < 70, "the wait is bounded"
