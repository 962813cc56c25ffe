"""Whether the process that holds an attempt still lives: this process's identity, and proof about another's."""

from __future__ import annotations

import enum
import os
import socket
import sys
import time
import weakref
from collections.abc import Callable

from .environment import Environment
from .record import CommitRecord, Writer

__all__ = [
    "boot_clock",
    "is_tracked_here",
    "lives",
    "proof_of_life",
    "this_process",
    "track_attempt",
    "untrack_attempt",
]

# The attempts that this very process has under way: a record of ours that is not among them was left behind.
# The functions of each release what it holds; whichever object of this process ends the attempt calls them.
_held: dict[str, list[Callable[[], None]]] = {}
_identities: dict[int, Writer] = {}
_ENDED_STATES = ("Z", "X", "x")
_LARGEST_PID = 1 << 22  # PID_MAX_LIMIT in the kernel's include/linux/threads.h
_OTHER_CLOCK = "time:["
_HOST_CLOCK = "time:[4026531834]"  # PROC_TIME_INIT_INO in the kernel's include/linux/proc_ns.h


def this_process(environment: Environment) -> Writer:
    """Describe this process, as far as the system tells.

    The description never changes while the process runs, except in a forked child.
    """
    pid = os.getpid()
    if pid not in _identities:
        _identities.clear()
        _identities[pid] = _look_at_ourselves(environment, pid)
    return _identities[pid]


def boot_clock(environment: Environment) -> int | None:
    """Return the nanoseconds of boot time, to compare with those of other processes of the same boot.

    Return None where they cannot be compared: without a boot id, or in a time namespace of its own, whose boot time is
    shifted.
    """
    here = this_process(environment)
    if not here.boot or not here.namespace or _OTHER_CLOCK in here.namespace:
        return None
    return round(environment.monotonic() * 1e9)


def _look_at_ourselves(environment: Environment, pid: int) -> Writer:
    host = socket.gethostname()
    # A /proc that was mounted for another pid namespace would show other processes under our numbers.
    if _link(environment, "/proc/self") != str(pid):
        return Writer(host=host, pid=pid)
    start = _started(environment, pid)
    return Writer(
        host=host,
        pid=pid,
        boot=_first_line(environment, "/proc/sys/kernel/random/boot_id"),
        namespace=_namespace(environment),
        start=start if isinstance(start, int) else None,
    )


def _namespace(environment: Environment) -> str:
    """Return the pid namespace, and the time namespace unless it is the host's own.

    In another time namespace, start times are shifted.
    """
    pids, clock = (_link(environment, f"/proc/self/ns/{kind}") for kind in ("pid", "time"))
    return f"{pids} {clock}" if pids and clock not in ("", _HOST_CLOCK) else pids


def proof_of_life(environment: Environment, record: CommitRecord) -> bool | None:
    """Tell whether the holder of an attempt is at work on it; None if that cannot be seen.

    The answer is that of `lives` for the process of the holder. For its own attempts, this process knows the answer.
    """
    writer, here = record.writer, this_process(environment)
    if writer.boot and writer.start is not None and _same_process(writer, here):
        return is_tracked_here(record.cleaner or record.token)
    return lives(environment, writer)


def lives(environment: Environment, writer: Writer) -> bool | None:
    """Return True if the process runs on this host, False if it is provably gone, None if neither is known.

    Pids and start times are comparable within one boot and the same namespaces; the start time tells a reused pid. A
    process that was killed and not yet reaped is gone: it will never run again. A process whose main thread has ended
    lives as long as any other of its threads. Numbers that no process can have prove nothing. Clones of a virtual
    machine may share a boot id, so death is believed only of a process of the same host name.
    """
    here = this_process(environment)
    if not writer.boot or not writer.namespace or writer.start is None:
        return None
    if (writer.boot, writer.namespace) != (here.boot, here.namespace):
        return None
    if _same_process(writer, here):
        return True
    if not 0 < writer.pid <= _LARGEST_PID or not 0 <= writer.start <= environment.call(_ticks_since_boot):
        return None
    started = _started(environment, writer.pid)
    if started == writer.start:
        return True
    return False if started is not _UNSEEN and writer.host == here.host else None


def _same_process(one: Writer, other: Writer) -> bool:
    return (one.boot, one.namespace, one.pid, one.start) == (other.boot, other.namespace, other.pid, other.start)


def track_attempt(token: str, let_go: Callable[[], None] | None = None, *, owner: object = None) -> None:
    """Note that this process has the attempt under way.

    Args:
        let_go: called once it is over, and may be called again.
        owner: the object without which nobody can end the attempt. If it is garbage, the attempt is released.
    """
    if owner is not None:
        weakref.finalize(owner, untrack_attempt, token).atexit = False
    # without a lock, which a signal handler or a forked child could find taken: each of these steps is indivisible
    _held.setdefault(token, []).extend([let_go] if let_go else [])


def untrack_attempt(token: str) -> None:
    """Note that the attempt is over in this process."""
    for let_go in _held.pop(token, []):
        let_go()


def is_tracked_here(token: str) -> bool:
    """Tell whether this process has the attempt under way."""
    return token in _held


def _forget_parents_attempts() -> None:
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_attempts)


class _Absence(enum.Enum):
    """Why no start time is known: no such process runs any more, or it cannot be looked at from here."""

    ENDED = enum.auto()
    UNSEEN = enum.auto()


_ENDED, _UNSEEN = _Absence.ENDED, _Absence.UNSEEN


def _started(environment: Environment, pid: int) -> int | _Absence:
    """Return when the process `pid` started, in clock ticks since boot, if any thread of it runs.

    By proc(5): field 3 of stat is the state, field 22 the start.
    """
    try:
        fields = _stat(environment, f"/proc/{pid}/stat")
        if fields[0] not in _ENDED_STATES or _has_threads(environment, pid):
            return int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        return _signalled(environment, pid)  # the process may only be hidden from us (hidepid)
    except (OSError, IndexError, ValueError):
        return _UNSEEN
    return _ENDED


def _has_threads(environment: Environment, pid: int) -> bool:
    """Tell whether any thread of a process runs whose main thread has ended.

    The main thread is what `stat` shows.
    """
    for thread in environment.call(os.listdir, f"/proc/{pid}/task"):
        try:
            if _stat(environment, f"/proc/{pid}/task/{thread}/stat")[0] not in _ENDED_STATES:
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue  # this thread has ended since it was listed
    return False


def _signalled(environment: Environment, pid: int) -> _Absence:
    """Ask the kernel, by a signal that does nothing, whether there is a process of this number at all."""
    try:
        environment.call(os.kill, pid, 0)
    except ProcessLookupError:
        return _ENDED
    except OSError:
        return _UNSEEN  # it lives, but whether it is the one meant cannot be seen
    return _UNSEEN


def _ticks_since_boot() -> int:
    """Return the latest start that a process can have."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return sys.maxsize if clock is None else round(time.clock_gettime(clock) * os.sysconf("SC_CLK_TCK")) + 1


def _stat(environment: Environment, path: str) -> list[str]:
    """Return the fields of a stat file after the name, which may itself contain spaces and parentheses."""
    return environment.call(_read, path).rpartition(")")[2].split()


def _first_line(environment: Environment, path: str) -> str:
    try:
        return environment.call(_read, path).strip()
    except OSError:
        return ""  # not Linux, or hidden: then nothing is provable, and the lease decides


def _link(environment: Environment, path: str) -> str:
    try:
        return environment.call(os.readlink, path)
    except OSError:
        return ""  # as above


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
