"""Exclusive directories, their ancestors and their modes."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from atomicpath.abc import Put
from atomicpath.errors import ValidationError
from atomicpath_local.storage import LocalStorage


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


async def test_a_directory_and_its_ancestors_are_created(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.make_directory(f"{tmp_path}/a/b/c", mode=None, durable=True)
    assert (tmp_path / "a/b/c").is_dir()


async def test_an_inherited_setgid_bit_stays(storage: LocalStorage, tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    await storage.make_directory(f"{tmp_path}/a", mode=0o750, durable=False)
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o2750
    (tmp_path / "from/deep").mkdir(parents=True)
    (tmp_path / "from/deep").chmod(0o755)
    (tmp_path / "from/deep/file").write_bytes(b"")
    await storage.copy_files(f"{tmp_path}/from", f"{tmp_path}/a", ["deep/file"])
    assert stat.S_IMODE(os.stat(tmp_path / "a/deep").st_mode) == 0o2755


@pytest.mark.parametrize("there", ["directory", "file", "link"])
async def test_a_directory_is_created_exclusively(storage: LocalStorage, tmp_path: Path, there: str) -> None:
    target = tmp_path / "a"
    if there == "directory":
        target.mkdir()
    elif there == "file":
        target.write_bytes(b"")
    else:
        target.symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        await storage.make_directory(str(target), mode=None, durable=True)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777, 0o2775])
@pytest.mark.usefixtures("umask")
async def test_the_mode_is_exact_whatever_the_umask(storage: LocalStorage, tmp_path: Path, mode: int) -> None:
    await storage.make_directory(f"{tmp_path}/a", mode=mode, durable=False)
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == mode


@pytest.mark.usefixtures("umask")
async def test_without_a_mode_the_umask_decides(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.make_directory(f"{tmp_path}/a", mode=None, durable=False)
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o700


async def test_new_ancestor_not_synced(storage: LocalStorage, world, tmp_path: Path) -> None:
    await storage.make_directory(f"{tmp_path}/a/b/c", mode=None, durable=True)
    assert world.synced == [str(tmp_path), f"{tmp_path}/a"]


async def test_nothing_is_synced_when_not_durable(storage: LocalStorage, world, tmp_path: Path) -> None:
    await storage.make_directory(f"{tmp_path}/a/b/c", mode=None, durable=False)
    assert world.synced == []


async def test_an_ancestor_that_another_process_makes_meanwhile_is_used_and_synced(
    storage: LocalStorage, world, tmp_path: Path
) -> None:
    def made_twice(path: str) -> None:
        os.mkdir(path)
        if path == f"{tmp_path}/a":
            os.mkdir(path)

    world.faults[os.mkdir] = made_twice
    await storage.make_directory(f"{tmp_path}/a/b", mode=None, durable=True)
    assert world.synced == [str(tmp_path)]


async def test_the_common_case_is_one_mkdir(storage: LocalStorage, world, tmp_path: Path) -> None:
    await storage.make_directory(f"{tmp_path}/a", mode=None, durable=True)
    assert world.calls == ["mkdir"]


async def test_a_path_below_a_file_is_refused_with_advice(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValidationError, match="choose another one, or move the file"):
        await storage.make_directory(f"{tmp_path}/file/a/b", mode=None, durable=True)


@pytest.mark.parametrize("length", [256, 5000])
async def test_a_name_that_is_too_long_is_refused_with_advice(
    storage: LocalStorage, tmp_path: Path, length: int
) -> None:
    path = f"{tmp_path}/{'x' * length}"
    with pytest.raises(ValidationError, match="shorten it") as caught:
        await storage.make_directory(path, mode=None, durable=True)
    assert len(str(caught.value)) < 600
    with pytest.raises(ValidationError, match="shorten it"):
        await storage.put(path, b"", mode=Put.CREATE)
    with pytest.raises(ValidationError, match="shorten it"):
        await storage.get(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("function", [os.open, os.fchmod], ids=["open", "fchmod"])
async def test_a_directory_that_cannot_get_its_mode_is_taken_away_again(
    storage: LocalStorage, world, tmp_path: Path, function: object
) -> None:
    world.refuse(function, errno.EMFILE)
    with pytest.raises(OSError) as caught:
        await storage.make_directory(f"{tmp_path}/a", mode=0o700, durable=True)
    assert caught.value.errno == errno.EMFILE
    assert os.listdir(tmp_path) == []


async def test_a_directory_that_another_host_removes_is_missing_and_not_an_unknown_outcome(
    storage: LocalStorage, world, tmp_path: Path
) -> None:
    for function, make in (
        (os.mkdir, lambda: storage.make_directory(f"{tmp_path}/gone/a", mode=None, durable=False)),
        (os.open, lambda: storage.lock_file(f"{tmp_path}/gone/a")),
        (os.open, lambda: storage.put(f"{tmp_path}/gone/a", b"x", mode=Put.CREATE)),
    ):
        world.faults.clear()
        world.refuse(function, errno.ESTALE)
        with pytest.raises(FileNotFoundError, match="removed on another host"):
            await make()


async def test_a_look_at_what_another_host_has_just_replaced_is_made_again(
    world, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"new")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            world.faults.clear()

    monkeypatch.setattr(world, "sleep", sleep)
    world.refuse(os.open, errno.ESTALE)
    assert (await storage.get(f"{tmp_path}/file")).data == b"new"
    assert len(slept) == 3
    world.refuse(os.open, errno.ESTALE)
    with pytest.raises(OSError, match="Stale") as caught:
        await storage.get(f"{tmp_path}/file")
    assert not isinstance(caught.value, FileNotFoundError), "it may be that of the whole mount"
