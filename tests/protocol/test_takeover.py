"""A record in the way: whose it is, whether its holder lives, and what becomes of both attempts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._core.liveness import untrack_attempt
from atomicpath._core.record import CommitRecord, DecidedBy, State, marker_of
from atomicpath._profile.location import locate
from atomicpath._strategies.commit_file import CommitFileTemporaryPath
from atomicpath.abc import Put, Storage
from atomicpath.errors import AbandonedError, AlreadyCommittedError, ConflictError
from atomicpath.guarantees import Guarantee
from tests.protocol.worlds import (
    ALL,
    MARKER,
    RECORD,
    Quick,
    attempt,
    creates,
    decoded,
    files_below,
    swaps_to,
    written,
)
from tests.support.proxy import Proxy, Request, Rule, answer_after, ignore_conditions
from tests.support.waiting import PATIENCE

NO_SWAP = ALL & ~Guarantee.COMPARE_AND_SWAP


@dataclass
class Place:
    """A final path on some store, and the truth about it."""

    url: str
    options: dict[str, Any]
    files: Callable[[], dict[str, bytes]]
    environment: Quick

    @property
    def storage(self) -> Storage:
        return locate(self.url, self.options).open()

    def path(self, name: str) -> str:
        return f"{locate(self.url, self.options).path}/{name}"

    def attempt(self, **more: Any) -> CommitFileTemporaryPath:
        return attempt(self.url, self.options, environment=self.environment, **more)

    @property
    def record(self) -> CommitRecord:
        return decoded(self.files()[RECORD])

    async def rewrite(self, **changes: Any) -> None:
        """Change the record, past the protocol."""
        await self.storage.put(self.path(RECORD), replace(self.record, **changes).encode(), mode=Put.OVERWRITE)

    async def from_another_host(self, holder: CommitFileTemporaryPath | None = None) -> None:
        """As if the record had always been of another host; `holder`, if it is to wake up, knows it as such."""
        await self.rewrite(writer=replace(self.record.writer, host="elsewhere", boot="another boot"))
        if holder is not None and holder._register is not None:
            holder._register.version = (await self.storage.get(self.path(RECORD))).version

    async def is_committed(self) -> bool:
        return await aio.is_committed(self.url, storage_options=self.options)


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest, quick: Quick) -> Place:
    if request.param == "memory":
        memory = request.getfixturevalue("memory")
        return Place("memory://run/step_1", {}, lambda: files_below(memory, "/run/step_1"), quick)
    return s3_place(request, quick)


@pytest.fixture
def on_s3(request: pytest.FixtureRequest, quick: Quick) -> Place:
    return s3_place(request, quick)


def s3_place(request: pytest.FixtureRequest, quick: Quick) -> Place:
    truth = request.getfixturevalue("truth")
    prefix = "run/step_1/"
    return Place(
        request.getfixturevalue("url"),
        request.getfixturevalue("options"),
        lambda: {name.removeprefix(prefix): data for name, data in truth().items()},
        quick,
    )


async def left_behind(place: Place, tmp_path: Path, **more: Any) -> CommitFileTemporaryPath:
    """An attempt with one object that its process, this one, seems to have forgotten."""
    old = place.attempt(**more)
    await old.create()
    await old.add("data", written(tmp_path, "old", b"of the old"))
    untrack_attempt(old.token)
    return old


async def commit(new: CommitFileTemporaryPath, tmp_path: Path) -> None:
    await new.add("data", written(tmp_path, "new", b"of the new"))
    await new.finalize()


def assert_new(place: Place, token: str) -> None:
    files = place.files()
    record = decoded(files.pop(RECORD))
    assert (record.state, record.token) == (State.COMMITTED, token)
    assert [file.name for file in record.files] == ["data"]
    assert files == {"data": b"of the new", MARKER: marker_of(token)}


# who is in the way


async def test_a_committed_directory_is_not_committed_again(place: Place, tmp_path: Path) -> None:
    first = place.attempt()
    await first.create()
    await commit(first, tmp_path)
    before = place.files()
    with pytest.raises(AlreadyCommittedError) as caught:
        await place.attempt().create()
    assert caught.value.record == decoded(before[RECORD])
    assert place.files() == before


async def test_an_attempt_that_was_committed_or_discarded_is_not_adopted(place: Place, tmp_path: Path) -> None:
    first = place.attempt()
    await first.create()
    await commit(first, tmp_path)
    with pytest.raises(AlreadyCommittedError):
        await place.attempt().finalize()  # as `from_temporary` makes it in another process
    await place.rewrite(state=State.DISCARDED)
    with pytest.raises(ConflictError):
        await place.attempt().finalize()


_HOLDER = """
import sys, anyio
from pathlib import Path
from tests.protocol.worlds import Quick, attempt

