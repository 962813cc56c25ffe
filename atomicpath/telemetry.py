"""Durations as OpenTelemetry metrics, and commits as its spans; docs/telemetry.md lists both.

Nothing can listen before the application has imported OpenTelemetry's API, to say who does. So it is looked
for among the modules that are loaded, and never imported for the sake of being told nothing.

Longer than other modules, so that every name that is exported, and what must not be, is seen in one place.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from .abc import TemporaryPath
from .environment import EventLoopNeeded, current
from .errors import OutcomeUnknownError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, Meter
    from opentelemetry.trace import Span, Tracer

__all__ = [
    "CommitSpan",
    "abandoning",
    "closing",
    "creating",
    "finalizing",
    "here",
    "in_background",
    "observed",
    "opening",
    "record_save",
    "uploaded",
    "uploading",
    "within",
]

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
Attributes = dict[str, str]

_NAME = "atomicpath"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instruments:
    tracer: Tracer
    create: Histogram
    commit: Histogram
    interval: Histogram
    uploaded: Counter


_instruments: _Instruments | None = None
_last_commit: list[float] = []  # of this process, by the monotonic clock
_mode: ContextVar[str] = ContextVar("atomicpath_mode", default="blocking")
_commit: ContextVar[CommitSpan | None] = ContextVar("atomicpath_commit", default=None)
_part: ContextVar[tuple[str, int]] = ContextVar("atomicpath_part", default=("", 0))

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_last_commit.clear)


def _told() -> _Instruments | None:
    """What to tell, or None where nobody can listen."""
    global _instruments
    if _instruments is None and ("opentelemetry.trace" in sys.modules or "opentelemetry.metrics" in sys.modules):
        from opentelemetry import metrics, trace

        _instruments = _made(trace.get_tracer(_NAME), metrics.get_meter(_NAME))
    return _instruments


def _made(tracer: Tracer, meter: Meter) -> _Instruments:
    return _Instruments(
        tracer=tracer,
        create=meter.create_histogram(
            "atomicpath.directory.create.duration", unit="s", description="Duration of the creation of an attempt."
        ),
        commit=meter.create_histogram(
            "atomicpath.commit.duration", unit="s", description="Duration of a commit, the user's block included."
        ),
        interval=meter.create_histogram(
            "atomicpath.commit.interval",
            unit="s",
            description="Time between two successive commits of a process; the first counts from its start.",
        ),
        uploaded=meter.create_counter(
            "atomicpath.upload.io", unit="By", description="Bytes of staged files that were uploaded."
        ),
    )


def here() -> Context | None:
    """The trace that the caller is in, to be handed to another thread."""
    if _told() is None:
        return None
    from opentelemetry import context

    return context.get_current()


@contextmanager
def within(where: Context | None) -> Generator[None]:
    """Go on, in this thread or task, in the trace that `here` told."""
    if where is None:
        yield
        return
    from opentelemetry import context

    token = context.attach(where)
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def in_background() -> Generator[None]:
    """Directories that are created in the block keep nobody waiting."""
    token = _mode.set("background")
    try:
        yield
    finally:
        _mode.reset(token)


def observed(
    part: Callable[[Any], AbstractContextManager[None]],
) -> Callable[[Callable[Concatenate[S, P], Awaitable[T]]], Callable[Concatenate[S, P], Coroutine[Any, Any, T]]]:
    """Have a method run within a part of its object: `opening` … `finalizing`."""

    def decorate(
        method: Callable[Concatenate[S, P], Awaitable[T]],
    ) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
        @functools.wraps(method)
        async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with part(self):
                return await method(self, *args, **kwargs)

        return call

    return decorate


# A commit as a whole


class CommitSpan:
    """The span of one commit, from where it is entered to its end, which may be in different tasks and threads."""

    def __init__(self, backend: str) -> None:
        self._where = here()
        self._attributes: Attributes = {"atomicpath.backend": backend}
        self._span: Span | None = None
        self._began = 0.0
        self._busy = False

    def name_strategy(self, strategy: str) -> None:
        """Add what is known only once the location was looked at."""
        self._attributes["atomicpath.strategy"] = strategy

    @contextmanager
    def part(self, *, opens: bool = False, ends: bool = False, outcome: str = "committed") -> Generator[None]:
        """One of the calls that make it up. An error in any but a nested one ends it."""
        instruments = _told()
        if self._busy or instruments is None or not (opens or self._span):
            yield  # nested in another, or over, or never told of
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

    def _end(self, instruments: _Instruments, span: Span, outcome: str, error: BaseException | None) -> None:
        self._span = None
        attributes = {**self._attributes, "atomicpath.outcome": outcome, **_error_type(error)}
        instruments.commit.record(max(0.0, current().monotonic() - self._began), attributes)
        _close(span, attributes, error)


class _Observed(Protocol):
    @property
    def span(self) -> CommitSpan: ...


def opening(commit: _Observed) -> AbstractContextManager[None]:
    """For what begins a commit."""
    return commit.span.part(opens=True)


def closing(commit: _Observed) -> AbstractContextManager[None]:
    """For what ends it: committed, unless it raises."""
    return commit.span.part(ends=True)


def abandoning(commit: _Observed) -> AbstractContextManager[None]:
    """For what gives it up after the user's block has failed."""
    return commit.span.part(ends=True, outcome="abandoned")


