"""The interface that users of Orbax's "atomicity" module know, in one place; at the top level are the same names.

`create_all` and `on_commit_callback` are coroutine functions here, as there.
"""

from __future__ import annotations

from ._core.layout import COMMIT_SUCCESS_FILE, TMP_DIR_SUFFIX
from ._jobs.completion_signal import CompletionSignal
from ._jobs.create_all import create_all, create_all_async, on_commit_callback
from ._jobs.deferred import DeferredPath, DeferredWritableTemporaryPath
from ._jobs.read_only import ReadOnlyTemporaryPath
from ._strategies.atomic_rename import AtomicRenameTemporaryPath
from ._strategies.commit_file import CommitFileTemporaryPath
from ._strategies.metadata_store import JsonMetadataStore, StepMetadata
from ._strategies.snapshot import Snapshot
from .abc import FileOptions, MetadataStore, SnapshotType, TemporaryPath
from .coordinators.options import MultiprocessingOptions

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
