"""Exit codes, and what follows from each error of the library: its code, and a hint at the next command."""

from __future__ import annotations

import enum
import shlex

__all__ = ["ExitCode", "code_of", "hint_for", "is_of_the_target", "parent_of"]


class ExitCode(enum.IntEnum):
    """The exit codes of the command line. Their numbers are stable."""

    OK = 0
    """It was done."""
    FAILED = 1
    """It was not done for a reason that no other code names, or the prompt was answered with no."""
    USAGE = 2
    """The command line or an argument cannot be used."""
    NOT_COMMITTED = 3
    """No complete directory is there."""
    DAMAGED = 4
    """The storage disagrees with the record: verification failed."""
    EXISTS = 5
    """A complete directory is already there."""
    CONFLICT = 6
    """Another process, or files without a record, hold the name."""
    NO_GUARANTEE = 7
    """No strategy is safe at this location."""
    TRY_AGAIN = 8
    """The storage failed or did not answer, or the outcome is unknown: the same command again may help."""
    SETUP = 9
    """Credentials, rights or a package are missing."""
    HANGUP = 129
    """Ended by SIGHUP; what had begun was given up."""
    INTERRUPTED = 130
    """Ended by SIGINT (Ctrl-C); what had begun was given up."""
    BROKEN_PIPE = 141
    """The reader of the output went away."""
    TERMINATED = 143
    """Ended by SIGTERM; what had begun was given up."""


_BY_ERROR = {
    "ValidationError": (ExitCode.USAGE, None),
    "NotCommittedError": (ExitCode.NOT_COMMITTED, "ls --all {parent}"),
    "AlreadyCommittedError": (ExitCode.EXISTS, "show {url}"),
    "ConflictError": (ExitCode.CONFLICT, "ls --all {parent}"),
    "AbandonedError": (ExitCode.CONFLICT, "ls --all {parent}"),
    "OutcomeUnknownError": (ExitCode.TRY_AGAIN, "show {url}"),
    "CommitError": (ExitCode.FAILED, "ls --all {parent}"),
    "IntegrityError": (ExitCode.DAMAGED, "verify {url}"),
    "GuaranteeError": (ExitCode.NO_GUARANTEE, "explain {url}"),
    "StorageError": (ExitCode.TRY_AGAIN, "doctor {url}"),
    "AccessError": (ExitCode.SETUP, "doctor {url}"),
    "BackendError": (ExitCode.SETUP, None),
    "CoordinationTimeoutError": (ExitCode.TRY_AGAIN, None),
    "RankFailedError": (ExitCode.FAILED, None),
    "CoordinationError": (ExitCode.FAILED, None),
    "AtomicPathError": (ExitCode.FAILED, None),
}
"""For each class of `atomicpath.errors`, by name: the code, and the next command. The most derived class decides."""

_OF_THE_TARGET = {"AbandonedError", "CommitError", "GuaranteeError", "OutcomeUnknownError"}


def code_of(error: BaseException) -> ExitCode | None:
    """Return the code of an error of the library; None if the error is not one of those."""
    found = _found(error)
    return None if found is None else found[0]


def hint_for(error: BaseException, command: str, url: str) -> str | None:
    """Return the next command to type after an error, or None.

    Args:
        error: What the command has raised.
        command: The name of the command, which is never the hint itself.
        url: The place that the command was about.
    """
    found = _found(error)
    hint = found[1] if found is not None else None
    if hint is None or not url or hint.split()[0] == command:
        return None
    return "atomicpath " + hint.format(url=shlex.quote(url), parent=shlex.quote(parent_of(url)))


def is_of_the_target(error: BaseException) -> bool:
    """Tell whether an error is about the place that was to be written, where a command also reads from another one."""
    return isinstance(error, FileExistsError) or type(error).__name__ in _OF_THE_TARGET


def parent_of(url: str) -> str:
    """Return the directory that a place is in, as a user would write it."""
    head, separator, _ = url.rstrip("/").rpartition("/")
    if not separator:
        return "."
    return url if head.endswith(("/", ":")) else head or "/"


def _found(error: BaseException) -> tuple[ExitCode, str | None] | None:
    for kind in type(error).__mro__:
        if kind.__module__ == "atomicpath.errors" and kind.__name__ in _BY_ERROR:
            return _BY_ERROR[kind.__name__]
    return None