# Its parts, which are also those of an attempt made by hand


@contextmanager
def creating(attempt: TemporaryPath) -> Generator[None]:
    """For the `create` of an attempt, its caller's or its own: where both say so it counts once."""
    commit = _commit.get()
    if commit is not None:
        commit.name_strategy(type(attempt).__name__)
    instruments = _told()
    if instruments is None or _part.get() == ("create", id(attempt)):
        yield
        return
    attributes = {**_of(attempt), "atomicpath.create.mode": _mode.get()}
    with _timed(instruments, "create", id(attempt), attributes, instruments.create):
        yield


@contextmanager
def finalizing(attempt: TemporaryPath) -> Generator[None]:
    """For the `finalize` of an attempt, in the same way."""
    instruments = _told()
    if instruments is None or _part.get() == ("finalize", id(attempt)):
        yield
        return
    attributes = _of(attempt)
    with _timed(instruments, "finalize", id(attempt), attributes, None):
        yield
    now, environment = current().monotonic(), current()
    since = now - _last_commit[0] if _last_commit else environment.call(_age)
    _last_commit[:] = [now]
    instruments.interval.record(max(0.0, since), attributes)


@contextmanager
def uploading(size: int) -> Generator[None]:
    """For the upload of all staged files, `size` bytes together."""
    instruments = _told()
    if instruments is None:
        yield
        return
    with _timed(instruments, "upload", 0, {}, None, {"atomicpath.upload.size": size}):
        yield


def uploaded(size: int) -> None:
    """Bytes of one file that has been uploaded."""
    instruments = _told()
    if instruments is not None:
        instruments.uploaded.add(size)


def record_save(seconds: float, attempt: TemporaryPath) -> None:
    """The duration of a commit made by hand, which only the caller knows the begin of."""
    instruments = _told()
    if instruments is not None:
        instruments.commit.record(max(0.0, seconds), {**_of(attempt), "atomicpath.outcome": "committed"})


@contextmanager
def _timed(
    instruments: _Instruments,
    name: str,
    identity: int,
    attributes: Attributes,
    histogram: Histogram | None,
    more: Mapping[str, int] | None = None,
) -> Generator[None]:
    from opentelemetry import trace

    began = current().monotonic()
    span = instruments.tracer.start_span(f"atomicpath.{name}", attributes=more)
    token = _part.set((name, identity))
    raised: BaseException | None = None
    try:
        with within(trace.set_span_in_context(span)):
            yield
    except BaseException as error:
        raised = error
        raise
    finally:
        _part.reset(token)
        attributes = {**attributes, **_error_type(raised)}
        if histogram is not None:
            histogram.record(max(0.0, current().monotonic() - began), attributes)
        _close(span, attributes, raised)


def _of(attempt: TemporaryPath) -> Attributes:
    """Never more than the class and the protocol: a URL may say too much, and each would be a time series."""
    protocol = getattr(attempt.get_final(), "protocol", "") or "file"  # a user's own strategy may have any path
    return {"atomicpath.strategy": type(attempt).__name__, "atomicpath.backend": protocol}


def _close(span: Span, attributes: Attributes, error: BaseException | None) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attributes(attributes)
    if error is not None:
        span.set_status(StatusCode.ERROR)  # without its message, which may be the user's and say too much
    span.end()


def _error_type(error: BaseException | None) -> Attributes:
    if error is None:
        return {}
    kind = type(error)
    return {
        "error.type": kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    }


def _outcome(error: BaseException) -> str:
    if isinstance(error, OutcomeUnknownError):
        return "unknown"
    return "failed" if isinstance(error, Exception) else "abandoned"  # cancelled, or interrupted


_IMPORTED = time.monotonic()


def _age() -> float:
    """Seconds since this process started; where the system does not tell, since atomicpath was imported."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="surrogateescape") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])  # proc(5), field 22: clock ticks since boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED
