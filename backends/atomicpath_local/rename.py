"""The one rename: never replacing, merging or copying anything."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import sys

from atomicpath.errors import GuaranteeError
from atomicpath.guarantees import Guarantee

from .ages import age_of, changed
from .file_systems import Refusal
from .lookup import mount_of
from .mounts import refusal_at
from .system import System

__all__ = ["NO_SUCH_RENAME", "exchange", "exchange_directories", "no_replace", "remove_interrupted", "rename_directory"]

NO_SUCH_RENAME = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a kernel or file system without the flag answers to it."""

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)  # XFS uses one where ext4 uses the other
_UNKNOWN = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
_NOT_HERE = {
    errno.EXDEV: "the two are on different mounts, overlay layers or project quotas; nothing was renamed or copied: "
    "publish from a directory beside the target",
    errno.EBUSY: "one of the two is a mount point or in use by the system; nothing was renamed",
}

_AT_FDCWD = -100
_LINUX_NOREPLACE = 1
_LINUX_EXCHANGE = 2
_DARWIN_SWAP = 2
_DARWIN_EXCL = 4
_SYSCALL_NUMBERS = {"x86_64": 316, "aarch64": 276}

if sys.platform != "win32":
    _libc = ctypes.CDLL(None, use_errno=True)


def rename_directory(system: System, source: str, target: str) -> None:
    try:
        system.call(no_replace, source, target)
    except OSError as error:
        if error.errno in _TAKEN:
            raise _taken(target) from error
        if error.errno in _NOT_HERE:
            raise OSError(error.errno, _NOT_HERE[error.errno], source, None, target) from error
        if error.errno not in NO_SUCH_RENAME:
            raise
        if refusal_at(mount_of(system, os.path.dirname(target))) is Refusal.PLAIN:
            _rename_that_never_replaces(system, source, target)
        else:
            _rename_over_own_directory(system, source, target)


def no_replace(source: str, target: str) -> None:
    """Rename in one system call that refuses an existing target.

    macOS (`renamex_np`) and Windows (`os.rename` refuses an existing target) are untested here.
    """
    if sys.platform == "win32":
        os.rename(source, target)
    else:
        _rename(source, target, linux=_LINUX_NOREPLACE, darwin=_DARWIN_EXCL)


def exchange_directories(system: System, first: str, second: str) -> None:
    try:
        system.call(exchange, first, second)
    except OSError as error:
        if error.errno in NO_SUCH_RENAME:
            raise GuaranteeError(
                f"{second}: the file system there does not exchange two names ({error.strerror}), so"
                f" {Guarantee.RENAME_EXCHANGE} does not hold and nothing was exchanged: publish under another name"
            ) from error
        if error.errno in _NOT_HERE:
            raise OSError(error.errno, _NOT_HERE[error.errno], first, None, second) from error
        raise


def exchange(first: str, second: str) -> None:
    """Swap two names in one system call. macOS (`renamex_np`) is untested here."""
    _rename(first, second, linux=_LINUX_EXCHANGE, darwin=_DARWIN_SWAP)


def _rename(source: str, target: str, *, linux: int, darwin: int) -> None:
    old, new = os.fsencode(source), os.fsencode(target)
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), source, None, target)
    ctypes.set_errno(0)
    if sys.platform == "darwin":
        failed = _libc.renamex_np(old, new, ctypes.c_uint(darwin))
    elif hasattr(_libc, "renameat2"):
        failed = _libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, ctypes.c_uint(linux))
    elif number := _SYSCALL_NUMBERS.get(platform.machine()):
        failed = _libc.syscall(ctypes.c_long(number), _AT_FDCWD, old, _AT_FDCWD, new, ctypes.c_uint(linux))
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), source, None, target)
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), source, None, target)


def _rename_that_never_replaces(system: System, source: str, target: str) -> None:
    """Rename where the server refuses every existing directory, an empty one included, and so any placeholder."""
    try:
        system.call(os.rename, source, target)
    except FileNotFoundError as error:  # a request that is sent again may get this answer, too
        reason = "the server no longer finds the source: it may have been renamed"
        raise OSError(errno.EIO, reason, source, None, target) from error
    except OSError as error:
        if error.errno in (*_TAKEN, errno.ENOTDIR):
            raise _taken(target) from error
        if error.errno in _NOT_HERE:
            raise OSError(error.errno, _NOT_HERE[error.errno], source, None, target) from error
        raise


def _rename_over_own_directory(system: System, source: str, target: str) -> None:
    """Rename without replacing on a file system without the flag (docs/design/0014-cluster-file-systems.md).

    mkdir(2) creates a directory exclusively. rename(2) then puts the source in the place of that directory in one step;
    it does so only if the directory is empty (POSIX). This function does not decide which mounts keep to that: callers
    rename only where RENAME_NOREPLACE is declared or asserted, and probes refute the mounts that copy, merge or nest.

    A server that sees a retransmitted request may deny what it has done: ENOENT after success. If the directory that we
    made is still there, and empty, nothing was renamed.
    """
    system.call(os.mkdir, target)
    try:
        system.call(os.rename, source, target)
    except OSError as error:
        if error.errno in _UNKNOWN:
            raise
        try:
            system.call(os.rmdir, target)
        except OSError as second:
            if error.errno == errno.ENOENT:
                reason = "the server no longer finds the source, and the target is not empty: it may have been renamed"
                raise OSError(errno.EIO, reason, source, None, target) from second
            if error.errno in _TAKEN:
                raise _taken(target) from error
            raise error from second
        if error.errno in (*_TAKEN, *NO_SUCH_RENAME):  # the directory was ours and still empty, and yet was in the way
            mount = mount_of(system, os.path.dirname(target))
            where = f"the {mount.kind} file system at {mount.point}" if mount else "the file system there"
            raise GuaranteeError(
                f"{target}: {where} has neither a rename that refuses an existing target nor one that takes the place"
                f" of an empty directory ({error.strerror}), so {Guarantee.RENAME_NOREPLACE} does not hold and nothing"
                " was renamed: publish on another one"
            ) from error
        raise


def remove_interrupted(system: System, path: str, older_than: float, dry_run: bool) -> float | None:
    """Remove the directory that `_rename_over_own_directory` leaves if its process is killed in the middle.

    Return the directory's age, 0.0 if that is not known, or None if there is no such directory.
    """
    try:
        status = system.call(os.lstat, path)
        if not stat.S_ISDIR(status.st_mode) or system.call(os.listdir, path):
            return None
        mount = mount_of(system, path)
        if refusal_at(mount) is not Refusal.PLACEHOLDER:
            return None
        age = age_of(system, path, status, changed(status), beside=True)
        if age is None:
            return 0.0  # the age is not known, so the directory stays
        if age >= older_than and not dry_run:
            system.call(os.rmdir, path)  # refuses if somebody has renamed over it meanwhile
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _TAKEN:
            return None
        raise
    return age


def _taken(target: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "something is there already; nothing was renamed", target)
