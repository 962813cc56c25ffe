"""The small trees that tests write, as training code would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from upath import UPath

__all__ = ["write_tree"]


def write_tree(directory: Path | UPath, content: Mapping[str, bytes]) -> None:
    """Write a tree without a sync."""
    for name, data in content.items():
        file = directory / name
        if isinstance(file, Path):
            file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
