"""The guide to writing a backend quotes the examples that continuous integration installs and runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atomicpath.guarantees import Guarantee

TOP = Path(__file__).parents[2]
GUIDE = (TOP / "docs" / "writing-a-backend.md").read_text(encoding="utf-8")
EXAMPLES = (TOP / "examples" / "write_an_fsspec_backend", TOP / "examples" / "write_a_backend")
QUOTED = re.findall(r"```(?:python|toml)\n(.*?)```", GUIDE, re.DOTALL)
FILES = [path for example in EXAMPLES for path in example.rglob("*") if path.suffix in (".py", ".toml")]


@pytest.mark.parametrize("block", QUOTED, ids=lambda block: block.split("\n")[0].strip())
def test_every_block_is_from_an_example(block: str) -> None:
    assert any(block in path.read_text(encoding="utf-8") for path in FILES), block


def test_there_are_blocks_and_every_file_of_the_tree_is_there() -> None:
    assert len(QUOTED) >= 9
    tree = re.findall(r"^    ((?:src|tests)/\S+|pyproject\.toml)", GUIDE, re.MULTILINE)
    assert len(tree) == 8
    assert not [name for name in tree if not any((example / name).exists() for example in EXAMPLES)]


def test_every_guarantee_it_names_exists() -> None:
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", GUIDE))
    assert len(named) >= 8
    assert named <= {member.name for member in Guarantee}
