"""The command line as a whole: its commands, in the order of its help, and its version.

Help and completion have to be fast: rich is imported where it is used, and what is public in `atomicpath` at its first
use.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import bench, cleaning, doctor, reading, writing

__all__ = ["app"]

# Help in plain text: with rich it takes a quarter of a second more.
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes and the JSON of each command are in docs/command-line.md.",
)


def _version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        typer.echo(f"atomicpath {importlib.metadata.version('atomicpath')}")
        raise typer.Exit


@app.callback()
def _atomicpath(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit")
    ] = False,
) -> None:
    """Publish directories of files to any file system, each as one atomic act."""


reading.add(app)
writing.add(app)
cleaning.add(app)
bench.add(app)
doctor.add(app)
