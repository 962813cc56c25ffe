"""Text for people: lines of at most 100 characters, each piece of evidence once, as a numbered note."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

__all__ = ["WIDTH", "Notes", "few", "few_of", "wrapped"]

WIDTH = 100
_FEW = 3


def few(names: Sequence[str]) -> str:
    """Return the first names, and a sign that there are more."""
    return f"{', '.join(names[:_FEW])}{' …' if len(names) > _FEW else ''}"


def few_of(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")


class Notes:
    """The notes of one message, numbered in the order in which they are first referred to."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def refer(self, evidence: str) -> str:
        """Return the reference to the pieces of `evidence`, one a line, such as "(1, 2)"; "" where there are none."""
        numbers = [self._numbers.setdefault(piece, len(self._numbers) + 1) for piece in evidence.splitlines()]
        return f"({', '.join(map(str, numbers))})" if numbers else ""

    def lines(self) -> list[str]:
        """Return the lines of every note referred to so far."""
        return [line for piece, number in self._numbers.items() for line in wrapped(f"  ({number}) {piece}", hang=6)]


def wrapped(text: str, *, hang: int = 0) -> list[str]:
    """Return `text` in lines of at most `WIDTH` characters, all but the first indented by `hang`.

    Only a single word that is longer, such as a path, makes a longer line: nobody could copy a part of one.
    """
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False)
