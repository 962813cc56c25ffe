"""Copying the files of one directory into another, with their modes and those of the directories between."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

from atomicpath.abc import EntryKind
from atomicpath.errors import ValidationError
from atomicpath.storage import in_threads

from .content import copy_content
from .kinds import inherited
from .system import NOFOLLOW, NONBLOCK, System

__all__ = ["copy_files"]

_THREADS = 8
_FEW = 16  # below this starting threads costs more than it saves
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW


def copy_files(system: System, source: str, target: str, names: Sequence[str]) -> None:
    directories = sorted({above for name in names for above in _above(name)})
    for name in directories:
        system.call(os.mkdir, f"{target}/{name}", 0o700)

    def copy(name: str) -> None:
        _copy(system, f"{source}/{name}", f"{target}/{name}")

    if len(names) > _FEW:
        in_threads(copy, names, threads=_THREADS)
    else:
        for name in names:
            copy(name)
    for name in reversed(directories):  # last: one that may not be written to could not be filled
        mode = stat.S_IMODE(system.call(os.lstat, f"{source}/{name}").st_mode)
        system.call(os.chmod, f"{target}/{name}", mode | inherited(system.call(os.lstat, f"{target}/{name}")))


def _above(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _copy(system: System, source: str, target: str) -> None:
    with system.descriptor(source, os.O_RDONLY | NOFOLLOW | NONBLOCK) as reader:
        status = system.call(os.fstat, reader)
        if not stat.S_ISREG(status.st_mode):
            raise ValidationError(
                f"{source} is {EntryKind.of_mode(status.st_mode)}, not a file: put a file in its place"
            )
        with system.descriptor(target, _NEW, 0o600) as writer:
            copy_content(system, reader, writer, source)
            if sys.platform != "win32":
                system.call(os.fchmod, writer, stat.S_IMODE(status.st_mode))
