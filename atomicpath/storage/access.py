"""Access through fsspec: how a request runs on fsspec's own event loop, and which client makes it."""

from __future__ import annotations

import errno
import os
import types
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor  # at once: in `atexit` no import of it works any more
from contextvars import Context
from functools import partial, wraps
from typing import Generic, ParamSpec, Protocol, TypeVar, cast
from weakref import WeakSet

import anyio
import anyio.lowlevel
import fsspec
import fsspec.asyn
import fsspec.config

from atomicpath._core.concurrency import start_thread, wake
from atomicpath._core.environment import look_ahead
from atomicpath.abc import Environment, Storage

from .budget import CONNECTIONS
from .silence import watched

__all__ = [
    "AsyncFilesystem",
    "FsspecStorage",
    "IOLoop",
    "PerProcess",
    "client_class",
    "configuration",
    "forget_cached",
    "io_loop",
    "is_known_to_fsspec",
    "limiter_of",
]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound="AsyncFilesystem")

_GRACE = 1.0  # seconds that a request has to end by itself after its caller was cancelled
_CANCELLED_WAIT = 5.0  # seconds a cancelled request has to end before we go on without it
_KEPT = 32  # file systems; a long run may pass new credentials as options many times


class _Task(Protocol[T]):
    def add_done_callback(self, callback: Callable[[_Task[T]], object], /) -> object: ...
    def cancel(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def exception(self) -> BaseException | None: ...
    def result(self) -> T: ...


class IOLoop(Protocol):
    """What is used of the event loop that fsspec runs in a thread of its own."""

    def call_soon_threadsafe(self, callback: Callable[[], object], /) -> object:
        """Call it in the loop's thread."""

    def create_task(self, coroutine: Coroutine[object, object, T], /) -> _Task[T]:
        """Start a coroutine; in the loop's thread only."""

    def set_default_executor(self, executor: ThreadPoolExecutor, /) -> object:
        """Choose the worker threads."""

    def run_in_executor(self, executor: None, function: Callable[..., T], /, *args: object) -> Awaitable[T]:
        """Call a blocking function in one of the loop's worker threads."""


class AsyncFilesystem(Protocol):
    """What is used of an asynchronous fsspec file system that is not in asynchronous mode."""

    @property
    def loop(self) -> IOLoop:
        """fsspec's own event loop, which runs every request of this instance."""


class PerProcess(Generic[T]):
    """Gives one object for each process and each set of options, shared by whoever asks with the same ones.

    It is made when it is first asked for, as `make(options)`. Neither is a parent's used in a forked child, where its
    event loop does not run. `under` tells apart what the same options lead to under different circumstances.
    """

    def __init__(
        self, make: Callable[[dict[str, object]], T], options: Mapping[str, object], *, under: str = ""
    ) -> None:
        self._make = make
        self._options = _Options(dict(options))
        self._under = under

    def __call__(self) -> T:
        """Return the object; make it if this process has none yet."""
        key = os.getpid(), self._make, self._options, self._under
        found = _kept.get(key)
        if found is None:
            found = _kept.setdefault(key, self._make(self._options.copy()))
            for oldest in list(_kept)[:-_KEPT]:
                _kept.pop(oldest, None)
        return cast("T", found)

    def drop(self, used: object) -> None:
        """Have the next call make the object anew, if the present one is still the one that was used."""
        key = os.getpid(), self._make, self._options, self._under
        if _kept.get(key) is used:
            _kept.pop(key, None)


def client_class(known: type[T]) -> type[T]:
    """Return the class of a file system for our own use.

    fsspec's configuration adds nothing to the options that such a class is given: they were resolved before, with that
    configuration beneath them.
    """
    made: type[T] = types.new_class(known.__name__, (known,), exec_body=lambda body: body.update(protocol=()))
    return made


def configuration(protocols: Sequence[str]) -> dict[str, object]:
    """Return the options that fsspec is configured with for these protocols, by files, the environment or a program."""
    found: dict[str, object] = fsspec.config.apply_config(types.SimpleNamespace(protocol=tuple(protocols)), {})
    return found


def forget_cached(known: type[object], options: Mapping[str, object]) -> None:
    """Have fsspec make its own instances of a class anew, which users' paths share, where they have these options."""
    instances: dict[str, object] = getattr(known, "_cache", {})
    for token, instance in list(instances.items()):
        if dict(getattr(instance, "storage_options", {})) == dict(options):
            instances.pop(token, None)


def is_known_to_fsspec(protocol: str) -> bool:
    """Tell whether fsspec has, or could have, a file system for a protocol."""
    return protocol in fsspec.registry or protocol in fsspec.available_protocols()


def io_loop() -> IOLoop:
    """Return fsspec's own event loop in this process."""
    return cast("IOLoop", fsspec.asyn.get_loop())


class _Options:
    """Options as a cache key. They may hold unhashable values, which compare by what they show."""

    def __init__(self, options: dict[str, object]) -> None:
        self._options = _copy(options)  # also keeps what is compared by its address from being replaced
        self.key = repr(sorted(options.items(), key=lambda item: item[0]))

    def copy(self) -> dict[str, object]:
        """Return a copy of the options for a client: botocore writes into the dictionaries it is given."""
        return _copy(self._options)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Options) and other.key == self.key


