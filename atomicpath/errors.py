"""Every error atomicpath raises on purpose, grouped by what the caller will do next.

AtomicPathError
├─ ValidationError (ValueError)                 the call is wrong: change it
├─ NotCommittedError (FileNotFoundError)        nothing complete is there: look elsewhere, or wait
├─ CommitError                                  this attempt did not commit
│  ├─ AlreadyCommittedError (FileExistsError)   a complete directory is there; .record says by whom
│  ├─ ConflictError (FileExistsError)           a live attempt or foreign files hold the name
│  ├─ AbandonedError                            this attempt was swept, taken over or discarded
│  └─ OutcomeUnknownError                       look again later; nothing was cleaned up
├─ IntegrityError                               storage disagrees with what was recorded
├─ GuaranteeError                               no strategy's needs are met here
├─ StorageError (OSError)                       the storage failed or did not answer: look at it, then call again
├─ BackendError                                 nobody serves this URL, or its plug-in is broken
│  └─ AccessError (PermissionError)             the storage refused the credentials or the path
└─ CoordinationError                            the processes of a job could not agree: nobody committed, or look
   ├─ RankFailedError                           .failures: rank → message; nothing was committed
   └─ CoordinationTimeoutError (TimeoutError)   .missing: the ranks that were not heard of in time

No message carries credentials: a location is named by its URL, never by its storage options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .record import CommitRecord

__all__ = [
    "AbandonedError",
    "AccessError",
    "AlreadyCommittedError",
    "AtomicPathError",
    "BackendError",
    "CommitError",
    "ConflictError",
    "CoordinationError",
    "CoordinationTimeoutError",
    "GuaranteeError",
    "IntegrityError",
    "NotCommittedError",
    "OutcomeUnknownError",
    "RankFailedError",
    "StorageError",
    "ValidationError",
]


class AtomicPathError(Exception):
    """Base of every error that atomicpath raises on purpose."""


class ValidationError(AtomicPathError, ValueError):
    """An argument, a path or a name cannot be used; nothing was written."""


class NotCommittedError(AtomicPathError, FileNotFoundError):
    """No complete directory is at the URL."""


class CommitError(AtomicPathError):
    """The attempt did not commit: readers see nothing of it."""


class _HeldError(CommitError, FileExistsError):
    def __init__(self, message: str, record: CommitRecord | None = None) -> None:
        super().__init__(message)
        self.record = record


class AlreadyCommittedError(_HeldError):
    """A complete directory is there. `record` says who committed it and when, or is None if another tool did."""


class ConflictError(_HeldError):
    """A live attempt or foreign files hold the final path.

    `record` says which attempt and since when, or is None if the files are not ours.
    """


class AbandonedError(CommitError):
    """Another process swept, took over or discarded this attempt, which can no longer commit."""


class OutcomeUnknownError(CommitError):
    """The storage did not say whether the commit happened.

    Nothing was cleaned up. Look again later with `is_committed`, or commit the same path again.
    """


class IntegrityError(AtomicPathError):
    """Storage disagrees with what was recorded: a damaged record, a missing, truncated or altered file."""


class GuaranteeError(AtomicPathError):
    """The location does not give what any commit strategy needs; the message says which guarantee is missing."""


class StorageError(AtomicPathError, OSError):
    """The storage failed, or did not answer: what was asked for was not done, or cannot be said.

    It is of the builtin class that says why, too, such as TimeoutError or ConnectionError, and has its `errno` and
    `filename`. What the storage itself said is the cause (`__cause__`).
    """

    def __str__(self) -> str:  # that of `OSError` shows the number and the name in place of the text
        return str(self.args[0]) if self.args else ""


class BackendError(AtomicPathError):
    """No usable backend serves the URL: unknown protocol, missing extra, or a plug-in that does not load."""


class AccessError(BackendError, PermissionError):
    """The storage refused: wrong or expired credentials, or no right to this path."""


class CoordinationError(AtomicPathError):
    """The processes of a job could not agree: their engine is gone, or they do not fit together."""


class RankFailedError(CoordinationError):
    """At least one process of the job failed, so nothing was committed, in any of them.

    `failures` has, by rank, what each failed with, in words.
    """

    def __init__(self, message: str, failures: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


class CoordinationTimeoutError(CoordinationError, TimeoutError):
    """Some processes of the job, the ranks in `missing`, were not heard of in time.

    `received` has, by rank, what came from the others, where it was a `gather`.
    """

    def __init__(
        self, message: str, missing: tuple[int, ...] = (), received: Mapping[int, bytes] | None = None
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.received = dict(received or {})
