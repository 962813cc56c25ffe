"""One cell: an operation through a relay that behaves so, and everything that must not come of it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio

from atomicpath import AtomicPathError, GuaranteeError, ValidationError, aio
from atomicpath._core.environment import use
from atomicpath.errors import AccessError
from atomicpath.storage import replies
from atomicpath_s3 import manners
from tests.protocol.worlds import ALL, trust
from tests.support.proxy import Request
from tests.support.roots import SECRET

from .behaviours import Behaviour
from .operations import Operation
from .places import Server
from .scene import CONTENT, Scene

__all__ = ["REFUSALS", "Cell", "run"]

REFUSALS = (GuaranteeError, ValidationError, AccessError)
"""Words that come before the first byte of data is sent."""

_HANGS = 120.0  # seconds, on a machine that does much else
_FRUITLESS = 20  # pages: the thousand of the real bound take long on a busy machine


@dataclass(frozen=True)
class Cell:
    """What the caller gets, in a word or two; `said` is all of it, and `wrong` what must not be."""

    outcome: str
    said: str
    wrong: tuple[str, ...]
    requests: int = 0

    def __str__(self) -> str:
        return "\n".join([self.outcome, self.said, *(f"WRONG: {one}" for one in self.wrong)])


async def run(server: Server, behaviour: Behaviour, operation: Operation, *, repeats: bool = True) -> Cell:
    """Prepare past the relay, act through it, and judge past atomicpath."""
    with tempfile.TemporaryDirectory() as directory:
        scene = Scene(server, Path(directory))
        await operation.prepare(scene)
        before = set(scene.leftovers())
        relay = server.relay
        with patch.object(replies, "_FRUITLESS", _FRUITLESS), server.repeating(repeats):
            relay.requests.clear()
            manners._manners.clear()  # learnt of the same bucket when it behaved otherwise
            relay.rules[:] = behaviour.rules(server.dialect, scene.environment.move)
            options = server.options(relay.url, repeats)
            if behaviour.is_known:
                trust(scene.url("any"), options, ALL)
            outcome, said = await _act(scene, operation, options)
            requests = tuple(relay.requests)
            relay.rules.clear()
        wrong = [found for found in (operation.judge(scene, outcome, said), *_never(outcome, said)) if found]
        wrong += [f"the user's own {name} is not as it was" for name in scene.lost()]
        if isinstance(outcome, REFUSALS) and any(_sends_data(request) for request in requests):
            wrong.append("data was sent before it was refused")
        left = scene.leftovers()
        wrong += await _untold(scene, left, said)
        words = type(outcome).__name__ if isinstance(outcome, Exception) else operation.words(outcome)
        if isinstance(outcome, Exception) and set(left) - before:
            words += ", and what is left"
        return Cell(words, said, tuple(wrong), len(requests))


def _sends_data(request: Request) -> bool:
    return request.method in ("PUT", "POST") and CONTENT["model.bin"] in request.body


async def _act(scene: Scene, operation: Operation, options: dict[str, Any]) -> tuple[Any, str]:
    outcome: Any
    with _listening() as heard, use(scene.environment):
        try:
            with anyio.fail_after(_HANGS) as scope:
                outcome = await operation.act(scene, options)
        except Exception as error:
            outcome = AssertionError("it hangs") if scope.cancelled_caught else error
    said = [str(outcome)]
    if isinstance(outcome, Exception):
        said += [*getattr(outcome, "__notes__", ())]
    elif isinstance(outcome, list):
        said += map(str, outcome)
    return outcome, "\n".join([*said, *heard])


def _never(outcome: Any, said: str) -> Iterator[str]:
    if isinstance(outcome, Exception):
        is_ours = isinstance(outcome, AtomicPathError) or type(outcome).__module__ == "builtins"
        if not is_ours or not isinstance(outcome, AtomicPathError | OSError):
            yield f"a raw {type(outcome).__module__}.{type(outcome).__name__}"
    if SECRET in said:
        yield "a secret is in what is said"


async def _untold(scene: Scene, left: Sequence[str], said: str) -> list[str]:
    """What is left, and neither said to the caller nor found by a sweep once the store answers as it should."""
    unsaid = [name for name in left if not _is_said(scene, name, said)]
    if not unsaid:
        return []
    with use(scene.environment):
        found = await aio.sweep(scene.root.url, older_than=timedelta(0), dry_run=True, storage_options=scene.direct)
    told = {swept.path.name for swept in found}
    return [f"{name} is left, and nobody is told" for name in unsaid if name.partition("/")[0] not in told]


def _is_said(scene: Scene, name: str, said: str) -> bool:
    top = "/".join(name.split("/")[:2]) if name.startswith(".atomicpath/") else name.partition("/")[0]
    return scene.url(top) in said


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What is logged meanwhile as a warning or worse."""
    heard: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    handler = Handler(logging.WARNING)
    log = logging.getLogger("atomicpath")
    log.addHandler(handler)
    try:
        yield heard
    finally:
        log.removeHandler(handler)
