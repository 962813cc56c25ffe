"""Creating the temporary paths of many directories, once for all processes of a job, now or in the background."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

import anyio
from upath import UPath

from atomicpath._core import telemetry
from atomicpath._core.environment import cleaning_up, current, shielded, use
from atomicpath._core.failures import Document
from atomicpath._core.layout import check_file_name
from atomicpath._core.runner import protected
from atomicpath._core.tasks import map_concurrently
from atomicpath._profile.storage_errors import at_final, of_the_caller, reported
from atomicpath.abc import TemporaryPath
from atomicpath.coordinators.collective import CollectiveCall
from atomicpath.coordinators.options import MultiprocessingOptions
from atomicpath.coordinators.process_group import ProcessGroup, SharedOutcome
from atomicpath.errors import ValidationError
from atomicpath.guarantees import Guarantee

__all__ = ["Signal", "create_all", "create_all_async", "on_commit_callback"]

_LOG = logging.getLogger("atomicpath")
_AT_ONCE = 16


def _together(*_: object, **__: object) -> str:
    return "all of the directories"


class Signal(Protocol):
    """What `create_all_async` tells when it is done: a `CompletionSignal`, or anything of this shape."""

    async def send(self, error: BaseException | None = None) -> None:
        """Tell, once and in the primary, that everything is there, or that it will not come because of `error`."""


@protected
@reported("cannot create {}", _together)
async def create_all(
    paths: Iterable[TemporaryPath], *, multiprocessing_options: MultiprocessingOptions | None = None
) -> None:
    """Create all paths, many at once, in the primary of a job; call this in all active processes.

    The processes may write once the call returns. Every call returns only once all processes have called and everything
    was created. After an error, what the calling process had created is discarded.

    Every process returns only once all have come and everything was created. After an error what this one had created
    is discarded.

    Args:
        paths: The attempts, in the same order in every process.
        multiprocessing_options: Which processes take part; left out, this one alone.

    Raises:
        AtomicPathError: The error of the primary, the same in every process.
        RankFailedError: Another process failed with an error that is not of this library.
        CoordinationTimeoutError: A process did not come in time.
    """
    group = ProcessGroup(multiprocessing_options)
    team = CollectiveCall(group, current(), "create_all", failure_summary="nothing was created")
    created: list[TemporaryPath] = []

    async def create(offers: Sequence[Document]) -> Document:  # noqa: ARG001 - that all have come is enough
        await _create(attempts, created, ())
        return {}

    async def agree(offers: Sequence[Document]) -> Document:  # noqa: ARG001 - that nobody has failed is enough
        return {}

    try:
        attempts = _attempts(paths)  # the others are told if this process alone was called with something else
        if group.independent:
            await team.run_on_primary("begin", {}, agree)
            await create(())
            await team.run_on_primary("create", {}, agree)
        else:
            await team.run_on_primary("create", {}, create)
    except BaseException as error:
        with cleaning_up("create_all", error):
            await team.fail("create", error)
            await _discard(created)
            if isinstance(error, Exception):
                await team.wait_for_acks("create")
        raise


def create_all_async(
    paths: Iterable[TemporaryPath],
    completion_signals: Iterable[Signal] = (),
    *,
    multiprocessing_options: MultiprocessingOptions | None = None,
    subdirectories: Sequence[str] | None = None,
) -> Future[None]:
    """Return at once, while the primary creates in a background thread; call this in all active processes.

    The primary creates all paths, makes the same `subdirectories` under each, and then sends every signal. Other
    processes, or other threads, wait for a signal before they write. In the primary the future ends when that is done,
    and in the other processes when it is known. Nobody waits for a process that has not called.

    If it fails, what was created is discarded, the signals carry the failure, and the future raises it: the error
    itself in the primary, RankFailedError elsewhere. The failure is logged too, since a future may never be asked.
    """
    attempts, signals, group = _attempts(paths), list(completion_signals), ProcessGroup(multiprocessing_options)
    if len({id(signal) for signal in signals}) != len(signals):
        raise ValidationError("one of the completion signals is listed twice, and each is sent once")
    if isinstance(subdirectories, str):
        raise ValidationError(f"subdirectories is a list of names, not one: [{subdirectories!r}]")
    names = tuple(check_file_name(name) for name in subdirectories or ())
    done = SharedOutcome(group, group.key("create_all_async"), "the creation of the directories")
    work = functools.partial(_create_and_tell, attempts, names, [done.set, *(signal.send for signal in signals)])
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()  # others rely on what a process has begun
    main = work if group.is_primary else done.wait
    environment, trace = current(), telemetry.current_trace()

    def run() -> None:
        try:
            with use(environment), telemetry.within(trace), telemetry.in_background():
                anyio.run(main)
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks the future
            _LOG.error("directories could not be created in the background: %s", error)
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="atomicpath-create").start()
    return future


@protected
@reported("{} was not committed", at_final)
async def on_commit_callback(temporary_path: TemporaryPath, *, checkpoint_start_time: float) -> None:
    """Finalize an attempt, record how long the save took, and log who committed what, on logger "atomicpath".

    Concurrent readers and writers see what they see of `TemporaryPath.finalize`.

    Args:
        temporary_path: The attempt.
        checkpoint_start_time: When the save began, in seconds since the epoch.

    Raises:
        AtomicPathError: As for `TemporaryPath.finalize`; nothing is recorded then.
    """
    with telemetry.finalizing(temporary_path), of_the_caller():
        await temporary_path.finalize()
    seconds = max(0.0, current().wall_ns() / 1e9 - checkpoint_start_time)  # a clock may have been put back
    telemetry.record_save(seconds, temporary_path)
    final = temporary_path.get_final()
    _LOG.info(
        "committed %s in %.3f s, by process %d, thread %s",
        getattr(final, "path", final),
        seconds,
        os.getpid(),
        threading.current_thread().name,
    )


def _attempts(paths: Iterable[TemporaryPath]) -> list[TemporaryPath]:
    """Raise ValidationError for what is no attempt; return the attempts as a list.

    The error is raised in this process alone, and before anything is said to the others.
    """
    if isinstance(paths, str | bytes | os.PathLike | UPath | TemporaryPath):
        raise ValidationError(f"paths is a list of attempts, not one {type(paths).__name__}: pass [attempt]")
    attempts = list(paths)
    for attempt in attempts:
        if not isinstance(attempt, TemporaryPath):
            raise ValidationError(
                f"a {type(attempt).__name__} is no attempt, which is what is created: make one with"
                " AtomicRenameTemporaryPath.from_final(path) or CommitFileTemporaryPath.from_final(path)"
            )
    return attempts


@reported("cannot create {}", _together)
async def _create_and_tell(
    attempts: list[TemporaryPath],
    subdirectories: tuple[str, ...],
    tell: Sequence[Callable[[BaseException | None], Awaitable[None]]],
) -> None:
    created: list[TemporaryPath] = []
    failure: BaseException | None = None
    try:
        await _create(attempts, created, subdirectories)
    except BaseException as error:  # noqa: BLE001 - raised again once all have been told
        failure = error
        with cleaning_up("create_all_async", error):
            await _discard(created)
    with shielded():
        for one in tell:
            try:
                with of_the_caller():
                    await one(failure)
            except Exception as error:  # noqa: BLE001 - as above; the others are told all the same
                failure = failure or error
        if failure is not None:
            await _discard(created)  # to call it again does nothing
            raise failure


async def _create(
    attempts: Iterable[TemporaryPath], created: list[TemporaryPath], subdirectories: tuple[str, ...]
) -> None:
    async def one(attempt: TemporaryPath) -> None:
        with telemetry.creating(attempt), of_the_caller():
            await attempt.create()
        created.append(attempt)
        if subdirectories and _has_directories(attempt):
            await current().step(_make, attempt, subdirectories)

    await map_concurrently(attempts, one, at_once=_AT_ONCE)


def _has_directories(attempt: TemporaryPath) -> bool:
    """Return False only where the place is known to have no directories.

    An object store has none to make, and a client might make a bucket instead.
    """
    guarantees = attempt.options.guarantees
    return guarantees is None or Guarantee.DIRECTORIES in guarantees


def _make(attempt: TemporaryPath, subdirectories: Iterable[str]) -> None:
    for name in subdirectories:
        (attempt.get() / name).mkdir(parents=True, exist_ok=True)


async def _discard(attempts: Iterable[TemporaryPath]) -> None:
    for attempt in attempts:
        try:
            await attempt.discard()
        except Exception as error:  # noqa: BLE001 - a user's strategy may raise anything; the first error counts
            _LOG.warning("an attempt was given up but could not be discarded: %s", error)
