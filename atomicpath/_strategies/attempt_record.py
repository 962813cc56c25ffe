"""The record as the register of an attempt: claimed, renewed, moved and settled by conditional writes.

Every move is settled here: a reply that is lost, or a refusal that may answer our own retry, is never
believed before the record has been read back (docs/architecture.md, "Outcomes"). The rules named in
comments are those of docs/model: register, swap, exclusive, conditional, confirm.
"""

from __future__ import annotations

import abc
import errno
import logging
import math
import threading
from contextlib import nullcontext
from dataclasses import replace
from queue import Empty, SimpleQueue

import anyio
import anyio.lowlevel

from atomicpath._core.concurrency import wake
from atomicpath._core.environment import cleaning_up
from atomicpath._core.layout import RECORD_FILE
from atomicpath._core.liveness import this_process, track_attempt
from atomicpath._core.record import CommitRecord, DecidedBy, State
from atomicpath._profile.location import Location
from atomicpath.abc import Content, Put, StaleVersionError, Storage, Update
from atomicpath.errors import (
    AbandonedError,
    AccessError,
    AtomicPathError,
    CommitError,
    GuaranteeError,
    OutcomeUnknownError,
)
from atomicpath.guarantees import Guarantee

from .conflicts import already_committed
from .fences import DELETING

__all__ = ["AttemptRecord", "SwappedAttemptRecord", "pauses"]

_LOG = logging.getLogger("atomicpath")
_TRIES = 4
_MARGIN = 0.5  # of a lease; it is renewed at every third, so a later renewal means trouble
_PAUSE = 0.2  # seconds before the second try, doubled before each further one


class AttemptRecord(abc.ABC):
    """One attempt's hold on the record of one final path. Not for concurrent use, but for its own renewals."""

    decided_by: DecidedBy

    def __init__(self, storage: Storage, final: Location, record: CommitRecord, *, conditional_delete: bool) -> None:
        self._storage = storage
        self._final = final
        self.is_conditional = conditional_delete
        """Whether a delete names a version; where it cannot, `fences` says what keeps it from hitting another's."""
        self._unanswered: BaseException | None = None  # whether an unconditional delete was carried out
        self.path = final.child(RECORD_FILE).path
        self.record = replace(record, decided_by=self.decided_by)
        self.version: str | None = None
        self.held = False
        """Whether the record is ours, as far as we know: then it is also ours to give up."""
        self.inherits = False
        """Whether it was another attempt's, whose files may be there still."""
        self.seen_at = -math.inf
        """When the last request began that showed the record to be ours, on the boot-time clock."""
        self.moved_at = -math.inf
        """When the last request began that was answered to have moved the record."""

    def is_well_within_lease(self) -> bool:
        """Return True while nobody can have taken over the record: a request that begins now is safe to send.

        A host that was suspended, or a process that was stopped, finds here that its lease may have expired.
        """
        return self._storage.environment.monotonic() - self.seen_at <= self.record.lease.patience * _MARGIN

    async def delete(self, path: str, *, version: str | None) -> bool:
        """Delete an object at the final path for which the register was confirmed: rules *conditional*, *timed*.

        On plain S3 equal bytes have equal versions, so that a delete that sleeps could hit the next attempt's object
        even where it names one.

        Returns:
            False if too much of the lease has passed, or the object has changed: look again before acting on it.

        Raises:
            GuaranteeError: The storage gave no version of the object, though deletes name one there. Nothing was sent.
            OSError: Nobody knows whether it was deleted, or may yet be. Where deletes are not conditional this register
                sends no other after that: rule *tombstone*.
        """
        if self.is_conditional and version is None:
            raise GuaranteeError(
                f"{path} was not deleted: the storage gives no version of it, though {Guarantee.CONDITIONAL_DELETE} is"
                " said to hold there. Its backend has to give one in `list` and `stat` alike, or not to declare that"
            )
        left = self.time_to_delete()
        if left <= 0:
            return False
        if self._unanswered is not None:
            raise OSError(
                errno.EBUSY,
                f"nothing more is deleted at {self._final}: an earlier delete had no answer ({self._unanswered}), and"
                " may yet be carried out. The record stays, as discarded: sweep(...) ends it later",
            ) from self._unanswered
        try:
            with nullcontext() if self._storage.is_local else anyio.fail_after(left):
                await self._storage.delete(path, version=version if self.is_conditional else None)
        except StaleVersionError:
            return False  # written again since it was seen
        except AccessError:
            raise  # refused, and not done
        except BaseException as error:
            if not self.is_conditional:
                self._unanswered = error
            raise
        return True

    async def confirm_to_delete(self) -> None:
        """Confirm before a delete that the register is still ours (rule *confirm*).

        Raise AbandonedError if it is not.

        Rule *timed*: a look is not enough where deletes are not conditional. A process that watches the record for a
        lease counts from the last move of the record. So the time for deletes begins with a move that was answered, and
        not with a look that shows that the record is still there (READ_ANCHOR in docs/model).
        """
        if self.is_conditional or self.time_to_delete() > 0:
            await self.confirm()
        else:
            await self.renew()

    def time_to_delete(self) -> float:
        """Return the seconds left of the part of the lease in which deletes are sent and answered."""
        begins = self.seen_at if self.is_conditional else self.moved_at
        return begins + self.record.lease.patience * DELETING - self._storage.environment.monotonic()

    async def acquire(self) -> Content | None:
        """Create the record. Return None if it is ours; else return what is in the way."""
        failure: OSError | None = None
        for pause in pauses():
            await self._storage.environment.sleep(pause)
            began = self._storage.environment.monotonic()
            try:
                self.version = await self._storage.put(
                    self.path, self.record.encode(), mode=Put.CREATE, owner=self.record.token
                )
                self.held, self.seen_at, self.moved_at = True, began, began
                return None
            except (AccessError, FileNotFoundError):
                raise
            except OSError as error:
                failure = error
            seen = await self.look()
            if seen is not None:
                there = self._decoded(seen)
                if there.token != self.record.token:
                    return seen
                self.version, self.held = seen.version, True  # "exists" was the answer to our own retry
                self.seen_at = began
                return None
        raise CommitError(f"cannot begin to write {self._final}: {failure}; nothing was committed") from failure

    async def recover(self) -> None:
        """Hold the record if an interrupted claim created it all the same."""
        if self.held:
            return
        with cleaning_up(self._final):
            try:
                seen = await self.look()
                self.held = seen is not None and self._is_ours(self._decoded(seen))
            except (OSError, AtomicPathError) as error:
                _LOG.debug("cannot see whether %s was claimed: %s", self._final, error)
            else:
                self.version = seen.version if seen else None

    async def look(self) -> Content | None:
        """Return the current content of the record, or None if there is no record."""
        try:
            return await self._storage.get(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def confirm(self) -> Content:
        """Look at the record and return it if it is still ours, as it was seen (rule *confirm*).

        Raise AbandonedError if it is not.
        """
        began = self._storage.environment.monotonic()
        renewals, version = self.record.lease.renewals, self.version  # in this order: a renewing thread sets them last
        seen = await self.look()
        if seen is None or not self._is_still_ours(seen, renewals, version):
            raise self._lost(seen)
        self.seen_at = began
        return seen

    async def take_over(self, seen: Content, there: CommitRecord) -> bool:
        """Replace the record `there`, as it was `seen`, by ours; return False if it has moved meanwhile.

        Our record then names the whole chain of attempts that were taken over; we may delete their objects. Until
        `forget_manifest` it also names the files that a commit or an earlier take-over had named.
        """
        fresh = self.record
        self.record = replace(fresh, took_over=(*there.took_over, there.token), files=there.files)
        if await self._take(seen):
            return True
        self.record = fresh
        return False

    def forget_manifest(self) -> None:
        """Name the files of the attempt taken over no longer, from the next move on: they are deleted."""
        self.record = replace(self.record, files=())

    @abc.abstractmethod
    async def _take(self, seen: Content) -> bool:
        """Replace the record `seen` by ours; return False if it has moved meanwhile."""

    @abc.abstractmethod
    async def commit(self, committed: CommitRecord) -> None:
        """Commit the attempt; return only if the commit happened.

        Raise CommitError if it is settled that the commit did not happen, and OutcomeUnknownError if that is unknown.
        """

    @abc.abstractmethod
    async def discard(self) -> None:
        """Give the register up before anything is deleted; raise AbandonedError if it is not ours any more."""

    @abc.abstractmethod
    async def withdraw(self) -> None:
        """Delete the record, last."""

    async def delete_record(self) -> None:
        """Delete the record in the time that there is for deletes."""
        for again in range(_TRIES):
            if again or self.time_to_delete() <= 0:
                await self.renew()
            if await self.delete(self.path, version=self.version):
                return
        raise TimeoutError(
            errno.ETIMEDOUT,
            f"the record of {self._final} stays: this process is too slow to delete it in time. sweep(...) does that"
            " later",
        )

    def keep_alive(self) -> None:  # noqa: B027 - without leases there is nothing to do
        """Begin to renew, if this register has leases."""

    async def stop_renewal(self) -> None:  # noqa: B027 - as above
        """Stop renewing; afterwards nothing but the caller moves the register."""

    async def renew(self) -> None:
        """Renew now, if this register has leases; raise AbandonedError if it is not ours any more."""
        await self.confirm()

    def _is_ours(self, there: CommitRecord) -> bool:
        # One that is discarded is its last cleaner's: of two that delete at a time one might free the name too early.
        mine = self.record
        return (there.token, there.state, there.cleaner) == (mine.token, mine.state, mine.cleaner)

    def _is_still_ours(self, seen: Content, renewals: int, version: str | None) -> bool:  # noqa: ARG002 - only what is swapped has a history
        """Tell whether the record, as it is seen now, is still ours.

        `version` and `renewals` are the version and the number of renewals under which this attempt knew the record.
        """
        return self._is_ours(self._decoded(seen))

    def _decoded(self, content: Content) -> CommitRecord:
        return CommitRecord.decode(content.data, where=str(self._final))

    def _lost(self, seen: Content | None) -> CommitError:
        there = self._decoded(seen) if seen else None
        if there is None or self._is_ours(there):  # ours by a late copy of an old request, see _is_still_ours
            return AbandonedError(
                f"{self._final} was not committed: this attempt was swept away meanwhile; begin again"
            )
        if there.state is State.COMMITTED and there.token != self.record.token:
            return already_committed(self._final, there)
        return AbandonedError(
            f"{self._final} was not committed: this attempt was "
            + (f"taken over by {there.writer}" if there.token != self.record.token else f"discarded by {there.writer}")
            + ", who held it to be abandoned; begin again, or leave it to them"
        )


class SwappedAttemptRecord(AttemptRecord):
    """Where the store has COMPARE_AND_SWAP: the swap of the record to `committed` is the commit."""

    decided_by = DecidedBy.RECORD

    def __init__(self, storage: Storage, final: Location, record: CommitRecord, *, conditional_delete: bool) -> None:
        super().__init__(storage, final, record, conditional_delete=conditional_delete)
        self._stop: SimpleQueue[None] = SimpleQueue()  # the one that a handler, or a garbage collector, may put into
        self._renewing: threading.Thread | None = None
        self._renewal: tuple[anyio.lowlevel.EventLoopToken, anyio.CancelScope] | None = None

    async def _take(self, seen: Content) -> bool:
        self.version, self.inherits = seen.version, True
        try:
            await self._move(self.record)  # rule *register*: moved before anything of the old attempt is deleted
        except AbandonedError:
            return False
        self.held = True
        return True

    async def commit(self, committed: CommitRecord) -> None:
        try:
            await self._move(committed)  # rule *swap*: only from our own writing state
        except OutcomeUnknownError:
            await self._withdraw(committed)

    async def discard(self) -> None:
        await self._move(self._discarded())  # rule *register*: nothing of ours is deleted before

    async def withdraw(self) -> None:
        if self.is_conditional:
            await self._storage.delete(self.path, version=self.version)  # rule *conditional*, for the record itself
        else:
            if self.record.state is State.WRITING:
                await self.discard()  # rule *tombstone*: while the delete is under way nobody takes its place
            await self.delete_record()
        self.held = False

    async def renew(self) -> None:
        lease = replace(self.record.lease, renewals=self.record.lease.renewals + 1)
        await self._move(replace(self.record, lease=lease))

    def keep_alive(self) -> None:
        # A thread, not a task: training code blocks its event loop for longer than a lease.
        lease = self.record.lease
        interval = min(lease.seconds, lease.patience) / 3
        self._renewing = threading.Thread(
            target=self._renew_every, args=(interval,), name="atomicpath-lease", daemon=True
        )
        track_attempt(
            self.record.token, self._end_renewing
        )  # another object of this process may be the one to end the attempt
        self._renewing.start()

    async def stop_renewal(self) -> None:
        self._end_renewing()
        if self._renewing is not None:
            await self._storage.environment.step(self._renewing.join)
            self._renewing = None

    def _end_renewing(self) -> None:
        self._stop.put(None)
        if (renewal := self._renewal) is not None:  # do not wait for a store that does not answer
            token, scope = renewal
            wake(token, scope.cancel)

    async def _renew_until_the_end(self) -> None:
        with anyio.CancelScope() as scope:
            self._renewal = anyio.lowlevel.current_token(), scope
            try:
                if self._stop.empty():
                    await self.renew()
            finally:
                self._renewal = None

    def _renew_every(self, interval: float) -> None:
        while True:
            try:
                self._stop.get(timeout=interval)
                return
            except Empty:
                pass
            try:
                anyio.run(self._renew_until_the_end)
            except AbandonedError as error:
                _LOG.error("%s", error)  # the writer sees it at its own next move
                return
            except (OSError, AtomicPathError) as error:
                _LOG.warning("cannot renew the lease on %s, will try again: %s", self._final, error)

    def _is_still_ours(self, seen: Content, renewals: int, version: str | None) -> bool:
        # The same bytes under another version: the record was deleted, with all that the attempt wrote, and a late
        # copy of the request that first created it has arrived since. Only renewals move a record that stays ours.
        there = self._decoded(seen)
        return self._is_ours(there) and (seen.version == version or there.lease.renewals > renewals)

    async def _move(self, target: CommitRecord) -> None:
        """Swap the record from the version we know to `target`, and settle every reply that is not a plain yes.

        Raise AbandonedError or AlreadyCommittedError if the register is provably not ours, and CommitError if the store
        refused. Raise OutcomeUnknownError if no answer settles the outcome; the move may then still happen.
        """
        failure: Exception | None = None
        for pause in pauses():
            await self._storage.environment.sleep(pause)
            began = self._storage.environment.monotonic()
            try:
                self.version = await self._storage.put(self.path, target.encode(), mode=Update(self.version or ""))
                self.record, self.seen_at, self.moved_at = target, began, began
                return
            except AccessError as error:
                if failure is None:
                    raise self._refused(error) from error
            except OSError as error:
                failure = error
            try:
                seen = await self.look()
            except OSError as error:
                failure = error
                continue
            if seen is not None and seen.data == target.encode():
                self.version, self.record, self.seen_at = seen.version, target, began
                return  # it had happened: the reply was lost, or a refusal answered our own retry
            if seen is None or not self._is_still_ours(seen, self.record.lease.renewals, self.version):
                raise self._lost(seen)  # rule *swap*: from our own state, and in the life that we know of
            self.version = seen.version
        raise self._unknown(target.state, failure) from failure

    async def _withdraw(self, committed: CommitRecord) -> None:
        """Settle a commit that had no answer.

        Once the record is swapped to discarded, the commit can never happen.
        """
        try:
            await self._move(self._discarded())
        except AbandonedError as lost:
            seen = await self._look_again(lost)
            if seen is not None and seen.data == committed.encode():
                self.version, self.record = seen.version, committed
                return
            raise
        except OutcomeUnknownError:
            raise
        except CommitError as refused:  # the withdrawal was refused, which says nothing of the commit
            raise self._unknown(committed.state, refused) from refused
        raise CommitError(f"{self._final} was not committed: the store did not take the commit; it was withdrawn")

    async def _look_again(self, lost: AbandonedError) -> Content | None:
        """Return the content of the record once it is known that the record moved.

        The very commit whose answer was lost may have moved it.
        """
        failure: OSError | None = None
        for pause in pauses():
            await self._storage.environment.sleep(pause)
            try:
                return await self.look()
            except OSError as error:
                failure = error
        raise self._unknown(State.COMMITTED, failure) from lost

    def _refused(self, error: AccessError) -> AtomicPathError:
        return CommitError(f"{self._final} was not committed: {error}")

    def _unknown(self, target: State, failure: Exception | None) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"the store does not say whether the record of {self._final} became {target.value!r} ({failure})."
            " Nothing was cleaned up: look again later with is_committed(...), or commit it again"
        )

    def _discarded(self) -> CommitRecord:
        return self.record.moved_to(State.DISCARDED, writer=this_process(self._storage.environment))


def pauses() -> list[float]:
    """Return the seconds to wait before each try of a request that is to be settled."""
    return [0.0] + [_PAUSE * 2**again for again in range(_TRIES - 1)]
