"""What a sweep cleans up, what it keeps, and what it never touches; the attempts are of processes really killed."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._core import environment
from atomicpath._core.layout import PROBE_PREFIX, TMP_DIR_SUFFIX, record_of, temporary_of
from atomicpath._core.record import DecidedBy, State
from atomicpath.guarantees import Guarantee
from atomicpath_local import ages
from atomicpath_local.system import System
from tests.cleaning.leftovers import (
    ELSEWHERE,
    IN_PLACE,
    MARKER,
    RECORD,
    Later,
    commit,
    from_elsewhere,
    killed,
    rewrite,
    sweep,
    told,
)
from tests.protocol.worlds import ALL, decoded, trust
from tests.support.mounts import ASKED, answer
from tests.support.roots import LocalRoot, Root, S3Root
from tests.support.waiting import PATIENCE

BOTH = pytest.mark.parametrize("place", ["local", "moto"], indirect=True)
TOKEN = "0123456789abcdef0123"
NAME = f"step_1{TMP_DIR_SUFFIX}{TOKEN}"


def only(swept: list[atomicpath.SweepResult]) -> atomicpath.SweepResult:
    assert len(swept) == 1, told(swept)
    return swept[0]


def names(place: Root) -> list[str]:
    return [name.partition(TMP_DIR_SUFFIX)[0] for name in place.names()]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file, as another process would."""
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# what goes


@BOTH
@pytest.mark.parametrize("options", [{}, IN_PLACE], ids=["as chosen", "in place"])
def test_what_a_killed_job_left_goes_and_nothing_else(place: Root, options: dict[str, Any]) -> None:
    commit(place, "step_1")
    place.write("logs/events", b"of the user")
    place.write("tensorboard/events", b"of the user")
    place.write("theirs/step_7/commit_success.txt", b"")
    place.write("other/commit_success.txt", b"of another tool")
    place.write("notes.txt", b"of the user")
    before = place.read_all()
    killed(place, "step_2", **options)
    killed(place, "step_3", **options, at_request=3) if place.kind == "s3" else killed(place, "step_3", **options)
    left = place.read_all()

    expected = [(name, "attempt", "remove") for name in ("step_2", "step_3")]
    plan = sweep(place, dry_run=True)
    assert [(n.partition(TMP_DIR_SUFFIX)[0], f, a) for n, f, a, done in told(plan) if not done] == expected
    assert place.read_all() == left, "a dry run does nothing at all"
    done = sweep(place)
    assert [(one.path, one.found, one.action, one.reason) for one in done] == [
        (one.path, one.found, one.action, one.reason) for one in plan
    ], "the plan was what was done"
    assert all(one.done and one.writer and one.error is None for one in done)
    assert place.read_all() == before
    assert names(place) == ["logs", "notes.txt", "other", "step_1", "tensorboard", "theirs"]
    assert sweep(place) == []


@BOTH
def test_older_than_holds_for_the_provably_dead_too(place: Root) -> None:
    killed(place, "step_1")
    kept = only(sweep(place, timedelta(hours=1)))
    assert (kept.action, kept.done) == ("keep", False)
    assert "3600" in kept.reason
    assert only(sweep(place, timedelta(hours=1), dry_run=True)).action == "keep"
    assert place.read_all()
    if place.kind == "local":
        with environment.use(Later(3601)):
            assert only(sweep(place, timedelta(hours=1))).done
        assert place.names() == []


@BOTH
@pytest.mark.parametrize("seconds", [-90000, 90000], ids=["behind", "ahead"])
def test_clock_skew_expires_live_writer(place: Root, seconds: int) -> None:
    """A store's ages are the store's: what this host's clock says does not matter there."""
    killed(place, "step_1")
    name = place.begun()[0]
    from_elsewhere(place, name, lease=60.0)
    with environment.use(Later(seconds)):
        swept = only(sweep(place))
    if place.kind == "local" and seconds > 0:
        assert swept.done, "a file system's clock is this host's"
    else:
        assert swept.action == "keep"
        assert swept.age is not None
        assert swept.age < PATIENCE


