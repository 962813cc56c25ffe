"""Pure values: records, names on storage, profiles and what follows from them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import atomicpath
from atomicpath import Guarantee, IntegrityError, Profile, ValidationError
from atomicpath._commit.selection import STRATEGIES
from atomicpath._core.layout import check_file_name, final_of, is_temporary, is_unfinished, temporary_of
from atomicpath._core.record import (
    CommitRecord,
    DecidedBy,
    FileEntry,
    Lease,
    State,
    Writer,
    check_metadata,
    fingerprint,
    marker_of,
    token_in_marker,
)
from atomicpath._core.step_order import step_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
parts = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda part: part not in (".", "..")
)
names = (
    st.lists(parts, min_size=1, max_size=4)
    .map("/".join)
    .filter(
        lambda name: not name.startswith(("commit_", "_commit_")) and not is_unfinished(name)
    )  # Hypothesis reads constants
)
entries = st.builds(
    FileEntry, name=names, size=st.integers(0), etag=st.none() | st.text(), sha256=st.none() | st.text()
)
known = {*CommitRecord.__slots__, "format"}
records = st.builds(
    CommitRecord,
    state=st.sampled_from(State),
    token=st.text(),
    strategy=st.text(),
    started=st.integers(),
    committed=st.none() | st.integers(),
    decided_by=st.sampled_from(DecidedBy),
    direct=st.booleans(),
    lease=st.builds(Lease, seconds=st.floats(0, allow_infinity=False, allow_nan=False), renewals=st.integers()),
    writer=st.builds(
        Writer,
        host=st.text(),
        pid=st.integers(),
        boot=st.text(),
        namespace=st.text(),
        start=st.none() | st.integers(),
    ),
    place=st.text(),
    files=st.lists(entries, max_size=4, unique_by=lambda entry: entry.name).map(tuple),
    metadata=st.dictionaries(st.text(), json_values, max_size=3),
    unknown=st.dictionaries(st.text().filter(lambda key: key not in known), json_values, max_size=3),
)
guarantees = st.integers(0, (~Guarantee(0)).value).map(Guarantee)


@given(records)
def test_a_record_is_read_back_as_it_was_written(record: CommitRecord) -> None:
    data = record.encode()
    assert CommitRecord.decode(data, where="here") == record
    assert data.isascii()
    assert data.endswith(b"\n")
    json.loads(data, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


@given(st.binary())
def test_any_bytes_are_a_record_or_an_integrity_error(data: bytes) -> None:
    _decode(data)


@given(json_values)
def test_any_json_is_a_record_or_an_integrity_error(value: Any) -> None:
    _decode(json.dumps(value).encode())


@given(records, st.data())
@settings(max_examples=300)
def test_a_record_with_anything_in_one_field_is_one_or_an_integrity_error(record: CommitRecord, data: Any) -> None:
    document: Any = json.loads(record.encode())
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        odd = st.just(float("nan")) | st.just(float("inf")) | st.just(10**400) | st.just("\ud800")
        place[key] = data.draw(json_values | odd)
        break
    _decode(json.dumps(document).encode())


@given(records, st.integers(0))
def test_a_truncated_record_is_an_integrity_error(record: CommitRecord, length: int) -> None:
    data = record.encode()
    with pytest.raises(IntegrityError, match="here"):
        CommitRecord.decode(data[: length % (len(data) - 2)], where="here")


@pytest.mark.parametrize("depth", [100, 10_000, 1_000_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_deeply_nested_record_is_an_integrity_error(depth: int, opening: str) -> None:
    with pytest.raises(IntegrityError, match="here"):
        CommitRecord.decode(opening.encode() * depth, where="here")


def _decode(data: bytes) -> None:
    try:
        CommitRecord.decode(data, where="here")
    except IntegrityError as error:
        assert "here" in str(error)


@pytest.mark.parametrize("newer", [2, 3, 10**30])
def test_a_newer_format_says_to_upgrade(newer: int) -> None:
    record = CommitRecord(state=State.COMMITTED, token="t", strategy="s", started=1)
    document = {**json.loads(record.encode()), "format": newer}
    with pytest.raises(IntegrityError, match="pip install -U atomicpath"):
        CommitRecord.decode(json.dumps(document).encode(), where="here")


def test_what_later_versions_leave_out_has_a_default() -> None:
    least = {"format": 1, "state": "writing", "token": "t", "strategy": "s", "started": 5}
    record = CommitRecord.decode(json.dumps(least).encode(), where="here")
    expected = CommitRecord(state=State.WRITING, token="t", strategy="s", started=5, marker="commit_success.txt")
    assert record == expected, "records that do not name their marker are of a version that always wrote that one"
    for name in least:
        with pytest.raises(IntegrityError, match=name):
            CommitRecord.decode(json.dumps({k: v for k, v in least.items() if k != name}).encode(), where="here")


@given(records)
def test_moving_to_another_state_changes_nothing_else(record: CommitRecord) -> None:
    assert record.moved_to(State.DISCARDED) == replace(record, state=State.DISCARDED)


@given(st.text())
def test_our_marker_names_its_token(token: str) -> None:
    assert token_in_marker(marker_of(token)) == token


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_other_marker_is_taken_for_ours(data: bytes) -> None:
    assert token_in_marker(data) is None


def test_a_fingerprint_is_equal_for_equal_places_and_tells_nothing_else() -> None:
    place = "s3://bucket/run/step_1 at http://host"
    assert fingerprint("a", place) == fingerprint("a", place)
    assert len({fingerprint(token, where) for token in "ab" for where in (place, f"{place}0")}) == 4
    assert "bucket" not in fingerprint("a", place)


@given(st.dictionaries(st.text(), json_values))
def test_metadata_is_kept_as_it_will_be_read_back(metadata: dict[str, Any]) -> None:
    assert check_metadata(metadata) == metadata


# names

segments = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
finals = (
    st.lists(segments, min_size=1, max_size=4).map("/".join).filter(lambda path: atomicpath.TMP_DIR_SUFFIX not in path)
)
tokens = st.text("0123456789abcdef", min_size=1)


def is_cut(final: str) -> bool:
    """Tell whether a final name is too long for a temporary name to repeat it: it then does not come back."""
    name = final.rpartition("/")[2]
    return f"/{name}{atomicpath.TMP_DIR_SUFFIX}" not in temporary_of(final, "0")


@given(finals.filter(lambda path: not is_cut(path)), tokens, st.sampled_from(["", "/"]))
def test_the_final_path_comes_back_from_the_temporary_one(final: str, token: str, root: str) -> None:
    temporary = temporary_of(root + final, token)
    assert final_of(temporary) == root + final
    assert temporary.rpartition("/")[0].rpartition("/")[2] == ".atomicpath"
    assert is_temporary(temporary)
    assert is_temporary(f"{temporary}/below")
    assert final_of(f"{temporary}.discarded") == root + final


@given(finals.filter(lambda path: ".atomicpath" not in path))
def test_a_name_without_the_suffix_is_not_a_temporary_one(final: str) -> None:
    assert not is_temporary(final)
    with pytest.raises(ValidationError):
        final_of(final)


@pytest.mark.parametrize("name", [".atomicpath-tmp-0123", "run/.atomicpath-tmp-0123", "", "/"])
def test_a_suffix_on_no_name_has_no_final_path(name: str) -> None:
    with pytest.raises(ValueError, match="not a temporary path"):
        final_of(name)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        *(("step_100", 100), ("checkpoint-100", 100), ("100", 100), ("0", 0), ("007", 7), ("step_00100", 100)),
        *(("global_step100", 100), ("global_step_100", 100), ("iter_0000100", 100), ("step_" + "9" * 40, 10**40 - 1)),
        *(("a1b2", None), ("v1.5", None), ("-3", None), ("step_100.tmp", None), ("best", None), ("", None)),
        *(("5a", None), ("step_٣", None), ("step_1\n", None), ("2024-04-30", None), ("exp-3f9a12", None)),
        *(("epoch_2_step_200_acc=0.5", None), ("checkpoint_2026-11-26_02-27-26.927483", None), ("step_-1", None)),
        *(("step100", None), ("epoch=3", None), ("run_2024-05", None), ("_5", None), ("step__5", None)),
    ],
)
def test_a_name_is_a_step_only_as_a_number_or_as_one_word_and_a_number(name: str, step: int | None) -> None:
    assert step_of(name) == step


@given(names)
def test_an_ordinary_relative_name_is_accepted_as_it_is(name: str) -> None:
    assert check_file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0b", "a\\b", "_commit_record.json"),
        *("commit_success.txt", "a" * 1025, "é" * 513, "a/" * 10_000 + "a"),
    ],
)
def test_a_name_that_leaves_the_directory_or_cannot_exist_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be the name of a file") as raised:
        check_file_name(name)
    assert len(str(raised.value)) < 300


# profiles and selection


def test_the_preferred_strategy_whose_needs_are_met_is_chosen_in_all_2048_profiles() -> None:
    members = list(Guarantee)
    assert len(members) == 11
    chosen = set()
    for bits in range(2 ** len(members)):
        profile = Profile(declared=Guarantee(bits))
        meets = [strategy for strategy in STRATEGIES if strategy.requires in profile.effective]
        if meets:
            assert atomicpath.select(profile) is meets[0]
            assert atomicpath.select(profile) is atomicpath.select(Profile(asserted=Guarantee(bits)))
            chosen.add(meets[0])
        else:
            with pytest.raises(atomicpath.GuaranteeError) as raised:
                atomicpath.select(profile)
            chosen.add(None)
            for strategy in STRATEGIES:
                (line,) = [line for line in str(raised.value).splitlines() if f"{strategy.__name__} needs" in line]
                for missing in strategy.requires & ~profile.effective:
                    assert str(missing.name) in line
    assert chosen == {*STRATEGIES, None}


@given(guarantees, guarantees, guarantees, guarantees)
@settings(max_examples=500)
def test_effective_is_what_was_declared_observed_or_asserted_and_not_refuted(
    declared: Guarantee, observed: Guarantee, asserted: Guarantee, refuted: Guarantee
) -> None:
    profile = Profile(declared=declared, observed=observed, asserted=asserted, refuted=refuted)
    for member in Guarantee:
        expected = any(member in known for known in (declared, observed, asserted)) and member not in refuted
        assert (member in profile.effective) is expected
        assert (member in profile.missing(~Guarantee(0))) is not expected
    assert not profile.effective & refuted
    try:
        chosen = atomicpath.select(profile)
    except atomicpath.GuaranteeError as error:
        advice = str(error)
        if "guarantees=" in advice:  # following it must help
            named = [
                m for m in Guarantee if f"Guarantee.{m.name}" in advice.rpartition("guarantees=")[2].replace(".\n", " ")
            ]
            asserted_too = asserted
            for member in named:
                asserted_too |= member
            atomicpath.select(replace(profile, asserted=asserted_too))
    else:
        assert not chosen.requires & refuted
        assert chosen.requires in profile.effective


def test_the_strategies_need_what_the_design_says() -> None:
    assert atomicpath.AtomicRenameTemporaryPath.requires == Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE
    assert (
        atomicpath.CommitFileTemporaryPath.requires
        == Guarantee.EXCLUSIVE_CREATE | Guarantee.ATOMIC_WRITE | Guarantee.LIST_AFTER_WRITE
    )
    assert (atomicpath.AtomicRenameTemporaryPath, atomicpath.CommitFileTemporaryPath) == STRATEGIES
