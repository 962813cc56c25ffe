"""Running one call of a face to its end, whoever interrupts: in the calling thread, or in one of its own.

Native cancellation of asyncio, signal handlers and the end of an event loop break into whatever they meet. So the
protocols run where none of them reaches: without an event loop, between two safe points; or in a thread with an event
loop of its own, which only `Worker.interrupt` cancels. The caller waits, and then raises what interrupted it.
"""

from __future__ import annotations

import functools
import logging
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, Generic, ParamSpec, TypeVar

import anyio
import anyio.lowlevel

from atomicpath.errors import OutcomeUnknownError, StorageError

from . import telemetry
from .concurrency import start_thread, wake
from .environment import EventLoopNeeded, current, in_this_thread, is_in_this_thread, this_run, under, use
from .forks import unforked
from .interruption import Interrupted, Run, Signals

__all__ = ["Worker", "protected", "run", "run_alone", "run_detached", "run_protected"]

P = ParamSpec("P")
T = TypeVar("T")

Main = Callable[[], Coroutine[object, object, T]]

_LOG = logging.getLogger("atomicpath")
_AGAIN = 1.0  # seconds after an interruption from which another one is a new wish: forwarders send a signal twice
_LOOK = 1.0  # seconds between looks at what is waited for, should something beyond this process's control go wrong


def run_alone(main: Main[T]) -> T:
    """Run as `run` does, but without an event loop.

    An event loop would cost as much as a whole commit to a disk.

    Raise EventLoopNeeded, before anything was done, if one is needed, or if one runs in this thread.
    """
    if _in_event_loop():
        raise EventLoopNeeded
    with Signals() as signals:
        value, error = _drive(main, Run(signals.deliver))
    if signals.error is not None:
        error = _of_handler(signals, error)
    return _outcome(value, error)


def _in_event_loop() -> bool:
    # asyncio itself is asked: in a callback no task runs, and anyio sees no loop. It is also much faster.
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if running is not None and running() is not None:
        return True
    if "trio" not in sys.modules:
        return False
    try:
        anyio.lowlevel.current_token()
        return True
    except RuntimeError:
        return False


def _drive(main: Main[T], run: Run) -> tuple[list[T], BaseException | None]:
    coroutine = main()
    try:
        with under(run):
            coroutine.send(None)
    except StopIteration as end:
        return [end.value], None
    except BaseException as error:  # noqa: BLE001 - raised again by the caller
        return [], error
    coroutine.close()
    return [], RuntimeError("a step of a local commit waited for something: this is a mistake in atomicpath")


def run(main: Main[T]) -> T:
    """Run a coroutine function to its end from blocking code, in any thread.

    What a signal handler raises meanwhile is raised unchanged, once everything is given up or done.
    """
    events: queue.SimpleQueue[None] = queue.SimpleQueue()  # the one that a signal handler may put into

    def look() -> None:
        events.put(None)

    with Signals(look) as signals:
        worker = Worker(main, backend="asyncio", inline=True, ended=look)
        worker.start()
        interrupted_at: float | None = None
        again = worker_left = False
        while not (worker.ended or worker_left):
            raised = signals.raised
            try:
                # Only says that there is something to see: what was seen is never taken from here, nor lost with it.
                events.get(timeout=_LOOK)
            except queue.Empty:
                pass
            except BaseException as error:  # noqa: BLE001 - of a handler that was set meanwhile
                signals.keep(error)
            if signals.deliver():
                worker.interrupt()
                interrupted_at = interrupted_at or time.monotonic()
                again = again or (signals.raised > raised and time.monotonic() - interrupted_at >= _AGAIN)
                worker_left = again and not worker.run.is_shielded
    outcome = worker.error
    if worker_left:
        _LOG.warning("interrupted again: what is being given up is not waited for any longer")
    if signals.error is not None:
        outcome = _of_handler(signals, outcome)
    return _outcome(worker.value, outcome)


def _of_handler(signals: Signals, error: BaseException | None) -> BaseException | None:
    """Return the error that a signal handler raised, which precedes the outcome of the call."""
    if isinstance(error, OutcomeUnknownError):
        _LOG.warning("interrupted while the outcome was being settled: %s", error)
    elif error is not None and not isinstance(error, Interrupted):
        _LOG.debug("interrupted, and it failed: %s", error)
    return signals.error


def _outcome(value: list[T], error: BaseException | None) -> T:
    try:
        if error is not None:
            raise error
        return value[0]
    finally:
        del error  # its traceback has this frame: both, and what they refer to, would wait for the garbage collector


