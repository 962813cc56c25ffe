"""Everything that a command prints: data on stdout, and hints, warnings, questions and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from .exits import ExitCode

__all__ = [
    "Stopped",
    "confirmed",
    "hint",
    "is_interactive",
    "print_document",
    "print_line",
    "print_table",
    "progress",
    "say",
]

_UNBOUNDED = 1_000_000  # columns: what is no terminal has no width
_GAP = 2  # columns between two cells
_SHORT = 24  # characters of a cell that is kept in one line, such as a time


class Stopped(BaseException):
    """Ends the command with this exit code. What there was to say was printed.

    It is no `Exception`: a signal handler may raise it where those are handled.
    """

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code)
        self.code = code


def print_document(document: Mapping[str, object]) -> None:
    """Print one JSON document. On a terminal it is indented, elsewhere it is one line."""
    _write(json.dumps(document, indent=2 if sys.stdout.isatty() else None))


def print_line(text: str) -> None:
    """Print a line of data."""
    _write(_printable(text))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table: as wide as the terminal, or in plain text that is never cut.

    Args:
        columns: The headings.
        rows: The cells; None is an empty one.
        right: The columns that are aligned to the right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold" if is_terminal else "")
    texts = [["" if cell is None else _printable(str(cell)) for cell in row] for row in rows]
    for number, column in enumerate(columns):
        is_short = all(len(row[number]) <= _SHORT for row in texts)
        table.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=is_short)
    for row in texts:
        table.add_row(*map(Text, row))
    console = Console(highlight=False, emoji=False, markup=False, width=None if is_terminal else _UNBOUNDED)
    if is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        _write(line.rstrip())


def say(text: str) -> None:
    """Print a line for people, on stderr."""
    print("\n".join(map(_printable, text.splitlines())), file=sys.stderr, flush=True)  # noqa: T201


def hint(text: str | None, *, quiet: bool = False) -> None:
    """Print the next command to type, on stderr."""
    if text and not quiet:
        say(f"next: {text}")


def is_interactive() -> bool:
    """Tell whether a person can be asked: stdin and stderr are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(question: str, *, yes: bool) -> None:
    """Ask on a terminal, and raise `Stopped` if the answer is not yes. Elsewhere, or with `yes`, ask nothing."""
    if yes or not is_interactive():
        return
    print(f"{_printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        say("nothing was deleted")
        raise Stopped(ExitCode.FAILED)


@contextmanager
def progress(doing: str, *, quiet: bool) -> Iterator[Callable[[int, int], object] | None]:
    """Show a bar on stderr for the block, if that is a terminal: by bytes once the library tells them.

    Args:
        doing: The word before the bar.
        quiet: Show nothing.

    Yields:
        What the library is to call with the bytes done and the bytes in all; None if nothing is shown.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(doing), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{decimal(done)} of {decimal(total)}")

        yield show


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _printable(text: str) -> str:
    """Return text for one line of a terminal: names may have line ends, escape sequences and bytes that are no text."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
