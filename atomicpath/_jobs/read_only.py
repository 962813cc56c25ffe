"""Both locations of an attempt, to be sent to processes that may look and not touch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

from upath import UPath

from atomicpath._profile.location import Location, PathLike, locate
from atomicpath.abc import AttemptOptions, FileOptions, MetadataStore, SnapshotType, TemporaryPath
from atomicpath.errors import ValidationError

__all__ = ["ReadOnlyTemporaryPath"]

_KIND = "atomicpath.ReadOnlyTemporaryPath"
_FORMAT = 1


class ReadOnlyTemporaryPath(TemporaryPath):
    """Where an attempt of another process is written and will be found; it can neither be begun nor ended here."""

    def __init__(self, temporary: Location, final: Location) -> None:
        self._temporary = temporary
        self._final = final

    @classmethod
    def from_paths(cls, *, temporary_path: PathLike, final_path: PathLike) -> Self:
        """Make the object of the two locations. No I/O."""
        return cls(locate(temporary_path), locate(final_path))

    @classmethod
    def from_bytes(cls, data: bytes, *, storage_options: Mapping[str, object] | None = None) -> Self:
        """Make the object from the bytes of `to_bytes`, made here or elsewhere.

        The storage options never travel, so they are given again.

        Raise ValidationError for any other bytes, and for those that a newer version made.
        """
        fields = _fields(data)
        version = fields.get("format")
        if not isinstance(version, int) or isinstance(version, bool):
            raise ValidationError(f"the bytes of a read-only temporary path cannot be used: format is {version!r}")
        if version > _FORMAT:
            raise ValidationError(
                f"the bytes are of a newer atomicpath (format {version}, this one reads up to {_FORMAT}): pip install"
                " -U atomicpath"
            )
        urls = [fields.get("temporary_path"), fields.get("final_path")]
        if not all(isinstance(url, str) for url in urls):
            raise ValidationError("the bytes of a read-only temporary path cannot be used: a path in them is missing")
        # a local path was read before, when it may have been a path object: as text, its blanks would be refused
        places = (Path(str(url)) if str(url).startswith("/") else str(url) for url in urls)
        return cls(*(locate(place, storage_options) for place in places))

    def to_bytes(self) -> bytes:
        """Return both locations as JSON in ASCII, for `from_bytes`.

        The storage options are left out, because they may hold credentials.

        `{"kind": "atomicpath.ReadOnlyTemporaryPath", "format": 1, "temporary_path": URL, "final_path": URL}`
        """
        fields = {
            "kind": _KIND,
            "format": _FORMAT,
            "temporary_path": str(self._temporary),
            "final_path": str(self._final),
        }
        return json.dumps(fields).encode("ascii")

    def __reduce__(self) -> tuple[Callable[[bytes], Self], tuple[bytes]]:
        return type(self).from_bytes, (self.to_bytes(),)  # not the options either

    def __repr__(self) -> str:
        return f"{type(self).__name__}(temporary_path={str(self._temporary)!r}, final_path={str(self._final)!r})"

    def get(self) -> UPath:
        return self._temporary.upath

    def get_final(self) -> UPath:
        return self._final.upath

    @classmethod
    async def validate(cls, temporary_path: UPath) -> None:
        _refuse("validate")

    @classmethod
    async def validate_final(cls, final_path: UPath) -> None:
        _refuse("validate_final")

    @classmethod
    def from_temporary(
        cls,
        temporary_path: UPath,
        *,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        _refuse("from_temporary")

    @classmethod
    def from_final(
        cls,
        final_path: UPath,
        *,
        checkpoint_metadata_store: MetadataStore | None = None,
        file_options: FileOptions | None = None,
        snapshot_type: SnapshotType | None = None,
    ) -> Self:
        _refuse("from_final")

    def configure(self, options: AttemptOptions) -> None:
        _refuse("configure")

    async def create(self) -> UPath:
        _refuse("create")

    async def add(self, name: str, source: Path) -> None:
        _refuse("add")

    async def finalize(self) -> None:
        _refuse("finalize")

    async def discard(self) -> None:
        _refuse("discard")


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(
        f"a read-only temporary path has no {what}: it names an attempt of another process, usually the primary. Call"
        f" {what} there, on AtomicRenameTemporaryPath or CommitFileTemporaryPath; make this one with from_paths or"
        " from_bytes, and use get and get_final"
    )


def _fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError, TypeError) as error:
        raise ValidationError(
            f"these are not the bytes of a read-only temporary path: no readable JSON ({len(data)} bytes); they may be"
            " truncated"
        ) from error
    if not isinstance(fields, dict) or fields.get("kind") != _KIND:
        raise ValidationError("these are not the bytes of a read-only temporary path: use what to_bytes returned")
    return fields
