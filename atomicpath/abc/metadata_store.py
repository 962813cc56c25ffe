"""The port of metadata stores: small JSON files beside the data, which may be written in the background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from upath import UPath

from atomicpath._core.record import JSONValue

__all__ = ["MetadataStore"]


@runtime_checkable
class MetadataStore(Protocol):
    """Where `StepMetadata` goes. A protocol, so that another library's store of this shape serves as it is.

    Calls block, and may return before anything is written: `wait_until_finished` is what makes it so.
    Errors of the file system pass; those of a write in the background are raised by `wait_until_finished`.
    """

    def write(self, file_path: UPath, metadata: Mapping[str, JSONValue]) -> None:
        """Write a file whose directory exists, over what is there."""

    def read(self, file_path: UPath) -> Mapping[str, Any] | None:
        """Return what the file says, or None if there is none."""

    def update(self, file_path: UPath, **fields: JSONValue) -> None:
        """Set some fields of a file and keep the others; it is created if it is missing."""

    def wait_until_finished(self) -> None:
        """Return once everything asked for before is in place; raises what went wrong."""
