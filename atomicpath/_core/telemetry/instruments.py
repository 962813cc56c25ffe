"""The meters and the tracer, if anybody can listen; the trace a caller is in; how a span ends."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, Meter
    from opentelemetry.trace import Span, Tracer

__all__ = ["Attributes", "Instruments", "close", "current_instruments", "current_trace", "error_type", "within"]

Attributes = dict[str, str]

_NAME = "atomicpath"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What is told through."""

    tracer: Tracer
    create: Histogram
    commit: Histogram
    interval: Histogram
    uploaded: Counter


_instruments: Instruments | None = None


def current_instruments() -> Instruments | None:
    """Return the instruments to report to, or None where nobody can listen."""
    global _instruments
    if _instruments is None and ("opentelemetry.trace" in sys.modules or "opentelemetry.metrics" in sys.modules):
        from opentelemetry import metrics, trace

        _instruments = _made(trace.get_tracer(_NAME), metrics.get_meter(_NAME))
    return _instruments


def _made(tracer: Tracer, meter: Meter) -> Instruments:
    return Instruments(
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


def current_trace() -> Context | None:
    """Return the trace that the caller is in, to be handed to another thread, or None."""
    if current_instruments() is None:
        return None
    from opentelemetry import context

    return context.get_current()


@contextmanager
def within(where: Context | None) -> Generator[None]:
    """Run the block, in this thread or task, in the trace `where` of another one."""
    if where is None:
        yield
        return
    from opentelemetry import context

    token = context.attach(where)
    try:
        yield
    finally:
        context.detach(token)


def close(span: Span, attributes: Attributes, error: BaseException | None) -> None:
    """End a span; with an error, end it as a failed one."""
    from opentelemetry.trace import StatusCode

    span.set_attributes(attributes)
    if error is not None:
        span.set_status(StatusCode.ERROR)  # leave out its message, which may be the user's and say too much
    span.end()


def error_type(error: BaseException | None) -> Attributes:
    """Return the class of an error as an attribute, if there is an error."""
    if error is None:
        return {}
    kind = type(error)
    return {
        "error.type": kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    }
