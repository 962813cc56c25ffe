"""The table of docs/stores.md: a row for each server and behaviour, a column for each operation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from .behaviours import BEHAVIOURS
from .operations import OPERATIONS
from .runner import Cell

__all__ = ["DOCUMENT", "Found", "table", "write"]

Found: TypeAlias = Mapping[tuple[str, str, str], Cell] | dict[tuple[str, str, str], Cell]

DOCUMENT = Path(__file__).parents[2] / "docs" / "stores.md"
BEGIN, END = "<!-- printed by python -m tests.relay -->\n", "\n<!-- end -->"


def table(found: Found) -> str:
    """Return one markdown table for each server."""
    lines: list[str] = []
    for server in dict.fromkeys(key[0] for key in found):
        columns = [one.name for one in OPERATIONS]
        lines += [f"### {server}", "", _row(["behaviour", *columns]), _row(["---"] * (len(columns) + 1))]
        for behaviour in BEHAVIOURS:
            cells = [found.get((server, behaviour.name, column)) for column in columns]
            if any(cells):
                lines.append(_row([behaviour.name, *(_words(cell) for cell in cells)]))
        lines.append("")
    wrong = sum(bool(cell.wrong) for cell in found.values())
    lines.append(f"{len(found)} cells, {wrong} wrong.")
    return "\n".join(lines)


def write(found: Found) -> None:
    """Put the table into the document."""
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{begin}\n{table(found)}\n{end}{after}", encoding="utf-8")


def _words(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"**wrong**: {cell.outcome}" if cell.wrong else cell.outcome


def _row(entries: list[str]) -> str:
    return f"| {' | '.join(entries)} |"
