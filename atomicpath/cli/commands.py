"""Runs a command: turns errors into exit codes and messages, and signals into an end that leaves nothing half done."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import typer

from .exits import ExitCode, code_of, hint_for, is_of_the_target
from .screen import Stopped, hint, say

__all__ = ["command", "failed"]

Command = Callable[..., None]


def command(app: typer.Typer, name: str, *, reads: str = "url", writes: str = "") -> Callable[[Command], Command]:
    """Add a function to the command line.

    Args:
        app: The command line.
        name: The name of the command.
        reads: The parameter that names the place that the command looks at, for hints after an error.
        writes: The parameter that names the place that it writes, if that is another one.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def call(**arguments: Any) -> None:
            def place_of(error: BaseException) -> str:
                return str(arguments.get(writes if writes and is_of_the_target(error) else reads, ""))

            quiet = bool(arguments.get("quiet"))
            raise typer.Exit(_run(functools.partial(function, **arguments), name, place_of, quiet=quiet))

        return app.command(name)(call)

    return decorate


def failed(error: BaseException, name: str, url: str, *, quiet: bool) -> ExitCode:
    """Say what went wrong and what to type next. Return the exit code; raise what is no error of the library."""
    code = code_of(error)
    if code is None:
        raise error
    say(f"atomicpath {name}: {error}")
    hint(hint_for(error, name, url), quiet=quiet)
    return code


def _run(function: Callable[[], None], name: str, place_of: Callable[[BaseException], str], *, quiet: bool) -> ExitCode:
    try:
        with _signals(), _warnings(), _encodings():
            function()
    except Stopped as stopped:
        return stopped.code
    except KeyboardInterrupt:
        say("interrupted")
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - raised again if it is not one of ours
        if code_of(error) is None and isinstance(error, BrokenPipeError):
            return _without_reader()
        return failed(error, name, place_of(error), quiet=quiet)
    return ExitCode.OK


def _without_reader() -> ExitCode:
    """Keep the interpreter from writing at its end what nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.BROKEN_PIPE


@contextmanager
def _signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the block as Ctrl-C does: the library gives up what it has begun."""

    def end(number: int, frame: FrameType | None) -> None:
        say(f"ended by {signal.Signals(number).name}")
        raise Stopped(ExitCode(128 + number))

    with ExitStack() as stack:
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if signal.getsignal(number) is signal.SIG_DFL:  # ignored under nohup
                stack.callback(signal.signal, number, signal.signal(number, end))
        yield


class _ToStderr(logging.Handler):
    """Prints warnings of the library."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


@contextmanager
def _warnings() -> Iterator[None]:
    """Print the library's warnings for people. Python's own warnings are for developers: `python -W` shows them."""
    handler, logger = _ToStderr(logging.WARNING), logging.getLogger("atomicpath")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _encodings() -> Iterator[None]:
    """Write names that the terminal's encoding cannot show as escapes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    yield
