"""Durations as OpenTelemetry metrics, and commits as its spans; docs/telemetry.md lists both.

Nothing can listen before the application has imported OpenTelemetry's API, to say who does. So it is looked
for among the modules that are loaded, and never imported for the sake of being told nothing.

Longer than other modules, so that every name that is exported, and what must not be, is seen in one place.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar

from .commits import CommitSpan, abandoning, closing, opening
from .instruments import here, within
from .parts import creating, finalizing, in_background, record_save, uploaded, uploading

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
