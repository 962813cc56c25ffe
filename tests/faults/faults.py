"""The table of faults."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["FAULTS", "Fault", "Happening"]

Kind = Literal["storage", "interruption", "nested", "kill"]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    `kind` says what is expected of it: an error of the storage is reported as an error of atomicpath, an interruption
    comes out as the caller's own exception, a nested commit disturbs nobody, a kill leaves only what is on the storage.
    `after`: it happens once the call was made. `on_asyncio`: the operation runs in an event loop of the main thread.
    """

    name: str
    kind: Kind
    fire: Callable[[Happening], None]
    after: bool = False
    on_asyncio: bool = False


@dataclass
class Happening:
    """A fault in the process in which it happens: what the caller prepared for it, and what came of it."""

    nested: Callable[[], None]
    """The commit that a signal handler makes."""
    exit: SystemExit = field(default_factory=lambda: SystemExit("by the signal handler of the test"))
    task: asyncio.Task[object] | None = None
    nested_outcome: str = ""

    def install(self, fault: Fault) -> None:
        """Set the signal handlers of a program that ends, or saves, when it is told to."""

        def leave(*_: object) -> None:
            raise self.exit

        def save(*_: object) -> None:
            try:
                self.nested()
            except BaseException as error:
                self.nested_outcome = f"{type(error).__name__}: {error}"
                raise
            self.nested_outcome = "committed"

        if fault.fire is _exit:
            signal.signal(signal.SIGUSR1, leave)
        elif fault.fire is _save:
            signal.signal(signal.SIGUSR1, save)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _error(code: int) -> Callable[[Happening], None]:
    def fire(_: Happening) -> None:
        raise OSError(code, f"{os.strerror(code)}, says the test")  # the subclass that goes with the code

    return fire


def _to_main(number: signal.Signals) -> None:
    # to the main thread itself, where Python runs its handlers: a wait there must end
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, number)


def _interrupt(_: Happening) -> None:
    _to_main(signal.SIGINT)


def _exit(_: Happening) -> None:
    _to_main(signal.SIGUSR1)


def _save(_: Happening) -> None:
    _to_main(signal.SIGUSR1)


def _cancel(happening: Happening) -> None:
    assert happening.task is not None
    happening.task.get_loop().call_soon_threadsafe(happening.task.cancel)  # whichever loop and thread this point is in


def _kill(_: Happening) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = (
    Fault("EIO", "storage", _error(errno.EIO)),
    Fault("EIO, done", "storage", _error(errno.EIO), after=True),
    Fault("ENOSPC", "storage", _error(errno.ENOSPC)),
    # Python repeats its own calls (PEP 475): this one stands for calls by ctypes and for clients that give it on
    Fault("EINTR", "storage", _error(errno.EINTR)),
    Fault("KeyboardInterrupt", "interruption", _interrupt),
    Fault("SystemExit", "interruption", _exit),
    Fault("handler commits", "nested", _save),
    Fault("cancel", "interruption", _cancel, on_asyncio=True),
    Fault("cancel, done", "interruption", _cancel, on_asyncio=True, after=True),
    Fault("KeyboardInterrupt, asyncio", "interruption", _interrupt, on_asyncio=True),
    Fault("SystemExit, asyncio", "interruption", _exit, on_asyncio=True),
    Fault("kill", "kill", _kill),
    Fault("kill, done", "kill", _kill, after=True),
)
