"""The public names of `atomicpath`, which imports this module at the first use of one of them."""

from __future__ import annotations

from . import aio
from ._cleaning import Retained, SweepResult
from ._commit.explanation import Explanation
from ._commit.readers import Commit, UnfinishedCommit, Verification
from ._commit.selection import select
from ._core.layout import COMMIT_SUCCESS_FILE, TMP_DIR_SUFFIX
from ._core.record import CommitRecord, FileEntry
from ._jobs.completion_signal import CompletionSignal
from ._jobs.create_all import create_all_async
from ._jobs.deferred import DeferredPath, DeferredWritableTemporaryPath
from ._jobs.read_only import ReadOnlyTemporaryPath
from ._manager import BackgroundCommit, CheckpointManager, commit_in_background
from ._strategies.atomic_rename import AtomicRenameTemporaryPath
from ._strategies.commit_file import CommitFileTemporaryPath
from ._strategies.metadata_store import JsonMetadataStore, StepMetadata
from ._strategies.snapshot import Snapshot
from .abc import Backend, Coordinator, FileOptions, MetadataStore, SnapshotType, Storage, TemporaryPath
from .coordinators import SingleProcess
from .coordinators.options import MultiprocessingOptions
from .errors import (
    AbandonedError,
    AccessError,
    AlreadyCommittedError,
    AtomicPathError,
    BackendError,
    CommitError,
    ConflictError,
    CoordinationError,
    CoordinationTimeoutError,
    GuaranteeError,
    IntegrityError,
    NotCommittedError,
    OutcomeUnknownError,
    RankFailedError,
    StorageError,
    ValidationError,
)
from .guarantees import Guarantee, Profile
from .sync import (
    Handle,
    Joined,
    alias,
    attempts,
    begin,
    commit,
    committed,
    copy,
    create_all,
    explain,
    fetch_latest,
    get,
    is_committed,
    join,
    keep_last,
    latest,
    on_commit_callback,
    profile,
    put,
    read_record,
    remove,
    resolve,
    retain,
    sweep,
    verify,
    watch,
)

__all__ = [
    "COMMIT_SUCCESS_FILE",
    "TMP_DIR_SUFFIX",
    "AbandonedError",
    "AccessError",
    "AlreadyCommittedError",
    "AtomicPathError",
    "AtomicRenameTemporaryPath",
    "Backend",
    "BackendError",
    "BackgroundCommit",
    "CheckpointManager",
    "Commit",
    "CommitError",
    "CommitFileTemporaryPath",
    "CommitRecord",
    "CompletionSignal",
    "ConflictError",
    "CoordinationError",
    "CoordinationTimeoutError",
    "Coordinator",
    "DeferredPath",
    "DeferredWritableTemporaryPath",
    "Explanation",
    "FileEntry",
    "FileOptions",
    "Guarantee",
    "GuaranteeError",
    "Handle",
    "IntegrityError",
    "Joined",
    "JsonMetadataStore",
    "MetadataStore",
    "MultiprocessingOptions",
    "NotCommittedError",
    "OutcomeUnknownError",
    "Profile",
    "RankFailedError",
    "ReadOnlyTemporaryPath",
    "Retained",
    "SingleProcess",
    "Snapshot",
    "SnapshotType",
    "StepMetadata",
    "Storage",
    "StorageError",
    "SweepResult",
    "TemporaryPath",
    "UnfinishedCommit",
    "ValidationError",
    "Verification",
    "aio",
    "alias",
    "attempts",
    "begin",
    "commit",
    "commit_in_background",
    "committed",
    "copy",
    "create_all",
    "create_all_async",
    "explain",
    "fetch_latest",
    "get",
    "is_committed",
    "join",
    "keep_last",
    "latest",
    "on_commit_callback",
    "profile",
    "put",
    "read_record",
    "remove",
    "resolve",
    "retain",
    "select",
    "sweep",
    "verify",
    "watch",
]
