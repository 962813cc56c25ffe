"""How old a file is, by the clock that gave it its time: this host's on its own disks, elsewhere the server's."""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass

from .lookup import mount_of
from .mounts import has_the_kernels_clock
from .names import HOUSEKEEPING, PROBE
from .system import NOFOLLOW, System

__all__ = ["Clock", "age_of", "changed"]

_GOOD_FOR = 60.0  # seconds: clocks drift by some 50 parts in a million, that is 3 ms
_CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The clock of one file system: `ahead` in nanoseconds of the environment's own, measured at `at`, in seconds.

    None for `ahead` says that it is the kernel's wall clock, which can be read at any time.
    """

    ahead: int | None
    at: float


def changed(status: os.stat_result) -> int:
    """Return when a file changed in any way.

    Copying tools set the time of the content back, but never the time of the inode.
    """
    return max(status.st_mtime_ns, status.st_ctime_ns)


def age_of(system: System, path: str, status: os.stat_result, since: int, *, beside: bool = False) -> float | None:
    """Return the seconds since `since`, a time of the file at `path`; None where the clock that gave it cannot be read.

    A server's clock is read from a file that is made for it in a house-keeping directory. With `beside` it is made
    beside `path` if there is no such directory: for those who change that directory anyway.
    """
    now = _now(system, path, status.st_dev, beside)
    return None if now is None else max(0.0, (now - since) / 1e9)


def _now(system: System, path: str, device: int, beside: bool) -> int | None:
    clock = system.clocks.get(device)
    if clock is None or (clock.ahead is not None and system.environment.monotonic() - clock.at > _GOOD_FOR):
        clock = _measure(system, path, device, beside)
        if clock is None:
            return None
        system.clocks[device] = clock
    if clock.ahead is None:
        return system.call(time.time_ns)
    return int(system.environment.monotonic() * 1e9) + clock.ahead


def _measure(system: System, path: str, device: int, beside: bool) -> Clock | None:
    if has_the_kernels_clock(mount_of(system, path)):
        return Clock(ahead=None, at=0.0)
    house = _house_of(system, path, device) or (os.path.dirname(path) if beside else None)
    there = None if house is None else _time_there(system, house)
    if there is None:
        return None
    now = system.environment.monotonic()  # read after the answer, so that an age is too young rather than too old
    return Clock(ahead=there - int(now * 1e9), at=now)


def _house_of(system: System, path: str, device: int) -> str | None:
    """Return the nearest house-keeping directory, or None; it must be on the same file system.

    The directory is around or beside the path, or around or beside what is above the path.
    """
    above, name = os.path.split(path)
    while name:
        house = f"{above}/{HOUSEKEEPING}"
        try:
            status = system.call(os.lstat, house)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass
        else:
            if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                return house
        above, name = os.path.split(above)
    return None


def _time_there(system: System, house: str) -> int | None:
    """Return the time that a file gets which is made now, or None where none can be made."""
    path = f"{house}/{PROBE}{system.environment.token()}"
    # Not O_EXCL: for that one NFS 3 has no room but the file's times, in which it first writes a number (RFC 1813).
    try:
        with system.descriptor(path, os.O_WRONLY | os.O_CREAT | NOFOLLOW, 0o600) as fd:
            system.call(os.unlink, path)
            return changed(system.call(os.fstat, fd))
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            return None
        raise