class Worker(Generic[T]):
    """One coroutine in a thread and an event loop of its own. `interrupt` is the only way into it."""

    def __init__(self, main: Main[T], *, backend: str, inline: bool, ended: Callable[[], object]) -> None:
        """Take the callback `ended`, which is called in the thread once the attribute `ended` is true."""
        self.run = Run()
        self.value: list[T] = []
        self.error: BaseException | None = None
        self.ended = False
        self.broken_off = False
        self._main = main
        self._backend = backend
        self._inline = inline
        self._tell = ended
        self._started = False
        self._scope: anyio.CancelScope | None = None
        self._token: anyio.lowlevel.EventLoopToken | None = None
        # Nothing else of this context, which may say that a loop runs in it, but who called.
        self._environment, self._trace = current(), telemetry.current_trace()

    def start(self) -> None:
        """Start the thread.

        Where no thread can be started any more, the function is run at once, in the calling thread.
        """
        if self._started:
            return
        self._started = True
        if not start_thread(self._work, f"atomicpath, for {threading.current_thread().name}"):
            self._work()

    def run_here(self) -> None:
        """Run the function in the calling thread to its end; `value` and `error` then tell the outcome."""
        self._started = True
        self._work()
        self.run.break_off = None  # which refers to this, and so to all that the coroutine function does

    def interrupt(self) -> None:
        """Have the function break off at the next point where it may.

        Call this from any thread; it returns at once.
        """
        self.run.asked = True
        token = self._token
        if token is not None:
            wake(token, self._break_off)

    def _work(self) -> None:
        try:
            with (
                use(self._environment),
                telemetry.within(self._trace),
                in_this_thread(self._inline),
                under(self.run),
            ):
                _make_ready(self._backend)
                anyio.run(self._scoped, backend=self._backend)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self.error = _no_event_loop(error) if isinstance(error, OSError) and self.run.loop is None else error
        finally:
            self.ended = True
            self._tell()

    async def _scoped(self) -> None:
        token = anyio.lowlevel.current_token()
        self.run.loop = token.native_token
        self._context = copy_context()
        with anyio.CancelScope() as self._scope:
            self._token, self.run.break_off = token, self._break_off
            if self.run.asked:
                self._break_off()
            self.value.append(await self._main())
        if self._scope.cancelled_caught:
            self.broken_off = True
            raise Interrupted

    def _break_off(self) -> None:
        assert self._scope is not None  # noqa: S101 - for the type checkers
        if not self._scope.cancel_called:
            self._scope.cancel()
            self._context.copy().run(self.run.bound)


def _no_event_loop(error: OSError) -> StorageError:
    """Return the error for a call that could not even begin.

    Nothing of the caller's was called.
    """
    told = StorageError(
        f"no event loop can be started for this call: {error}. Nothing was done: close some files, or raise the limit"
        " (ulimit -n), then call again"
    )
    told.__cause__ = error
    return told


_ready: set[str] = set()  # the kinds of event loops that have run in this process


def _make_ready(backend: str) -> None:
    """Have anyio import what it needs for a kind of event loop, which it does when the first one runs."""
    if backend not in _ready:
        with unforked:
            anyio.run(_nothing, backend=backend)
        _ready.add(backend)


async def _nothing() -> None:
    """Do nothing, for an event loop that only has to have run."""


async def run_protected(main: Main[T]) -> T:
    """Run a coroutine function to its end from any event loop, in spite of any cancellation.

    It runs in an event loop of its own, of the same kind as the caller's. A cancellation of the calling task breaks the
    function off at the next point where it may be, and is raised once what was begun is given up. A cancellation that
    comes too late for that changes nothing about the call, which returns or raises what it would have. That
    cancellation is delivered where the task waits next.
    """
    token = anyio.lowlevel.current_token()
    outer = this_run()
    if outer is not None and (not outer.has_event_loop or outer.loop is token.native_token):
        return await main()  # the outer call is protected already
    over, task = anyio.Event(), _Task()
    backend = token.backend_class.__module__.rpartition("._")[2]
    worker = Worker(main, backend=backend, inline=is_in_this_thread(), ended=lambda: wake(token, over.set))
    interruption: BaseException | None = None
    try:
        await anyio.lowlevel.checkpoint_if_cancelled()
        worker.start()
        await over.wait()
    except GeneratorExit:  # the coroutine is dropped, and may not wait for anything
        worker.interrupt()
        raise
    except BaseException as error:  # noqa: BLE001 - raised again below
        worker.interrupt()
        worker.start()  # also where it was cancelled before: what is to be ended or given up has to be
        interruption = error
        task.note(error, native=anyio.current_effective_deadline() != -math.inf)
    with anyio.CancelScope(shield=True):
        while not worker.ended:
            try:
                await over.wait()
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - as above; nothing but a native one breaks into the shield
                task.note(error, native=True)
                interruption = error
    if interruption is not None and (worker.broken_off or not task.is_cancelled):
        try:
            raise interruption
        finally:
            del interruption
    task.deliver_again()
    return _outcome(worker.value, worker.error)


def run_detached(main: Main[object]) -> None:
    """Run a coroutine function in a thread that nobody waits for.

    It is for a caller that may not wait any more.
    """
    Worker(main, backend="asyncio", inline=True, ended=lambda: None).start()


def protected(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return the same coroutine function, run by `run_protected`."""

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await run_protected(functools.partial(function, *args, **kwargs))

    return call


class _Task:
    """The calling task, and its cancellations that came too late for a call.

    Those of a scope of anyio or trio come again by themselves at whatever is waited for next. A native one of asyncio
    comes once: it is asked for again, unless whoever asked for it has called it off by then, as asyncio.timeout does.
    """

    def __init__(self) -> None:
        asyncio = sys.modules.get("asyncio")
        self._loop: Any = asyncio and getattr(asyncio, "_get_running_loop")()  # noqa: B009 - not told to type checkers
        self._task: Any = asyncio.current_task() if asyncio and self._loop else None
        self._native: BaseException | None = None
        self._requests = 0  # for cancellation that the task had when that came, which whoever calls it off takes back
        self.is_cancelled = True

    def note(self, error: BaseException, *, native: bool) -> None:
        self.is_cancelled = self.is_cancelled and isinstance(error, anyio.get_cancelled_exc_class())
        if native and self._task is not None:
            self._native, self._requests = error, self._task.cancelling()

    def deliver_again(self) -> None:
        if self._native is not None:
            self._loop.call_soon(self._cancel, *self._native.args[:1])

    def _cancel(self, *message: object) -> None:
        if not self._task.done() and 0 < self._requests <= self._task.cancelling():
            self._task.uncancel()
            self._task.cancel(*message)
