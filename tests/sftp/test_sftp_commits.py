"""Whole commits on SFTP through the public names: cut connections, killed jobs, budgets, servers to be refused."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._commit.explanation import explained
from atomicpath._core import environment
from atomicpath._core.layout import HOUSEKEEPING
from atomicpath._strategies import borders
from atomicpath.abc import Environment
from atomicpath.guarantees import Guarantee
from atomicpath_sftp.server import Server, declaration_of
from tests.sftp.wire import Wire
from tests.support.processes import FILES, Child, Killer, commit_files, content_of, known, write_tree
from tests.support.servers.sftp import SftpRoot, SftpServer, rclone_sftp
from tests.support.waiting import PATIENCE

RECORD, MARKER = "_commit_record.json", "commit_success.txt"
RENAME = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE


class Seam(Environment):
    """Notes the name of every request, and calls `before` and `after` the first of one name."""

    def __init__(self, name: str = "", before: Any = None, after: Any = None) -> None:
        self.names: list[str] = []
        self._name, self._before, self._after = name, before, after

    async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        name = args[1].__name__
        self.names.append(name)
        chosen = name == self._name and self.names.count(name) == 1
        if chosen and self._before:
            self._before()
        try:
            return await super().request(function, *args, **kwargs)
        finally:
            if chosen and self._after:
                self._after()


def committed_by(place: SftpRoot, name: str, *reserved: str) -> str:
    """Whose files a committed directory has, and nothing else."""
    files = place.read_all(name)
    assert set(files) == {*FILES, RECORD, *reserved}
    return next(writer for writer in "abc" if content_of(writer) == {file: files[file] for file in FILES})


def names_in(directory: Path) -> list[str]:
    """Return the names there. The house-keeping directory, which stays, is empty: to remove it costs a request."""
    if (directory / HOUSEKEEPING).exists():
        assert os.listdir(directory / HOUSEKEEPING) == []
    return sorted(name for name in os.listdir(directory) if name != HOUSEKEEPING)


def commit(place: SftpRoot, name: str, writer: str, **options: Any) -> None:
    with atomicpath.commit(place / name, storage_options=place.storage_options, **options) as path:
        write_tree(path, content_of(writer))


def test_a_commit_from_beginning_to_end(sftp_place: SftpRoot, tmp_path: Path) -> None:
    options = sftp_place.storage_options
    commit(sftp_place, "run/step_1", "a", checksums=True, metadata={"loss": 0.5})
    with pytest.raises(atomicpath.AlreadyCommittedError):
        commit(sftp_place, "run/step_1", "b")
    atomicpath.put(tmp_path, sftp_place / "run/step_2", storage_options=options, checksums=True, allow_empty=True)
    with (
        pytest.raises(ZeroDivisionError),
        atomicpath.commit(sftp_place / "run/step_3", storage_options=options) as path,
    ):
        write_tree(path, content_of("c"))
        raise ZeroDivisionError
    assert names_in(sftp_place.path) == ["run"]
    assert names_in(sftp_place.path / "run") == ["step_1", "step_2"]
    assert committed_by(sftp_place, "run/step_1") == "a"
    newest = atomicpath.latest(sftp_place / "run", storage_options=options)
    assert newest is not None
    assert newest.name == "step_2"
    assert atomicpath.verify(sftp_place / "run/step_1", storage_options=options, checksums=True).ok
    fetched = atomicpath.get(sftp_place / "run/step_1", tmp_path / "copy", storage_options=options)
    assert {name: (fetched / name).read_bytes() for name in FILES} == content_of("a")
    sftp_place.write(f"run/step_1/{FILES[0]}", b"by hand")
    assert atomicpath.verify(sftp_place / "run/step_1", storage_options=options).altered == (FILES[0],)


def test_a_block_may_write_on_the_server_itself(sftp_place: SftpRoot) -> None:
    """What fsspec resolves sftp to reads and writes there under the same options."""
    with atomicpath.commit(sftp_place / "step_1", storage_options=sftp_place.storage_options, direct=True) as directory:
        for name, data in content_of("a").items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)
    assert committed_by(sftp_place, "step_1") == "a"
    path = atomicpath.resolve(sftp_place / "step_1", storage_options=sftp_place.storage_options)
    assert {name: (path / name).read_bytes() for name in FILES} == content_of("a")
    assert atomicpath.is_committed(path)


def test_a_directory_has_the_mode_asked_for(sftp_place: SftpRoot) -> None:
    commit(sftp_place, "step_1", "a", file_options=atomicpath.FileOptions(path_permission_mode=0o2750))
    assert (sftp_place.path / "step_1").stat().st_mode & 0o7777 == 0o2750


def test_foreign_directories_stay_even_if_they_are_empty(sftp_place: SftpRoot) -> None:
    (sftp_place.path / "empty").mkdir()
    with pytest.raises(atomicpath.ConflictError, match="not written by atomicpath"):
        commit(sftp_place, "empty", "a")
    with (
        pytest.raises(atomicpath.ConflictError),
        environment.use(Seam("rename", before=lambda: (sftp_place.path / "late").mkdir())),
    ):
        commit(sftp_place, "late", "a")
    assert names_in(sftp_place.path) == ["empty", "late"]
    assert sftp_place.read_all() == {}


@pytest.mark.parametrize("arrives", [False, True], ids=["before-it-arrived", "after-it-was-done"])
def test_a_connection_cut_at_the_rename_is_settled_on_a_new_one(
    sftp_place: SftpRoot, wire: Wire, arrives: bool
) -> None:
    options = sftp_place.storage_options
    atomicpath.profile(sftp_place / "any", storage_options=options)
    final = sftp_place.path / "step_1"

    def cut() -> None:
        made = wire.made
        if arrives:
            wire.deafen()
            _cut_when(wire, final)
        else:
            wire.cut()
            assert made == wire.made

    with environment.use(Seam("rename", before=cut)):
        try:
            commit(sftp_place, "step_1", "a")
        except atomicpath.CommitError as error:
            assert not arrives
            assert not isinstance(error, atomicpath.OutcomeUnknownError)
        else:
            assert arrives or final.exists()
    assert wire.made == 2
    if arrives:
        assert committed_by(sftp_place, "step_1") == "a"
    assert set(names_in(sftp_place.path)) <= {"step_1"}, "nothing is left beside it"
    assert atomicpath.is_committed(sftp_place / "step_1", storage_options=options) == final.exists()


def _cut_when(wire: Wire, path: Path) -> None:
    """Cut once the server has done what makes `path` appear."""

    def watch() -> None:
        deadline = time.monotonic() + PATIENCE
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        wire.cut()

    threading.Thread(target=watch, daemon=True).start()


def test_a_server_that_is_gone_leaves_the_outcome_open(sftp_place: SftpRoot, wire: Wire) -> None:
    atomicpath.profile(sftp_place / "any", storage_options=sftp_place.storage_options)

    def vanish() -> None:
        wire.close()

    with environment.use(Seam("rename", before=vanish)), pytest.raises(atomicpath.OutcomeUnknownError):
        commit(sftp_place, "step_1", "a")
    assert sftp_place.names() == [HOUSEKEEPING]
    left, record = sorted(os.listdir(sftp_place.path / HOUSEKEEPING))
    assert left.startswith("step_1.atomicpath-tmp-"), "nothing was removed"
    assert record == f"{left}.json"


@pytest.mark.parametrize("late", range(7))
def test_a_rename_that_is_done_while_it_is_looked_for_is_told_as_it_ended(sftp_place: SftpRoot, late: int) -> None:
    """The server is slow: it carries out the request of a lost connection before the so many-th one after it."""
    atomicpath.profile(sftp_place / "any", storage_options=sftp_place.storage_options)

    class Slow(Environment):
        source = ""
        after = -1

        async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            name = args[1].__name__
            if name == "rename" and not self.source:
                self.source = "/".join(args[0].rsplit("/", 2)[1:])
                raise ConnectionError("the reply was lost, and the request is still on its way")
            if self.source:
                self.after += 1
                if self.after == late:
                    with suppress(FileNotFoundError):
                        os.rename(sftp_place.path / self.source, sftp_place.path / "step_1")
            return await super().request(function, *args, **kwargs)

    told = True
    with environment.use(Slow()):
        try:
            commit(sftp_place, "step_1", "a")
        except atomicpath.CommitError as error:
            assert not isinstance(error, atomicpath.OutcomeUnknownError)
            told = False
    assert told == (sftp_place.path / "step_1").exists()
    assert names_in(sftp_place.path) == ["step_1"] * told
    assert told == (late <= 2), "once it was moved away, a late rename has nothing to rename"


@pytest.mark.parametrize(("at", "after"), [(4, False), (8, True), (-3, False), (-2, False), (-2, True), (-1, True)])
def test_a_killed_attempt_never_counts_and_the_job_runs_again(
    sftp_place: SftpRoot, tmp_path: Path, at: int, after: bool
) -> None:
    """The last requests of a commit are the rename, and the deletion of the record beside the attempt's directory."""
    options = {"storage_options": sftp_place.storage_options, "staging_dir": str(tmp_path)}
    run = sftp_place / "run"
    (sftp_place.path / "run").mkdir()
    atomicpath.profile(f"{run}/any", storage_options=sftp_place.storage_options)
    borders._free.clear()
    with environment.use(Seam()) as seam:
        commit(sftp_place, "other/step_0", "c")
    looks = seam.names.count("read")  # above the place; a commit itself reads nothing
    assert looks
    requests = Child(commit_files, f"{run}/step_0", "c", Killer(of="request", at=None), known(), **options).result()
    killer = Killer(of="request", at=looks + at if at >= 0 else requests + at, after=after)
    assert Child(commit_files, f"{run}/step_1", "a", killer, known(), **options).result() is None
    there = at in (-2, -1) and after
    assert atomicpath.is_committed(f"{run}/step_1", storage_options=sftp_place.storage_options) == there
    assert (sftp_place.path / "run/step_1").exists() == there
    if not there:
        left = atomicpath.attempts(run, storage_options=sftp_place.storage_options)
        assert [(found.final.name, found.alive) for found in left] == [("step_1", False)]
        newest = atomicpath.latest(run, storage_options=sftp_place.storage_options)
        assert newest is not None
        assert newest.name == "step_0"
        commit(sftp_place, "run/step_1", "b")
    assert committed_by(sftp_place, "run/step_1") == ("a" if there else "b")
    newest = atomicpath.latest(run, storage_options=sftp_place.storage_options)
    assert newest is not None
    assert newest.name == "step_1"


