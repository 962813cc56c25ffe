"""What a caller hears of the progress of `get` and `verify`, in bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

import atomicpath
from tests.support.roots import Root

BOTH = pytest.mark.parametrize("place", ["local", "memory"], indirect=True)


@pytest.fixture
def url(place: Root) -> str:
    with atomicpath.commit(f"{place.url}/step_1", checksums=True) as path:
        (path / "a").write_bytes(b"x" * 30)
        (path / "b").write_bytes(b"x" * 70)
    return f"{place.url}/step_1"


@BOTH
def test_a_download_tells_how_many_bytes_have_come(url: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    atomicpath.get(url, tmp_path / "got", progress=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {100}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (100, 100)


@BOTH
def test_a_verification_tells_how_many_bytes_are_read(url: str) -> None:
    told: list[tuple[int, int]] = []
    assert atomicpath.verify(url, checksums=True, progress=lambda done, total: told.append((done, total))).ok
    assert sorted(told) == [(30, 100), (100, 100)] or sorted(told) == [(70, 100), (100, 100)]


@BOTH
def test_an_error_of_the_callback_is_the_callers_own(url: str, tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise OSError("as the test asked")

    with pytest.raises(OSError, match="as the test asked") as raised:
        atomicpath.verify(url, checksums=True, progress=fail)
    assert not isinstance(raised.value, atomicpath.AtomicPathError)
    with pytest.raises(OSError, match="as the test asked"):
        atomicpath.get(url, tmp_path / "got", progress=fail)
    assert not (tmp_path / "got").exists()
