"""The ports: storage and backends, commit strategies, coordinators, metadata stores.

The docstrings here are the specification; implementations stay silent where they keep to it.
"""

from atomicpath._core.environment import Environment

from .abilities import (
    CopyingStorage,
    ExchangingStorage,
    FileLock,
    IdentifyingStorage,
    LearningStorage,
    LinkingStorage,
    LockingStorage,
    MultipartStorage,
    OpenDirectory,
    ReservingStorage,
    SharedDirectoryStorage,
    SyncingStorage,
)
from .backend import Backend
from .coordinator import Coordinator, Watch
from .metadata_store import MetadataStore
from .storage import (
    Content,
    Declaration,
    DirectoryStorage,
    Entry,
    EntryKind,
    NoBucketError,
    Put,
    StaleVersionError,
    Storage,
    Update,
    lacking,
)
from .temporary_path import AttemptOptions, FileOptions, SnapshotType, TemporaryPath

__all__ = [
    "AttemptOptions",
    "Backend",
    "Content",
    "Coordinator",
    "CopyingStorage",
    "Declaration",
    "DirectoryStorage",
    "Entry",
    "EntryKind",
    "Environment",
    "ExchangingStorage",
    "FileLock",
    "FileOptions",
    "IdentifyingStorage",
    "LearningStorage",
    "LinkingStorage",
    "LockingStorage",
    "MetadataStore",
    "MultipartStorage",
    "NoBucketError",
    "OpenDirectory",
    "Put",
    "ReservingStorage",
    "SharedDirectoryStorage",
    "SnapshotType",
    "StaleVersionError",
    "Storage",
    "SyncingStorage",
    "TemporaryPath",
    "Update",
    "Watch",
    "lacking",
]
