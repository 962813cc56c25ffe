"""After the commit point: whatever goes wrong there, what comes out is success or OutcomeUnknownError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from atomicpath._profile.location import Location
from atomicpath.errors import OutcomeUnknownError

__all__ = ["after_commit_point"]


@contextmanager
def after_commit_point(final: Location) -> Iterator[None]:
    """Run what follows a commit: syncing, releasing, closing, telemetry.

    An interruption, which is no `Exception`, passes through as it is.

    Raises:
        OutcomeUnknownError: Anything in the block raised an `Exception`; that is its cause. The directory is visible.
    """
    try:
        yield
    except OutcomeUnknownError:
        raise
    except Exception as error:
        raise OutcomeUnknownError(
            f"{final} is visible, but what follows the commit failed ({error}): a power cut may still undo it. Nothing"
            f" was removed. Check the disk or the store, then is_committed({str(final)!r})"
        ) from error
