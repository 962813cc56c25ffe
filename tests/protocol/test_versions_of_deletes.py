"""Where deletes name a version: each does, and what the storage gives no version of is not deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atomicpath import GuaranteeError, aio
from atomicpath._core.environment import use
from atomicpath._core.layout import is_probe
from atomicpath._core.liveness import release
from atomicpath.abc import Entry
from atomicpath.guarantees import Guarantee
from atomicpath_memory import MemoryStorage
from tests.protocol.worlds import ALL, MARKER, RECORD, Quick, attempt, decoded, files_below, trust, written

URL, ROOT, PLACE = "memory://run/step_1", "memory://run", "/run/step_1"
Memory = dict[str, Any]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The versions that deletes below the place have named."""
    seen: list[str | None] = []
    delete = MemoryStorage.delete

    async def noted(self: MemoryStorage, path: str, *, version: str | None = None) -> None:
        if not is_probe(path.rpartition("/")[2]):  # which asks whether deleting is allowed at all
            seen.append(version)
        await delete(self, path, version=version)

    monkeypatch.setattr(MemoryStorage, "delete", noted)
    return seen


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "data").write_bytes(b"the data")
    return tmp_path / "source"


@pytest.fixture
def without_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that gives versions to whoever reads or writes, and none to whoever lists or looks."""
    listing, stat = MemoryStorage.list, MemoryStorage.stat

    async def plain_list(self: MemoryStorage, path: str, *, recursive: bool) -> list[Entry]:
        return [replace(entry, version=None) for entry in await listing(self, path, recursive=recursive)]

    async def plain_stat(self: MemoryStorage, path: str) -> Entry | None:
        found = await stat(self, path)
        return found and replace(found, version=None)

    monkeypatch.setattr(MemoryStorage, "list", plain_list)
    monkeypatch.setattr(MemoryStorage, "stat", plain_stat)


@pytest.fixture(autouse=True)
def _quick(quick: Quick) -> Iterator[None]:
    with use(quick):
        yield
    trust(URL, None, ALL)


async def test_nothing_is_deleted_of_which_a_plug_in_gives_no_version(
    memory: Memory, source: Path, without_versions: None, named: list[str | None]
) -> None:
    trust(URL, None, ALL)
    await aio.put(source, URL)
    with pytest.raises(GuaranteeError, match="was not deleted: the storage gives no version of it"):
        await aio.remove(URL)
    assert named == []
    assert set(files_below(memory, PLACE)) == {"data", RECORD, MARKER}
    (swept,) = await aio.sweep(ROOT, older_than=timedelta(0))
    assert "gives no version of it" in str(swept.error)
    assert not swept.done
    assert named == []


async def test_a_record_is_deleted_by_its_version_where_the_marker_decides(
    memory: Memory, quick: Quick, tmp_path: Path, named: list[str | None]
) -> None:
    """CONDITIONAL_DELETE without COMPARE_AND_SWAP: of an attempt that gives up, and of one that is swept."""
    guarantees = ALL & ~Guarantee.COMPARE_AND_SWAP
    trust(URL, None, guarantees, refuted=Guarantee.COMPARE_AND_SWAP)
    given_up = attempt(URL, environment=quick, guarantees=guarantees)
    await given_up.create()
    await given_up.add("data", written(tmp_path, "data", b"data"))
    await given_up.discard()
    assert files_below(memory, PLACE) == {}
    left = attempt(URL, environment=quick, guarantees=guarantees)
    await left.create()
    release(left.token)
    assert decoded(files_below(memory, PLACE)[RECORD]).token == left.token
    (swept,) = await aio.sweep(ROOT, older_than=timedelta(0))
    assert swept.done, swept
    assert files_below(memory, PLACE) == {}
    assert len(named) == 3
    assert None not in named
