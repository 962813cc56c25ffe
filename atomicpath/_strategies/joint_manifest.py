"""What one attempt of several processes needs: owners that tell them apart, and one manifest of what all have added."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import TypeVar

from atomicpath._core.record import FileEntry
from atomicpath.errors import ValidationError

__all__ = ["duplicate_file_error", "include", "is_of", "owner_of"]

Kept = TypeVar("Kept", FileEntry, FileEntry | None)


def owner_of(token: str, rank: int) -> str:
    """Return the owner under which a process other than the primary creates its objects.

    It tells the objects of two processes apart.
    """
    return f"{token}.{rank}"


def is_of(token: str, owner: str | None) -> bool:
    """Tell whether a process of the attempt created an object."""
    return owner is not None and owner.partition(".")[0] == token


def include(added: MutableMapping[str, Kept], files: Sequence[FileEntry]) -> None:
    """Add to the entries of this process those of the others.

    Raise ValidationError if a name is there twice.
    """
    for file in files:
        if file.name in added:
            raise duplicate_file_error(file.name)
        added[file.name] = file


def duplicate_file_error(name: str) -> ValidationError:
    """Return the error for a file that two processes wrote."""
    return ValidationError(
        f"{name!r} was written by more than one rank of the job: give each rank's files names of their own"
    )
