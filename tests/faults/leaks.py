"""What an operation must give back: descriptors, threads, locks."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import Counter
from pathlib import Path

__all__ = ["Snapshot", "locks_below"]

_PATIENCE = 20.0  # seconds for threads that are ending; they need milliseconds


class Snapshot:
    """The descriptors and threads of this process at one moment."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.descriptors = _descriptors()

    def left(self, *, of_anyio: bool) -> list[str]:
        """Return what there is now in excess of it, in words.

        `of_anyio`: its threads count, too. They belong to the event loop, which may have been the caller's.
        """
        deadline = time.monotonic() + _PATIENCE
        while (threads := self._new_threads(of_anyio)) and time.monotonic() < deadline:
            time.sleep(0.002)
        found = [f"the thread {thread.name!r} still runs" for thread in threads]
        more = _descriptors() - self.descriptors
        return found + [f"a descriptor of {target} is open" for target in more.elements()]

    def _new_threads(self, of_anyio: bool) -> list[threading.Thread]:
        others = ("fsspecIO",) if of_anyio else ("fsspecIO", "AnyIO worker thread")
        return [thread for thread in threading.enumerate() if thread not in self.threads and thread.name not in others]


def _descriptors() -> Counter[str]:
    """What this process has open, without sockets and pipes: clients keep connections for the next request."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one of this listing
            continue
        if (target.startswith("/") and not target.startswith("/dev/")) or target.startswith("/dev/shm/"):
            found[target] += 1
    return found


def locks_below(root: Path, *, except_for: str) -> list[str]:
    """Return the files and directories below a root that somebody holds a lock on, without those of one name."""
    if not root.is_dir():
        return []
    found = []
    for path in [root, *root.rglob("*")]:
        if except_for in str(path.relative_to(root)) or not (path.is_dir() or path.is_file()):
            continue
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(f"a lock on {path.relative_to(root)} is held")
        finally:
            os.close(fd)
    return found
