"""Each method of the SFTP storage does what `Storage` says, on a real OpenSSH server; the truth is on its disk."""

from __future__ import annotations

import errno
import os
import resource
import stat
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from atomicpath.abc import Entry, EntryKind, Environment, Put, Storage, SyncingStorage, Update
from atomicpath.errors import AccessError, GuaranteeError, ValidationError
from atomicpath.guarantees import Guarantee
from atomicpath_sftp import SftpBackend, files
from tests.support.servers.sftp import SftpRoot

SIZES = [0, 1, 255 * 1024, 255 * 1024 + 1, 3_000_001]


async def test_an_object_is_created_once_whole_and_beside_nothing(
    sftp: Storage, top: str, sftp_place: SftpRoot
) -> None:
    await sftp.put(f"{top}/a", b"first", mode=Put.CREATE)
    with pytest.raises(FileExistsError, match="nothing of it was changed"):
        await sftp.put(f"{top}/a", b"second", mode=Put.CREATE)
    assert sftp_place.read_all() == {"a": b"first"}
    assert (await sftp.get(f"{top}/a")).data == b"first"


async def test_of_many_creations_exactly_one_succeeds(sftp: Storage, top: str, sftp_place: SftpRoot) -> None:
    won = []

    async def one(number: int) -> None:
        try:
            await sftp.put(f"{top}/a", f"{number}".encode(), mode=Put.CREATE)
        except FileExistsError:
            return
        won.append(number)

    for _ in range(5):
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(one, number)
        assert sftp_place.read_all() == {"a": f"{won.pop()}".encode()}
        assert won == []
        sftp_place.delete("a")


