"""Committed, not committed, or unknown: what a commit says is what is so, whatever the store answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import atomicpath_s3.multipart
import atomicpath_s3.storage
from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath.errors import (
    AlreadyCommittedError,
    AtomicPathError,
    CommitError,
    ConflictError,
    GuaranteeError,
    OutcomeUnknownError,
)
from atomicpath.guarantees import Guarantee
from tests.protocol.worlds import (
    MARKER,
    RECORD,
    Failing,
    Quick,
    anything,
    attempt,
    creates,
    decoded,
    files_below,
    swaps_to,
    written,
)
from tests.support.proxy import (
    Action,
    Proxy,
    Request,
    Rule,
    answer_after,
    drop_reply,
    drop_request,
    duplicate,
    ignore_conditions,
    is_,
    refuse,
)

Truth = Callable[[], dict[str, bytes]]
DATA = {"run/step_1/data": b"the data", "run/step_1/sub/more": b"more of it"}
REGISTER_MOVES = {"the claim": creates(RECORD), "the commit": swaps_to("committed")}
ALL_WRITES = {**REGISTER_MOVES, "a data object": creates("data"), "the marker": creates(MARKER)}


async def put(source: Path, url: str, options: dict[str, Any], environment: Quick | None = None, **more: Any) -> None:
    with use(environment or Quick()):
        await aio.put(source, url, storage_options=options, **more)


def assert_committed(objects: dict[str, bytes]) -> None:
    objects = dict(objects)
    record = decoded(objects.pop(f"run/step_1/{RECORD}"))
    assert record.state == "committed"
    assert [file.name for file in record.files] == ["data", "sub/more"]
    assert record.token.encode() in objects.pop(f"run/step_1/{MARKER}")
    assert objects == DATA


# S3: replies that are lost or false


@pytest.mark.parametrize("which", ALL_WRITES)
async def test_won_but_412_after_own_retry(
    which: str,
    source: Path,
    url: str,
    retrying: dict[str, Any],
    proxy: Proxy,
    truth: Truth,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy.rules.append(Rule(match=ALL_WRITES[which], action=drop_reply))
    await put(source, url, retrying)
    assert proxy.rules[0].times == 0
    assert proxy.count(ALL_WRITES[which]) == 2  # the client's own retry, which the server refused
    assert proxy.count(swaps_to("writing")) == 0  # nor did it take itself over
    assert not [record for record in caplog.records if record.name == "atomicpath"]
    assert_committed(truth())


@pytest.mark.parametrize("action", [drop_reply, answer_after(500, "InternalError")], ids=["reply-lost", "500"])
@pytest.mark.parametrize("which", [*REGISTER_MOVES, "the marker"])
async def test_500_after_apply_or_a_lost_reply_is_reported_as_committed(
    which: str, action: Action, source: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    # twice, since the HTTP client repeats by itself what was lost on a connection that it had used before
    proxy.rules.append(Rule(match=ALL_WRITES[which], action=action, times=2))
    await put(source, url, options)
    assert proxy.rules[0].times != 2
    assert_committed(truth())


async def test_a_data_object_whose_reply_is_lost_is_discarded_with_its_attempt(
    source: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    proxy.rules.append(Rule(match=creates("data"), action=answer_after(500, "InternalError")))
    with pytest.raises(CommitError, match="was not committed"):
        await put(source, url, options)
    assert proxy.rules[0].times == 0
    assert truth() == {}
    await put(source, url, options)
    assert_committed(truth())


@pytest.mark.parametrize("status", [409, 503])
@pytest.mark.parametrize("which", REGISTER_MOVES)
async def test_409_treated_as_exists_and_503_without_applying_are_tried_again(
    which: str, status: int, source: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    proxy.rules.append(Rule(match=ALL_WRITES[which], action=refuse(status, "ConditionalRequestConflict")))
    await put(source, url, options)
    assert proxy.count(ALL_WRITES[which]) == 2
    assert_committed(truth())


@pytest.mark.parametrize("status", [409, 412, 503])
async def test_a_commit_the_store_never_takes_is_withdrawn(
    status: int, source: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    proxy.rules.append(Rule(match=swaps_to("committed"), action=refuse(status, "No"), times=None))
    with pytest.raises(CommitError, match="was not committed") as caught:
        await put(source, url, options)
    assert type(caught.value) is CommitError
    assert proxy.count(swaps_to("discarded")) >= 1
    assert truth() == {}
    assert not await aio.is_committed(url, storage_options=options)
    proxy.rules.clear()
    await put(source, url, options)
    assert_committed(truth())


@pytest.mark.parametrize("applied", [True, False])
async def test_a_store_that_falls_silent_at_the_commit_leaves_the_outcome_unknown_and_nothing_cleaned_up(
    applied: bool, source: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    silent = threading.Event()

    def fall_silent(request: Request, send: Any) -> None:
        silent.set()
        if applied:
            send(request)

    proxy.rules.append(Rule(match=swaps_to("committed"), action=fall_silent))
    proxy.rules.append(Rule(match=lambda request: silent.is_set(), action=drop_request, times=None))
    with pytest.raises(OutcomeUnknownError):
        await put(source, url, options)
    objects = truth()
    assert decoded(objects.pop(f"run/step_1/{RECORD}")).state == ("committed" if applied else "writing")
    assert objects == DATA
    proxy.rules.clear()
    assert await aio.is_committed(url, storage_options=options) is applied
    if applied:
        with pytest.raises(AlreadyCommittedError):
            await put(source, url, options)
    else:
        await put(source, url, options)  # its own process knows that the attempt is over
        assert_committed(truth())


async def test_a_commit_that_is_seen_only_when_it_is_withdrawn_is_reported_as_committed(
    source: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    proxy.rules.append(Rule(match=swaps_to("committed"), action=answer_after(500, "InternalError")))
    proxy.rules.append(Rule(match=swaps_to("committed"), action=refuse(503, "SlowDown"), times=None))
    proxy.rules.append(Rule(match=is_("GET", RECORD), action=refuse(503, "SlowDown"), times=4))
    await put(source, url, options)
    assert proxy.count(swaps_to("discarded")) == 1
    assert_committed(truth())


async def test_a_commit_that_cannot_be_read_back_when_it_is_withdrawn_is_not_denied(
    source: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    reads: list[Request] = []

    def only_the_fifth(request: Request, send: Any) -> Any:
        reads.append(request)
        return send(request) if len(reads) == 5 else refuse(503, "SlowDown")(request, send)

    proxy.rules.append(Rule(match=swaps_to("committed"), action=answer_after(500, "InternalError")))
    proxy.rules.append(Rule(match=swaps_to("committed"), action=refuse(503, "SlowDown"), times=None))
    proxy.rules.append(Rule(match=is_("GET", RECORD), action=only_the_fifth, times=None))
    with suppress(OutcomeUnknownError):  # as good an answer
        await put(source, url, options)
    proxy.rules.clear()
    assert len(reads) >= 5
    assert await aio.is_committed(url, storage_options=options)
    assert truth().items() >= DATA.items()


async def test_a_withdrawal_that_is_refused_does_not_deny_the_commit(
    source: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    proxy.rules.append(Rule(match=swaps_to("committed"), action=answer_after(500, "InternalError")))
    proxy.rules.append(Rule(match=swaps_to("committed"), action=refuse(503, "SlowDown"), times=None))
    proxy.rules.append(Rule(match=swaps_to("discarded"), action=refuse(403, "ExpiredToken"), times=None))
    proxy.rules.append(Rule(match=is_("GET", RECORD), action=refuse(503, "SlowDown"), times=None))
    with pytest.raises(OutcomeUnknownError):
        await put(source, url, options)
    proxy.rules.clear()
    assert await aio.is_committed(url, storage_options=options)
    assert truth().items() >= DATA.items()


async def test_a_marker_that_cannot_be_written_after_the_commit_is_a_warning(
    source: Path,
    url: str,
    options: dict[str, Any],
    proxy: Proxy,
    truth: Truth,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy.rules.append(Rule(match=is_("PUT", MARKER), action=refuse(503, "SlowDown"), times=None))
    with caplog.at_level(logging.WARNING, "atomicpath"):
        await put(source, url, options)
    assert [record.message for record in caplog.records if "marker could not be written" in record.message]
    assert await aio.is_committed(url, storage_options=options)
    assert f"run/step_1/{MARKER}" not in truth()


async def test_a_late_duplicate_put_into_another_attempt_is_named_and_not_touched(
    tmp_path: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth, quick: Quick
) -> None:
    when, done = threading.Event(), threading.Event()
    proxy.rules.append(Rule(match=creates("data"), action=duplicate(when, done)))
    first = attempt(url, options, environment=quick)
    await first.create()
    await first.add("data", written(tmp_path, "a", b"of the first"))
    await first.discard()
    assert truth() == {}
    second = attempt(url, options, environment=quick)
    await second.create()
    when.set()
    await anyio.to_thread.run_sync(done.wait)
    assert truth()["run/step_1/data"] == b"of the first"  # it is back
    with pytest.raises(ConflictError, match="data"):  # its owner is not in the chain: the second took nothing over
        await second.add("data", written(tmp_path, "b", b"of the second"))
    await second.discard()
    assert truth() == {"run/step_1/data": b"of the first"}


async def test_a_late_duplicate_put_before_the_next_attempt_is_named_and_not_touched(
    tmp_path: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth, quick: Quick
) -> None:
    when, done = threading.Event(), threading.Event()
    proxy.rules.append(Rule(match=creates("data"), action=duplicate(when, done)))
    first = attempt(url, options, environment=quick)
    await first.create()
    await first.add("data", written(tmp_path, "a", b"of the first"))
    await first.discard()
    when.set()
    await anyio.to_thread.run_sync(done.wait)
    with pytest.raises(ConflictError, match="data"):  # without a record nothing proves that it may be deleted
        await attempt(url, options, environment=quick).create()
    assert truth() == {"run/step_1/data": b"of the first"}


async def test_credentials_expire_between_data_and_record(
    source: Path, url: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    expired = threading.Event()

    def expire(request: Request, send: Any) -> Any:
        expired.set()
        return refuse(403, "ExpiredToken")(request, send)

    proxy.rules.append(Rule(match=swaps_to("committed"), action=expire))
    proxy.rules.append(Rule(match=lambda _: expired.is_set(), action=refuse(403, "ExpiredToken"), times=None))
    with pytest.raises(CommitError, match="was not committed") as caught:
        await put(source, url, options)
    assert not isinstance(caught.value, OutcomeUnknownError)
    proxy.rules.clear()
    assert not await aio.is_committed(url, storage_options=options)
    await put(source, url, options)  # over the remains, at once
    assert_committed(truth())


async def test_credentials_that_expire_before_the_clients_own_retry_leave_the_outcome_unknown(
    source: Path, url: str, retrying: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    expired = threading.Event()

    def expire(request: Request, send: Any) -> Any:
        expired.set()
        return answer_after(500, "InternalError")(request, send)

    proxy.rules.append(Rule(match=swaps_to("committed"), action=expire))
    proxy.rules.append(Rule(match=lambda _: expired.is_set(), action=refuse(403, "ExpiredToken"), times=None))
    with pytest.raises(OutcomeUnknownError):  # "not committed" would be wrong
        await put(source, url, retrying)
    proxy.rules.clear()
    assert await aio.is_committed(url, storage_options=retrying)
    assert truth().items() >= DATA.items()


# S3: what the store does not do


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    size = 5 * 2**20  # the least that a part but the last may have
    monkeypatch.setattr(atomicpath_s3.multipart, "PART", size)
    monkeypatch.setattr(atomicpath_s3.storage, "PART", size)
    monkeypatch.setattr(atomicpath_s3.storage.S3Storage, "largest_single", size)
    return size


@pytest.mark.parametrize("own_retry", [True, False])
async def test_multipart_complete_reply_lost(
    own_retry: bool,
    small_parts: int,
    source: Path,
    url: str,
    options: dict[str, Any],
    retrying: dict[str, Any],
    proxy: Proxy,
    truth: Truth,
) -> None:
    big = b"0123456789abcdef" * (small_parts // 16) + b"the end"
    (source / "data").write_bytes(big)
    proxy.rules.append(Rule(match=is_("POST", "data", uploadId=""), action=drop_reply))
    await put(source, url, retrying if own_retry else options, guarantees=Guarantee.EXCLUSIVE_MULTIPART)
    assert proxy.rules[0].times == 0
    assert truth()["run/step_1/data"] == big
    assert (await aio.verify(url, storage_options=options)).ok


async def test_conditional_header_ignored_by_store(
    source: Path, bucket: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    proxy.rules.append(Rule(match=anything, action=ignore_conditions, times=None))
    with pytest.raises(GuaranteeError, match="EXCLUSIVE_CREATE, which was refuted"):
        await put(source, f"s3://{bucket}/run/step_1", options)
    assert truth() == {}


async def test_multipart_complete_ignores_condition(
    source: Path, bucket: str, options: dict[str, Any], proxy: Proxy, truth: Truth
) -> None:
    completes = is_("POST", uploadId="")
    proxy.rules.append(Rule(match=completes, action=ignore_conditions, times=None))
    await put(source, f"s3://{bucket}/run/step_1", options)
    assert_committed(truth())
    assert proxy.count(completes) == 0  # nobody asked for it yet
    big = b"0123456789abcdef" * (17 * 2**16) + b"the end"
    (source / "data").write_bytes(big)
    await put(source, f"s3://{bucket}/run/step_2", options)
    assert truth()["run/step_2/data"] == big
    assert proxy.count(completes) == 0  # nor would an answer have helped: no race that goes well proves anything
    await put(source, f"s3://{bucket}/run/step_3", options, guarantees=Guarantee.EXCLUSIVE_MULTIPART)
    assert proxy.count(completes) > 0  # what is asserted is put to the test,
    assert not [r for r in proxy.requests if r.path.endswith("/data") and "uploads" in r.query]  # and was refuted
    assert truth()["run/step_3/data"] == big
    profile = await aio.profile(f"s3://{bucket}/run/step_2", storage_options=options)
    assert Guarantee.EXCLUSIVE_MULTIPART in profile.refuted
    assert Guarantee.EXCLUSIVE_CREATE in profile.effective


# memory: every step fails, in both ways, and in any combination


async def told(environment: Quick, source: Path, memory: dict[str, Any]) -> str:
    """How one commit ended, after checking that it is what is so."""
    url = "memory://run/step_1"
    writer = attempt(url, environment=environment)
    outcome = "committed"
    try:
        await writer.create()
        await writer.add("data", source / "data")
        await writer.add("sub/more", source / "sub" / "more")
        await writer.finalize()
    except OutcomeUnknownError:
        outcome = "unknown"
    except CommitError:
        outcome = "not committed"
    except (OSError, AtomicPathError):  # of `add`, which leaves it to the caller to give up
        outcome = "not committed"
        await writer.discard()
    files = files_below(memory, "/run/step_1")
    really = RECORD in files and decoded(files[RECORD]).state == "committed"
    if outcome != "unknown":
        assert really == (outcome == "committed")
    if really or outcome == "unknown":
        assert {"data": b"the data", "sub/more": b"more of it"}.items() <= files.items()
    following = attempt(url, environment=Quick())
    if really:
        with pytest.raises(AlreadyCommittedError):
            await following.create()
    else:
        await following.create()  # at once, whatever was left
        await following.add("data", source / "data")
        await following.finalize()
        assert set(files_below(memory, "/run/step_1")) == {RECORD, MARKER, "data"}
    memory.clear()
    return outcome


@pytest.mark.parametrize("fate", ["refused", "lost"])
async def test_every_single_failure_is_survived_or_reported_as_it_is(
    fate: str, source: Path, memory: dict[str, Any]
) -> None:
    counting = Failing(lambda _: "")
    assert await told(counting, source, memory) == "committed"
    outcomes = [
        await told(Failing(lambda step, bad=bad: fate if step == bad else ""), source, memory)  # type: ignore[misc]
        for bad in range(counting.steps)
    ]
    assert "unknown" not in outcomes  # one failure is always settled
    assert "committed" in outcomes


@pytest.mark.parametrize("fate", ["refused", "lost"])
async def test_every_outage_that_does_not_end_is_reported_as_it_is(
    fate: str, source: Path, memory: dict[str, Any]
) -> None:
    counting = Failing(lambda _: "")
    await told(counting, source, memory)
    outcomes = [
        await told(Failing(lambda step, first=first: fate if step >= first else ""), source, memory)  # type: ignore[misc]
        for first in range(counting.steps)
    ]
    # once the commit may have been sent, and until it was answered, nobody can know
    assert [outcome for outcome in outcomes if outcome == "unknown"] == ["unknown"]


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    calm=st.integers(0, 12),
    fates=st.lists(st.sampled_from(["", "refused", "lost"]), max_size=40),
    # the store's moods, since after a commit without an answer only runs of failures lead far
    runs=st.lists(st.tuples(st.sampled_from(["", "refused", "lost"]), st.integers(1, 9)), max_size=6),
)
def test_any_pattern_of_failures_is_reported_as_it_is(
    calm: int, fates: list[str], runs: list[tuple[str, int]], source: Path, memory: dict[str, Any]
) -> None:
    plan = [""] * calm + [fate for fate, times in runs for _ in range(times)] + fates
    environment = Failing(lambda step: plan[step] if step < len(plan) else "")
    anyio.run(told, environment, source, memory)
