"""A job that saves in the background, and ends at a chosen moment in a chosen way; and what is there afterwards.

    python -m tests.manager.ends URL STORAGE_OPTIONS MOMENT END

Two saves are made, and a third one is under way when the job ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import atomicpath
from atomicpath._core import environment
from atomicpath._core.environment import Environment

P = ParamSpec("P")
T = TypeVar("T")

MOMENTS = {
    "in the block": "in the block of the save",
    "queued": "after the block, before its commit has begun",
    "files": "while its files are synced or uploaded",
    "before": "right before the step that commits",
    "after": "right after the step that commits",
    "removal": "while the saves before it are removed",
}
ENDS = {"kill": "SIGKILL", "interrupt": "Ctrl-C", "exception": "an exception", "exit": "the end of the script"}
EARLIER, NEW = 1, 2
"""The step of the last complete save, and of the one that is under way."""


def expected(moment: str, end: str) -> int:
    """The step that `latest` gives afterwards."""
    if moment == "in the block":
        return EARLIER
    if end == "kill" and moment in ("queued", "files", "before"):
        return EARLIER
    return NEW


def table() -> str:
    """The table of the documentation."""
    words = {EARLIER: "the save before", NEW: "this save"}
    head = "| The job ends | " + " | ".join(ENDS.values()) + " |\n" + "|---" * (len(ENDS) + 1) + "|\n"
    rows = [
        f"| {text} | " + " | ".join(words[expected(moment, end)] for end in ENDS) + " |"
        for moment, text in MOMENTS.items()
    ]
    return head + "\n".join(rows)


class AtThe(Environment):
    """Has the job end at a moment in the background. What commits is one rename, or the last request but one."""

    def __init__(self, moment: str, act: Callable[[], None]) -> None:
        self._moment, self._act = moment, act
        self.counting, self.acting = False, False
        self._writes, self._seen = 0, 0
        self._lock = threading.Lock()

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        name = getattr(function, "__name__", "")
        self._come("first")
        self._come("fsync" if name == "fsync" else "")
        self._come("commit" if name == "no_replace" else "")
        value = function(*args, **kwargs)
        self._come("committed" if name == "no_replace" else "")
        return value

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._come("first")
        number = None
        if "put_object" in args and _lane() == "commits":
            with self._lock:
                self._writes += self.counting
                self._seen += self.acting
                number = self._seen if self.acting else None
        self._come("fsync" if number == 2 else "")
        self._come("commit" if number == self._writes - 1 else "")
        value = await function(*args, **kwargs)
        self._come("committed" if number == self._writes - 1 else "")
        return value

    def _come(self, event: str) -> None:
        if not self.acting or (_lane(), event) != {
            "queued": ("commits", "first"),
            "files": ("commits", "fsync"),
            "before": ("commits", "commit"),
            "after": ("commits", "committed"),
            "removal": ("removals", "first"),
        }.get(self._moment):
            return
        with self._lock:
            if not self.acting:
                return
            self.acting = False
        self._act()


def _lane() -> str:
    name = threading.current_thread().name
    return next((lane for lane in ("commits", "removals") if name.startswith(f"atomicpath, {lane}")), "")


def main() -> None:
    url, options, moment, end = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
    reached = threading.Event()

    def act() -> None:
        if end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        reached.set()
        if end == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)  # the main thread ends meanwhile

    at = AtThe(moment, act)
    with environment.use(at):
        manager = atomicpath.CheckpointManager(url, keep_last=1, background=True, storage_options=options)

        def save(step: int) -> None:
            with manager.save(step) as path:
                for name in ("model", "optimizer"):
                    (path / name).write_text(f"{name} of {step}")
                if moment == "in the block" and step == NEW:
                    act()
                    if end == "exception":
                        raise ZeroDivisionError
                    if end == "exit":
                        sys.exit()

        def run() -> None:
            save(0)
            manager.wait()
            at.counting = True
            save(EARLIER)
            manager.wait()
            at.counting, at.acting = False, True
            save(NEW)
            assert reached.wait(100)
            if end == "interrupt":
                time.sleep(100)
            if end == "exception":
                raise ZeroDivisionError

        if end == "exit":  # and nobody closes the manager
            run()
        else:
            with manager:
                run()


if __name__ == "__main__":
    main()
