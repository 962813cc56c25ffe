"""Whole directories: what is in them, syncing and deleting them; links are never followed."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from atomicpath.abc import Entry, EntryKind
from atomicpath.errors import ValidationError
from atomicpath.storage import in_threads

from .lookup import mount_number, mounts_within
from .names import UNFINISHED
from .system import DIRECTORY, NOFOLLOW, System

__all__ = ["entries", "remove_tree", "sync_tree"]

_THREADS = 8  # 1000 files of 4 KiB on ext4: 477 ms one after the other, 188 ms with threads
_OPEN_DIRECTORY = os.O_RDONLY | DIRECTORY | NOFOLLOW
_FEW = 16  # below this starting threads costs more than it saves


class _Borders:
    """The mount points below a directory that is walked through.

    The mount table, of which a busy host has thousands of lines, is read only if something is not what the listing of
    its directory said: a mount point is listed with the number of what it covers, and looked at, it is what is mounted
    there. What is bound to its own place is not seen so, and is the same with or without that mount.
    """

    def __init__(self, system: System, path: str) -> None:
        self._system, self._path = system, path
        self._points: set[str] | None = None

    def kind(self, item: os.DirEntry[str], status: os.stat_result, device: int) -> EntryKind:
        """Return what an entry of a directory on a device is."""
        if status.st_ino != item.inode() or status.st_dev != device:
            if self._points is None:
                self._points = set(mounts_within(self._system, self._path))
            if item.path in self._points:
                return EntryKind.MOUNT_POINT
        return EntryKind.of_mode(status.st_mode)


def entries(system: System, path: str, recursive: bool) -> list[Entry]:
    found: list[Entry] = []
    borders = _Borders(system, path)
    waiting: list[tuple[str, str, int | None]] = [("", path, None)]
    while waiting:
        prefix, directory, device = waiting.pop()
        with suppress(FileNotFoundError, NotADirectoryError):  # nothing is there, or nothing any more
            for item in system.call(_scan, directory):
                try:
                    status = system.call(_lstat, item)
                except FileNotFoundError:  # deleted since it was listed
                    continue
                if device is None:  # asked for only now: an empty directory is no border
                    device = system.call(os.stat, directory).st_dev
                name = prefix + item.name
                kind = borders.kind(item, status, device) if recursive else EntryKind.of_mode(status.st_mode)
                if kind is EntryKind.DIRECTORY and recursive:
                    waiting.append((f"{name}/", item.path, status.st_dev))
                elif kind is EntryKind.FILE:
                    found.append(Entry(name=name, size=status.st_size, modified=status.st_mtime_ns))
                else:
                    found.append(Entry(name=name, kind=kind))
    return sorted(found, key=lambda entry: entry.name)


def sync_tree(system: System, path: str) -> None:
    files: list[str] = []
    borders = _Borders(system, path)
    directories = [(path, system.call(os.stat, path).st_dev)]
    for directory, device in directories:  # the list grows during the loop: parents stay before their children
        for item in system.call(_scan, directory):
            if item.name.startswith(UNFINISHED):
                continue  # another process's file, which may be gone before it is opened; it is never content
            kind = None
            with suppress(FileNotFoundError):
                status = system.call(_lstat, item)
                kind = borders.kind(item, status, device)
            if kind is EntryKind.DIRECTORY:
                directories.append((item.path, status.st_dev))
            elif kind is EntryKind.FILE:
                files.append(item.path)
            else:
                raise ValidationError(
                    f"{item.path} is {kind or 'gone already'}: only files and directories can be made durable and "
                    "published; replace it with a copy of what it stands for, or leave it out"
                )
    if len(files) > _FEW:
        in_threads(lambda file: system.sync_path(file, 0), files, threads=_THREADS)
    else:
        for file in files:
            system.sync_path(file, 0)
    for directory, _ in reversed(directories):
        system.sync_path(directory, DIRECTORY)


def remove_tree(system: System, path: str) -> None:
    """Remove a tree of any depth with one or two descriptors, each opened from the last.

    No name can therefore be exchanged for a link. Nothing at all is deleted if something is mounted at the path or
    below it. What is mounted during the deletion is seen when it is opened, by its device and the number of its mount,
    and ends the deletion.
    """
    if sys.platform == "win32":  # it opens no directories; untested here
        system.call(shutil.rmtree, path)
        return
    for point in mounts_within(system, path):
        raise _mounted(point)
    try:
        fd = system.call(os.open, path, _OPEN_DIRECTORY)
    except FileNotFoundError:
        return
    trail: list[_Level] = []
    where = partial(_path_of, path, trail)
    try:
        border = mount_number(system, fd)
        trail.append(_Level("", _identity(system, fd), _remove_files(system, fd, where)))
        while True:
            level = trail[-1]
            if level.below:
                name = level.below.pop()
                trail.append(_Level(name, (0, 0), []))
                fd = _move(system, fd, name)
                identity = _identity(system, fd)
                if identity[0] != level.identity[0] or mount_number(system, fd) != border:
                    raise _mounted(where())
                trail[-1] = _Level(name, identity, _remove_files(system, fd, where))
            elif len(trail) > 1:
                fd = _move(system, fd, "..")
                if _identity(system, fd) != trail[-2].identity:
                    raise OSError(errno.ESTALE, "a directory in it was moved while it was being deleted", path)
                system.call(os.rmdir, level.name, dir_fd=fd)
                trail.pop()
            else:
                break
    except OSError as error:
        if not (isinstance(error.filename, str) and os.path.isabs(error.filename)):
            error.filename = where()  # the system calls were given only a name in an open directory
        raise
    finally:
        with suppress(OSError):  # the descriptor was only read from: a failing close loses nothing
            system.call(os.close, fd)
    system.call(os.rmdir, path)


class _Level(NamedTuple):
    name: str
    identity: tuple[int, int]
    below: list[str]


def _path_of(path: str, trail: list[_Level]) -> str:
    return "/".join([path, *(level.name for level in trail[1:])])


def _mounted(point: str) -> OSError:
    reason = "something is mounted there, and nothing is deleted across a mount: umount it, and try again"
    return OSError(errno.EBUSY, reason, point)


def _scan(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as found:
        return list(found)


def _scan_open(fd: int) -> list[os.DirEntry[str]]:
    with os.scandir(fd) as found:
        return list(found)


def _lstat(item: os.DirEntry[str]) -> os.stat_result:
    return item.stat(follow_symlinks=False)


def _identity(system: System, fd: int) -> tuple[int, int]:
    status = system.call(os.fstat, fd)
    return status.st_dev, status.st_ino


def _move(system: System, fd: int, name: str) -> int:
    """Open a directory from an open one, which is closed."""
    moved = system.call(os.open, name, _OPEN_DIRECTORY, dir_fd=fd)
    with suppress(OSError):
        system.call(os.close, fd)
    return moved


def _remove_files(system: System, fd: int, where: Callable[[], str]) -> list[str]:
    """Delete what is not a directory from an open one; the names of the directories in it."""
    below = []
    for item in system.call(_scan_open, fd):
        if item.is_dir(follow_symlinks=False):
            below.append(item.name)
        else:
            with suppress(FileNotFoundError):
                try:
                    system.call(os.unlink, item.name, dir_fd=fd)
                except OSError as error:
                    error.filename = f"{where()}/{item.name}"
                    raise
    return below
