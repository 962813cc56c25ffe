"""Each lying storage is caught by the checks, and by probes where it declares nothing: see docs/conformance.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import atomicpath
from atomicpath._profile.trials import TRIED
from atomicpath.abc import Backend
from atomicpath.errors import GuaranteeError
from atomicpath.guarantees import NONE, Guarantee
from atomicpath.testing import CHECKS, Factory, Verdict, conform, serving
from atomicpath.testing.lies import LIES, CopiesToRename, ExchangesInSteps, MergesOnRename, RenamesOntoEmpty
from atomicpath.testing.lying import FaultyStorage, Lying
from atomicpath_local import LocalBackend
from atomicpath_memory import MemoryBackend
from tests.support.roots import LocalRoot, MemoryRoot

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
ABOUT_DIRECTORIES = (CopiesToRename, MergesOnRename, RenamesOntoEmpty, ExchangesInSteps)

CAUGHT_BY = {
    "IgnoresConditions": {"what_exists_is_not_created_again", "of_many_creations_one_succeeds"},
    "ChecksThenWrites": {"of_many_creations_one_succeeds", "of_many_swaps_one_succeeds"},
    "RacesParts": {"of_many_uploads_in_parts_one_succeeds"},
    "RepeatsVersions": {"versions_tell_contents_apart"},
    "ListsLate": {"a_listing_shows_what_was_written", "a_listing_is_exact"},
    "TearsWrites": {"a_reader_sees_all_of_a_file_or_none"},
    "LosesReplies": {"a_free_name_is_never_said_to_be_taken"},
    "Reorders": {"what_was_acknowledged_is_stored"},
    "ForgetsDeletes": {"what_was_acknowledged_is_stored", "a_stale_version_deletes_nothing"},
    "ShortensDownloads": {"a_file_goes_up_and_comes_down_whole", "a_commit_is_there_whole"},
    "CopiesToRename": {"a_renamed_directory_is_seen_whole_or_not_at_all"},
    "MergesOnRename": {"a_rename_never_replaces", "of_many_renames_one_succeeds"},
    "RenamesOntoEmpty": {"a_rename_never_replaces"},
    "ExchangesInSteps": {"two_directories_swap_names_at_once"},
}
"""At least these; which others fail beside them may depend on who comes first."""

REFUSED = {"IgnoresConditions", "ChecksThenWrites", "ListsLate", "TearsWrites"}
"""Where no strategy is left once the probes have told what does not hold (or could not tell that it does)."""


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    """Local places, each a new one."""
    return lambda: LocalRoot(_new(tmp_path))


def _new(top: Path) -> Path:
    path = top / f"place-{len(list(top.iterdir()))}"
    path.mkdir()
    return path


def _ground(lie: type[FaultyStorage], local: Factory) -> tuple[Factory, Backend]:
    return (local, LocalBackend()) if lie in ABOUT_DIRECTORIES else (MemoryRoot, MemoryBackend())


def _name(lie: type[FaultyStorage]) -> str:
    return lie.__name__


def test_every_lie_has_its_line() -> None:
    assert list(CAUGHT_BY) == [lie.__name__ for lie in LIES]
    assert set().union(*CAUGHT_BY.values()) <= {check.name for check in CHECKS}


@pytest.mark.parametrize("lie", LIES, ids=_name)
def test_a_lie_is_caught_by_the_checks(lie: type[FaultyStorage], factory: Factory) -> None:
    make, honest = _ground(lie, factory)
    expected = CAUGHT_BY[lie.__name__]
    with serving(Lying(honest, lie)):
        findings = [check(make) for check in CHECKS if check.name in expected]
    assert {finding.check for finding in findings if finding.verdict is Verdict.FAILED} == expected, findings


@pytest.mark.full
@pytest.mark.parametrize("lie", LIES, ids=_name)
def test_the_report_on_a_liar_is_not_ok(lie: type[FaultyStorage], factory: Factory) -> None:
    make, honest = _ground(lie, factory)
    with serving(Lying(honest, lie)):
        report = conform(make)
    failed = {finding.check for finding in report.findings if finding.verdict is Verdict.FAILED}
    assert failed >= CAUGHT_BY[lie.__name__], str(report)
    assert not report.ok


@pytest.mark.parametrize("ground", ["memory", "local"])
def test_the_truth_is_not_caught(ground: str, factory: Factory) -> None:
    make, honest = (factory, LocalBackend()) if ground == "local" else (MemoryRoot, MemoryBackend())
    with serving(Lying(honest, FaultyStorage)):
        report = conform(make)
    assert report.ok, str(report)
    assert {finding.verdict for finding in report.findings} == {Verdict.PASSED, Verdict.SKIPPED}


@pytest.mark.parametrize("lie", LIES, ids=_name)
def test_a_probe_refutes_what_is_not_declared(lie: type[FaultyStorage], factory: Factory) -> None:
    make, honest = _ground(lie, factory)
    place = make()
    with serving(Lying(honest, lie, admits=True)):
        found = atomicpath.profile(place / "step_1")
        assert not found.effective & lie.about
        assert found.refuted & TRIED == found.refuted
        if lie.about & TRIED:
            assert found.refuted, f"a probe of {lie.about} found nothing: {found}"
        assert place.read_all() == {} or lie.__name__ == "ForgetsDeletes", "probes sweep what they wrote"
        if lie.__name__ in REFUSED:
            with pytest.raises(GuaranteeError), atomicpath.commit(place / "step_1"):
                pytest.fail("the block was entered")
            assert place.read_all() == {}
        else:
            assert atomicpath.explain(place / "step_1").strategy is not None


def _rows() -> Iterator[tuple[str, set[str], str]]:
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and (name := re.fullmatch(r"`(\w+)`", cells[0])):
            yield name[1], set(re.findall(r"`(\w+)`", cells[2])), cells[3]


def test_the_matrix_in_the_documentation_is_this_one() -> None:
    rows = list(_rows())
    assert {name: caught for name, caught, _ in rows} == CAUGHT_BY
    for name, _, probe in rows:
        lie = next(lie for lie in LIES if lie.__name__ == name)
        told = NONE
        for guarantee in Guarantee:
            if guarantee.name and f"`{guarantee.name}`" in probe:
                told |= guarantee
        assert told == lie.about & TRIED, name


def test_every_check_is_in_the_documentation() -> None:
    text = DOCUMENT.read_text()
    for check in CHECKS:
        assert f"`{check.name}`" in text, check.name
        assert check.meaning.rstrip(".") in text, check.meaning
