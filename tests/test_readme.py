"""The documents keep their word: their code runs, what they point at exists, and the reference is complete."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import atomicpath
from atomicpath import errors

TOP = Path(__file__).parents[1]
README = TOP / "README.md"
PAGES = sorted((TOP / "docs").glob("*.md"))
DOCUMENTS = [README, TOP / "CHANGELOG.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").rglob("*.md"))]
ELSEWHERE = {"writing-a-backend.md"}  # its code is compared with the plug-in it is taken from: tests/conformance
WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8") and page.name not in ELSEWHERE]


def run(document: Path) -> dict[str, Any]:
    """Run the code blocks of a document in their order, in one namespace, which is returned."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(document), "exec"), names)
    return names


@pytest.fixture(autouse=True)
def in_empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])


def test_the_code_of_the_readme_runs_and_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(README)
    assert "ATOMIC_RENAME" in capsys.readouterr().out
    save, restore = names["save"], names["restore"]
    assert restore("runs/model") is None
    save("runs/model", 7, {"weights": [1.0, 2.0]})
    step, state = restore("runs/model")
    assert (step, list(state["weights"])) == (7, [1.0, 2.0])


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_each_page_runs_and_its_assertions_hold(page: Path) -> None:
    run(page)
    assert list(Path().rglob("_commit_record.json")) or page.name == "where-it-works.md"  # which writes nothing


def test_the_quickstart_prints_what_was_committed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = run(TOP / "docs" / "quickstart.md")
    printed = capsys.readouterr().out
    assert "step_100 100 0.25\n['step_100']\nTrue\n" in printed
    assert "ATOMIC_RENAME" in printed
    assert (tmp_path / "fetched" / "step_100" / "config.json").read_text() == "{}"
    for backend in ("asyncio", "trio"):
        assert anyio.run(names["save"], backend=backend).step == 200
        atomicpath.remove("runs/step_200")


def test_a_snapshot_as_the_page_shows_it_takes_the_place_of_its_source(tmp_path: Path) -> None:
    names = run(TOP / "docs" / "replacing.md")
    anyio.run(names["add_notes"], tmp_path / "runs" / "best")
    assert (tmp_path / "runs" / "best" / "notes.txt").read_text() == "the best so far"
    assert atomicpath.verify(tmp_path / "runs" / "best").ok


def test_the_page_about_errors_names_the_writer(capsys: pytest.CaptureFixture[str]) -> None:
    run(TOP / "docs" / "errors.md")
    assert re.match(r"process \d+ on ", capsys.readouterr().out)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_every_file_a_document_points_at_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|examples|docs)/[\w/.-]+)", text))
    assert not [name for name in named if not (TOP / name.rstrip(".")).exists()]
    linked = {target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target}
    assert not [target for target in linked if not (document.parent / target).exists()]


def test_the_readme_points_at_a_test_for_its_promises() -> None:
    named = re.findall(r"\]\((tests/[\w/.]+)\)", README.read_text(encoding="utf-8"))
    assert len(set(named)) > 10


@pytest.mark.parametrize("document", [README, TOP / "docs" / "errors.md"], ids=lambda path: path.name)
def test_every_error_that_is_named_is_public(document: Path) -> None:
    named = set(re.findall(r"`(\w+Error)`", document.read_text(encoding="utf-8")))
    assert len(named) > 2
    assert not named - set(atomicpath.__all__) - set(dir(builtins))


def test_the_page_about_errors_has_a_row_for_each() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", (TOP / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == set(errors.__all__) - {"AtomicPathError"}


def test_the_reference_has_every_public_name() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (TOP / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"^::: atomicpath\.(?:aio\.)?(\w+)$", text, re.MULTILINE))
    assert "::: atomicpath.errors\n" in text
    assert not set(atomicpath.__all__) - shown - set(errors.__all__) - {"aio"}
