"""The operations: what each starts from, what it does, and what of its outcome would be wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from atomicpath import NotCommittedError, OutcomeUnknownError, aio
from atomicpath._cleaning.results import Action

from .scene import CONTENT, Scene

__all__ = ["OPERATIONS", "Operation"]


@dataclass(frozen=True)
class Operation:
    """`judge` gets what was returned or raised, and all that was said, and tells what is wrong with it, if anything."""

    name: str
    prepare: Callable[[Scene], Awaitable[None]]
    act: Callable[[Scene, dict[str, Any]], Awaitable[Any]]
    judge: Callable[[Scene, Any, str], str | None]
    words: Callable[[Any], str] = lambda _: "done"


async def _nothing(scene: Scene) -> None: ...


async def _killed_elsewhere(scene: Scene) -> None:
    await scene.abandoned("step_5", here=False)


async def _two(scene: Scene) -> None:
    await scene.committed("step_1")
    await scene.committed("step_2")


async def _one(scene: Scene) -> None:
    await scene.committed("step_5")


async def _one_and_an_attempt(scene: Scene) -> None:
    await scene.committed("step_1")
    await scene.abandoned("step_5", here=True)


async def _put(scene: Scene, options: dict[str, Any]) -> Any:
    return await aio.put(scene.source, scene.url("step_5"), storage_options=options)


async def _latest(scene: Scene, options: dict[str, Any]) -> Any:
    found = await aio.latest(scene.root.url, storage_options=options)
    return found.name if found is not None else None


async def _get(scene: Scene, options: dict[str, Any]) -> Any:
    return await aio.get(scene.url("step_5"), scene.directory / "copy", storage_options=options)


async def _verify(scene: Scene, options: dict[str, Any]) -> Any:
    return await aio.verify(scene.url("step_5"), storage_options=options)


async def _remove(scene: Scene, options: dict[str, Any]) -> Any:
    return await aio.remove(scene.url("step_5"), storage_options=options)


async def _keep_last(scene: Scene, options: dict[str, Any]) -> Any:
    return [one.name for one in await aio.keep_last(scene.root.url, 1, storage_options=options)]


async def _sweep(scene: Scene, options: dict[str, Any]) -> Any:
    return await aio.sweep(scene.root.url, older_than=timedelta(0), storage_options=options)


def _judge_commit(scene: Scene, outcome: Any, said: str) -> str | None:
    if isinstance(outcome, OutcomeUnknownError):
        return None
    if isinstance(outcome, Exception):
        return "an error, but it is committed" if scene.is_committed("step_5") else None
    return None if scene.is_whole("step_5") else "success, but it is not there whole"


def _is_denied(outcome: Any) -> str | None:
    """What is committed is there in each of these; only the store's own word may say that it is not."""
    return "what is committed is said not to be" if isinstance(outcome, NotCommittedError) else None


def _judge_latest(scene: Scene, outcome: Any, said: str) -> str | None:
    if denied := _is_denied(outcome):
        return denied
    return None if isinstance(outcome, Exception) or outcome == "step_2" else f"{outcome} is said to be the newest"


def _judge_get(scene: Scene, outcome: Any, said: str) -> str | None:
    copy = scene.directory / "copy"
    if denied := _is_denied(outcome):
        return denied
    if isinstance(outcome, Exception):
        return "an error, but something is there" if copy.exists() else None
    whole = all((copy / name).read_bytes() == data for name, data in CONTENT.items())
    return None if whole else "success, but the copy is not whole"


def _judge_verify(scene: Scene, outcome: Any, said: str) -> str | None:
    if denied := _is_denied(outcome):
        return denied
    return None if isinstance(outcome, Exception) or outcome.ok else f"a whole directory is said to be: {outcome}"


def _judge_remove(scene: Scene, outcome: Any, said: str) -> str | None:
    is_there = scene.is_committed("step_5")
    if is_there and (denied := _is_denied(outcome)):
        return denied
    if isinstance(outcome, OutcomeUnknownError):
        return None
    if not isinstance(outcome, Exception):
        return "success, but it is committed as before" if is_there else None
    if is_there:
        return None if scene.is_whole("step_5") else "it is committed, but not whole"
    return None if "removed" in said else "an error that does not say that readers do not see it any more"


def _judge_keep_last(scene: Scene, outcome: Any, said: str) -> str | None:
    if not scene.is_whole("step_2"):
        return "the newest is not whole any more"
    is_there = scene.is_committed("step_1")
    if denied := _is_denied(outcome):
        return denied
    if is_there and not scene.is_whole("step_1"):
        return "the other is committed, but not whole"
    if isinstance(outcome, OutcomeUnknownError):
        return None
    if isinstance(outcome, Exception):
        return None if is_there or "removed" in said else "an error that does not say that step_1 is removed"
    if outcome == ["step_1"]:
        return "step_1 is said to have gone, and is there" if is_there else None
    return None if is_there and "step_1" in said else "it does not say what became of step_1"


def _judge_sweep(scene: Scene, outcome: Any, said: str) -> str | None:
    if not scene.is_whole("step_1"):
        return "a committed directory is not whole any more"
    if denied := _is_denied(outcome):
        return denied
    if isinstance(outcome, Exception):
        return None
    ours = [swept for swept in outcome if swept.path.name == "step_5"]
    left = bool(scene.root.read_all("step_5"))
    if not ours:
        return "the attempt is not told of" if left else None
    if any(swept.done and swept.action is Action.REMOVE for swept in ours) and left:
        return "the attempt is said to have gone, and is there"
    return None


def _words_sweep(outcome: Any) -> str:
    ours = [swept for swept in outcome if swept.path.name == "step_5"]
    if any(swept.done for swept in ours):
        return "done"
    failed = [type(swept.error).__name__ for swept in ours if swept.error]
    return f"told: {failed[0]}" if failed else "told: kept"


OPERATIONS = (
    Operation("commit", _nothing, _put, _judge_commit),
    Operation("take-over", _killed_elsewhere, _put, _judge_commit),
    Operation("latest", _two, _latest, _judge_latest),
    Operation("get", _one, _get, _judge_get),
    Operation("verify", _one, _verify, _judge_verify),
    Operation("remove", _one, _remove, _judge_remove),
    Operation("keep_last", _two, _keep_last, _judge_keep_last, lambda gone: "done" if gone else "kept, and said so"),
    Operation("sweep", _one_and_an_attempt, _sweep, _judge_sweep, _words_sweep),
)
