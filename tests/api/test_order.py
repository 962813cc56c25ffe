"""Which of several committed directories is the newest, and which of them retention may remove."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import atomicpath
from atomicpath._core.record import CommitRecord, State, Writer
from atomicpath._core.step_order import Order, moments
from tests.support.roots import LocalRoot

HOUR = 3_600 * 10**9


def commit(root: LocalRoot, *names: str, **options: Any) -> None:
    for name in names:
        with atomicpath.commit(root / name, durable=False, **options) as path:
            (path / "x").write_bytes(b"1")


def rewrite(root: LocalRoot, name: str, **changes: Any) -> None:
    """Change a record, past the protocol."""
    record = CommitRecord.decode((root.path / name / "_commit_record.json").read_bytes(), where="the test")
    (root.path / name / "_commit_record.json").write_bytes(replace(record, **changes).encode())


def names(commits: list[atomicpath.Commit]) -> list[str]:
    return [commit.name for commit in commits]


def newest(root: LocalRoot, **options: Any) -> str | None:
    found = atomicpath.latest(root.url, **options)
    assert found == (atomicpath.committed(root.url, **options) or [None])[-1], "the two agree"
    return found and found.name


def test_dates_are_in_the_order_of_their_commits(local: LocalRoot) -> None:
    commit(local, "2024-05-01", "2024-04-30")
    assert newest(local) == "2024-04-30", "committed last"
    assert names(atomicpath.keep_last(local.url, 1)) == ["2024-05-01"]


def test_the_step_in_the_metadata_counts_before_the_name(local: LocalRoot) -> None:
    for name, step in (("epoch_1_acc=0.7", 300), ("epoch_2_acc=0.5", 200), ("exp-3f9a12", 100)):
        commit(local, name, metadata={"step": step})
    assert [(found.name, found.step) for found in atomicpath.committed(local.url)] == [
        ("exp-3f9a12", 100),
        ("epoch_2_acc=0.5", 200),
        ("epoch_1_acc=0.7", 300),
    ]
    assert newest(local) == "epoch_1_acc=0.7"


def test_where_the_metadata_contradicts_the_names_latest_goes_by_the_metadata_too(local: LocalRoot) -> None:
    commit(local, "epoch_1", metadata={"step": 900})
    commit(local, "epoch_2", metadata={"step": 100})
    assert newest(local) == "epoch_1"


@pytest.mark.parametrize("noted", [True, "7", 7.5, None])
def test_what_is_no_integer_in_the_metadata_is_no_step(noted: Any, local: LocalRoot) -> None:
    commit(local, "step_3", metadata={"step": noted})
    assert [found.step for found in atomicpath.committed(local.url)] == [3]


def test_a_step_of_any_length_is_one(local: LocalRoot) -> None:
    commit(local, "step_" + "9" * 18, "step_1" + "0" * 18)
    assert newest(local) == "step_1" + "0" * 18


def test_series_are_told_apart_by_what_is_before_the_step(local: LocalRoot) -> None:
    commit(local, "checkpoint-500", "checkpoint-1000", "step_3", "step_20", "best")
    assert names(atomicpath.committed(local.url)) == ["best", "checkpoint-500", "checkpoint-1000", "step_3", "step_20"]
    assert newest(local) == "step_20", "of the series that was last committed to"
    assert newest(local, prefix="checkpoint-") == "checkpoint-1000"
    assert newest(local, prefix="nothing-") is None


def test_of_several_series_each_keeps_its_newest(local: LocalRoot) -> None:
    commit(local, "checkpoint-500", "checkpoint-1000", "step_3", "step_20", "best")
    assert names(atomicpath.keep_last(local.url, 1)) == ["checkpoint-500", "step_3"]
    assert newest(local) == "step_20"


def test_with_a_prefix_only_its_series_is_kept_short(local: LocalRoot) -> None:
    commit(local, "checkpoint-1", "checkpoint-2", "step_1", "step_2")
    assert names(atomicpath.keep_last(local.url, 1, prefix="step_")) == ["step_1"]


def test_what_follows_a_prefix_may_be_the_step(local: LocalRoot) -> None:
    commit(local, "epoch_2_step_9", "epoch_2_step_10", "epoch_1_step_99")
    assert newest(local, prefix="epoch_2_step_") == "epoch_2_step_10"


@pytest.mark.parametrize(
    "step",
    [
        r"step=(\d+)",
        re.compile(r"step=(\d+)"),
        lambda name: int(name.partition("step=")[2]) if "step=" in name else None,
    ],
)
def test_the_caller_s_own_rule_says_which_have_a_step(step: Any, local: LocalRoot) -> None:
    commit(local, "epoch=1-step=100", "epoch=2-step=20", "last", metadata={"step": 1})
    assert [(found.name, found.step) for found in atomicpath.committed(local.url, step=step)] == [
        ("epoch=2-step=20", 20),
        ("epoch=1-step=100", 100),
    ]
    assert newest(local, step=step) == "epoch=1-step=100"
    assert names(atomicpath.keep_last(local.url, 1, step=step)) == ["epoch=2-step=20"]


@pytest.mark.parametrize(
    "call", [atomicpath.latest, atomicpath.committed, lambda *a, **k: atomicpath.keep_last(*a, 1, **k)]
)
@pytest.mark.parametrize(
    "options",
    [
        {"step": r"(a)(\d+)"},
        {"step": r"\d+"},
        {"step": "("},
        {"step": re.compile(rb"(\d+)")},
        {"step": 7},
        {"step": lambda name: name},
        {"step": lambda name: True},
        {"step": lambda name: int(name)},
        {"step": r"step_(.*)"},
        {"prefix": 7},
        {"prefix": "a/b"},
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(
    call: Callable[..., object], options: dict[str, Any], local: LocalRoot
) -> None:
    commit(local, "step_1x")
    with pytest.raises(atomicpath.ValidationError, match=r"step=|prefix="):
        call(local.url, **options)
    assert local.names() == ["step_1x"]


# retention where orders disagree


def test_after_a_run_was_rolled_back_nothing_is_removed_and_the_error_says_what_to_pass(local: LocalRoot) -> None:
    commit(local, "checkpoint-500", "checkpoint-600", "checkpoint-700", "checkpoint-100")
    with pytest.raises(atomicpath.ValidationError, match="rolled back") as raised:
        atomicpath.keep_last(local.url, 3)
    for word in ("checkpoint-100", "checkpoint-500", "step=", "protect=", "prefix="):
        assert word in str(raised.value)
    assert len(local.names()) == 4
    assert atomicpath.keep_last(local.url, 4) == [], "where nothing goes there is nothing to refuse"
    assert atomicpath.keep_last(local.url, 3, protect=["checkpoint-100"]) == []
    assert names(atomicpath.keep_last(local.url, 3, step=r"checkpoint-(\d+)")) == ["checkpoint-100"], "he has said so"


def test_the_one_that_was_committed_last_stays_when_the_clock_is_set_back(local: LocalRoot) -> None:
    for number, name in enumerate(("a", "b", "c")):
        commit(local, name)
        rewrite(local, name, committed=10 * HOUR + number, boot_clock=number)
    rewrite(local, "c", committed=9 * HOUR)
    assert newest(local) == "c"
    assert names(atomicpath.keep_last(local.url, 1)) == ["a", "b"]


def test_where_clocks_leave_the_order_open_nothing_is_removed(local: LocalRoot) -> None:
    commit(local, "first", "second", "elsewhere")
    rewrite(local, "first", committed=10 * HOUR, boot_clock=1)
    rewrite(local, "second", committed=8 * HOUR, boot_clock=2)
    other = Writer(host="other", boot="another boot")
    rewrite(local, "elsewhere", committed=9 * HOUR, boot_clock=1, writer=other)
    with pytest.raises(atomicpath.ValidationError, match="clock was set"):
        atomicpath.keep_last(local.url, 1)
    assert len(local.names()) == 3
    assert names(atomicpath.keep_last(local.url, 2, protect=["elsewhere", "first"])) == []


def test_commits_of_one_boot_are_ordered_by_its_clock_whatever_the_wall_clock_says() -> None:
    def record(wall: int, boot: str, clock: int | None) -> CommitRecord:
        writer = Writer(boot=boot)
        return CommitRecord(
            state=State.COMMITTED, token="t", strategy="s", started=0, committed=wall, boot_clock=clock, writer=writer
        )

    records = {"a": record(10, "x", 1), "b": record(5, "x", 2), "c": record(7, "y", 1), "d": record(20, "", None)}
    believed, doubted = moments(records), moments(records, trust_later=True)
    assert sorted(records, key=believed.__getitem__) == ["c", "a", "b", "d"]
    assert sorted(records, key=doubted.__getitem__) == ["a", "b", "c", "d"]


def test_an_order_says_which_names_it_takes() -> None:
    assert Order.of(None, None).takes("anything")
    assert not Order.of(None, "step_").takes("checkpoint-1")
    assert not Order.of(r"step_(\d+)", None).takes("best")
