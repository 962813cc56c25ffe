"""docs/command-line.md says what the program prints, which exit codes it has, and what its JSON looks like."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atomicpath import errors
from atomicpath.cli import exits
from atomicpath.cli.exits import ExitCode
from tests.cli import page

TEXT = page.PAGE.read_text(encoding="utf-8")


def test_the_program_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = page.sessions(TEXT)
    assert len(shown) > 5
    for session in shown:
        assert page.stable(page.transcript(session)) == page.stable(session)


def test_the_page_has_the_exit_codes_that_there_are() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| (`[\w`, ]+) \|", TEXT, re.MULTILINE)
    told = {
        name.strip("`"): int(code)
        for codes, names in rows
        for code, name in zip(codes.split(", "), names.split(", "), strict=True)
    }
    assert told == {code.name: code.value for code in ExitCode}


def test_every_error_of_the_library_has_an_exit_code_of_its_own_choice() -> None:
    assert set(exits._BY_ERROR) == set(errors.__all__)
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert exits.code_of(kind("as the test asked")) is exits._BY_ERROR[name][0], name
    assert exits.code_of(ValueError("not ours")) is None


def test_an_error_of_a_storage_has_its_code_whatever_else_it_is() -> None:
    class Broken(errors.StorageError, BrokenPipeError):
        """As the library makes them: an instance of the builtin class that says why, too."""

    assert exits.code_of(Broken("as the test asked")) is ExitCode.TRY_AGAIN


@pytest.mark.parametrize(
    ("url", "parent"),
    [
        ("runs/step_1", "runs"),
        ("step_1", "."),
        ("/step_1", "/"),
        ("/a/b/", "/a"),
        ("s3://bucket/run/step_1", "s3://bucket/run"),
        ("s3://bucket/step_1", "s3://bucket"),
        ("s3://bucket", "s3://bucket"),
    ],
)
def test_the_directory_a_place_is_in(url: str, parent: str) -> None:
    assert exits.parent_of(url) == parent
