"""The kernel's calls on descriptors, each one made through the environment."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from atomicpath.abc import Environment
from atomicpath.errors import GuaranteeError
from atomicpath.guarantees import Guarantee

if TYPE_CHECKING:
    from .ages import Clock

if sys.platform == "darwin":
    import fcntl

__all__ = ["DIRECTORY", "NOFOLLOW", "NONBLOCK", "SyncUnsupportedError", "System", "name", "named"]

# Python opens every descriptor close-on-exec (PEP 446); Windows has none of these flags.
DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO must not wait for its other end

_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_CHUNK = 1 << 20


class SyncUnsupportedError(GuaranteeError, OSError):
    """The file system cannot sync. An `OSError` too: after a rename it leaves the outcome as open as any other."""


class named:  # noqa: N801 - read as a word: `with named(path)`
    """Give an `OSError` of the block that names no path this one: a call on a descriptor knows none.

    It is a class, and so is what opens and closes, because a commit enters a dozen of them: a generator costs more
    than the system call in it.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            name(error, self._path)


class _Closing:
    """Close a descriptor after the block. A failing close is an error, unless the block has failed already."""

    __slots__ = ("_fd", "_path", "_system")

    def __init__(self, system: System, fd: int, path: str) -> None:
        self._system, self._fd, self._path = system, fd, path

    def __enter__(self) -> int:
        return self._fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._system.call(os.close, self._fd)
        except OSError as second:
            if error is None:
                name(second, self._path)
                raise
        if isinstance(error, OSError):
            name(error, self._path)


def name(error: OSError, path: str) -> None:
    """Give an error that names no path this one."""
    if error.filename is None and error.errno is not None:
        error.filename = path


class System:
    """System calls through one environment."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.call = environment.call
        self.clocks: dict[int, Clock] = {}  # by device

    def descriptor(self, path: str, flags: int, mode: int = 0o666, *, dir_fd: int | None = None) -> _Closing:
        """Open for a block. A failing close is an error, unless the block has failed already."""
        return _Closing(self, self.call(os.open, path, flags, mode, dir_fd=dir_fd), path)

    def closing(self, fd: int, path: str) -> _Closing:
        """Close after the block what is open at `path`. A failing close is an error, unless the block has failed."""
        return _Closing(self, fd, path)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of `data`: the kernel may take less than it is given."""
        rest = memoryview(data)
        while rest:
            taken = self.call(os.write, fd, rest)
            if not taken:
                raise OSError(errno.EIO, "the file system took nothing of a write and reported no error")
            rest = rest[taken:]

    def chunks(self, fd: int) -> Iterator[bytes]:
        """Yield the rest of a file, in pieces of bounded size."""
        while piece := self.read(fd):
            yield piece

    def read(self, fd: int, most: int = _CHUNK) -> bytes:
        """Return the next piece of a file, of bounded size; empty at its end."""
        return self.call(os.read, fd, min(most, _CHUNK))

    def sync(self, fd: int, path: str) -> None:
        """Call fsync, once: after a failure a second call succeeds while the disk holds old data (ext4, xfs)."""
        try:
            if sys.platform == "darwin":  # fsync there leaves the data in the drive's cache; untested here
                self.call(fcntl.fcntl, fd, fcntl.F_FULLFSYNC)
            else:
                self.call(os.fsync, fd)
        except OSError as error:
            if error.errno in _CANNOT_SYNC:
                raise SyncUnsupportedError(
                    f"{path}: this file system cannot sync ({error.strerror}), so {Guarantee.SYNC} does not hold: "
                    "publish on another one, or pass durable=False to accept that a power cut may undo the commit"
                ) from error
            reason = f"sync failed ({error.strerror}), what was written may be lost: write it all again, elsewhere"
            raise OSError(error.errno, reason, path) from error

    def sync_path(self, path: str, flags: int) -> None:
        """Sync a file or directory by its path."""
        if sys.platform == "win32":  # it opens no directories, and syncs only what may be written; untested here
            if self.call(os.path.isdir, path):
                return
            flags |= os.O_RDWR
        with self.descriptor(path, os.O_RDONLY | NOFOLLOW | NONBLOCK | flags) as fd:
            self.sync(fd, path)
