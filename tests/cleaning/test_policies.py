"""The rules of retention against a simple model, and what `retain` does with them on real places."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import atomicpath
from atomicpath._cleaning.policies import Candidate, Rules, decide
from tests.cleaning.leftovers import commit, killed, options_of, rewrite
from tests.support.roots import LocalRoot, MemoryRoot, Root

SECOND = 10**9
HOUR = 3600 * SECOND

values = st.none() | st.just(math.nan) | st.integers(-3, 3).map(float)
flags = st.booleans()
some = st.none() | st.integers(1, 6)


@st.composite
def series(draw: st.DrawFn) -> list[Candidate]:
    """Commits of one series, oldest first by step, whose times need not be in that order."""
    count = draw(st.integers(1, 12))
    steps = sorted(draw(st.lists(st.integers(0, 40), min_size=count, max_size=count)))
    return [
        Candidate(
            name=f"{number}",
            step=draw(st.just(step) | st.none()),
            time=draw(st.none() | st.integers(0, 20).map(lambda seconds: seconds * SECOND)),
            metric=draw(values),
            is_wanted=draw(flags),
            is_pinned=draw(flags),
            is_alias_target=draw(flags),
            is_last_committed=draw(flags),
            is_temporary=draw(flags),
        )
        for number, step in enumerate(steps)
    ]


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    best = draw(some)
    spans = st.none() | st.integers(1, 9).map(lambda seconds: timedelta(seconds=seconds))
    return Rules(
        keep_last=draw(some),
        keep_every_n_steps=draw(some),
        keep_every=draw(spans),
        keep_within=draw(spans),
        keep_best=best,
        metric=None if best is None else "loss",
        mode=draw(st.sampled_from(["min", "max"])),
        by_function=draw(flags),
    )


def model(all_of_them: list[Candidate], wanted: Rules) -> set[str]:
    """The names that stay, written down once more, as plainly as can be."""
    lasting = [one for one in all_of_them if not one.is_temporary]
    stay = {all_of_them[-1].name}
    stay |= {one.name for one in lasting[-1:]}
    stay |= {one.name for one in all_of_them if one.is_pinned or one.is_alias_target or one.is_last_committed}
    if wanted.is_empty:
        return stay | {one.name for one in lasting}
    stay |= {one.name for one in lasting if one.is_wanted}
    for number, one in enumerate(lasting):
        if wanted.keep_last and len(lasting) - number <= wanted.keep_last:
            stay.add(one.name)
        if wanted.keep_every_n_steps and one.step is not None and one.step % wanted.keep_every_n_steps == 0:
            stay.add(one.name)
        if wanted.keep_within and one.time is not None:
            newest = max(other.time for other in lasting if other.time is not None)
            if one.time >= newest - wanted.keep_within.total_seconds() * SECOND:
                stay.add(one.name)
        if wanted.keep_best and one.metric is not None and one.metric == one.metric:
            sign = 1 if wanted.mode == "min" else -1
            better = [
                other
                for place, other in enumerate(lasting)
                if other.metric is not None
                and (sign * other.metric < sign * one.metric or (other.metric == one.metric and place > number))
            ]
            if len(better) < wanted.keep_best:
                stay.add(one.name)
    if wanted.keep_every:
        times = sorted({one.time for one in lasting if one.time is not None})
        last = -math.inf
        for time in times:
            if time - last >= wanted.keep_every.total_seconds() * SECOND:
                last = time
                stay.add(next(one.name for one in lasting if one.time == time))
    return stay


@given(series(), rules())
def test_the_rules_keep_what_the_model_keeps(all_of_them: list[Candidate], wanted: Rules) -> None:
    lasting = [one for one in all_of_them if not one.is_temporary]
    if wanted.keep_best and lasting and all(one.metric is None for one in lasting):
        with pytest.raises(atomicpath.ValidationError, match="no commit has the metric"):
            decide(all_of_them, wanted)
        return
    decided = decide(all_of_them, wanted)
    assert [one.name for one in decided] == [one.name for one in all_of_them]
    assert {one.name for one in decided if one.kept} == model(all_of_them, wanted)
    assert all(one.reason for one in decided)


@given(series(), rules())
def test_never_the_newest_nor_a_target_of_an_alias_nor_what_is_protected(
    all_of_them: list[Candidate], wanted: Rules
) -> None:
    try:
        kept = {one.name for one in decide(all_of_them, wanted) if one.kept}
    except atomicpath.ValidationError:
        return
    assert all_of_them[-1].name in kept
    assert {one.name for one in all_of_them if one.is_alias_target or one.is_pinned or one.is_last_committed} <= kept


@given(series(), rules())
def test_what_was_kept_once_is_kept_when_nothing_new_has_come(all_of_them: list[Candidate], wanted: Rules) -> None:
    try:
        kept = {one.name for one in decide(all_of_them, wanted) if one.kept}
        left = [one for one in all_of_them if one.name in kept]
        again = decide(left, wanted)
    except atomicpath.ValidationError:
        return
    assert all(one.kept for one in again)


def named(count: int, **fields: Any) -> list[Candidate]:
    return [Candidate(name=f"step_{n}", step=n, time=n * HOUR, **fields) for n in range(count)]


def kept(candidates: list[Candidate], **wanted: Any) -> list[str]:
    return [one.name for one in decide(candidates, Rules(**wanted)) if one.kept]


def test_retention_keeps_nothing_when_all_are_old() -> None:
    """It does not: an age counts from the newest commit, and no clock is asked."""
    assert kept(named(5), keep_within=timedelta(hours=1)) == ["step_3", "step_4"]
    assert kept(named(5), keep_within=timedelta(microseconds=1)) == ["step_4"]


def test_those_without_the_metric_are_told_that_they_do_not_count() -> None:
    candidates = [
        Candidate(name="good", metric=0.1),
        Candidate(name="none"),
        Candidate(name="nan", metric=math.nan),
        Candidate(name="worse", metric=0.2),
        Candidate(name="newest", metric=0.3),
    ]
    decided = {one.name: one for one in decide(candidates, Rules(keep_best=1, metric="loss"))}
    assert [name for name, one in decided.items() if one.kept] == ["good", "newest"]
    assert decided["good"].reason == "it is one of the best 1 by loss (0.1)"
    assert (
        decided["none"].reason == "no rule keeps it; it has no metric 'loss', and so it is not counted among the best"
    )
    assert decided["nan"].reason == "no rule keeps it; its loss is NaN, and so it is not counted among the best"
    assert decided["worse"].reason == "no rule keeps it"


def test_a_temporary_commit_is_neither_counted_nor_kept_once_it_is_superseded() -> None:
    candidates = [*named(3), Candidate(name="now", step=3, time=3 * HOUR, is_temporary=True, is_wanted=True)]
    assert kept(candidates, keep_last=2) == ["step_1", "step_2", "now"]
    later = Candidate(name="later", step=4, time=4 * HOUR)
    assert kept([*candidates, later], keep_last=2) == ["step_2", "later"]
    assert kept([*candidates, later]) == ["step_0", "step_1", "step_2", "later"], "without a rule, too"


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in ("keep_last", "keep_every_n_steps") for value in (0, -1, True, 1.5, "3")),
        *({name: value} for name in ("keep_every", "keep_within") for value in (3600, timedelta(0), timedelta(-1))),
        {"keep_best": 0, "metric": "loss"},
        {"keep_best": 3},
        {"metric": "loss"},
        {"keep_best": 3, "metric": 7},
        {"keep_best": 3, "metric": "loss", "mode": "least"},
        {"keep": True},
        {"keep_last": 1, "protect": "step_1"},
        {},
        {"protect": ["step_1"]},
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(wrong: dict[str, Any], memory_place: MemoryRoot) -> None:
    commit(memory_place, "step_1")
    commit(memory_place, "step_2")
    with pytest.raises(atomicpath.ValidationError):
        atomicpath.retain(memory_place.url, **wrong)
    assert len(atomicpath.committed(memory_place.url)) == 2


# on places


def retain(place: Root, **wanted: Any) -> dict[str, bool]:
    return {one.commit.name: one.kept for one in atomicpath.retain(place.url, **options_of(place), **wanted)}


def names(place: Root) -> list[str]:
    return [one.name for one in atomicpath.committed(place.url, **options_of(place))]


@pytest.mark.parametrize("place", ["local", "moto"], indirect=True)
def test_each_directory_is_named_with_its_reason_and_a_dry_run_changes_nothing(place: Root) -> None:
    for step, loss in ((10, 0.5), (20, 0.1), (25, 0.4), (30, 0.3), (40, 0.2)):
        commit(place, f"step_{step}", metadata={"metrics": {"loss": loss}})
    wanted: dict[str, Any] = {"keep_last": 1, "keep_best": 1, "metric": "loss", "keep_every_n_steps": 30}
    told = atomicpath.retain(place.url, dry_run=True, protect=["step_10"], **options_of(place), **wanted)
    assert [str(one) for one in told] == [
        "step_10: kept; it is protected",
        "step_20: kept; it is one of the best 1 by loss (0.1)",
        "step_25: removed; no rule keeps it",
        "step_30: kept; its step is a multiple of 30",
        "step_40: kept; it is the newest; it is one of the newest 1",
    ]
    assert len(names(place)) == 5
    assert retain(place, protect=["step_10"], **wanted) == {one.commit.name: one.kept for one in told}
    assert names(place) == ["step_10", "step_20", "step_30", "step_40"]
    assert retain(place, keep=lambda one: one.step == 20) == {
        "step_10": False,
        "step_20": True,
        "step_30": False,
        "step_40": True,
    }
    assert names(place) == ["step_20", "step_40"]


def test_retention_counts_dead_saves(local_place: LocalRoot) -> None:
    """It does not: two saves that died are neither counted nor does a complete one go for them."""
    for step in (1, 2):
        commit(local_place, f"step_{step}")
    for step in (3, 4):
        killed(local_place, f"step_{step}")
    assert retain(local_place, keep_last=2) == {"step_1": True, "step_2": True}


def test_a_metric_that_no_commit_has_removes_nothing(memory_place: MemoryRoot) -> None:
    for step in range(3):
        commit(memory_place, f"step_{step}", metadata={"metrics": {"loss": 1.0}})
    with pytest.raises(atomicpath.ValidationError, match="no commit has the metric 'los'"):
        retain(memory_place, keep_best=1, metric="los")
    assert len(names(memory_place)) == 3


def fails(commit: atomicpath.Commit) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "wanted",
    [
        {"keep": fails},
        {"keep": lambda commit: None},
        {"keep": lambda commit: 1},
        {"metric": fails, "keep_best": 1},
        {"metric": lambda commit: "low", "keep_best": 1},
    ],
)
def test_a_function_that_fails_or_gives_no_answer_removes_nothing(
    wanted: dict[str, Any], memory_place: MemoryRoot
) -> None:
    for step in range(3):
        commit(memory_place, f"step_{step}")
    with pytest.raises(atomicpath.ValidationError, match=r"keep=|metric="):
        retain(memory_place, **wanted)
    assert len(names(memory_place)) == 3


def test_a_number_in_the_metadata_itself_is_a_metric_and_what_is_no_number_is_none(memory_place: MemoryRoot) -> None:
    noted: list[Any] = [0.5, "low", True, "NaN", 10**400, {"loss": 1}, 0.7]
    for step, value in enumerate(noted):
        commit(memory_place, f"step_{step}", metadata={"loss": value})
    assert [name for name, stays in retain(memory_place, keep_best=1, metric="loss").items() if stays] == [
        "step_0",
        "step_6",
    ]


def test_what_was_committed_last_stays_though_its_step_is_lower(local_place: LocalRoot) -> None:
    for name in ("step_500", "step_700", "step_100"):
        commit(local_place, name)
    assert retain(local_place, keep_last=1, protect=["step_100"])["step_100"]
    commit(local_place, "step_100x")  # no step: no part of the series
    with pytest.raises(atomicpath.ValidationError, match="rolled back"):
        commit(local_place, "step_90")
        retain(local_place, keep_every_n_steps=1000)
    assert len(names(local_place)) == 4


def test_one_for_each_hour_stays_by_the_times_of_the_commits(local_place: LocalRoot) -> None:
    for number in range(6):
        commit(local_place, f"step_{number}")
        rewrite(
            local_place,
            f"step_{number}/_commit_record.json",
            committed=10 * HOUR + number * HOUR // 2,
            boot_clock=number,
        )
    assert retain(local_place, keep_every=timedelta(hours=1), dry_run=True) == {
        "step_0": True,
        "step_1": False,
        "step_2": True,
        "step_3": False,
        "step_4": True,
        "step_5": True,
    }
    assert retain(local_place, keep_within=timedelta(hours=1)) == {f"step_{n}": n >= 3 for n in range(6)}
