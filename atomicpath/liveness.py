"""Whether the process that holds an attempt still lives: this process's identity, and proof about another's."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable

from .environment import Environment
from .record import CommitRecord, Writer

__all__ = ["hold", "is_held_here", "lives", "proof_of_life", "release", "this_process"]

# The attempts that this very process has under way: a record of ours that is not among them was left behind.
# With what each of them has besides, to be let go of by whichever object of this process ends it.
_held: dict[str, list[Callable[[], None]]] = {}
_identities: dict[int, Writer] = {}
_ZOMBIE = -1


def this_process(environment: Environment) -> Writer:
    """Who we are, as far as the system tells; none of it changes while we run, but in a forked child."""
    pid = os.getpid()
    if pid not in _identities:
        _identities.clear()
        _identities[pid] = _look_at_ourselves(environment, pid)
    return _identities[pid]


def _look_at_ourselves(environment: Environment, pid: int) -> Writer:
    return Writer(
        host=socket.gethostname(),
        pid=pid,
        boot=_first_line(environment, "/proc/sys/kernel/random/boot_id"),
        namespace=_link(environment, "/proc/self/ns/pid"),
        start=_started(environment, pid),
    )


def proof_of_life(environment: Environment, record: CommitRecord) -> bool | None:
    """Whether the holder of an attempt is at work on it: as `lives` of its process, and this one knows its own."""
    writer, here = record.writer, this_process(environment)
    if writer.boot and writer.start is not None and _same_process(writer, here):
        return is_held_here(record.cleaner or record.token)
    return lives(environment, writer)


def lives(environment: Environment, writer: Writer) -> bool | None:
    """True: the process runs on this host. False: it is provably gone. None: no way to tell from here.

    The same boot and the same pid namespace make pids comparable; the start time tells a reused pid. A
    process that was killed and not yet reaped is gone: it will never run again.
    """
    here = this_process(environment)
    if not writer.boot or not writer.namespace or writer.start is None:
        return None
    if (writer.boot, writer.namespace) != (here.boot, here.namespace):
        return None
    if _same_process(writer, here):
        return True
    started = _started(environment, writer.pid)
    return started == writer.start if started is not None else _alive_unseen(environment, writer.pid)


def _same_process(one: Writer, other: Writer) -> bool:
    return (one.boot, one.namespace, one.pid, one.start) == (other.boot, other.namespace, other.pid, other.start)


def hold(token: str, let_go: Callable[[], None] | None = None, *, owner: object = None) -> None:
    """Note that this process has the attempt under way.

    Args:
        let_go: called once it is over, and may be called again.
        owner: the object without which nobody can end the attempt. If it is garbage, the attempt is released.
    """
    if owner is not None:
        weakref.finalize(owner, release, token).atexit = False
    # without a lock, which a signal handler or a forked child could find taken: each of these steps is indivisible
    _held.setdefault(token, []).extend([let_go] if let_go else [])


def release(token: str) -> None:
    """Note that it is over."""
    for let_go in _held.pop(token, []):
        let_go()


def is_held_here(token: str) -> bool:
    """Whether this process has the attempt under way."""
    return token in _held


def _forget_parents_attempts() -> None:
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_attempts)


def _started(environment: Environment, pid: int) -> int | None:
    """A running process's start in clock ticks since boot (field 22 of proc(5) stat); None if none is to be seen.

    _ZOMBIE for one that has ended and was not yet reaped: it will never run again.
    """
    try:
        stat = environment.call(_read, f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may itself contain spaces and parentheses
    return _ZOMBIE if fields[0] in "ZX" else int(fields[19])


def _alive_unseen(environment: Environment, pid: int) -> bool | None:
    """False if no such process lives, None if one does that we may not look at (a /proc mounted with hidepid)."""
    try:
        environment.call(os.kill, pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, but whether it is the one meant cannot be seen
    return None


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
