"""Publish a directory of files to any file system as one atomic act.

    with atomicpath.commit("s3://bucket/run/step_100") as path:
        torch.save(state, path / "model.pt")

Readers see all of it or none of it; of two writers one wins; after any crash the storage itself tells
which. Everything here blocks; `atomicpath.aio` has the same names as coroutines.

Every function takes a URL, a path or a UPath, and `storage_options=` for the file system behind it. The
errors are those of `atomicpath.errors`; besides them an `OSError` means that the storage could not be
reached, and that a reading function therefore cannot say.
"""

from __future__ import annotations

from . import aio
from .abc import Backend, Coordinator, FileOptions, MetadataStore, SnapshotType, Storage, TemporaryPath
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
    ValidationError,
)
from .explain import Explanation
from .guarantees import Guarantee, Profile
from .inspect import Attempt, Commit, Verification
from .layout import COMMIT_SUCCESS_FILE, TMP_DIR_SUFFIX
from .record import CommitRecord, FileEntry
from .selection import select
from .strategies.atomic_rename import AtomicRenameTemporaryPath
from .strategies.commit_file import CommitFileTemporaryPath
from .strategies.snapshot import Snapshot
from .sync import blocking as _blocking
from .sync import blocking_context as _blocking_context

__all__ = [
    "COMMIT_SUCCESS_FILE",
    "TMP_DIR_SUFFIX",
    "AbandonedError",
    "AccessError",
    "AlreadyCommittedError",
    "AtomicPathError",
    "AtomicRenameTemporaryPath",
    "Attempt",
    "Backend",
    "BackendError",
    "Commit",
    "CommitError",
    "CommitFileTemporaryPath",
    "CommitRecord",
    "ConflictError",
    "CoordinationError",
    "CoordinationTimeoutError",
    "Coordinator",
    "Explanation",
    "FileEntry",
    "FileOptions",
    "Guarantee",
    "GuaranteeError",
    "IntegrityError",
    "MetadataStore",
    "NotCommittedError",
    "OutcomeUnknownError",
    "Profile",
    "RankFailedError",
    "Snapshot",
    "SnapshotType",
    "Storage",
    "TemporaryPath",
    "ValidationError",
    "Verification",
    "aio",
    "attempts",
    "commit",
    "committed",
    "explain",
    "get",
    "is_committed",
    "latest",
    "profile",
    "put",
    "read_record",
    "resolve",
    "select",
    "verify",
]

commit = _blocking_context(aio.commit)
put = _blocking(aio.put, interruptible=True)
get = _blocking(aio.get, interruptible=True)
resolve = _blocking(aio.resolve)
is_committed = _blocking(aio.is_committed)
read_record = _blocking(aio.read_record)
committed = _blocking(aio.committed)
latest = _blocking(aio.latest)
attempts = _blocking(aio.attempts)
verify = _blocking(aio.verify)
profile = _blocking(aio.profile)
explain = _blocking(aio.explain)
