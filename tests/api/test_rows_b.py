"""What none of the others has, row by row (SPEC.md B1 to B9, B13, B15)."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from upath import UPath

import atomicpath
import atomicpath.aio
from atomicpath import Guarantee
from atomicpath._core.environment import Environment, use
from atomicpath._core.layout import temporary_of
from atomicpath._core.liveness import proof_of_life
from atomicpath._core.record import CommitRecord, State, Writer, marker_of
from atomicpath.testing.cancelling import Caller
from tests.support.mounts import ASKED, answer
from tests.support.proxy import Proxy, Rule, drop_reply, ignore_conditions, is_, truncate
from tests.support.roots import LocalRoot, MemoryRoot, Root, S3Root

RENAME = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE


class Mounted(Environment):
    """A world whose kernel says that everything is on a mount of another kind."""

    def __init__(self, kind: str) -> None:
        self.text = f"21 1 0:30 / / rw - {kind} device rw\n"

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if function in ASKED:
            return answer(self.text, function, args[0])
        return super().call(function, *args, **kwargs)


@pytest.fixture
def proxied(s3: S3Root, server: str) -> Iterator[tuple[S3Root, Proxy]]:
    with Proxy(server) as proxy:
        s3.storage_options = {**s3.storage_options, "endpoint_url": proxy.url}
        yield s3, proxy


def _publish(root: Root, name: str, files: dict[str, bytes] | None = None, **options: Any) -> None:
    with atomicpath.commit(root / name, storage_options=root.storage_options, **options) as path:
        for file, data in (files or {"x": b"1"}).items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_bytes(data)


# B1


def test_the_same_scheme_has_another_answer_on_another_mount(local: LocalRoot) -> None:
    with use(Mounted("ext4")):
        assert atomicpath.explain(local / "a").strategy is atomicpath.AtomicRenameTemporaryPath
    with use(Mounted("fuse.gcsfuse")):
        found = atomicpath.explain(local / "a")
    assert found.strategy is None
    assert not found.profile.effective & RENAME
    assert not found.profile.observed & RENAME, "on an unknown mount a probe proves nothing"
    assert "fuse.gcsfuse" in str(found)
    assert local.names() == []


def test_conditional_header_ignored_by_store(proxied: tuple[S3Root, Proxy]) -> None:
    root, proxy = proxied
    honest = atomicpath.profile(root / "a", storage_options=root.storage_options)
    assert Guarantee.EXCLUSIVE_CREATE | Guarantee.COMPARE_AND_SWAP in honest.observed
    root.url = f"{root.url}/elsewhere"  # probed afresh
    proxy.rules.append(Rule(match=lambda request: bool(request.conditions), action=ignore_conditions, times=None))
    lying = atomicpath.profile(root / "a", storage_options=root.storage_options)
    refuted = Guarantee.EXCLUSIVE_CREATE | Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE
    assert refuted in lying.refuted
    assert not refuted & lying.effective
    with pytest.raises(atomicpath.GuaranteeError, match="EXCLUSIVE_CREATE, which was refuted"):
        _publish(root, "a")
    assert not root.read_all()


def test_evidence_says_where_every_answer_comes_from(root: Root) -> None:
    found = atomicpath.explain(root / "a", storage_options=root.storage_options)
    for member in found.profile.declared | found.profile.observed | found.profile.refuted:
        assert found.profile.evidence[member]
    text = str(found)
    assert found.strategy is not None
    known = found.profile.effective | found.profile.refuted
    assert all(str(member.name) in text for member in known | found.strategy.requires)
    assert (root / "a") in text
    assert found.strategy.__name__ in text


def test_nothing_is_probed_when_probing_is_turned_off(proxied: tuple[S3Root, Proxy]) -> None:
    root, proxy = proxied
    found = atomicpath.profile(root / "a", storage_options=root.storage_options, probe=False)
    assert proxy.requests == []
    assert found.effective == Guarantee.ATOMIC_WRITE
    with use(Environment()):
        asserted = atomicpath.explain(
            root / "a",
            storage_options=root.storage_options,
            probe=False,
            guarantees=Guarantee.EXCLUSIVE_CREATE | Guarantee.LIST_AFTER_WRITE,
        )
    assert asserted.strategy is atomicpath.CommitFileTemporaryPath


def test_a_place_is_probed_once(proxied: tuple[S3Root, Proxy]) -> None:
    root, proxy = proxied
    _publish(root, "a")
    probes = proxy.count(lambda request: ".atomicpath-probe-" in request.target)
    assert probes
    _publish(root, "b")
    assert proxy.count(lambda request: ".atomicpath-probe-" in request.target) == probes


# B2


def test_no_silent_weakening_the_message_says_what_each_strategy_lacks_and_what_would_accept_it(
    local: LocalRoot,
) -> None:
    with use(Mounted("fuse.sshfs")):
        with pytest.raises(atomicpath.GuaranteeError) as raised:
            _publish(local, "a")
        message = str(raised.value)
        first, second, evidence = message.splitlines()[1:4]
        assert "AtomicRenameTemporaryPath needs ATOMIC_RENAME" in first
        assert "RENAME_NOREPLACE" in first
        assert "CommitFileTemporaryPath needs" in second
        assert "EXCLUSIVE_CREATE" in second
        assert evidence.startswith("  (1) fuse.sshfs at / ")
        assert "guarantees=Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE" in message
        assert local.names() == []
        with pytest.raises(atomicpath.GuaranteeError, match=r"(?s)durable=False.*needs SYNC"):
            _publish(local, "a", guarantees=RENAME)
        assert local.names() == []
        _publish(local, "a", guarantees=RENAME, durable=False)
        assert "asserted" in str(atomicpath.explain(local / "b", guarantees=RENAME))
    assert atomicpath.read_record(local / "a").strategy == "atomic_rename"
    assert local.names() == ["a"]


def test_what_was_refuted_cannot_be_asserted(proxied: tuple[S3Root, Proxy]) -> None:
    root, proxy = proxied
    proxy.rules.append(Rule(match=lambda request: bool(request.conditions), action=ignore_conditions, times=None))
    with pytest.raises(atomicpath.GuaranteeError, match="EXCLUSIVE_CREATE, which was refuted"):
        _publish(root, "a", guarantees=atomicpath.CommitFileTemporaryPath.requires)
    assert not root.read_all()


# B3


@pytest.mark.parametrize("strategy", [None, atomicpath.CommitFileTemporaryPath])
def test_of_many_writers_of_one_path_exactly_one_commits_and_the_others_hear_who(root: Root, strategy: Any) -> None:
    outcome: dict[int, BaseException | None] = {}
    entered: list[int] = []
    start = threading.Barrier(6)

    def write(number: int) -> None:
        start.wait()
        try:
            with atomicpath.commit(
                root / "step_1", storage_options=root.storage_options, temporary_path_class=strategy
            ) as path:
                entered.append(number)
                (path / "x").write_bytes(b"%d" % number)
                (path / f"of-{number}").write_bytes(b"")
        except BaseException as error:
            outcome[number] = error
        else:
            outcome[number] = None

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None in outcome.values(), outcome
    (winner,) = [number for number, error in outcome.items() if error is None]
    assert root.names() == ["step_1"]
    stored = root.read_all("step_1")
    assert stored.keys() - {"commit_success.txt"} == {"x", f"of-{winner}", "_commit_record.json"}
    assert stored["x"] == b"%d" % winner
    token = json.loads(stored["_commit_record.json"])["token"]
    for error in outcome.values():
        if error is not None:
            assert isinstance(error, atomicpath.AlreadyCommittedError | atomicpath.ConflictError), repr(error)
            assert isinstance(error, FileExistsError)
            assert error.record is not None, str(error)
            assert error.record.token == token
            assert str(os.getpid()) in str(error)


def test_the_second_commit_of_a_path_is_told_by_whom_and_changes_nothing(root: Root) -> None:
    _publish(root, "step_1")
    before = root.read_all()
    with pytest.raises(atomicpath.AlreadyCommittedError, match="already committed by process") as raised:
        _publish(root, "step_1", {"x": b"2"})
    assert raised.value.record == atomicpath.read_record(root / "step_1", storage_options=root.storage_options)
    assert root.read_all() == before


# B4


def test_won_but_412_after_own_retry(proxied: tuple[S3Root, Proxy]) -> None:
    """Every first reply is lost; the client repeats the request and is told that something is there."""
    root, proxy = proxied
    _publish(root, "step_0")  # probed
    for method, path in (("PUT", "step_1/_commit_record.json"), ("PUT", "step_1/x")):
        proxy.rules.append(Rule(match=is_(method, path), action=drop_reply))
    _publish(root, "step_1")
    proxy.rules[:] = [
        Rule(match=lambda r: r.path.endswith("_commit_record.json") and "if-match" in r.headers, action=drop_reply)
    ]
    _publish(root, "step_2")
    assert [rule.times for rule in proxy.rules] == [0]
    for name in ("step_1", "step_2"):
        assert atomicpath.verify(root / name, storage_options=root.storage_options).ok


def test_what_the_store_does_not_answer_is_unknown_and_nothing_is_cleaned_up(proxied: tuple[S3Root, Proxy]) -> None:
    root, proxy = proxied
    root.storage_options = {**root.storage_options, "config_kwargs": {"retries": {"total_max_attempts": 1}}}
    _publish(root, "step_0")
    with (
        pytest.raises(atomicpath.OutcomeUnknownError, match="Nothing was cleaned up: look again"),
        atomicpath.commit(root / "step_1", storage_options=root.storage_options) as path,
    ):
        (path / "x").write_bytes(b"1")
        proxy.rules.append(
            Rule(match=lambda r: r.path.endswith("step_1/_commit_record.json"), action=drop_reply, times=None)
        )
    proxy.rules.clear()
    assert root.read_all("step_1")["x"] == b"1"


# B5


def test_a_live_attempt_is_never_touched(root: Root) -> None:
    options = root.storage_options
    with atomicpath.commit(root / "step_1", storage_options=options, direct=True) as path:
        (path / "x").write_bytes(b"1")
        before = root.read_all()
        if root.kind == "local":
            with pytest.raises(ZeroDivisionError), atomicpath.commit(root / "step_1") as other:
                (other / "x").write_bytes(b"2")
                raise ZeroDivisionError
        else:
            with pytest.raises(atomicpath.ConflictError, match="live attempt"):
                _publish(root, "step_1")
        assert root.read_all() == before
    assert root.read_all("step_1")["x"] == b"1"


def test_foreign_files_are_left_alone_and_refused(root: Root) -> None:
    root.write("step_1/notes", b"mine")
    with pytest.raises(atomicpath.ConflictError, match=r"not written by atomicpath.*move") as raised:
        _publish(root, "step_1")
    assert raised.value.record is None
    assert root.read_all() == {"step_1/notes": b"mine"}


# B6


def test_the_record_on_storage_has_the_fields_of_the_design(root: Root) -> None:
    _publish(root, "step_1", {"a/b": b"12", "x": b""}, metadata={"epoch": 3, "name": "é"}, checksums=True)
    stored = root.read_all("step_1")
    record = json.loads(stored["_commit_record.json"])
    wanted = {"format", "state", "token", "strategy", "decided_by", "started", "committed", "lease", "writer"}
    assert record.keys() >= wanted | {"files", "metadata"}
    assert record["format"] == 1
    assert record["state"] == "committed"
    assert record["strategy"] == ("atomic_rename" if root.kind == "local" else "commit_file")
    assert record["decided_by"] == "record"
    assert record["metadata"] == {"epoch": 3, "name": "é"}
    assert isinstance(record["started"], int)
    assert record["started"] <= record["committed"]
    assert record["writer"]["pid"] == os.getpid()
    assert record["writer"]["host"]
    assert [(file["name"], file["size"]) for file in record["files"]] == [("a/b", 2), ("x", 0)]
    assert all(len(file["sha256"]) == 64 for file in record["files"])
    assert all(("etag" in file) == (root.kind != "local") for file in record["files"])
    text = stored["_commit_record.json"].decode()
    assert root.url.rpartition("/")[2] not in text, "an absolute path is in it"
    assert "endpoint" not in text


def test_the_marker_is_there_and_names_the_record(root: Root) -> None:
    _publish(root, "step_1", marker="commit_success.txt")
    stored = root.read_all("step_1")
    marker = json.loads(stored["commit_success.txt"])
    assert marker == {"record": "_commit_record.json", "token": json.loads(stored["_commit_record.json"])["token"]}


def test_a_plain_recursive_copy_stays_committed_wherever_it_goes(root: Root, tmp_path: Path) -> None:
    """Versions are compared only where they were given; sizes and checksums anywhere."""
    _publish(root, "step_1", {"x": b"123", "a/b": b"4"}, checksums=True)
    root.copy("step_1", "copies/step_1")
    copy = root / "copies/step_1"
    assert atomicpath.is_committed(copy, storage_options=root.storage_options)
    assert atomicpath.verify(copy, checksums=True, storage_options=root.storage_options).ok
    outside = LocalRoot(tmp_path / "outside")
    for name, data in root.read_all("step_1").items():
        outside.write(name, data)
    assert atomicpath.verify(outside.path, checksums=True).ok
    root.write("copies/step_1/x", b"12")
    assert atomicpath.verify(copy, storage_options=root.storage_options).altered == ("x",)


def test_the_same_bytes_written_again_differ_where_the_store_has_versions(memory: MemoryRoot) -> None:
    _publish(memory, "step_1")
    memory.copy("step_1", "step_2")
    memory.write("step_1/x", b"1")
    memory.write("step_2/x", b"1")
    assert atomicpath.verify(memory / "step_1").altered == ("x",)
    assert atomicpath.verify(memory / "step_2").ok


def test_marker_lost_by_copy_then_cleaned_as_temp(root: Root) -> None:
    _publish(root, "step_1", marker="commit_success.txt")
    root.delete("step_1/commit_success.txt")
    assert atomicpath.is_committed(root / "step_1", storage_options=root.storage_options)
    with pytest.raises(atomicpath.AlreadyCommittedError):
        _publish(root, "step_1")
    assert atomicpath.attempts(root.url, storage_options=root.storage_options) == []


def test_our_marker_without_its_record_counts_for_nothing(root: Root) -> None:
    _publish(root, "step_1", marker="commit_success.txt")
    root.delete("step_1/_commit_record.json")
    assert not atomicpath.is_committed(root / "step_1", storage_options=root.storage_options)
    with pytest.raises(atomicpath.NotCommittedError, match="record is missing"):
        atomicpath.resolve(root / "step_1", storage_options=root.storage_options)
    with pytest.raises(atomicpath.ConflictError):
        _publish(root, "step_1")


@pytest.mark.parametrize("marker", [b"", b"done\n", b"{}", b"[1]", b"\xff"])
def test_another_tools_marker_without_a_record_counts_as_committed_without_a_manifest(
    root: Root, marker: bytes, tmp_path: Path
) -> None:
    root.write("step_1/x", b"1")
    root.write("step_1/commit_success.txt", marker)
    before = root.read_all()
    options = root.storage_options
    assert atomicpath.is_committed(root / "step_1", storage_options=options)
    (found,) = atomicpath.committed(root.url, storage_options=options)
    assert (found.name, found.step, found.record) == ("step_1", 1, None)
    with pytest.raises(atomicpath.IntegrityError, match="another tool"):
        atomicpath.read_record(root / "step_1", storage_options=options)
    with pytest.raises(atomicpath.IntegrityError, match="without a manifest"):
        atomicpath.verify(root / "step_1", storage_options=options)
    with pytest.raises(atomicpath.AlreadyCommittedError, match="another tool") as raised:
        _publish(root, "step_1")
    assert raised.value.record is None
    assert root.read_all() == before
    copy = atomicpath.get(root / "step_1", tmp_path / "copy", storage_options=options)
    assert (copy / "x").read_bytes() == b"1"
    assert [file.name for file in atomicpath.read_record(copy).files] == ["x"]


def test_a_record_below_a_temporary_name_never_counts(root: Root) -> None:
    _publish(root, "step_1")
    name = temporary_of("step_2", "ffff")
    root.copy("step_1", name)
    assert not atomicpath.is_committed(root / name, storage_options=root.storage_options)
    assert [found.name for found in atomicpath.committed(root.url, storage_options=root.storage_options)] == ["step_1"]
    with pytest.raises(atomicpath.NotCommittedError, match="temporary"):
        atomicpath.resolve(f"{root / name}/below", storage_options=root.storage_options)


# B7 is the business of tests/durability; here only that it is on, and can be turned off


@pytest.mark.parametrize("strategy", [None, atomicpath.CommitFileTemporaryPath])
def test_what_is_committed_was_synced_unless_declined(local: LocalRoot, strategy: Any) -> None:
    class Watching(Environment):
        def __init__(self) -> None:
            self.synced: list[str] = []

        def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            if function is os.fsync:
                self.synced.append(os.readlink(f"/proc/self/fd/{args[0]}"))
            return super().call(function, *args, **kwargs)

    with use(Watching()) as world:
        _publish(local, "new/step_1", {"a/b": b"1"}, temporary_path_class=strategy)
    assert isinstance(world, Watching)
    names = {Path(path).name.partition(".atomicpath-tmp-")[0] for path in world.synced}
    assert names >= {"b", "a", "step_1", "new", "root"}
    if strategy is None:
        with use(Watching()) as world:
            _publish(local, "new/step_2", {"a/b": b"1"}, durable=False)
        assert isinstance(world, Watching)
        assert world.synced == []


# B8


def test_verify_names_each_missing_truncated_altered_and_extra_file(root: Root) -> None:
    files = {"gone": b"1", "short": b"12", "kept": b"3", "a/gone": b"4"}
    _publish(root, "step_1", files)
    assert atomicpath.verify(root / "step_1", storage_options=root.storage_options).ok
    assert str(atomicpath.verify(root / "step_1", storage_options=root.storage_options)) == "as committed"
    root.delete("step_1/gone")
    root.delete("step_1/a/gone")
    root.write("step_1/short", b"1")
    root.write("step_1/b/more", b"1")
    found = atomicpath.verify(root / "step_1", storage_options=root.storage_options)
    assert not found.ok
    assert (found.missing, found.altered, found.extra) == (("a/gone", "gone"), ("short",), ("b/more",))
    for name in ("a/gone", "gone", "short", "b/more"):
        assert name in str(found)


def test_bit_rot_undetected(local: LocalRoot) -> None:
    """Same size, other bytes: on a disk, which has no versions, only checksums find it."""
    _publish(local, "step_1", {"x": b"123"}, checksums=True)
    local.write("step_1/x", b"132")
    assert atomicpath.verify(local / "step_1").ok
    assert atomicpath.verify(local / "step_1", checksums=True).altered == ("x",)
    with pytest.raises(atomicpath.IntegrityError, match="checksum"):
        atomicpath.get(local / "step_1", local / "copy")
    assert local.names() == ["step_1"]


def test_on_a_store_the_version_finds_it_and_in_a_copy_the_checksum(store: Root) -> None:
    _publish(store, "step_1", {"x": b"123"}, checksums=True)
    store.copy("step_1", "step_2")
    store.write("step_1/x", b"132")
    store.write("step_2/x", b"132")
    assert atomicpath.verify(store / "step_1", storage_options=store.storage_options).altered == ("x",)
    assert atomicpath.verify(store / "step_2", storage_options=store.storage_options).ok
    assert atomicpath.verify(store / "step_2", storage_options=store.storage_options, checksums=True).altered == ("x",)


def test_checksums_that_were_not_recorded_cannot_be_compared(root: Root) -> None:
    _publish(root, "step_1")
    with pytest.raises(atomicpath.ValidationError, match="commit with checksums=True"):
        atomicpath.verify(root / "step_1", checksums=True, storage_options=root.storage_options)


def test_verify_of_what_was_never_committed_is_an_error(root: Root) -> None:
    with pytest.raises(atomicpath.NotCommittedError):
        atomicpath.verify(root / "step_1", storage_options=root.storage_options)


# B9


class _Blind(Environment):
    """A disk whose directories cannot be read."""

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if getattr(function, "__name__", "") == "_scan":
            raise OSError(errno.EIO, "as the test asked")
        return super().call(function, *args, **kwargs)


def test_foreign_files_that_could_not_be_seen_are_left_alone(local: LocalRoot) -> None:
    local.write("step_1/notes", b"mine")
    with (
        use(_Blind()),
        pytest.raises(atomicpath.CommitError, match="as the test asked"),
        atomicpath.commit(local / "step_1", temporary_path_class=atomicpath.CommitFileTemporaryPath),
    ):
        pytest.fail("it began")
    assert local.read_all("step_1") == {"notes": b"mine"}


def test_what_is_incomplete_is_skipped_loudly(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    _publish(root, "step_1")
    root.copy("step_1", "step_2")
    text = root.read_all("step_1")["_commit_record.json"].replace(b'"state": "committed"', b'"state": "writing"')
    assert b'"writing"' in text
    root.write("step_2/_commit_record.json", text)
    root.write("step_3/_commit_record.json", text[:40])
    root.write("step_4/x", b"")
    root.write(f"{temporary_of('step_5', 'ffff')}/x", b"")
    with caplog.at_level(logging.WARNING, "atomicpath"):
        newest = atomicpath.latest(root.url, storage_options=root.storage_options)
    assert newest is not None
    assert newest.name == "step_1"
    said = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    for name in ("step_2", "step_3", "step_4"):
        assert [line for line in said if f"skipping {root / name}" in line], f"nothing was said of {name}"
    assert [line for line in said if "1 unfinished attempt" in line], "nothing was said of step_5"
    caplog.clear()
    with caplog.at_level(logging.WARNING, "atomicpath"):
        assert [found.name for found in atomicpath.committed(root.url, storage_options=root.storage_options)] == [
            "step_1"
        ]
    said = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(said) == 3, "of what was left behind it is said once"


def test_an_empty_directory_named_5_is_no_step(local: LocalRoot, caplog: pytest.LogCaptureFixture) -> None:
    _publish(local, "4")
    (local.path / "5").mkdir()
    newest = atomicpath.latest(local.path)
    assert newest is not None
    assert newest.name == "4"
    assert "skipping" in caplog.text
    assert not atomicpath.is_committed(local / "5")


def test_what_is_not_a_step_and_not_ours_is_skipped_silently(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    root.write("logs/x", b"")
    root.write("config.json", b"{}")
    assert atomicpath.committed(root.url, storage_options=root.storage_options) == []
    assert atomicpath.latest(root.url, storage_options=root.storage_options) is None
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]


def test_the_order_is_by_step_then_by_commit_time_and_names_without_a_step_come_first(root: Root) -> None:
    for name in ("step_10", "best", "step_9", "checkpoint-100", "final", "run-100"):
        _publish(root, name)
    found = atomicpath.committed(root.url, storage_options=root.storage_options)
    assert [commit.name for commit in found] == ["best", "final", "step_9", "step_10", "checkpoint-100", "run-100"]
    assert [commit.step for commit in found] == [None, None, 9, 10, 100, 100]
    newest = atomicpath.latest(root.url, storage_options=root.storage_options)
    assert newest == found[-1]
    assert str(newest.path) == root / "run-100"
    assert newest.record == atomicpath.read_record(root / "run-100", storage_options=root.storage_options)


def test_without_any_step_the_latest_is_the_last_committed(root: Root) -> None:
    for name in ("b", "a"):
        _publish(root, name)
    newest = atomicpath.latest(root.url, storage_options=root.storage_options)
    assert newest is not None
    assert newest.name == "a"


def test_a_root_that_is_not_there_holds_nothing(root: Root) -> None:
    assert atomicpath.latest(root / "none", storage_options=root.storage_options) is None
    assert atomicpath.committed(root / "none", storage_options=root.storage_options) == []
    assert atomicpath.attempts(root / "none", storage_options=root.storage_options) == []
    assert not atomicpath.is_committed(root / "none", storage_options=root.storage_options)


def test_resolve_gives_a_path_to_read_from_with_the_options_in_it(root: Root) -> None:
    _publish(root, "step_1")
    path = atomicpath.resolve(root / "step_1", storage_options=root.storage_options)
    assert (path / "x").read_bytes() == b"1"
    assert atomicpath.is_committed(path)
    with pytest.raises(atomicpath.NotCommittedError, match="nothing is there") as raised:
        atomicpath.resolve(root / "step_2", storage_options=root.storage_options)
    assert isinstance(raised.value, FileNotFoundError)


# B13


@pytest.mark.parametrize("name", atomicpath.aio.__all__)
def test_both_faces_have_the_same_names_signatures_and_documentation(name: str) -> None:
    blocking, asynchronous = getattr(atomicpath, name), getattr(atomicpath.aio, name)
    ours, theirs = inspect.signature(blocking), inspect.signature(asynchronous)
    assert ours.parameters == theirs.parameters
    if name not in ("commit", "begin", "join", "watch"):  # whose results differ: tests/api/test_signatures.py
        assert ours == theirs
        assert inspect.getdoc(blocking) == inspect.getdoc(asynchronous)
    assert inspect.getdoc(blocking)
    assert not inspect.iscoroutinefunction(inspect.unwrap(blocking)) or blocking is not asynchronous
    if name not in ("commit", "create_all_async", "select", "watch"):
        assert inspect.iscoroutinefunction(asynchronous)


def test_commit_and_put_take_the_same_options_keyword_only() -> None:
    def options(function: Callable[..., object]) -> list[inspect.Parameter]:
        return [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]

    *of_put, consume = options(atomicpath.put)
    assert options(atomicpath.commit) == of_put
    assert consume.name == "consume"
    assert [parameter.name for parameter in options(atomicpath.commit)] == [
        *(
            "storage_options",
            "temporary_path_class",
            "direct",
            "replace",
            "exists",
            "durable",
            "coordinator",
            "file_options",
        ),
        *("metadata", "checksums", "staging_dir", "progress", "guarantees", "unsafe_takeover"),
        *("allow_empty", "marker"),
    ]


async def test_the_async_face_does_all_that_the_blocking_one_does(root: Root, tmp_path: Path) -> None:
    aio, options = atomicpath.aio, root.storage_options
    async with aio.commit(root / "step_1", storage_options=options) as path:
        (path / "x").write_bytes(b"1")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "x").write_bytes(b"2")
    await aio.put(tmp_path / "made", root / "step_2", storage_options=options)
    newest = await aio.latest(root.url, storage_options=options)
    assert newest is not None
    assert newest.step == 2
    assert len(await aio.committed(root.url, storage_options=options)) == 2
    assert (await aio.get(root / "step_2", tmp_path / "got", storage_options=options) / "x").read_bytes() == b"2"
    assert (await aio.verify(root / "step_1", storage_options=options)).ok
    assert str(await aio.resolve(root / "step_1", storage_options=options)) == root / "step_1"
    assert (await aio.explain(root / "step_1", storage_options=options)).strategy is not None
    with pytest.raises(ZeroDivisionError):
        async with aio.commit(root / "step_3", storage_options=options) as path:
            (path / "x").write_bytes(b"1")
            raise ZeroDivisionError
    assert root.names() == ["step_1", "step_2"]


async def test_a_cancelled_block_leaves_nothing(root: Root) -> None:
    with anyio.CancelScope() as scope:
        async with atomicpath.aio.commit(root / "step_1", storage_options=root.storage_options) as path:
            (path / "x").write_bytes(b"1")
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert root.names() == []


# B15


def test_the_block_gets_a_real_local_directory_and_a_upath_when_direct(store: Root, staging: Path) -> None:
    with atomicpath.commit(store / "step_1", storage_options=store.storage_options, staging_dir=staging) as path:
        assert isinstance(path, Path)
        assert type(path).__module__.startswith("pathlib")
        assert path.is_relative_to(staging)
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0
        (path / "x").write_bytes(b"1")
        assert "step_1/x" not in store.read_all()
    assert list(staging.iterdir()) == []
    with atomicpath.commit(
        store / "step_2", storage_options=store.storage_options, staging_dir=staging, direct=True
    ) as direct:
        assert isinstance(direct, UPath)
        assert str(direct) == store / "step_2"
        (direct / "x").write_bytes(b"1")
        assert store.read_all("step_2")["x"] == b"1"
        assert not atomicpath.is_committed(direct)
        assert list(staging.iterdir()) == []
    for name in ("step_1", "step_2"):
        assert atomicpath.verify(store / name, storage_options=store.storage_options).ok
    assert atomicpath.read_record(store / "step_2", storage_options=store.storage_options).direct


def test_on_a_disk_there_is_no_second_copy(local: LocalRoot, staging: Path) -> None:
    with atomicpath.commit(local / "step_1", staging_dir=staging, allow_empty=True) as path:
        assert path.parent.parent == local.path
        assert list(staging.iterdir()) == []


def test_progress_never_goes_back_and_ends_with_all_of_it(store: Root) -> None:
    seen: list[tuple[int, int]] = []
    files = {f"a/{number}": b"1" * number for number in range(30)}
    _publish(store, "step_1", files, progress=lambda done, total: seen.append((done, total)))
    total = sum(map(len, files.values()))
    assert seen == sorted(seen)
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert {of for _, of in seen} == {total}
    assert len(seen) == 31


def test_a_progress_callback_that_fails_means_no_commit(store: Root) -> None:
    def fail(done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _publish(store, "step_1", progress=fail)
    assert store.read_all() == {}


def test_a_bar_without_anything_to_draw_with_is_refused_before_the_block(
    store: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rich", "rich.progress", "tqdm"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with (
        pytest.raises(atomicpath.ValidationError, match="pip install"),
        atomicpath.commit(store / "step_1", storage_options=store.storage_options, progress=True),
    ):
        pytest.fail("entered: what the block wrote would be lost")
    assert store.read_all() == {}


def test_a_bar_is_drawn(memory: MemoryRoot, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    _publish(memory, "step_1", {"x": b"1" * 1000}, progress=True)
    assert "uploading" in capsys.readouterr().out


@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_the_staging_directory_is_removed_after_success_and_after_any_failure(
    store: Root, staging: Path, error: type[BaseException] | None
) -> None:
    try:
        with atomicpath.commit(store / "step_1", storage_options=store.storage_options, staging_dir=staging) as path:
            (path / "x").write_bytes(b"1")
            assert len(list(staging.iterdir())) == 1
            if error:
                raise error
    except BaseException as raised:
        assert type(raised) is error
    assert list(staging.iterdir()) == []
    assert store.names() == ([] if error else ["step_1"])


def test_the_staging_directory_is_removed_when_the_path_turns_out_to_be_taken(store: Root, staging: Path) -> None:
    _publish(store, "step_1")
    with pytest.raises(atomicpath.AlreadyCommittedError):
        _publish(store, "step_1", staging_dir=staging)
    assert list(staging.iterdir()) == []


def test_what_a_dead_process_staged_is_removed_and_what_a_live_one_did_is_kept(
    memory: MemoryRoot, staging: Path, python: Any
) -> None:
    script = """