@BOTH
def test_an_attempt_of_another_host_goes_after_its_lease(place: Root) -> None:
    killed(place, "step_1")
    name = place.begun()[0]
    from_elsewhere(place, name, lease=60.0)
    kept = only(sweep(place))
    assert (kept.action, kept.writer) == ("keep", ELSEWHERE)
    from_elsewhere(place, name, lease=0.0)
    assert only(sweep(place)).done
    assert place.read_all() == {}


# who lives


@pytest.mark.parametrize("options", [{}, IN_PLACE], ids=["by rename", "in place"])
def test_sweep_deletes_live_attempt(local_place: LocalRoot, options: dict[str, Any]) -> None:
    """It does not, however old it is: not by the process, and not by the lock, where nothing else tells."""
    with atomicpath.commit(f"{local_place.url}/step_1", **options) as path:
        (path / "data").write_bytes(b"x")
        (name,) = local_place.begun()
        own = local_place.read_all()[name]
        with environment.use(Later(90000)):
            assert only(sweep(local_place)).reason == "its process is alive"
            rewrite(local_place, name, writer=ELSEWHERE)
            assert only(sweep(local_place)).reason == "another process holds it"
            assert only(sweep(local_place, dry_run=True)).reason == "another process holds it"
        local_place.write(name, own)
    assert atomicpath.verify(f"{local_place.url}/step_1").ok


def test_an_attempt_of_a_live_process_on_a_store_is_never_touched(moto_place: S3Root) -> None:
    url = f"{moto_place.url}/step_1"
    with atomicpath.commit(url, storage_options=moto_place.storage_options) as path:
        (path / "data").write_bytes(b"x")
        assert only(sweep(moto_place)).reason == "its process is alive"
    assert sweep(moto_place) == []
    assert atomicpath.verify(url, storage_options=moto_place.storage_options).ok


# what cannot be judged


@BOTH
@pytest.mark.parametrize("data", [b"", b'{"format": 1, "state"', b'{"format": 99}'], ids=["empty", "cut", "newer"])
def test_a_damaged_record_is_kept_and_reported(place: Root, data: bytes) -> None:
    place.write(f"step_1/{RECORD}", data)
    place.write("step_1/data", b"x")
    before = place.read_all()
    with environment.use(Later(90000)):
        found = only(sweep(place))
    assert (found.found, found.action, found.done) == ("damaged", "keep", False)
    assert "commit record" in found.reason
    assert place.read_all() == before


def test_a_temporary_directory_of_another_record_is_not_ours_to_judge(local_place: LocalRoot) -> None:
    killed(local_place, "step_1")
    (record,) = local_place.begun()
    (local_place.path / ".atomicpath" / NAME).mkdir()
    local_place.write(f".atomicpath/{NAME}.json", local_place.read_all()[record])
    with environment.use(Later(90000)):
        assert told(sweep(local_place))[0] == (NAME, "attempt", "keep", False)
    assert sorted(os.listdir(local_place.path / ".atomicpath")) == [NAME, f"{NAME}.json"]


def test_a_temporary_directory_on_a_store_without_directories_is_a_copy_and_stays(moto_place: S3Root) -> None:
    moto_place.write(f"{NAME}/data", b"x")
    assert "a copy from elsewhere" in only(sweep(moto_place)).reason
    assert moto_place.read_all()


# what has no record, or another's


def test_a_temporary_directory_without_a_record_goes_by_the_age_of_all_that_is_in_it(local_place: LocalRoot) -> None:
    (local_place.path / NAME).mkdir()
    (local_place.path / f"{NAME}x").mkdir()
    local_place.write(f"{NAME}x/{RECORD}", b"")  # its writer was killed before it wrote a byte
    assert {one.action for one in sweep(local_place)} == {"keep"}, "one lease at the least"
    local_place.write(f"{NAME}/sub/young", b"x")
    future = local_place.path / NAME / "sub" / "young"
    os.utime(future, (2e9 + 9e5, 2e9 + 9e5))
    with environment.use(Later(90000)):
        assert [one.action for one in sweep(local_place)] == ["keep", "remove"]
    assert local_place.names() == [NAME]
    future.unlink()
    with environment.use(Later(90000)):
        assert only(sweep(local_place)).done