async def test_a_write_replaces_in_one_step(sftp: Storage, top: str, sftp_place: SftpRoot) -> None:
    await sftp.put(f"{top}/a", b"first, and long", mode=Put.OVERWRITE)
    before = (sftp_place.path / "a").stat().st_ino
    await sftp.put(f"{top}/a", b"second", mode=Put.OVERWRITE)
    assert sftp_place.read_all() == {"a": b"second"}
    assert (sftp_place.path / "a").stat().st_ino != before, "a reader keeps the old one"
    await sftp.put(f"{top}/a", b"third", mode=Put.PRIVATE)
    assert sftp_place.read_all() == {"a": b"third"}


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_goes_up_and_comes_down_as_it_is(
    sftp: Storage, top: str, sftp_place: SftpRoot, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(data)
    assert (await sftp.upload(source, f"{top}/new/deep/a", owner="", multipart=True)).size == size
    assert sftp_place.read_all() == {"new/deep/a": data}
    with pytest.raises(FileExistsError):
        await sftp.upload(source, f"{top}/new/deep/a", owner="", multipart=True)
    assert sftp_place.read_all() == {"new/deep/a": data}
    assert (await sftp.download(f"{top}/new/deep/a", copy)).size == size
    assert copy.read_bytes() == data
    with pytest.raises(FileExistsError):
        await sftp.download(f"{top}/new/deep/a", copy)


async def test_a_source_that_changes_meanwhile_is_not_uploaded(
    sftp: Any, top: str, sftp_place: SftpRoot, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 600_000)

    class Late(Environment):
        async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            source.write_bytes(b"y" * 600_001)
            return await super().request(function, *args, **kwargs)

    sftp.environment = Late()
    with pytest.raises(OSError, match="changed while it was uploaded"):
        await sftp.upload(source, f"{top}/a", owner="", multipart=True)
    assert sftp_place.names() == []


async def test_a_file_that_ends_early_is_no_download(
    sftp: Storage, top: str, sftp_place: SftpRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sftp_place.write("a", b"x" * 1_000_000)
    opened = files._open

    async def shorter(*args: Any) -> Any:
        file, size = await opened(*args)
        os.truncate(sftp_place.path / "a", 700_000)
        return file, size

    monkeypatch.setattr(files, "_open", shorter)
    with pytest.raises(OSError, match="ended after"):
        await sftp.download(f"{top}/a", tmp_path / "copy")
    assert os.listdir(tmp_path) == []


async def test_memory_is_bounded(sftp: Storage, top: str, sftp_place: SftpRoot, tmp_path: Path) -> None:
    size = 64 * 2**20
    for number in range(2):
        with (tmp_path / f"{number}").open("wb") as file:
            file.truncate(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def one(number: int) -> None:
        await sftp.upload(tmp_path / f"{number}", f"{top}/{number}", owner="", multipart=True)
        await sftp.download(f"{top}/{number}", tmp_path / f"copy-{number}")

    async with anyio.create_task_group() as group:
        for number in range(2):
            group.start_soon(one, number)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < size, f"{grown >> 20} MiB for 128 MiB"
    assert {path.stat().st_size for path in sftp_place.path.iterdir()} == {size}


async def test_nothing_there_is_said_alike_everywhere(sftp: Storage, top: str, tmp_path: Path) -> None:
    missing = f"{top}/missing/a"
    assert await sftp.stat(missing) is None
    assert await sftp.kind(missing) is None
    assert await sftp.list(missing, recursive=True) == []
    await sftp.delete(missing)
    await sftp.remove_tree(missing)
    for attempt in (
        lambda: sftp.get(missing),
        lambda: sftp.download(missing, tmp_path / "copy"),
        lambda: sftp.put(missing, b"x", mode=Put.CREATE),
        lambda: sftp.rename_directory(missing, f"{top}/b"),
    ):
        with pytest.raises(FileNotFoundError):
            await attempt()


async def test_a_listing_has_every_file_and_follows_no_link(sftp: Storage, top: str, sftp_place: SftpRoot) -> None:
    for name in ("d/e/one", "d/two", "three", "d/\udcff"):
        sftp_place.write(name, name.encode(errors="surrogateescape"))
    (sftp_place.path / "d" / "link").symlink_to("/etc")
    (sftp_place.path / "empty").mkdir()
    found = await sftp.list(top, recursive=True)
    kinds = {entry.name: (entry.kind, entry.size) for entry in found}
    assert kinds == {
        "d/e/one": (EntryKind.FILE, 7),
        "d/link": (EntryKind.LINK, 0),
        "d/two": (EntryKind.FILE, 5),
        "d/\udcff": (EntryKind.FILE, 3),
        "three": (EntryKind.FILE, 5),
    }
    assert [entry.name for entry in found] == sorted(kinds)
    assert await sftp.list(top, recursive=False) == [
        Entry(name="d", kind=EntryKind.DIRECTORY),
        Entry(name="empty", kind=EntryKind.DIRECTORY),
        Entry(name="three", size=5),
    ]
    assert await sftp.kind(f"{top}/d/link") == EntryKind.LINK


async def test_a_tree_is_removed_with_its_links_but_not_what_they_lead_to(
    sftp: Storage, top: str, sftp_place: SftpRoot, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_bytes(b"x")
    for name in ("d/e/f/one", "d/two"):
        sftp_place.write(name, b"x")
    (sftp_place.path / "d" / "link").symlink_to(tmp_path)
    (sftp_place.path / "d" / "e" / "file-link").symlink_to(tmp_path / "kept")
    await sftp.remove_tree(f"{top}/d")
    assert sftp_place.names() == []
    assert (tmp_path / "kept").read_bytes() == b"x"


async def test_a_directory_is_made_once_with_its_ancestors_and_its_exact_mode(
    sftp: Storage, top: str, sftp_place: SftpRoot
) -> None:
    await sftp.make_directory(f"{top}/a/b/c", mode=0o2773, durable=True)
    assert stat.S_IMODE((sftp_place.path / "a/b/c").stat().st_mode) == 0o2773
    with pytest.raises(FileExistsError):
        await sftp.make_directory(f"{top}/a/b/c", mode=None, durable=True)
    sftp_place.write("file", b"x")
    with pytest.raises(FileExistsError):
        await sftp.make_directory(f"{top}/file", mode=None, durable=True)
    for below in ("file/d", "file/d/e"):
        with pytest.raises((ValidationError, FileNotFoundError)):
            await sftp.make_directory(f"{top}/{below}", mode=None, durable=True)


async def test_a_rename_moves_a_tree_and_never_replaces(sftp: Storage, top: str, sftp_place: SftpRoot) -> None:
    sftp_place.write("old/a", b"x")
    await sftp.rename_directory(f"{top}/old", f"{top}/new")
    assert sftp_place.read_all() == {"new/a": b"x"}
    (sftp_place.path / "empty").mkdir()
    sftp_place.write("full/b", b"y")
    sftp_place.write("file", b"z")
    (sftp_place.path / "dangling").symlink_to("nowhere")
    before = sftp_place.read_all()
    for taken in ("empty", "full", "file", "dangling"):
        with pytest.raises(FileExistsError):
            await sftp.rename_directory(f"{top}/new", f"{top}/{taken}")
    assert sftp_place.read_all() == before
    assert list((sftp_place.path / "empty").iterdir()) == []


async def test_what_is_no_file_is_not_opened(sftp: Storage, top: str, sftp_place: SftpRoot) -> None:
    """Opening a FIFO would stop the server's process: everything else on that channel would wait for ever."""
    os.mkfifo(sftp_place.path / "fifo")
    (sftp_place.path / "directory").mkdir()
    for name, kind in (("fifo", EntryKind.FIFO), ("directory", EntryKind.DIRECTORY)):
        with pytest.raises(ValidationError, match=f"is {kind}"):
            await sftp.get(f"{top}/{name}")
        assert await sftp.kind(f"{top}/{name}") == kind


async def test_what_sftp_cannot_do_is_refused(sftp: Storage, top: str) -> None:
    for attempt in (
        lambda: sftp.delete(f"{top}/a", version="1"),
        lambda: sftp.put(f"{top}/a", b"", mode=Update("1")),
    ):
        with pytest.raises(GuaranteeError):
            await attempt()
    assert not isinstance(sftp, SyncingStorage)
    elsewhere = "elsewhere/" + top.partition("/")[2]
    with pytest.raises(ValidationError, match="different servers"):
        await sftp.rename_directory(top, elsewhere)


async def test_a_refusal_says_so(sftp: Storage, top: str) -> None:
    host = top.partition("/")[0]
    with pytest.raises(AccessError, match="check the permissions"):  # where not even root may make a directory
        await sftp.make_directory(f"{host}/sys/atomicpath", mode=None, durable=False)


async def test_openssh_is_known_and_its_disk_believed_by_probes_only(sftp: Storage, top: str) -> None:
    found = await sftp.declare(f"{top}/not/yet/there")
    assert found.declared == Guarantee.ATOMIC_WRITE | Guarantee.DIRECTORIES
    assert Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE in found.observable
    assert Guarantee.SYNC not in found.declared | found.observable
    assert "power cut" in found.evidence[Guarantee.SYNC]


async def test_a_name_too_long_is_refused_before_anything_is_sent(sftp: Storage, top: str) -> None:
    for path in (f"{top}/{'n' * 256}", f"{top}/" + "/".join(["n" * 200] * 21)):
        with pytest.raises(ValidationError, match="bytes"):
            await sftp.put(path, b"x", mode=Put.CREATE)


def test_errno_of_a_taken_name(sftp: Storage, top: str) -> None:
    anyio.run(partial(sftp.put, mode=Put.CREATE), f"{top}/a", b"x")
    with pytest.raises(FileExistsError) as caught:
        anyio.run(partial(sftp.put, mode=Put.CREATE), f"{top}/a", b"x")
    assert caught.value.errno == errno.EEXIST
    assert SftpBackend().url(f"{top}/a") in str(caught.value)
