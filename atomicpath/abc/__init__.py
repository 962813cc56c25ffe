"""The ports: storage and backends, commit strategies, coordinators, metadata stores.

The docstrings here are the specification; implementations stay silent where they keep to it.
"""

from atomicpath._core.environment import Environment

from .backend import Backend
from .coordinator import Coordinator, Watch
from .metadata_store import MetadataStore
from .storage import (
    MOUNT_POINT,
    Content,
    Declaration,
    Entry,
    Hold,
    NoBucketError,
    OpenDirectory,
    StaleVersionError,
    Storage,
)
from .temporary_path import AttemptOptions, FileOptions, SnapshotType, TemporaryPath

__all__ = [
    "MOUNT_POINT",
    "AttemptOptions",
    "Backend",
    "Content",
    "Coordinator",
    "Declaration",
    "Entry",
    "Environment",
    "FileOptions",
    "Hold",
    "MetadataStore",
    "NoBucketError",
    "OpenDirectory",
    "SnapshotType",
    "StaleVersionError",
    "Storage",
    "TemporaryPath",
    "Watch",
]