def _copy(value: T) -> T:
    # not copy.deepcopy: a value may be a session or a lock
    return cast("T", {name: _copy(item) for name, item in value.items()}) if isinstance(value, dict) else value


_kept: dict[tuple[int, Callable[..., object], _Options, str], object] = {}
"""By process, what makes it, and with which options. No lock guards it, which a signal handler or a fork could meet:
two threads at worst make one each, and both use the first."""


class FsspecStorage(Storage, Generic[F]):
    """Base of storages on an asynchronous fsspec file system, usable from any event loop, thread and fork.

    `open` gives the current process's file system, see `PerProcess`. It is asked before every request, so that
    a storage made before a fork works after it.
    """

    def __init__(self, open: Callable[[], F], environment: Environment) -> None:  # noqa: A002 - `Backend.open`'s verb
        super().__init__(environment)
        self._open = open

    @property
    def filesystem(self) -> F:
        """The file system instance of this process."""
        return self._open()

    def forget(self, used: object) -> None:
        """Have the next request make its client anew: the credentials of the used one were refused, or have expired."""
        if isinstance(self._open, PerProcess):
            self._open.drop(used)

    async def request(
        self, function: Callable[P, Coroutine[object, object, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Make one request: run a coroutine function of the file system in its own event loop.

        A cancelled caller lets the request end for a moment, since what was sent may be carried out after it was
        cancelled, and after its caller has cleaned up. Then cancellation reaches the coroutine there. This returns only
        when that has ended, so that a cancelled request sends nothing more.
        """

        @wraps(function)
        async def there(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.there(function, *args, **kwargs)

        await look_ahead()
        return await self.environment.request(there, *args, **kwargs)

    async def there(
        self, function: Callable[P, Coroutine[object, object, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function in the file system's event loop, as `request` does, if the function sends nothing."""
        return await _run(self.filesystem.loop, partial(function, *args, **kwargs))


async def _run(loop: IOLoop, start: Callable[[], Coroutine[object, object, T]]) -> T:
    token, over = anyio.lowlevel.current_token(), anyio.Event()
    tasks: list[_Task[T]] = []
    ended: list[_Task[T]] = []

    async def bounded() -> T:
        with watched():
            return await start()
        raise AssertionError("unreachable: a request that was ended is an error")

    def begin() -> None:
        _prepare(loop)
        task = loop.create_task(bounded())
        tasks.append(task)
        task.add_done_callback(end)

    def end(task: _Task[T]) -> None:
        ended.append(task)
        wake(token, over.set)

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    async with limiter_of(_limiters, CONNECTIONS):
        # In a context of its own: the caller's one may say that this is trio, which anyio would believe there.
        Context().run(loop.call_soon_threadsafe, begin)
        try:
            await over.wait()
        finally:
            if not ended:
                with anyio.move_on_after(_GRACE, shield=True):
                    await over.wait()
            if not ended:
                loop.call_soon_threadsafe(cancel)
                with anyio.move_on_after(_CANCELLED_WAIT, shield=True):
                    await over.wait()
    if ended[0].cancelled():
        raise OSError(errno.ECANCELED, "the request was cancelled: its outcome is unknown")
    return ended[0].result()


_limiters: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("atomicpath_requests")


def limiter_of(limiters: anyio.lowlevel.RunVar[anyio.CapacityLimiter], tokens: int) -> anyio.CapacityLimiter:
    """Return the limiter of the running event loop, which is made with so many tokens when it is first asked for."""
    limiter = limiters.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(tokens)
        limiters.set(limiter)
    return limiter


_prepared: WeakSet[IOLoop] = WeakSet()


def _prepare(loop: IOLoop) -> None:
    """Give fsspec's event loop threads that still work in `atexit`: its client looks addresses up in them."""
    if loop not in _prepared:
        loop.set_default_executor(_PlainThreads())
        _prepared.add(loop)


class _PlainThreads(ThreadPoolExecutor):
    """A thread for each call. Those of the class itself refuse to work once the main thread has ended."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)

        if future.set_running_or_notify_cancel() and not start_thread(work, "atomicpath-io"):
            work()
        return future