def test_exchange_crash_orphans_old(local_place: LocalRoot) -> None:
    """A committed record under a temporary name that is not its own is of a directory that was replaced."""
    commit(local_place, "step_1")
    os.rename(local_place.path / "step_1", local_place.path / NAME)
    assert only(sweep(local_place)).action == "keep", "its replacer may be at work: one lease at the least"
    with environment.use(Later(61)):
        assert told(sweep(local_place)) == [(NAME, "replaced", "remove", True)]
    assert local_place.names() == []


def test_a_discarded_directory_goes_whoever_wrote_it(local_place: LocalRoot) -> None:
    commit(local_place, "step_1")
    os.rename(local_place.path / "step_1", local_place.path / f"{NAME}.discarded")
    assert only(sweep(local_place, timedelta(hours=1))).action == "keep"
    assert told(sweep(local_place)) == [(f"{NAME}.discarded", "discarded", "remove", True)]
    assert local_place.names() == []


@BOTH
def test_what_a_probe_left_goes_when_it_is_old(place: Root) -> None:
    place.write(f"{PROBE_PREFIX}{TOKEN}-a", b"x")
    place.write(f"{PROBE_PREFIX}{TOKEN}-b/a", b"x")
    if place.kind == "local":
        place.write(f"{TMP_DIR_SUFFIX}{TOKEN}", b"a probe's file without its name yet")
    before = place.read_all()
    assert {one.action for one in sweep(place)} == {"keep"}
    assert place.read_all() == before
    later = Later(61)
    later.lease = 60.0 if place.kind == "local" else 0.0  # a store's clock is not ours to set
    with environment.use(later):
        assert {(one.found, one.done) for one in sweep(place)} == {("probe", True)}
    assert place.names() == []


# markers


@BOTH
def test_a_committed_record_without_its_marker_gets_it(place: Root) -> None:
    commit(place, "step_1", **IN_PLACE)
    if place.kind == "local":
        rewrite(place, f"step_1/{RECORD}", decided_by=DecidedBy.RECORD)
    before = place.read_all()
    place.delete(f"step_1/{MARKER}")
    plan = only(sweep(place, timedelta(days=9), dry_run=True))
    assert (plan.found, plan.action, plan.done) == ("unmarked", "mark", False)
    assert f"step_1/{MARKER}" not in place.read_all()
    assert only(sweep(place, timedelta(days=9))).done
    assert place.read_all() == before


# foreign files


def test_what_is_not_the_attempts_stays_and_is_named(moto_place: S3Root) -> None:
    trust(f"{moto_place.url}/step_1", moto_place.storage_options, ALL)
    killed(moto_place, "step_1", at_request=4)
    moto_place.write("step_1/users", b"of the user")
    swept = only(sweep(moto_place))
    assert swept.done
    assert "users" in swept.reason
    assert moto_place.read_all() == {"step_1/users": b"of the user"}