async def main():
    holder = attempt(sys.argv[1], {"endpoint_url": sys.argv[2], "key": "key", "secret": "secret"}, environment=Quick())
    await holder.create()
    Path(sys.argv[3]).write_bytes(b"of the old")
    await holder.add("data", Path(sys.argv[3]))
    print("holding", flush=True)
    sys.stdin.read()

anyio.run(main)
"""


@pytest.fixture
def holder(on_s3: Place, proxy: Proxy, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process of this host, with an attempt under way."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, on_s3.url, proxy.url, str(tmp_path / "held")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


async def test_an_attempt_of_a_live_process_is_a_conflict_at_once(on_s3: Place, holder: subprocess.Popen[str]) -> None:
    before = on_s3.files()
    with pytest.raises(ConflictError, match=f"process {holder.pid} on ") as caught:
        await on_s3.attempt().create()
    assert caught.value.record is not None
    assert caught.value.record.writer.pid == holder.pid
    assert caught.value.record == decoded(before[RECORD])
    assert on_s3.environment.slept == []
    assert on_s3.files() == before


async def test_an_attempt_of_a_killed_process_is_taken_over_at_once(
    on_s3: Place, holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.kill()
    # not yet waited for: a zombie will never write again either
    await anyio.to_thread.run_sync(os.waitid, os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    new = on_s3.attempt()
    await new.create()
    assert on_s3.environment.slept == []
    assert set(on_s3.files()) == {RECORD}
    await commit(new, tmp_path)
    assert_new(on_s3, new.token)


async def test_another_attempt_of_this_process_is_a_conflict(place: Place, tmp_path: Path) -> None:
    old = place.attempt()
    await old.create()
    with pytest.raises(ConflictError) as caught:
        await place.attempt().create()
    assert caught.value.record is not None
    assert caught.value.record.token == old.token
    await commit(old, tmp_path)
    assert_new(place, old.token)


async def test_a_silent_attempt_of_another_host_is_taken_over_after_one_lease(place: Place, tmp_path: Path) -> None:
    old = await left_behind(place, tmp_path)
    await place.from_another_host()
    new = place.attempt()
    await new.create()
    lease = place.environment.lease
    assert lease / 2 < sum(place.environment.slept) <= lease  # its age, by the store's clock, counts
    await commit(new, tmp_path)
    assert_new(place, new.token)
    await old.discard()


async def test_an_attempt_of_another_host_that_renews_is_a_conflict(place: Place, tmp_path: Path) -> None:
    old = await left_behind(place, tmp_path)
    await place.from_another_host(old)

    async def renew(now: float) -> None:
        if len(place.environment.slept) == 3:
            assert old._register is not None
            await old._register.renew()

    place.environment.on_sleep = renew
    with pytest.raises(ConflictError, match="renewed its lease") as caught:
        await place.attempt().create()
    assert caught.value.record is not None
    assert caught.value.record.lease.renewals == 1
    assert sum(place.environment.slept) < place.environment.lease
    assert place.files()["data"] == b"of the old"
    await old.finalize()


async def test_an_attempt_that_commits_while_it_is_waited_for_is_already_committed(
    place: Place, tmp_path: Path
) -> None:
    old = await left_behind(place, tmp_path)
    await place.from_another_host(old)

    async def finalize(now: float) -> None:
        place.environment.on_sleep = None
        await old.finalize()

    place.environment.on_sleep = finalize
    with pytest.raises(AlreadyCommittedError):
        await place.attempt().create()
    assert await place.is_committed()
    assert place.files()["data"] == b"of the old"


# the old holder wakes up


@pytest.mark.parametrize("step", ["upload", "finalize", "discard"])
@pytest.mark.parametrize("committed", [False, True])
async def test_paused_writer_resumes_after_sweep(step: str, committed: bool, place: Place, tmp_path: Path) -> None:
    old = await left_behind(place, tmp_path)
    new = place.attempt()
    await new.create()
    await new.add("data", written(tmp_path, "new", b"of the new"))
    if committed:
        await new.finalize()
    before = place.files()
    lost: type[Exception] = AlreadyCommittedError if committed else AbandonedError
    if step == "upload":
        with pytest.raises(lost):
            await old.add("data", tmp_path / "old")
    elif step == "finalize":
        with pytest.raises(lost):
            await old.finalize()
    await old.discard()
    assert place.files() == before
    if not committed:
        await new.finalize()
    assert_new(place, new.token)


async def test_a_late_writers_object_in_our_place_is_deleted_as_listed_and_replaced(
    place: Place, tmp_path: Path
) -> None:
    old = await left_behind(place, tmp_path)
    new = place.attempt()
    await new.create()
    assert set(place.files()) == {RECORD}
    await old.add("data", tmp_path / "old")  # it does not know yet
    assert place.files()["data"] == b"of the old"
    await commit(new, tmp_path)
    assert_new(place, new.token)
    with pytest.raises(AlreadyCommittedError):
        await old.finalize()
    assert_new(place, new.token)


async def test_a_foreign_file_in_our_place_is_not_replaced(place: Place, tmp_path: Path) -> None:
    new = place.attempt()
    await new.create()
    await place.storage.put(place.path("data"), b"foreign", mode=Put.OVERWRITE)
    with pytest.raises(ConflictError, match="data"):
        await new.add("data", written(tmp_path, "new", b"of the new"))
    assert place.files()["data"] == b"foreign"
    await new.discard()


# what is not ours


async def test_foreign_files_without_a_record_are_named_and_not_touched(place: Place) -> None:
    await place.storage.put(place.path("theirs"), b"foreign", mode=Put.OVERWRITE)
    await place.storage.put(place.path("sub/more"), b"foreign too", mode=Put.OVERWRITE)
    before = place.files()
    with pytest.raises(ConflictError, match="sub/more, theirs") as caught:
        await place.attempt().create()
    assert caught.value.record is None
    assert place.files() == before


async def test_foreign_files_beside_an_abandoned_record_are_named_and_not_touched(place: Place, tmp_path: Path) -> None:
    old = place.attempt()  # which crashes after it has claimed the path, and before it looked
    await old.create()
    untrack_attempt(old.token)
    await place.storage.put(place.path("theirs"), b"foreign", mode=Put.OVERWRITE)
    for _ in range(2):  # the second time without the record
        with pytest.raises(ConflictError, match="theirs"):
            await place.attempt().create()
        assert place.files() == {"theirs": b"foreign"}
    await old.discard()
    assert place.files() == {"theirs": b"foreign"}


async def test_what_cannot_be_cleared_keeps_its_record(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one the old attempt's files would be foreign for ever."""
    await left_behind(place, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("atomicpath._strategies.cleanup._PASSES", 0)  # as if there were always something new
        with pytest.raises(ConflictError, match="cannot be cleared"):
            await place.attempt().create()
    assert place.record.state is State.DISCARDED
    assert place.files().keys() == {RECORD, "data"}
    new = place.attempt()
    await new.create()
    await commit(new, tmp_path)
    assert_new(place, new.token)


async def test_foreign_files_outlive_the_old_attempt_beside_them(place: Place, tmp_path: Path) -> None:
    old = await left_behind(place, tmp_path)
    await place.storage.put(place.path("theirs"), b"foreign", mode=Put.OVERWRITE)
    with pytest.raises(ConflictError, match="theirs"):
        await place.attempt().create()
    assert place.files() == {"theirs": b"foreign"}
    await old.discard()


async def test_another_tools_marker_counts_as_committed(place: Place) -> None:
    await place.storage.put(place.path(MARKER), b"", mode=Put.OVERWRITE)
    await place.storage.put(place.path("theirs"), b"foreign", mode=Put.OVERWRITE)
    before = place.files()
    with pytest.raises(AlreadyCommittedError, match="another tool") as caught:
        await place.attempt().create()
    assert caught.value.record is None
    assert place.files() == before


# what cannot be fenced, and what a cleaner left


async def test_a_direct_attempt_is_taken_over_only_when_asked(place: Place, tmp_path: Path) -> None:
    old = place.attempt(direct=True)
    await old.create()
    await place.storage.put(place.path("by-the-user"), b"of the old", mode=Put.OVERWRITE)
    untrack_attempt(old.token)
    before = place.files()
    with pytest.raises(ConflictError, match="unsafe_takeover=True"):
        await place.attempt().create()
    assert place.files() == before
    new = place.attempt(unsafe_takeover=True)
    await new.create()
    await commit(new, tmp_path)
    assert_new(place, new.token)
    with pytest.raises(AlreadyCommittedError):
        await old.finalize()
    assert_new(place, new.token)


async def test_a_live_process_is_not_taken_over_even_when_asked(place: Place) -> None:
    old = place.attempt()
    await old.create()
    with pytest.raises(ConflictError):
        await place.attempt(unsafe_takeover=True).create()
    await old.discard()
    assert place.files() == {}


async def test_the_discarded_record_of_a_dead_cleaner_is_taken_over_at_once(place: Place, tmp_path: Path) -> None:
    old = await left_behind(place, tmp_path)
    await place.rewrite(state=State.DISCARDED)
    new = place.attempt()
    await new.create()
    assert place.environment.slept == []
    await commit(new, tmp_path)
    assert_new(place, new.token)
    await old.discard()
    assert_new(place, new.token)


async def test_the_marker_a_dead_remover_left_is_ours_however_it_was_written(place: Place, tmp_path: Path) -> None:
    old = place.attempt()
    await old.create()
    await commit(old, tmp_path)
    await place.storage.put(
        place.path(MARKER), place.files()[MARKER], mode=Put.OVERWRITE
    )  # as after a retry: without its owner
    await place.rewrite(state=State.DISCARDED)
    new = place.attempt()
    await new.create()
    assert set(place.files()) == {RECORD}
    await commit(new, tmp_path)
    assert_new(place, new.token)


async def test_the_discarded_record_of_a_live_cleaner_is_a_conflict(place: Place) -> None:
    old = place.attempt()
    await old.create()
    await place.rewrite(state=State.DISCARDED)
    with pytest.raises(ConflictError, match="live clean-up"):
        await place.attempt().create()
    await old.discard()  # is the clean-up that was under way
    assert place.files() == {}


# renewal


async def renewed(place: Place, times: int) -> None:
    with anyio.fail_after(PATIENCE):  # or else it would hang
        while place.record.lease.renewals < times:
            await anyio.sleep(0.01)


async def test_the_record_is_renewed_while_the_block_runs(place: Place, tmp_path: Path) -> None:
    place.environment.lease = 0.3
    writer = place.attempt()
    await writer.create()
    await renewed(place, 2)
    await commit(writer, tmp_path)
    assert place.record.lease.renewals >= 2
    assert_new(place, writer.token)


async def test_a_renewal_whose_reply_is_lost_does_not_break_the_commit(
    on_s3: Place, proxy: Proxy, tmp_path: Path
) -> None:
    on_s3.environment.lease = 0.3
    proxy.rules.append(Rule(match=swaps_to("writing"), action=answer_after(500, "InternalError"), times=2))
    writer = on_s3.attempt()
    await writer.create()
    await renewed(on_s3, 3)
    await commit(writer, tmp_path)
    assert_new(on_s3, writer.token)


@pytest.mark.parametrize("taken", [False, True], ids=["left alone", "taken over"])
async def test_a_large_upload_that_slept_in_its_midst_is_completed_only_if_the_attempt_stands(
    taken: bool, on_s3: Place, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 5 * 2**20
    monkeypatch.setattr("atomicpath_s3.multipart.PART", size)
    monkeypatch.setattr("atomicpath_s3.storage.PART", size)
    monkeypatch.setattr("atomicpath_s3.storage.S3Storage.largest_single", size)
    old = await left_behind(on_s3, tmp_path)
    new = on_s3.attempt()
    large = tmp_path / "large"
    large.write_bytes(b"x" * (size + 1))

    def is_part(request: Request) -> bool:
        return request.method == "PUT" and "partNumber" in request.query

    def second_part(request: Request) -> bool:  # by then the lease was looked at for both of them
        return is_part(request) and any(map(is_part, proxy.requests))

    def ends(request: Request) -> bool:
        return "uploadId" in request.query and request.method in ("POST", "DELETE")

    async def sleep(passed: float) -> None:
        on_s3.environment.now += passed
        if taken:
            await new.create()

    send = proxy.send

    def slow(request: Request, upstream: Any) -> Any:
        anyio.run(sleep, 61.0)
        return send(request)

    proxy.rules.append(Rule(match=second_part, action=slow))
    if taken:
        with pytest.raises(AbandonedError):
            await old.add("large", large)
        assert set(on_s3.files()) == {RECORD}
        await commit(new, tmp_path)
    else:
        await old.add("large", large)
        assert on_s3.record.lease.renewals == 1
        assert on_s3.files()["large"] == large.read_bytes()
        await old.finalize()
    assert [request.method for request in proxy.requests if ends(request)] == ["DELETE" if taken else "POST"]


# stores without compare-and-swap: the marker decides


async def test_without_compare_and_swap_the_marker_decides(place: Place, tmp_path: Path) -> None:
    writer = place.attempt(guarantees=NO_SWAP)
    await writer.create()
    await commit(writer, tmp_path)
    assert place.record.decided_by is DecidedBy.MARKER
    assert_new(place, writer.token)
    assert await place.is_committed()
    await place.storage.delete(place.path(MARKER))
    assert not await place.is_committed()
    await place.storage.put(place.path(MARKER), marker_of("another attempt's"), mode=Put.OVERWRITE)
    assert not await place.is_committed()


async def test_a_lost_reply_of_the_deciding_marker_is_settled(on_s3: Place, proxy: Proxy, tmp_path: Path) -> None:
    proxy.rules.append(Rule(match=creates(MARKER), action=answer_after(500, "InternalError")))
    writer = on_s3.attempt(guarantees=NO_SWAP)
    await writer.create()
    await commit(writer, tmp_path)
    assert proxy.rules[0].times == 0
    assert_new(on_s3, writer.token)


async def test_without_compare_and_swap_nothing_is_taken_over_unless_asked(place: Place, tmp_path: Path) -> None:
    old = await left_behind(place, tmp_path, guarantees=NO_SWAP)
    before = place.files()
    for guarantees in (NO_SWAP, ALL):  # the record itself says how it is decided
        with pytest.raises(ConflictError, match="unsafe_takeover=True"):
            await place.attempt(guarantees=guarantees).create()
        assert place.files() == before
    new = place.attempt(guarantees=NO_SWAP, unsafe_takeover=True)
    await new.create()
    await commit(new, tmp_path)
    assert_new(place, new.token)
    with pytest.raises(AlreadyCommittedError):
        await old.finalize()
    assert_new(place, new.token)


async def test_a_store_that_ignores_versions_is_found_out_and_its_commits_are_decided_by_the_marker(
    bucket: str, options: dict[str, Any], proxy: Proxy, source: Path
) -> None:
    def versioned(request: Request) -> bool:
        return "if-match" in request.headers

    proxy.rules.append(Rule(match=versioned, action=ignore_conditions, times=None))
    url = f"s3://{bucket}/run/step_1"
    with use(Quick()):
        await aio.put(source, url, storage_options=options)
    assert (await aio.read_record(url, storage_options=options)).decided_by is DecidedBy.MARKER
    profile = await aio.profile(url, storage_options=options)
    assert Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE in profile.refuted
    with pytest.raises(AlreadyCommittedError):
        await aio.put(source, url, storage_options=options)


# What the model found (docs/model): a record that is our own again is not ours


async def swept_with_a_late_copy_of_its_claim(place: Place, tmp_path: Path) -> CommitFileTemporaryPath:
    """An attempt that was cleared away whole, after which a copy of the request that claimed its place arrives."""
    slow = await left_behind(place, tmp_path)
    claimed = place.files()[RECORD]
    rival = place.attempt()
    await rival.create()
    await rival.discard()
    assert place.files() == {}
    await place.storage.put(place.path(RECORD), claimed, mode=Put.CREATE, owner=slow.token)
    return slow


async def test_a_late_copy_of_the_claim_does_not_let_a_cleared_attempt_commit(
    memory: object, quick: Quick, tmp_path: Path
) -> None:
    place = Place("memory://run/step_1", {}, lambda: files_below(memory, "/run/step_1"), quick)
    slow = await swept_with_a_late_copy_of_its_claim(place, tmp_path)
    with pytest.raises(AbandonedError, match="swept away"):
        await slow.finalize()
    assert not await place.is_committed()
    assert list(place.files()) == [RECORD]
    new = place.attempt()
    await new.create()
    await commit(new, tmp_path)
    assert_new(place, new.token)


async def test_a_late_copy_of_the_claim_does_not_let_a_cleared_attempt_delete(
    memory: object, quick: Quick, tmp_path: Path
) -> None:
    place = Place("memory://run/step_1", {}, lambda: files_below(memory, "/run/step_1"), quick)
    slow = await swept_with_a_late_copy_of_its_claim(place, tmp_path)
    await place.storage.put(place.path("more"), b"of a third", mode=Put.CREATE, owner="a third")
    with pytest.raises(AbandonedError, match="swept away"):
        await slow.add("more", written(tmp_path, "more", b"of the slow"))
    assert place.files()["more"] == b"of a third"


async def test_a_renewal_that_arrives_late_does_not_end_its_own_attempt(
    memory: object, quick: Quick, tmp_path: Path
) -> None:
    place = Place("memory://run/step_1", {}, lambda: files_below(memory, "/run/step_1"), quick)
    new = place.attempt()
    await new.create()
    lease = replace(place.record.lease, renewals=1)
    await place.rewrite(lease=lease)
    await commit(new, tmp_path)
    assert_new(place, new.token)