def test_what_a_commit_costs(sftp_place: SftpRoot) -> None:
    """Beside the data: one look at each of the place and the name, the directory, its record beside it until the end,
    its record in it; direct, a listing."""
    options = sftp_place.storage_options
    atomicpath.profile(sftp_place / "any", storage_options=options)
    commit(sftp_place, "first", "a")  # looks above the place, once for each parent and process
    for direct in (False, True):
        with environment.use(Seam()) as seam:
            with atomicpath.commit(
                sftp_place / f"step_{int(direct)}", storage_options=options, direct=direct, allow_empty=True
            ):
                pass
            listing = ["scan", "look"] * direct  # an empty one could have been swept
            assert seam.names == ["volume", "look", "mkdir", "overwrite", *listing, "overwrite", "rename", "remove"]
    with environment.use(Seam()) as seam:
        assert atomicpath.is_committed(sftp_place / "step_1", storage_options=options)
        assert seam.names == ["read"]
    with environment.use(Seam()) as seam:
        atomicpath.latest(sftp_place.url, storage_options=options)
        assert seam.names == ["scan", "read", "scan"], "the house-keeping directory, once for each root and process"
    with environment.use(Seam()) as seam:
        atomicpath.latest(sftp_place.url, storage_options=options)
        assert seam.names == ["scan", "read"]


