"""The table of counts, and failures in words."""

from __future__ import annotations

from collections.abc import Sequence

from .runner import Cell

__all__ = ["failures", "table"]

_OUTCOMES = ("done", "not done", "unknown", "interrupted", "killed")


def table(cells: Sequence[Cell]) -> str:
    """Return one markdown table: a row for each setting and operation, a column for each fault.

    An entry is the number of points at which the fault happened; the last columns say what the caller was told.
    """
    faults = list(dict.fromkeys(cell.fault for cell in cells))
    rows = list(dict.fromkeys((cell.setting, cell.operation) for cell in cells))
    found = {(cell.setting, cell.operation, cell.fault): cell for cell in cells}
    lines = [_row(["place", "operation", *faults, *_OUTCOMES, "false"])]
    lines.append(_row(["---", "---", *["---:"] * (len(faults) + len(_OUTCOMES) + 1)]))
    for setting, operation in rows:
        here = [found.get((setting, operation, fault)) for fault in faults]
        counts = [str(cell.outcomes.total()) if cell else "" for cell in here]
        outcomes = [str(sum(cell.outcomes[outcome] for cell in here if cell)) for outcome in _OUTCOMES]
        wrong = str(sum(len(cell.failures) for cell in here if cell))
        lines.append(_row([setting, operation, *counts, *outcomes, wrong]))
    total = sum(cell.outcomes.total() for cell in cells)
    whole = all(cell.whole for cell in cells)
    lines += ["", f"{total} faults in {sum(cell.runs for cell in cells)} runs; " + _covered(whole)]
    return "\n".join(lines)


def _covered(whole: bool) -> str:
    if whole:
        return "every point of every operation: in each cell the last run met no fault any more."
    return "a sample of the points: ATOMICPATH_FAULTS=all for every one."


def failures(cell: Cell) -> str:
    """Return the failures of a cell in words."""
    head = f"{cell.operation} / {cell.setting} / {cell.fault}: {len(cell.failures)} of {cell.runs} runs are wrong"
    return "\n\n".join([head, *cell.failures])


def _row(entries: Sequence[str]) -> str:
    return f"| {' | '.join(entries)} |"
