"""The lock and the record of a staging directory, and the removal of those that dead processes of this user left."""

from __future__ import annotations

import logging
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from atomicpath._core.environment import Environment
from atomicpath._core.layout import RECORD_FILE
from atomicpath._core.liveness import proof_of_life, this_process
from atomicpath._core.record import CommitRecord, State
from atomicpath._core.tree_removal import identity, opened, remove_tree
from atomicpath.abc import FileLock
from atomicpath.errors import AtomicPathError

if sys.platform != "win32":
    import fcntl

__all__ = ["PREFIX", "lock_new", "remove_abandoned", "remove_staged"]

PREFIX = "atomicpath-staging-"
"""Start of the name of a staging directory; its token follows."""

_LOG = logging.getLogger("atomicpath")
_STRATEGY = "staging"
_LOCKED = "locked"
_LARGEST_RECORD = 64 * 1024  # bytes; ours have some hundred
_EXISTING = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class _Lock(FileLock):
    """An open file whose lock goes with its descriptor."""

    def __init__(self, environment: Environment, file: int) -> None:
        self._environment = environment
        self._files = [file]

    def release(self) -> None:
        while self._files:
            with suppress(OSError):  # a failing close of a lock loses nothing
                self._environment.call(os.close, self._files.pop())


def lock_new(environment: Environment, outer: int, token: str) -> FileLock:
    """Write the record into a new staging directory, which is open, and lock it until the hold is released.

    The lock is taken before the record can be read. The record says whether there is one: some mounts have none.
    """
    call = environment.call
    file = call(os.open, RECORD_FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=outer)
    lock = _Lock(environment, file)
    try:
        record = CommitRecord(
            state=State.WRITING,
            token=token,
            strategy=_STRATEGY,
            started=environment.wall_ns(),
            writer=this_process(environment),
            metadata={_LOCKED: _locked(environment, file)},
        )
        rest = record.encode()
        while rest:
            rest = rest[call(os.write, file, rest) :]
    except BaseException:
        lock.release()
        raise
    return lock


def remove_abandoned(environment: Environment, parent: int, place: Path) -> None:
    """Delete the staging directories in an open directory whose processes are provably dead.

    An error about one of them is not raised.

    Each must be a real directory of this user with a record of ours. Its process ran on this boot of this host and is
    not seen to live, and its lock could be taken. If its record names no lock, its process is provably gone.
    """
    for name in environment.call(os.listdir, parent):
        if not name.startswith(PREFIX):
            continue
        try:
            with opened(environment, name, parent=parent) as outer:
                if not _is_ours(environment.call(os.fstat, outer)):
                    continue
                lock = _lock_of_the_dead(environment, outer, name)
            if lock is None:
                continue
            _LOG.info("removing %s, whose process is gone", place / name)
            try:
                remove_staged(environment, parent, name, None)
            finally:
                lock.release()
        except FileNotFoundError:
            continue  # another process of ours was quicker, or it is only being made
        except (OSError, AtomicPathError) as error:
            _LOG.debug("%s stays: %s", place / name, error)


def remove_staged(environment: Environment, parent: int, name: str, expected: tuple[int, int] | None) -> None:
    """Delete a staging directory in an open one.

    The record goes last, so that an interrupted removal can be ended.
    """
    call = environment.call
    with opened(environment, name, parent=parent) as outer:
        if expected not in (None, identity(call(os.fstat, outer))):
            raise FileNotFoundError(f"{name} is another directory by now")
        for found in call(os.listdir, outer):
            if found == RECORD_FILE:
                continue
            if stat.S_ISDIR(call(os.stat, found, dir_fd=outer, follow_symlinks=False).st_mode):
                remove_tree(environment, outer, found)
            else:
                call(os.unlink, found, dir_fd=outer)
        with suppress(FileNotFoundError):
            call(os.unlink, RECORD_FILE, dir_fd=outer)
    call(os.rmdir, name, dir_fd=parent)


def _lock_of_the_dead(environment: Environment, outer: int, name: str) -> FileLock | None:
    """Take the lock of an abandoned staging directory.

    Return the lock, held, or None if the directory is not provably abandoned.
    """
    call = environment.call
    if not _is_ours(call(os.stat, RECORD_FILE, dir_fd=outer, follow_symlinks=False), stat.S_IFREG):
        return None  # open nothing but a regular file: opening a device may have an effect
    file = call(os.open, RECORD_FILE, _EXISTING, dir_fd=outer)
    lock = _Lock(environment, file)
    try:
        if _is_abandoned(environment, file, name) and _locked(environment, file):
            there = call(os.stat, RECORD_FILE, dir_fd=outer, follow_symlinks=False)
            if identity(there) == identity(call(os.fstat, file)):
                return lock
    except BaseException:
        lock.release()
        raise
    lock.release()
    return None


def _is_abandoned(environment: Environment, file: int, name: str) -> bool:
    """Tell whether an open record is of the staging directory `name` and its process is not seen to live."""
    status = environment.call(os.fstat, file)
    if not _is_ours(status, stat.S_IFREG) or status.st_size > _LARGEST_RECORD:
        return False
    record = CommitRecord.decode(environment.call(os.read, file, _LARGEST_RECORD), where=name)
    if (record.state, record.strategy, name) != (State.WRITING, _STRATEGY, f"{PREFIX}{record.token}"):
        return False
    here = this_process(environment)
    if not here.boot or record.writer.boot != here.boot:
        return False  # of another host, or of an earlier boot: its locks may not be seen here
    alive = proof_of_life(environment, record)
    return alive is False or (alive is None and record.metadata.get(_LOCKED) is True)


def _is_ours(status: os.stat_result, kind: int = stat.S_IFDIR) -> bool:
    return stat.S_IFMT(status.st_mode) == kind and status.st_uid == os.geteuid()


def _locked(environment: Environment, file: int) -> bool:
    """Take the lock of an open file; return False if it cannot be taken.

    The lock is released when the last descriptor of the file is closed.
    """
    if sys.platform == "win32":  # it has no such locks; untested here
        return False
    try:
        environment.call(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # held by another, or not to be had on this mount
    return True
