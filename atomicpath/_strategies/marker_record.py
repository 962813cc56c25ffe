"""The register of an attempt where nothing can be swapped: the exclusive creation of its marker is the commit."""

from __future__ import annotations

from atomicpath._core.layout import COMMIT_SUCCESS_FILE
from atomicpath._core.record import CommitRecord, DecidedBy, marker_of, token_in_marker
from atomicpath.abc import Content, Put
from atomicpath.errors import AbandonedError, CommitError, OutcomeUnknownError

from .attempt_record import AttemptRecord, pauses

__all__ = ["MarkedAttemptRecord"]


class MarkedAttemptRecord(AttemptRecord):
    """Where it does not: the exclusive creation of the marker is the commit, and nobody takes anything over."""

    decided_by = DecidedBy.MARKER

    async def _take(self, seen: Content) -> bool:  # noqa: ARG002 - nothing here can be conditional on it
        began = self._storage.environment.monotonic()
        self.inherits = True  # before the write, whose error may come after it was done
        self.version = await self._storage.put(
            self.path, self.record.encode(), mode=Put.OVERWRITE
        )  # only ever for unsafe_takeover
        self.held = True
        self.seen_at = self.moved_at = began
        return True

    async def confirm(self) -> Content:
        seen = await super().confirm()
        # nobody takes over a record here by watching it, and only this process moves it
        self.version, self.moved_at = seen.version, self.seen_at
        return seen

    async def commit(self, committed: CommitRecord) -> None:
        await self.confirm()
        await self._expect_awake()
        self.version = await self._storage.put(self.path, committed.encode(), mode=Put.OVERWRITE)
        self.record = committed
        marker = self._final.child(committed.marker or COMMIT_SUCCESS_FILE).path
        failure: OSError | None = None
        for pause in pauses():
            await self._storage.environment.sleep(pause)
            await self._expect_awake()
            try:
                await self._storage.put(marker, marker_of(committed.token), mode=Put.CREATE, owner=committed.token)
                await self._expect_not_swept(marker)
                return
            except OSError as error:
                failure = error
            try:
                there = (await self._storage.get(marker)).data
            except FileNotFoundError:
                continue
            except OSError as error:
                failure = error
                continue
            if token_in_marker(there) == committed.token:
                if self._storage.is_local:  # no reply was lost: the marker is there, but syncing it failed
                    raise OutcomeUnknownError(
                        f"{self._final} is visible, but its marker could not be made durable ({failure}): a power cut"
                        " may still undo the commit. Nothing was removed. Check the disk, then"
                        f" is_committed({str(self._final)!r})"
                    ) from failure
                await self._expect_not_swept(marker)
                return
            raise AbandonedError(f"{self._final} was not committed: another attempt's marker is there") from failure
        raise OutcomeUnknownError(
            f"the store does not say whether the marker of {self._final} was written ({failure}). Nothing was cleaned"
            " up: look again later with is_committed(...)"
        ) from failure

    def _slept(self) -> bool:
        """Tell whether the record was last seen so long ago that a whole sweep may have happened since.

        A create-if-absent is no fence once the name is gone. On a disk the lock is a fence.
        """
        return not self._storage.is_local and self.time_to_delete() <= 0

    async def _expect_awake(self) -> None:
        """Look at the record again if the writer slept; raise AbandonedError if the attempt was swept.

        Call this before each request of the commit.
        """
        if self._slept():
            await self.confirm()

    async def _expect_not_swept(self, marker: str) -> None:
        """Check after the commit that the attempt was not swept while its request was under way.

        A writer that slept during the request may have written its marker at a place that a sweep had emptied. That
        marker counts for nothing without the record, so it is deleted, and CommitError is raised.
        """
        if not self._slept():
            return
        try:
            await self.confirm()
        except CommitError:
            await self._storage.delete(marker)
            raise
        except OSError as error:
            raise OutcomeUnknownError(
                f"this process slept for longer than its lease as it committed {self._final}, and cannot see whether it"
                f" was swept meanwhile ({error}). Nothing was cleaned up: look again later with is_committed(...)"
            ) from error

    async def discard(self) -> None:
        await self.confirm()

    async def withdraw(self) -> None:
        await self.delete_record()
        self.held = False
