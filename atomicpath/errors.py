"""The errors that atomicpath raises on purpose, grouped by what the caller will do next:

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
    ├─ StorageError (OSError)                       the storage failed or did not answer: call again
    ├─ BackendError                                 nobody serves this URL, or its plug-in is broken
    │  └─ AccessError (PermissionError)             the storage refused the credentials or the path
    └─ CoordinationError                            the processes of a job could not agree
       ├─ RankFailedError                           .failures: rank → message; nothing was committed
       └─ CoordinationTimeoutError (TimeoutError)   .missing: the ranks that were not heard of in time

No message contains credentials: it names a location by its URL, never by its storage options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._core.record import CommitRecord

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
    """An argument, a path or a name cannot be used. Nothing was written."""


class NotCommittedError(AtomicPathError, FileNotFoundError):
    """No complete directory is at the URL."""


class CommitError(AtomicPathError):
    """The attempt did not commit. Readers see nothing of it."""


class _HeldError(CommitError, FileExistsError):
    def __init__(self, message: str, record: CommitRecord | None = None) -> None:
        super().__init__(message)
        self.record = record


class AlreadyCommittedError(_HeldError):
    """A complete directory is at the URL.

    Attributes:
        record: Says who committed the directory and when; None if another tool committed it.
    """


class ConflictError(_HeldError):
    """A live attempt or foreign files hold the final path.

    Attributes:
        record: Says which attempt holds the path and since when; None if the files are not those of an attempt.
    """


class AbandonedError(CommitError):
    """Another process swept, took over or discarded this attempt. The attempt can no longer commit."""


class OutcomeUnknownError(CommitError):
    """The storage did not say whether the commit happened.

    Nothing was cleaned up. Look again later with `is_committed`, or commit the same path again.
    """


class IntegrityError(AtomicPathError):
    """The storage disagrees with the record: the record is damaged, or a file is missing, truncated or altered."""


class GuaranteeError(AtomicPathError):
    """No strategy is safe at this location. The message names the guarantees that are missing."""


class StorageError(AtomicPathError, OSError):
    """The storage failed or did not answer, so the request was not done, or its result is not known.

    The error is also an instance of the builtin class that says why, such as TimeoutError or ConnectionError, and has
    its `errno` and `filename`. The storage's own error is the cause (`__cause__`).
    """

    def __str__(self) -> str:  # that of `OSError` shows the number and the name in place of the text
        return str(self.args[0]) if self.args else ""


class BackendError(AtomicPathError):
    """No backend serves the URL: the protocol is unknown, a package is missing, or a plug-in does not load."""


class AccessError(BackendError, PermissionError):
    """The storage refused the request: the credentials are wrong or have expired, or do not cover this path."""


class CoordinationError(AtomicPathError):
    """The processes of a job could not agree: their engine has ended, or their arguments differ."""


class RankFailedError(CoordinationError):
    """At least one process of the job failed, so no process committed anything.

    Attributes:
        failures: Maps each rank that failed to its message.
    """

    def __init__(self, message: str, failures: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


class CoordinationTimeoutError(CoordinationError, TimeoutError):
    """Some processes of the job were not heard of in time.

    Attributes:
        missing: The ranks that were not heard of.
        received: Maps the other ranks to the message of each, if the call was a `gather`.
    """

    def __init__(
        self, message: str, missing: tuple[int, ...] = (), received: Mapping[int, bytes] | None = None
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.received = dict(received or {})
