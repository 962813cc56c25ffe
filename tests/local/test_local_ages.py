"""Ages are by the clock that gave a file its time, or unknown."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from atomicpath_local import ages
from atomicpath_local.storage import LocalStorage

from .conftest import World

NFS = "1 0 0:1 / / rw - ext4 /dev/root rw\n2 1 0:2 / {} rw - {} server:/export rw\n"
NETWORKS = ["nfs", "nfs4", "fuse.glusterfs", "lustre", "ceph", "fuse.sshfs", "cifs", "9p"]
A_DAY = 90_000 * 10**9


class Skewed(World):
    """A host whose clocks are not the server's; `passed` is what it lets pass, in seconds."""

    passed = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.passed


@pytest.fixture
def world() -> World:
    return Skewed()


def network(world: World, root: Path, kind: str = "nfs4") -> None:
    world.mount(NFS.format(root, kind))
    world.faults[time.time_ns] = lambda: time.time_ns() + A_DAY


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("where", ["step_1", "step_1/deep/file", ".atomicpath/attempt", ".atomicpath/attempt/file"])
async def test_on_a_network_mount_a_skewed_clock_makes_nothing_old(
    storage: LocalStorage, world: World, tmp_path: Path, kind: str, where: str
) -> None:
    """25 h between this host and the server."""
    network(world, tmp_path, kind)
    (tmp_path / ".atomicpath").mkdir()
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"data")
    found = await storage.stat(str(path))
    assert found is not None
    assert found.age is not None
    assert found.age < 3600
    content = await storage.get(str(path))
    assert content.age is not None
    assert content.age < 3600
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert ((await storage.get(str(path))).age or 0.0) > 500_000_000
    assert [name for name in os.listdir(tmp_path / ".atomicpath") if "probe" in name] == []


@pytest.mark.parametrize("why", ["no directory", "a file", "a link", "read-only", "full", "not permitted"])
async def test_where_the_servers_clock_cannot_be_read_the_age_is_unknown(
    storage: LocalStorage, world: World, tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ages, "HOUSEKEEPING", f".{tmp_path.name}")  # others may have made one further up
    network(world, tmp_path)
    house = tmp_path / f".{tmp_path.name}"
    (tmp_path / "step_1").write_bytes(b"data")
    if why == "a file":
        house.write_bytes(b"")
    elif why == "a link":
        house.symlink_to("/")
    elif why != "no directory":
        house.mkdir()
        code = {"read-only": errno.EROFS, "full": errno.ENOSPC, "not permitted": errno.EACCES}[why]

        def refused(path: str, flags: int, *args: int, **kwargs: int | None) -> int:
            if flags & os.O_CREAT:
                raise OSError(code, os.strerror(code), path)
            return os.open(path, flags, *args, **kwargs)

        world.faults[os.open] = refused
    before = sorted(os.listdir(tmp_path))
    found = await storage.stat(f"{tmp_path}/step_1")
    assert found is not None
    assert found.age is None
    assert (await storage.get(f"{tmp_path}/step_1")).age is None
    assert sorted(os.listdir(tmp_path)) == before


async def test_the_servers_clock_is_measured_once_a_minute_and_goes_on_meanwhile(
    storage: LocalStorage, world: World, tmp_path: Path
) -> None:
    assert isinstance(world, Skewed)
    network(world, tmp_path)
    (tmp_path / ".atomicpath").mkdir()
    (tmp_path / "step_1").write_bytes(b"data")

    async def age() -> float:
        found = await storage.stat(f"{tmp_path}/step_1")
        assert found is not None
        assert found.age is not None
        return found.age

    first = await age()
    made = world.calls.count("unlink")
    world.passed = 50.0
    assert await age() >= first + 50.0
    assert world.calls.count("unlink") == made == 1
    world.passed = 10_000.0
    assert await age() < 5_000.0  # the server's clock, asked again, shows that no such time has passed there
    assert world.calls.count("unlink") == 2


async def test_on_a_disk_of_this_host_the_kernels_clock_is_read_and_nothing_is_written(
    storage: LocalStorage, world: World, tmp_path: Path
) -> None:
    (tmp_path / ".atomicpath").mkdir()
    (tmp_path / "step_1").write_bytes(b"data")
    world.faults[time.time_ns] = lambda: time.time_ns() + A_DAY
    found = await storage.stat(f"{tmp_path}/step_1")
    assert found is not None
    assert found.age is not None
    assert found.age >= A_DAY / 1e9
    assert "unlink" not in world.calls


async def test_an_interrupted_rename_goes_by_its_age_and_stays_while_that_cannot_be_told(
    storage: LocalStorage,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_descriptor_leaks: Callable[[], None],
) -> None:
    monkeypatch.setattr(ages, "HOUSEKEEPING", f".{tmp_path.name}")  # others may have made one further up
    network(world, tmp_path)
    (tmp_path / "step_1").mkdir()
    with monkeypatch.context() as unwritable:
        unwritable.setattr(ages, "_time_there", lambda _system, _directory: None)
        assert await storage.remove_interrupted(f"{tmp_path}/step_1", older_than=0.0, dry_run=False) == 0.0
    assert (tmp_path / "step_1").is_dir()
    assert await storage.remove_interrupted(f"{tmp_path}/step_1", older_than=3600.0, dry_run=False) is not None
    assert os.listdir(tmp_path) == ["step_1"], "the file that told the time is gone again"
    assert await storage.remove_interrupted(f"{tmp_path}/step_1", older_than=0.0, dry_run=False) is not None
    assert not (tmp_path / "step_1").exists()
    no_descriptor_leaks()