def test_explain_says_what_was_tried_and_what_is_not_promised(sftp_place: SftpRoot) -> None:
    found = atomicpath.explain(sftp_place / "run/step_1", storage_options=sftp_place.storage_options)
    assert found.strategy is atomicpath.AtomicRenameTemporaryPath
    assert RENAME in found.profile.observed
    assert "\n  SYNC              unknown   " in str(found)
    words = " ".join(str(found).split())
    assert "raced 6 renames to one name: one won" in words
    assert "OpenSSH_" in words
    assert "a power cut of the server may undo a commit, with durable=True too" in words
    assert names_in(sftp_place.path) == [], "the probes cleaned up"


def test_the_commit_file_strategy_can_be_had_by_name(sftp_place: SftpRoot) -> None:
    strategy = atomicpath.CommitFileTemporaryPath
    commit(sftp_place, "step_1", "a", temporary_path_class=strategy)
    with pytest.raises(atomicpath.AlreadyCommittedError):
        commit(sftp_place, "step_1", "b", temporary_path_class=strategy)
    assert committed_by(sftp_place, "step_1", MARKER) == "a"


# Other servers


@pytest.fixture(scope="module")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with rclone_sftp(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.mark.parametrize("asserted", [None, RENAME], ids=["unasked", "asserted"])
def test_a_server_that_merges_directories_is_refused(rclone_server: SftpServer, asserted: Guarantee | None) -> None:
    place = SftpRoot(rclone_server)
    with pytest.raises(atomicpath.GuaranteeError, match=r"of 6 directories were renamed to one name"):
        commit(place, "step_1", "a", guarantees=asserted)
    found = atomicpath.profile(place / "step_1", storage_options=place.storage_options)
    assert Guarantee.RENAME_NOREPLACE in found.refuted
    assert place.read_all() == {}


OPENSSH = Server(
    software="OpenSSH_9.2p1 Debian-2", fsync=True, hardlink=True, posix_rename=True, statvfs=True, fstatvfs=True
)


@pytest.mark.parametrize(
    ("changes", "volume"),
    [
        ({"software": "mod_sftp"}, 7),
        ({"software": "OpenSSH_for_Windows_9.5"}, 7),
        ({"software": "rclone/v1.75"}, 7),
        ({"fsync": False}, 7),  # sshd with another program as its "sftp" subsystem
        ({}, 0),  # FUSE and network mounts
        ({}, None),
    ],
)
def test_of_what_is_not_known_a_probe_can_only_refute(changes: dict[str, Any], volume: int | None) -> None:
    found = declaration_of(dataclasses.replace(OPENSSH, **changes), volume)
    assert RENAME in found.refutable
    assert not RENAME & (found.declared | found.observable)
    profile = atomicpath.Profile(declared=found.declared, evidence=found.evidence)
    assert "guarantees=" in explained(profile).reason
    assert RENAME in declaration_of(OPENSSH, 7).observable