@BOTH
def test_files_older_than_an_attempt_that_wrote_by_hand_stay_with_it(
    place: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been killed before it looked at what was there."""
    monkeypatch.setattr("atomicpath._cleaning.ages._GRANULARITY", 0.0)
    commit(place, "step_1", **IN_PLACE, **({"direct": True} if place.kind == "s3" else {}))
    content = place.read_all("step_1")
    place.delete(f"step_1/{MARKER}")
    wait_for_another_second(place)
    rewrite(place, f"step_1/{RECORD}", state=State.WRITING, committed=None, direct=True)
    from_elsewhere(place, f"step_1/{RECORD}")
    with environment.use(Later(90000)):
        kept = only(sweep(place))
    assert kept.action == "keep"
    assert "model.bin" in kept.reason
    assert place.read_all("step_1").keys() == content.keys() - {MARKER}


def wait_for_another_second(place: Root) -> None:
    """Until the store's clock, which has no fractions, shows another time than the last object's."""
    place.write("clock", b"1")
    if not isinstance(place, S3Root):
        return
    first = None
    while True:
        place.write("clock", b"1")
        key = f"{place.top}/clock"
        seen = place.client.head_object(Bucket=place.bucket, Key=key)["LastModified"]
        if first is not None and seen > first:
            return
        first = first or seen


def test_a_killed_attempt_that_wrote_on_the_store_itself_goes_by_age_alone_and_loudly(
    moto_place: S3Root, caplog: pytest.LogCaptureFixture
) -> None:
    killed(moto_place, "step_1", direct=True)
    from_elsewhere(moto_place, f"step_1/{RECORD}")
    moto_place.write("step_1/late", b"by the user")
    plan = only(sweep(moto_place, dry_run=True))
    assert "age is the only protection" in plan.reason
    with caplog.at_level(logging.WARNING, "atomicpath"):
        swept = only(sweep(moto_place))
    assert swept.done
    assert "age is the only protection" in swept.reason
    assert any("age is the only protection" in message for message in caplog.messages)
    assert moto_place.read_all() == {}


def test_where_a_late_writer_cannot_be_stopped_the_sweep_says_so(moto_place: S3Root) -> None:
    url, lacking = f"{moto_place.url}/step_1", Guarantee.COMPARE_AND_SWAP
    trust(url, moto_place.storage_options, ALL & ~lacking, refuted=lacking)
    try:
        killed(moto_place, "step_1", at_request=4)
        from_elsewhere(moto_place, f"step_1/{RECORD}", lease=60.0)
        assert only(sweep(moto_place)).action == "keep"
        from_elsewhere(moto_place, f"step_1/{RECORD}")
        swept = only(sweep(moto_place))
    finally:
        trust(url, moto_place.storage_options, ALL)
    assert swept.done
    assert "age is the only protection" in swept.reason
    assert moto_place.read_all() == {}


# network file systems, emulated

NFS = "1 0 0:1 / / rw - ext4 /dev/root rw\n2 1 0:2 / {} rw - nfs4 server:/export rw\n"


class Mounted(Later):
    def __init__(self, mountinfo: str, seconds: float) -> None:
        super().__init__(seconds)
        self.mountinfo = mountinfo

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if function in ASKED:
            return answer(self.mountinfo, function, args[0])
        return super().call(function, *args, **kwargs)


def test_an_empty_directory_of_an_interrupted_rename_goes_on_network_mounts_only(
    local_place: LocalRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its age is by the server's clock, whatever this host's says."""
    (local_place.path / "step_1").mkdir()
    (local_place.path / ".atomicpath").mkdir()
    time_there = ages._time_there
    passed = 0

    def later_there(system: System, house: str) -> int | None:
        found = time_there(system, house)
        return None if found is None else found + passed * 10**9

    def found(swept: list[atomicpath.SweepResult]) -> list[tuple[str, str, str, bool]]:
        return [one for one in told(swept) if one[0] != ".atomicpath"]

    monkeypatch.setattr(ages, "_time_there", later_there)
    local_place.write("logs/events", b"x")
    disk, nfs = "1 0 0:1 / / rw - ext4 /dev/root rw\n", NFS.format(local_place.path)
    with environment.use(Mounted(disk, 90000)):
        assert found(sweep(local_place)) == [], "on a disk an empty directory is the user's"
    with environment.use(Mounted(nfs, 90000)):
        assert found(sweep(local_place)) == [("step_1", "interrupted", "keep", False)]
    passed = 90000
    with environment.use(Mounted(nfs, 0)):
        assert found(sweep(local_place, dry_run=True)) == [("step_1", "interrupted", "remove", False)]
        assert [name for name in local_place.names() if name != ".atomicpath"] == ["logs", "step_1"]
        assert found(sweep(local_place)) == [("step_1", "interrupted", "remove", True)]
    assert [name for name in local_place.names() if name != ".atomicpath"] == ["logs"]


# errors


def test_an_error_about_one_is_in_the_result_and_does_not_stop_the_others(
    local_place: LocalRoot, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(3):
        killed(local_place, f"step_{step}")
    bad = next(name for name in local_place.begun() if "step_1" in name).removesuffix(".json")
    world = Later()
    world.refused = lambda path: ".discarded" in path and "step_1" in path
    with environment.use(world), caplog.at_level(logging.WARNING, "atomicpath"):
        swept = sweep(local_place)
    assert [(one.done, one.error is not None) for one in swept] == [(True, False), (False, True), (True, False)]
    assert any(bad in message for message in caplog.messages)
    assert "as the test asked" in str(swept[1])
    assert only(sweep(local_place)).done, "it can be swept again"


def test_what_cannot_be_looked_at_is_reported(local_place: LocalRoot) -> None:
    killed(local_place, "step_1")
    (local_place.path / "locked").mkdir()
    world = Later()
    world.refused = lambda path: "/locked/" in path
    with environment.use(world):
        assert [one.found for one in sweep(local_place)] == ["attempt", "unknown"]


@pytest.mark.parametrize("older_than", [3600, timedelta(seconds=-1), None])
def test_an_age_is_a_timedelta(local_place: LocalRoot, older_than: Any) -> None:
    with pytest.raises(atomicpath.ValidationError, match="older_than"):
        atomicpath.sweep(local_place.url, older_than=older_than)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(atomicpath.ValidationError, match="is a file"):
        atomicpath.sweep(tmp_path / "file")
    assert atomicpath.sweep(tmp_path / "nothing") == []


# locks without an attempt


LONG = "step_" + "é" * 120


def lock_left(place: LocalRoot, name: str, token: str = TOKEN) -> Path:
    """What a process that was killed right after it had made its lock has left; two days old."""
    lock = Path(record_of(temporary_of(str(place.path / name), token)))
    lock.parent.mkdir(exist_ok=True)
    lock.write_bytes(b"")
    before = time.time() - 2 * 24 * 3600
    os.utime(lock, (before, before))
    return lock


@pytest.mark.parametrize("name", ["step_1", LONG], ids=["short", "long"])
@pytest.mark.parametrize("there", ["nothing", "committed", "committed in place", "a directory of the user"])
def test_an_empty_lock_that_nobody_holds_goes_whatever_is_at_the_final_path(
    name: str, there: str, local_place: LocalRoot
) -> None:
    if there.startswith("committed"):
        commit(local_place, name, **(IN_PLACE if there.endswith("in place") else {}))
    elif there != "nothing":
        local_place.write(f"{name}/mine", b"1")
    before = local_place.read_all()
    lock = lock_left(local_place, name)
    assert told(sweep(local_place, timedelta(days=3))) == [(lock.name, "lock", "keep", False)]
    assert lock.exists()
    assert told(sweep(local_place, timedelta(days=1))) == [(lock.name, "lock", "remove", True)]
    assert local_place.read_all() == before
    assert not lock.exists()


@pytest.mark.parametrize("name", ["step_1", LONG], ids=["short", "long"])
@pytest.mark.parametrize("damaged", [False, True], ids=["not committed", "damaged"])
def test_the_lock_of_an_attempt_in_place_stays_until_that_is_judged(
    name: str, damaged: bool, local_place: LocalRoot
) -> None:
    with atomicpath.commit(local_place / name, **IN_PLACE) as path:
        (path / "data").write_bytes(b"1")
        record = local_place.path / name / RECORD
        token = decoded(record.read_bytes()).token
        lock = lock_left(local_place, name, token)
        there = record.read_bytes()
        if damaged:
            record.write_bytes(there[:20])
        found = sweep(local_place, timedelta(days=1))
        assert lock.exists()
        assert [one.action.value for one in found] == ["keep"]
        assert [one.path.name for one in found] == [name]
        record.write_bytes(there)
    assert atomicpath.verify(local_place / name).ok


def test_a_lock_that_is_held_stays(local_place: LocalRoot) -> None:
    lock = lock_left(local_place, "step_1")
    commit(local_place, "step_1")
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert told(sweep(local_place)) == [(lock.name, "lock", "keep", False)]
    assert told(sweep(local_place)) == [(lock.name, "lock", "remove", True)]


# what is not all its own


@pytest.mark.parametrize("suffix", ["", ".discarded"], ids=["replaced", "discarded"])
def test_another_place_in_what_is_to_be_deleted_keeps_it(local_place: LocalRoot, suffix: str) -> None:
    commit(local_place, "step_1")
    commit(local_place, "step_2")
    os.rename(local_place.path / "step_2", local_place.path / "step_1" / "inner")  # by hand
    os.rename(local_place.path / "step_1", local_place.path / f"{NAME}{suffix}")
    before = local_place.read_all()
    with environment.use(Later(90000)):
        kept = only(sweep(local_place))
        assert (kept.action, kept.done) == ("keep", False)
        assert "inner/" in kept.reason
        assert local_place.read_all() == before
        os.rename(local_place.path / f"{NAME}{suffix}" / "inner", local_place.path / "step_2")
        assert only(sweep(local_place)).done
    assert local_place.names() == ["step_2"]


def test_another_place_in_the_directory_of_a_killed_job_keeps_it_under_its_name(local_place: LocalRoot) -> None:
    killed(local_place, "step_1")
    commit(local_place, "step_2")
    attempt = local_place.path / local_place.begun()[0].removesuffix(".json")
    os.rename(local_place.path / "step_2", attempt / "inner")
    before = local_place.read_all()
    kept = only(sweep(local_place))
    assert (kept.action, kept.done) == ("keep", False)
    assert "inner" in kept.reason
    assert local_place.read_all() == before


def test_what_came_into_a_replaced_directory_keeps_it(local_place: LocalRoot) -> None:
    commit(local_place, "step_1")
    os.rename(local_place.path / "step_1", local_place.path / NAME)
    local_place.write(f"{NAME}/notes.txt", b"of the user")
    with environment.use(Later(90000)):
        kept = only(sweep(local_place))
        assert (kept.action, kept.done) == ("keep", False)
        assert "notes.txt" in kept.reason
        (local_place.path / NAME / "notes.txt").unlink()
        assert only(sweep(local_place)).done


# a record that a power cut has torn


@pytest.mark.parametrize("left", ["beginning", "zeros", "beginning and zeros"])
def test_a_torn_record_beside_an_attempt_goes_with_it_once_it_is_old(local_place: LocalRoot, left: str) -> None:
    """It is not synced, so that a power cut may leave any part of it, and with it nothing that was ever committed."""
    killed(local_place, "step_1")
    record = local_place.path / local_place.begun()[0]
    data = record.read_bytes()
    record.write_bytes({"beginning": data[:100], "zeros": bytes(len(data))}.get(left, data[:9] + bytes(50)))
    assert only(sweep(local_place)).action == "keep", "one lease at the least"
    with environment.use(Later(90000)):
        with locked(record):
            kept = only(sweep(local_place))
            assert (kept.action, kept.reason) == ("keep", "another process holds it")
        assert only(sweep(local_place)).done
    assert local_place.names() == []


@pytest.mark.parametrize(
    "data", [b'{"format": 1}', b'{"format": 99}', b"of the user"], ids=["fields", "newer", "foreign"]
)
def test_any_other_record_beside_an_attempt_that_cannot_be_read_is_kept(local_place: LocalRoot, data: bytes) -> None:
    killed(local_place, "step_1")
    (local_place.path / local_place.begun()[0]).write_bytes(data)
    before = local_place.read_all()
    with environment.use(Later(90000)):
        kept = only(sweep(local_place))
    assert (kept.found, kept.action) == ("damaged", "keep")
    assert local_place.read_all() == before


def test_a_torn_record_does_not_hide_what_the_directory_beside_it_is(local_place: LocalRoot) -> None:
    killed(local_place, "step_1")
    record = local_place.path / local_place.begun()[0]
    record.write_bytes(record.read_bytes()[:100])
    inside = record.with_suffix("") / RECORD
    inside.write_bytes(b"of the user")
    with environment.use(Later(90000)):
        kept = only(sweep(local_place))
    assert (kept.found, kept.action) == ("damaged", "keep")
    assert inside.read_bytes() == b"of the user"
