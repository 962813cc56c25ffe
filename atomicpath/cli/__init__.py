"""The command line `atomicpath`; docs/command-line.md describes it for users.

Help and shell completion have to be fast, so nothing of the library, and not rich, is loaded before a command runs
(docs/design/0019-command-line.md).
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_MISSING = "the command line needs typer and rich: pip install 'atomicpath[cli]'"


def main() -> None:
    """Run the command line with the arguments of this process, and exit."""
    from .exits import ExitCode

    try:
        try:
            from .app import app
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("typer", "rich"):
                raise
            print(_MISSING, file=sys.stderr)  # noqa: T201 - nothing else can print yet
            sys.exit(ExitCode.SETUP)
        app(prog_name="atomicpath")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
