"""The parts of a commit, which are also those of an attempt made by hand, and the time between commits."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from atomicpath._core.environment import current

from .commits import this_commit
from .instruments import Attributes, Instruments, close, current_instruments, error_type, within

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram

    from atomicpath.abc import TemporaryPath  # a layer above: only its type is named here

__all__ = ["creating", "finalizing", "in_background", "record_save", "uploaded", "uploading"]

_last_commit: list[float] = []  # of this process, by the monotonic clock
_mode: ContextVar[str] = ContextVar("atomicpath_mode", default="blocking")
_UNTOLD = nullcontext()  # of whoever has nobody to tell
_part: ContextVar[tuple[str, int]] = ContextVar("atomicpath_part", default=("", 0))

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_last_commit.clear)


@contextmanager
def in_background() -> Generator[None]:
    """Report directories that are created in the block as ones that keep nobody waiting."""
    token = _mode.set("background")
    try:
        yield
    finally:
        _mode.reset(token)


def creating(attempt: TemporaryPath) -> AbstractContextManager[None]:
    """Measure the `create` of an attempt, its caller's or its own.

    Where both use this context, it counts once.
    """
    instruments = current_instruments()
    return _UNTOLD if instruments is None else _creating(instruments, attempt)


@contextmanager
def _creating(instruments: Instruments, attempt: TemporaryPath) -> Generator[None]:
    commit = this_commit()
    if commit is not None:
        commit.name_strategy(type(attempt).__name__)
    if _part.get() == ("create", id(attempt)):
        yield
        return
    attributes = {**_of(attempt), "atomicpath.create.mode": _mode.get()}
    with _timed(instruments, "create", id(attempt), attributes, instruments.create):
        yield


def finalizing(attempt: TemporaryPath) -> AbstractContextManager[None]:
    """Measure the `finalize` of an attempt, in the same way as `creating`."""
    instruments = current_instruments()
    return _UNTOLD if instruments is None else _finalizing(instruments, attempt)


@contextmanager
def _finalizing(instruments: Instruments, attempt: TemporaryPath) -> Generator[None]:
    if _part.get() == ("finalize", id(attempt)):
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
    """Measure the upload of all staged files, `size` bytes together."""
    instruments = current_instruments()
    if instruments is None:
        yield
        return
    with _timed(instruments, "upload", 0, {}, None, {"atomicpath.upload.size": size}):
        yield


def uploaded(size: int) -> None:
    """Count the bytes of one file that has been uploaded."""
    instruments = current_instruments()
    if instruments is not None:
        instruments.uploaded.add(size)


def record_save(seconds: float, attempt: TemporaryPath) -> None:
    """Record the duration of a commit made by hand, since only its caller knows when it began."""
    instruments = current_instruments()
    if instruments is not None:
        instruments.commit.record(max(0.0, seconds), {**_of(attempt), "atomicpath.outcome": "committed"})


@contextmanager
def _timed(
    instruments: Instruments,
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
        attributes = {**attributes, **error_type(raised)}
        if histogram is not None:
            histogram.record(max(0.0, current().monotonic() - began), attributes)
        close(span, attributes, raised)


def _of(attempt: TemporaryPath) -> Attributes:
    """Return the class and the protocol of an attempt, and never more.

    A URL may say too much, and each would be a time series.
    """
    protocol = getattr(attempt.get_final(), "protocol", "") or "file"  # a user's own strategy may have any path
    return {"atomicpath.strategy": type(attempt).__name__, "atomicpath.backend": protocol}


_IMPORTED = time.monotonic()


def _age() -> float:
    """Return the seconds since this process started.

    Where the system does not tell, return the seconds since atomicpath was imported.
    """
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="surrogateescape") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])  # proc(5), field 22: clock ticks since boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED
