"""The register of an attempt where nothing can be swapped: the exclusive creation of its marker is the commit."""

from __future__ import annotations

from atomicpath._core.layout import COMMIT_SUCCESS_FILE
from atomicpath._core.record import CommitRecord, DecidedBy, marker_of, token_in_marker
from atomicpath.abc import Content
from atomicpath.errors import AbandonedError, CommitError, OutcomeUnknownError

from .attempt_record import Register, pauses

__all__ = ["MarkerRegister"]


class MarkerRegister(Register):
    """Where it does not: the exclusive creation of the marker is the commit, and nobody takes anything over."""

    decided_by = DecidedBy.MARKER

    async def _take(self, seen: Content) -> bool:  # noqa: ARG002 - nothing here can be conditional on it
        began = self._storage.environment.monotonic()
        self.inherits = True  # before the write, whose error may come after it was done
        self.version = await self._storage.write(self.path, self.record.encode())  # only ever for unsafe_takeover
        self.held = True
        self.seen_at = self.moved_at = began
        return True

    async def confirm(self) -> Content:
        seen = await super().confirm()
        # nobody takes a record over by watching it here, and none but this process moves it
        self.version, self.moved_at = seen.version, self.seen_at
        return seen

    async def commit(self, committed: CommitRecord) -> None:
        await self.confirm()
        await self._expect_awake()
        self.version = await self._storage.write(self.path, committed.encode())
        self.record = committed
        marker = self._final.child(committed.marker or COMMIT_SUCCESS_FILE).path
        failure: OSError | None = None
        for pause in pauses():
            await self._storage.environment.sleep(pause)
            await self._expect_awake()
            try:
                await self._storage.create(marker, marker_of(committed.token), owner=committed.token)
                await self._expect_not_swept(marker)
                return
            except OSError as error:
                failure = error
            try:
                there = (await self._storage.read(marker)).data
            except FileNotFoundError:
                continue
            except OSError as error:
                failure = error
                continue
            if token_in_marker(there) == committed.token:
                if self._storage.is_local:  # no reply was lost: the marker is there, and syncing it failed
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
        """Whether so much time has passed since the record was last seen that a sweep may have come and gone.

        A create-if-absent is no fence once the name is gone. On a disk the lock is one.
        """
        return not self._storage.is_local and self.time_to_delete() <= 0

    async def _expect_awake(self) -> None:
        """Before each request of the commit: a writer that slept looks again; AbandonedError if it was swept."""
        if self._slept():
            await self.confirm()

    async def _expect_not_swept(self, marker: str) -> None:
        """After the commit: a writer that slept with the request under way may have marked a place that was swept bare.

        That marker counts for nothing without the record, and is taken away.
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

    async def free(self) -> None:
        await self.delete_record()
        self.held = False
