"""The tables of docs/stores.md: here the one with a row for each server and behaviour, a column for each operation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from .behaviours import BEHAVIOURS
from .operations import OPERATIONS
from .runner import Cell

__all__ = ["DOCUMENT", "Found", "put", "row", "table"]

Found: TypeAlias = Mapping[tuple[str, str, str], Cell] | dict[tuple[str, str, str], Cell]

DOCUMENT = Path(__file__).parents[2] / "docs" / "stores.md"
_END = "\n<!-- end -->"


def table(found: Found) -> str:
    """Return one markdown table for each server."""
    lines: list[str] = []
    for server in dict.fromkeys(key[0] for key in found):
        columns = [one.name for one in OPERATIONS]
        lines += [f"### {server}", "", row(["behaviour", *columns]), row(["---"] * (len(columns) + 1))]
        for behaviour in BEHAVIOURS:
            cells = [found.get((server, behaviour.name, column)) for column in columns]
            if any(cells):
                lines.append(row([behaviour.name, *(_words(cell) for cell in cells)]))
        lines.append("")
    wrong = sum(bool(cell.wrong) for cell in found.values())
    lines.append(f"{len(found)} cells, {wrong} wrong.")
    return "\n".join(lines)


def put(command: str, text: str) -> None:
    """Put what a command has printed into the document, in its place there."""
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(f"<!-- printed by {command} -->\n")
    _, end, after = rest.partition(_END)
    if not end:
        raise LookupError(f"{DOCUMENT} has no place for what {command} prints")
    DOCUMENT.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def _words(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"**wrong**: {cell.outcome}" if cell.wrong else cell.outcome


def row(entries: list[str]) -> str:
    """One row of a markdown table."""
    return f"| {' | '.join(entries)} |"
