"""The README's code runs, block by block, in the order a reader meets it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import atomicpath

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_code_of_the_readme_runs_and_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "ATOMIC_RENAME" in printed
    assert "as committed" in printed
    assert "['fetched']" in printed

    save, restore = names["save"], names["restore"]
    assert callable(save)
    assert callable(restore)
    assert restore("runs/model") is None
    save("runs/model", 7, {"weights": [1.0, 2.0]})
    step, state = restore("runs/model")
    assert (step, list(state["weights"])) == (7, [1.0, 2.0])


def test_every_test_file_the_readme_points_at_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+|examples/[\w/.]+|docs/[\w/.]+)`", README.read_text(encoding="utf-8")))
    assert named
    assert not [name for name in named if not (README.parent / name).exists()]


def test_every_error_the_readme_names_is_public() -> None:
    named = set(re.findall(r"`(\w+Error)`", README.read_text(encoding="utf-8")))
    assert len(named) > 5
    assert not [name for name in named if name not in atomicpath.__all__]
