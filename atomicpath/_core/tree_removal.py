"""Deleting a local directory tree by descriptors: no link is followed, no mount is entered, whatever is exchanged."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .environment import Environment

__all__ = ["identity", "open_directory", "opened", "remove_tree"]

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


def open_directory(environment: Environment, name: str, *, parent: int | None = None) -> int:
    """Open a directory itself, relative to the open directory `parent` if there is one.

    Raise `OSError` for a link or anything else.
    """
    return environment.call(os.open, name, _DIRECTORY, dir_fd=parent)


@contextmanager
def opened(environment: Environment, name: str, *, parent: int | None = None) -> Iterator[int]:
    """Open a directory as `open_directory` does, for the block, and close it afterwards."""
    fd = open_directory(environment, name, parent=parent)
    try:
        yield fd
    finally:
        _close(environment, fd)


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return what tells whether two looks were at the same file or directory."""
    return status.st_dev, status.st_ino


@dataclass(slots=True)
class _Level:
    """A directory on the way down: its name in the one above, what it is, and the directories in it that are left."""

    name: str
    identity: tuple[int, int]
    below: list[str]


def remove_tree(environment: Environment, parent: int, name: str) -> None:
    """Delete the directory `name` in the open directory `parent`, with all that is below it, at any depth.

    Raise `FileNotFoundError` if nothing is there. An `OSError` that names what stopped it, from `name` on, leaves the
    rest: EXDEV where something is mounted below, ESTALE where a directory was moved meanwhile. A directory of this
    user's that does not let its owner write is made writable. One or two descriptors are open at a time.
    """
    if sys.platform == "win32":  # it opens no directories; untested here
        environment.call(shutil.rmtree, name, dir_fd=parent)
        return
    call = environment.call
    fd = open_directory(environment, name, parent=parent)
    trail: list[_Level] = []
    try:
        mount = _mount(environment, fd)
        _enter(environment, fd, name, trail)
        while True:
            level = trail[-1]
            if level.below:
                below = level.below.pop()
                fd = _moved(environment, fd, below)
                if _mount(environment, fd) != mount:
                    raise OSError(errno.EXDEV, "something is mounted there; unmount it first", below)
                _enter(environment, fd, below, trail)
            elif len(trail) > 1:
                fd = _moved(environment, fd, "..")
                trail.pop()
                if identity(call(os.fstat, fd)) != trail[-1].identity:
                    raise OSError(errno.ESTALE, "it was moved while it was being deleted", level.name)
                call(os.rmdir, level.name, dir_fd=fd)
            else:
                break
    except OSError as error:
        above = "/".join(level.name for level in trail)
        raise OSError(error.errno, error.strerror, f"{above}/{error.filename or ''}".strip("/")) from error
    finally:
        _close(environment, fd)
    call(os.rmdir, name, dir_fd=parent)


def _enter(environment: Environment, fd: int, name: str, trail: list[_Level]) -> None:
    """Add an open directory to the trail, and delete from it everything that is no directory."""
    status = environment.call(os.fstat, fd)
    level = _Level(name, identity(status), [])
    trail.append(level)
    if status.st_mode & stat.S_IRWXU != stat.S_IRWXU and status.st_uid == os.geteuid():
        environment.call(os.fchmod, fd, stat.S_IRWXU)
    for entry in environment.call(_scan, fd):
        if entry.is_dir(follow_symlinks=False):
            level.below.append(entry.name)
        else:
            with suppress(FileNotFoundError):
                environment.call(os.unlink, entry.name, dir_fd=fd)


def _scan(fd: int) -> list[os.DirEntry[str]]:
    with os.scandir(fd) as found:
        return list(found)


def _moved(environment: Environment, fd: int, name: str) -> int:
    """Open a directory from an open one, and close the latter."""
    moved = open_directory(environment, name, parent=fd)
    _close(environment, fd)
    return moved


def _mount(environment: Environment, fd: int) -> str:
    """Return which mount an open directory is on.

    Two mounts of one file system differ too, unlike their device numbers.
    """
    try:
        told = environment.call(_read, f"/proc/self/fdinfo/{fd}")
    except OSError:
        told = ""  # no /proc: the device number is all that is known
    for line in told.splitlines():
        if line.startswith("mnt_id:"):
            return line
    return str(environment.call(os.fstat, fd).st_dev)


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def _close(environment: Environment, fd: int) -> None:
    with suppress(OSError):  # it was only read: nothing can be lost by a failing close
        environment.call(os.close, fd)
