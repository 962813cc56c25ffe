"""The interface that users of Orbax's "atomicity" module know, in one place; at the top level are the same names.

`create_all` and `on_commit_callback` are coroutine functions here, as there.
"""

from __future__ import annotations

from .abc import FileOptions, MetadataStore, SnapshotType, TemporaryPath
from .create_all import create_all, create_all_async, on_commit_callback
from .deferred import DeferredPath, DeferredWritableTemporaryPath
from .layout import COMMIT_SUCCESS_FILE, TMP_DIR_SUFFIX
from .metadata import JsonMetadataStore, StepMetadata
from .multiprocessing_options import MultiprocessingOptions
from .read_only import ReadOnlyTemporaryPath
from .signals import CompletionSignal
from .strategies.atomic_rename import AtomicRenameTemporaryPath
from .strategies.commit_file import CommitFileTemporaryPath
from .strategies.snapshot import Snapshot

__all__ = [
    "COMMIT_SUCCESS_FILE",
    "TMP_DIR_SUFFIX",
    "AtomicRenameTemporaryPath",
    "CommitFileTemporaryPath",
    "CompletionSignal",
    "DeferredPath",
    "DeferredWritableTemporaryPath",
    "FileOptions",
    "JsonMetadataStore",
    "MetadataStore",
    "MultiprocessingOptions",
    "ReadOnlyTemporaryPath",
    "Snapshot",
    "SnapshotType",
    "StepMetadata",
    "TemporaryPath",
    "create_all",
    "create_all_async",
    "on_commit_callback",
]
