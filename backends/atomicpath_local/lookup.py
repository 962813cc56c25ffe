"""Which mount a path is really on, and which mounts are below it."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from dataclasses import replace

from .mounts import Mount, by_number, by_prefix, gluster_volume, may_name, mount_id, parse_mountinfo, points_within
from .statx import see
from .system import DIRECTORY, System

__all__ = ["mount_number", "mount_of", "mounts_within", "read_proc"]

_MOST = 64
_known: dict[int, Mount] = {}
"""Mounts that were looked up, by the unique number, which never stands for another mount.

The kind of a mount never changes, but for a GlusterFS volume, which may be extended. On Linux before 6.8 none is here.
"""

_PIECE = 1 << 16  # the kernel gives at most as much as a page of these files at a time, whatever is asked for


def mount_of(system: System, path: str) -> Mount | None:
    """Return the mount of `path`, or of its nearest ancestor that is a directory.

    Return None if the system does not tell.
    """
    while True:
        try:
            return _mount_of_directory(system, path)
        except (FileNotFoundError, NotADirectoryError):
            above = os.path.dirname(path)
            if above == path:
                raise
            path = above


def mounts_within(system: System, path: str) -> list[str]:
    """Return the mount points at `path` and below it that this process sees, sorted.

    They are spelled as parts of `path` itself. The list is empty where the system does not tell: then the device of
    each directory is all there is to compare.
    """
    if sys.platform != "linux":
        return []
    try:
        mountinfo = system.call(read_proc, "/proc/self/mountinfo")
    except (FileNotFoundError, PermissionError):
        return []
    above, name = os.path.split(path)
    if not may_name(mountinfo, name):
        return []
    real = os.path.join(system.call(os.path.realpath, above), name)
    return [path + point.removeprefix(real) for point in points_within(mountinfo, real)]


def mount_number(system: System, fd: int) -> int | None:
    """Return the number of the mount that an open directory is on.

    A bind mount has the device of its origin, but another number.
    """
    if sys.platform != "linux":
        return None
    try:
        return mount_id(system.call(read_proc, f"/proc/self/fdinfo/{fd}"))
    except (FileNotFoundError, PermissionError):
        return None


def read_proc(path: str) -> str:
    """Return one of the kernel's own text files; names in it need not be UTF-8."""
    fd = os.open(path, os.O_RDONLY)  # not open(): that asks for the size, the position and the kind of file first
    try:
        data = os.read(fd, _PIECE)
        while piece := os.read(fd, _PIECE):
            data += piece
    finally:
        os.close(fd)
    return os.fsdecode(data)


if sys.platform == "linux":

    def _mount_of_directory(system: System, path: str) -> Mount | None:
        unique = system.call(see, f"{path}/").mount  # of a directory only
        if unique is not None and (known := _known.get(unique)) is not None:
            return known
        number, unique, mounts = None, None, ""
        with system.descriptor(path, os.O_PATH | DIRECTORY) as fd, suppress(OSError):  # without /proc nothing is known
            number = mount_id(system.call(read_proc, f"/proc/self/fdinfo/{fd}"))
            unique = system.call(see, fd).mount
            mounts = system.call(read_proc, "/proc/self/mountinfo")
        found = None if number is None else by_number(mounts, number)
        if found is not None and unique is not None and found.kind != "fuse.glusterfs":
            if len(_known) >= _MOST:
                _known.clear()
            _known[unique] = found
        found = found or by_prefix(parse_mountinfo(mounts), system.call(os.path.realpath, path))
        if found is not None and found.kind == "fuse.glusterfs":
            found = replace(found, volume=gluster_volume(_attribute(system, found.point, "glusterfs.pathinfo")))
        return found

    def _attribute(system: System, path: str, name: str) -> bytes:
        try:
            return system.call(os.getxattr, path, name)
        except OSError:
            return b""  # the file system does not tell, and nothing follows from that

elif sys.platform == "darwin":

    class _StatFs(ctypes.Structure):
        _fields_ = (
            ("numbers", ctypes.c_char * 72),
            ("kind", ctypes.c_char * 16),
            ("point", ctypes.c_char * 1024),
            ("device", ctypes.c_char * 1024),
            ("rest", ctypes.c_char * 64),
        )

    def _mount_of_directory(system: System, path: str) -> Mount | None:
        """Return the mount of a directory by statfs(2); untested here."""
        answer = _StatFs()
        system.call(os.stat, path)
        if system.call(ctypes.CDLL(None).statfs, os.fsencode(path), ctypes.byref(answer)):
            return None
        return Mount(
            number=None,
            point=os.fsdecode(answer.point),
            kind=os.fsdecode(answer.kind),
            device=os.fsdecode(answer.device),
        )

else:

    def _mount_of_directory(system: System, path: str) -> Mount | None:
        """Return the mount of a directory by the kind of its volume, which Windows is asked for; untested here."""
        if not system.call(os.path.isdir, path):
            raise FileNotFoundError(path)
        drive = os.path.splitdrive(os.path.abspath(path))[0] + os.sep
        kind = ctypes.create_unicode_buffer(64)
        asked = ctypes.windll.kernel32.GetVolumeInformationW
        if not system.call(asked, drive, None, 0, None, None, None, kind, len(kind)):
            return None
        return Mount(number=None, point=drive, kind=kind.value, device=drive)
