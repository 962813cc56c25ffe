"""A commit as a whole: its span and its duration, from where it is entered to its end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from atomicpath._core.environment import EventLoopNeeded, current
from atomicpath.errors import OutcomeUnknownError

from .instruments import Attributes, Instruments, close, current_instruments, current_trace, error_type, within

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["CommitSpan", "abandoning", "closing", "opening", "this_commit"]

_commit: ContextVar[CommitSpan | None] = ContextVar("atomicpath_commit", default=None)


class CommitSpan:
    """The span of one commit, from where it is entered to its end, which may be in different tasks and threads."""

    def __init__(self, backend: str) -> None:
        self._where = current_trace()
        self._attributes: Attributes = {"atomicpath.backend": backend}
        self._span: Span | None = None
        self._began = 0.0
        self._busy = False

    def name_strategy(self, strategy: str) -> None:
        """Add the name of the strategy, which is known only once the location was looked at."""
        self._attributes["atomicpath.strategy"] = strategy

    @contextmanager
    def part(self, *, opens: bool = False, ends: bool = False, outcome: str = "committed") -> Generator[None]:
        """Trace one of the calls that make up the commit.

        An error in any but a nested call ends the span of the commit.
        """
        instruments = current_instruments()
        if self._busy or instruments is None or not (opens or self._span):
            yield  # it is nested in another part, or the span is over, or was never begun
            return
        from opentelemetry import trace

        if opens:
            self._began = current().monotonic()
            self._span = instruments.tracer.start_span("atomicpath.commit", self._where)
        span = self._span
        assert span is not None  # noqa: S101 - for the type checkers
        token, self._busy = _commit.set(self), True
        try:
            with within(trace.set_span_in_context(span, self._where)):
                yield
        except EventLoopNeeded:
            self._span = None  # nothing has been done, and it will be asked for again
            raise
        except BaseException as error:
            self._end(instruments, span, _outcome(error), error)
            raise
        else:
            if ends:
                self._end(instruments, span, outcome, None)
        finally:
            self._busy = False
            _commit.reset(token)

    def _end(self, instruments: Instruments, span: Span, outcome: str, error: BaseException | None) -> None:
        self._span = None
        attributes = {**self._attributes, "atomicpath.outcome": outcome, **error_type(error)}
        instruments.commit.record(max(0.0, current().monotonic() - self._began), attributes)
        close(span, attributes, error)


class _Observed(Protocol):
    @property
    def span(self) -> CommitSpan: ...


def opening(commit: _Observed) -> AbstractContextManager[None]:
    """Return the context for the call that begins a commit."""
    return commit.span.part(opens=True)


def closing(commit: _Observed) -> AbstractContextManager[None]:
    """Return the context for the call that ends a commit: committed, unless the call raises."""
    return commit.span.part(ends=True)


def abandoning(commit: _Observed) -> AbstractContextManager[None]:
    """Return the context for the call that gives up a commit after the user's block has failed."""
    return commit.span.part(ends=True, outcome="abandoned")


def this_commit() -> CommitSpan | None:
    """Return the span of the commit whose part is running, or None."""
    return _commit.get()


def _outcome(error: BaseException) -> str:
    if isinstance(error, OutcomeUnknownError):
        return "unknown"
    return "failed" if isinstance(error, Exception) else "abandoned"  # cancelled, or interrupted