import os, sys, atomicpath
with atomicpath.commit("memory://run/step_1", staging_dir=sys.argv[1]) as path:
    (path / "x").write_bytes(b"1")
    os._exit(9)
"""
    assert python(script, str(staging)).returncode == 9
    (dead,) = staging.iterdir()
    (staging / "mine").mkdir()
    (staging / "atomicpath-staging-damaged").mkdir()
    with atomicpath.commit(memory / "step_1", staging_dir=staging, allow_empty=True) as live:
        assert not dead.exists()
        with atomicpath.commit(memory / "step_2", staging_dir=staging, allow_empty=True) as other:
            assert live.is_dir()
            assert other.is_dir()
            assert len(list(staging.iterdir())) == 4
    assert {path.name for path in staging.iterdir()} == {"mine", "atomicpath-staging-damaged"}


def test_what_a_process_of_another_host_staged_in_a_shared_directory_is_kept(memory: MemoryRoot, staging: Path) -> None:
    other = staging / "atomicpath-staging-0123"
    other.mkdir()
    writer = Writer(host="elsewhere", pid=1, boot="another boot", namespace="pid:[1]", start=1)
    record = CommitRecord(state=State.WRITING, token="0123", strategy="staging", started=1, writer=writer)
    (other / "_commit_record.json").write_bytes(record.encode())
    _publish(memory, "step_1", staging_dir=staging)
    assert list(staging.iterdir()) == [other]


def test_a_staging_directory_that_is_not_there_is_refused(store: Root, tmp_path: Path) -> None:
    with pytest.raises(atomicpath.ValidationError, match="staging_dir="):
        _publish(store, "step_1", staging_dir=tmp_path / "none")
    assert store.read_all() == {}


def test_metadata_travels(root: Root, tmp_path: Path) -> None:
    metadata = {"epoch": 3, "loss": 0.25, "tags": ["a", None, True], "deep": {"x": {}}}
    _publish(root, "step_1", metadata=metadata)
    assert atomicpath.read_record(root / "step_1", storage_options=root.storage_options).metadata == metadata
    copy = atomicpath.get(root / "step_1", tmp_path / "copy", storage_options=root.storage_options)
    assert atomicpath.read_record(copy).metadata == metadata


# put and get


@pytest.fixture
def made(tmp_path: Path) -> Path:
    top = tmp_path / "made"
    (top / "a").mkdir(parents=True)
    (top / "x").write_bytes(b"1")
    (top / "a" / "y").write_bytes(b"22")
    return top


def test_put_commits_a_copy_and_leaves_the_source_as_it_is(root: Root, made: Path) -> None:
    atomicpath.put(made, root / "step_1", storage_options=root.storage_options, metadata={"a": 1}, checksums=True)
    assert {name for name in root.read_all("step_1") if not name.startswith(("commit_", "_commit_"))} == {"x", "a/y"}
    assert atomicpath.verify(root / "step_1", checksums=True, storage_options=root.storage_options).ok
    assert sorted(path.name for path in made.rglob("*")) == ["a", "x", "y"]
    with pytest.raises(atomicpath.AlreadyCommittedError):
        atomicpath.put(made, root / "step_1", storage_options=root.storage_options)


def test_put_follows_a_link_to_a_file(root: Root, made: Path) -> None:
    (made / "link").symlink_to(made / "x")
    atomicpath.put(made, root / "step_1", storage_options=root.storage_options)
    assert root.read_all("step_1")["link"] == b"1"
    assert atomicpath.verify(root / "step_1", storage_options=root.storage_options).ok
    if isinstance(root, LocalRoot):
        assert not (root.path / "step_1" / "link").is_symlink()


def test_put_of_a_committed_directory_is_a_commit_of_its_own(root: Root, local: LocalRoot, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with atomicpath.commit(source) as path:
        (path / "x").write_bytes(b"1")
    atomicpath.put(source, root / "step_1", storage_options=root.storage_options)
    there = atomicpath.read_record(root / "step_1", storage_options=root.storage_options)
    assert there.token != atomicpath.read_record(source).token
    assert [file.name for file in there.files] == ["x"]


def test_put_of_an_unfinished_attempt_is_refused(root: Root, tmp_path: Path) -> None:
    attempt = atomicpath.CommitFileTemporaryPath.from_final(UPath(tmp_path / "source"))
    anyio.run(attempt.create)
    with pytest.raises(atomicpath.IntegrityError, match="never committed"):
        atomicpath.put(tmp_path / "source", root / "step_1", storage_options=root.storage_options)
    assert root.read_all() == {}
    anyio.run(attempt.discard)


def test_put_of_what_cannot_be_committed_is_refused_before_anything_begins(root: Root, made: Path) -> None:
    (made / "dangling").symlink_to("nowhere")
    with pytest.raises((atomicpath.ValidationError, atomicpath.IntegrityError), match=r"dangling|cannot read"):
        atomicpath.put(made, root / "step_1", storage_options=root.storage_options)
    (made / "dangling").unlink()
    (made / "directory").symlink_to(made / "a")
    with pytest.raises(atomicpath.ValidationError, match="directory"):
        atomicpath.put(made, root / "step_1", storage_options=root.storage_options)
    with pytest.raises(atomicpath.ValidationError, match="not a directory"):
        atomicpath.put(made / "x", root / "step_1", storage_options=root.storage_options)
    with pytest.raises(atomicpath.ValidationError, match="not a directory"):
        atomicpath.put(made / "none", root / "step_1", storage_options=root.storage_options)
    assert root.read_all() == {}


def test_put_into_the_source_itself_is_refused(made: Path) -> None:
    with pytest.raises(atomicpath.ValidationError, match="inside"):
        atomicpath.put(made, made / "a" / "step_1")
    assert sorted(path.name for path in made.rglob("*")) == ["a", "x", "y"]


def test_get_downloads_the_files_and_the_copy_is_committed(root: Root, tmp_path: Path) -> None:
    _publish(root, "step_1", {"x": b"1", "a/b/c": b"22", "empty": b""}, checksums=True)
    target = tmp_path / "new" / "copy"
    assert atomicpath.get(root / "step_1", target, storage_options=root.storage_options) == target
    assert (target / "a/b/c").read_bytes() == b"22"
    assert atomicpath.verify(target, checksums=True).ok
    assert (
        atomicpath.read_record(target).token
        != atomicpath.read_record(root / "step_1", storage_options=root.storage_options).token
    )


def test_get_of_a_relative_target_is_absolute(memory: MemoryRoot, tmp_path: Path, monkeypatch: Any) -> None:
    _publish(memory, "step_1")
    monkeypatch.chdir(tmp_path)
    assert atomicpath.get(memory / "step_1", "copy") == tmp_path / "copy"


@pytest.mark.parametrize("there", ["file", "directory", "commit"])
def test_get_never_touches_what_is_there(root: Root, tmp_path: Path, there: str) -> None:
    _publish(root, "step_1")
    target = tmp_path / "copy"
    if there == "file":
        target.write_bytes(b"mine")
    elif there == "directory":
        (target / "sub").mkdir(parents=True)
    else:
        with atomicpath.commit(target) as path:
            (path / "mine").write_bytes(b"1")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError) as raised:
        atomicpath.get(root / "step_1", target, storage_options=root.storage_options)
    assert isinstance(raised.value, atomicpath.CommitError)
    assert sorted(tmp_path.rglob("*")) == before


def test_get_of_what_is_not_committed_makes_nothing(root: Root, tmp_path: Path) -> None:
    root.write("step_1/x", b"1")
    for name in ("step_1", "step_2"):
        with pytest.raises(atomicpath.NotCommittedError):
            atomicpath.get(root / name, tmp_path / "copy", storage_options=root.storage_options)
    assert not (tmp_path / "copy").exists()


def test_get_compares_sizes_where_there_is_nothing_else_to_compare(local: LocalRoot) -> None:
    _publish(local, "step_1", {"x": b"123"})
    local.write("step_1/x", b"12")
    with pytest.raises(atomicpath.IntegrityError, match="has 2 bytes, 3 were committed"):
        atomicpath.get(local / "step_1", local / "copy")
    assert local.names() == ["step_1"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_get_of_a_damaged_directory_makes_nothing(root: Root, tmp_path: Path, damage: str) -> None:
    _publish(root, "step_1", {"a": b"1", "x": b"123"}, checksums=True)
    if damage == "missing":
        root.delete("step_1/x")
    else:
        root.write("step_1/x", b"12" if damage == "truncated" else b"132")
    target = tmp_path / "down"
    target.mkdir()
    with pytest.raises(atomicpath.IntegrityError, match="x"):
        atomicpath.get(root / "step_1", target / "copy", storage_options=root.storage_options)
    assert list(target.iterdir()) == []
    if damage == "altered":
        unverified = atomicpath.get(
            root / "step_1", target / "copy", storage_options=root.storage_options, verify=False
        )
        assert (unverified / "x").read_bytes() == b"132"


def test_truncated_get_accepted(proxied: tuple[S3Root, Proxy], tmp_path: Path) -> None:
    """An interrupted download is never a short file, and leaves nothing."""
    root, proxy = proxied
    _publish(root, "step_1", {"a": b"1", "x": b"123456"})
    (tmp_path / "down").mkdir()
    proxy.rules.append(Rule(match=is_("GET", "step_1/x"), action=truncate(2), times=None))
    with pytest.raises(OSError, match="x"):
        atomicpath.get(root / "step_1", tmp_path / "down" / "copy", storage_options=root.storage_options)
    assert list((tmp_path / "down").iterdir()) == []
    proxy.rules.clear()
    atomicpath.get(root / "step_1", tmp_path / "down" / "copy", storage_options=root.storage_options)


async def test_a_cancelled_download_leaves_nothing(root: Root, tmp_path: Path) -> None:
    files = {f"f{number}": b"1" for number in range(20)}
    async with atomicpath.aio.commit(root / "step_1", storage_options=root.storage_options) as path:
        for name, data in files.items():
            (path / name).write_bytes(data)

    caller = Caller()
    (tmp_path / "down").mkdir()

    class Cancelling(Environment):
        def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            return super().call(function, *args, **kwargs)

        async def step(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            found = await super().step(function, *args, **kwargs)
            if getattr(function, "__name__", "") == "_make_parents":
                caller.cancel()
            return found

    with use(Cancelling()), caller:
        await atomicpath.aio.get(root / "step_1", tmp_path / "down" / "copy", storage_options=root.storage_options)
    assert caller.scope.cancelled_caught
    assert list((tmp_path / "down").iterdir()) == []


def test_unknown_fields_of_a_record_are_kept(root: Root) -> None:
    _publish(root, "step_1")
    data = json.loads(root.read_all("step_1")["_commit_record.json"])
    data["later"] = {"field": [1]}
    root.write("step_1/_commit_record.json", json.dumps(data).encode())
    record = atomicpath.read_record(root / "step_1", storage_options=root.storage_options)
    assert record.unknown == {"later": {"field": [1]}}
    assert json.loads(record.encode())["later"] == {"field": [1]}
    assert CommitRecord.decode(record.encode(), where="here") == record


def test_a_marker_decides_where_the_record_says_so(root: Root) -> None:
    _publish(root, "step_1", marker="commit_success.txt")
    data = json.loads(root.read_all("step_1")["_commit_record.json"])
    root.write("step_1/_commit_record.json", json.dumps({**data, "decided_by": "marker"}).encode())
    assert atomicpath.is_committed(root / "step_1", storage_options=root.storage_options)
    root.write("step_1/commit_success.txt", marker_of(secrets.token_hex(10)))
    assert not atomicpath.is_committed(root / "step_1", storage_options=root.storage_options)
    root.delete("step_1/commit_success.txt")
    assert not atomicpath.is_committed(root / "step_1", storage_options=root.storage_options)


def test_a_copied_tree_has_everything_shutil_copies(local: LocalRoot, tmp_path: Path) -> None:
    _publish(local, "step_1", {"a/b": b"1"})
    shutil.copytree(local.path / "step_1", tmp_path / "elsewhere")
    assert atomicpath.verify(tmp_path / "elsewhere").ok


async def test_an_attempt_is_held_before_anybody_can_read_its_record(memory: MemoryRoot) -> None:
    """Another thread of the process would else take over what has only just begun."""
    seen: list[bool | None] = []

    class Looking(Environment):
        def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            found = super().call(function, *args, **kwargs)
            data = memory.read_all().get("step_1/_commit_record.json")
            if data is not None and b'"writing"' in data:
                seen.append(proof_of_life(Environment(), CommitRecord.decode(data, where="here")))
            return found

    with use(Looking()):
        async with atomicpath.aio.commit(memory / "step_1", allow_empty=True):
            pass
    assert seen
    assert set(seen) == {True}
