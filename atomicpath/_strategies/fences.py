"""What a place allows whoever takes over or cleans up: how late writers are stopped, how deletes hit what was meant.

A delete that comes late must not hit what is another attempt's by then. Where deletes are conditional each names the
version that was listed. Where they are not, time does it, in three rules that `AttemptRecord.delete`,
`AttemptRecord.withdraw` and `settles_after` keep (docs/design/0017-without-conditional-deletes.md):

- *timed*: a delete is sent, once, within the first quarter of a lease that was renewed after the look, and has no
  longer than that quarter for its answer.
- *tombstone*: the record is discarded before anything is deleted, and one delete without an answer ends the cleaning:
  the record stays, and the name is not free.
- *settled*: nobody takes the place of such a record, or deletes it, before a lease and a quarter have passed since it
  last moved. By then each delete that was sent under it has been carried out, or never will be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from atomicpath._core.record import CommitRecord, DecidedBy, State
from atomicpath.guarantees import Guarantee

__all__ = ["DELETING", "NEEDED", "WANTED", "Fence", "by_user"]

NEEDED = Guarantee.COMPARE_AND_SWAP
"""What removing takes where there is no rename: readers see the whole, or nothing."""

WANTED = Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE
"""What is worth a probe before anything is taken over or cleaned up."""

DELETING = 0.25
"""The part of a lease, counted from its renewal, in which deletes are sent and answered."""

_SETTLED = 1.25  # leases: the deletes' quarter of one, and a whole one for what the network and the store take


@dataclass(frozen=True, slots=True)
class Fence:
    """What follows from the guarantees of one place.

    Args:
        swaps: COMPARE_AND_SWAP holds: a writer whose record was moved cannot commit.
        conditional: CONDITIONAL_DELETE holds: a delete names a version.
    """

    swaps: bool
    conditional: bool

    @classmethod
    def of(cls, guarantees: Guarantee) -> Self:
        """Return what the effective guarantees of a place allow."""
        return cls(
            swaps=Guarantee.COMPARE_AND_SWAP in guarantees, conditional=Guarantee.CONDITIONAL_DELETE in guarantees
        )

    def stops_writer_of(self, record: CommitRecord) -> bool:
        """Tell whether a writer that wakes up can neither commit nor change what is another's by then.

        It can where the marker decides, and where the user of a `direct` attempt writes to the target. Once such an
        attempt was committed, and removed, nobody writes there any more.
        """
        return self.swaps and record.decided_by is DecidedBy.RECORD and not by_user(record)

    def settles_after(self, record: CommitRecord) -> float:
        """Return the seconds for which a record must not have moved until no delete under it can be under way.

        They are zero where deletes are conditional, and for a writer that took over from nobody: it deletes nothing
        before it has discarded its record.
        """
        if self.conditional or (record.state is State.WRITING and not record.took_over):
            return 0.0
        return record.lease.patience * _SETTLED

    def in_words(self) -> str:
        """Tell what is assumed about a place where files are committed by a record."""
        if not self.swaps:
            return (
                f"{Guarantee.COMPARE_AND_SWAP} is not known to hold, so the marker decides: nothing is taken over"
                " without unsafe_takeover=True, remove and keep_last are refused, and sweep has only the age of an"
                " attempt to go by where it cannot see its process."
            )
        if self.conditional:
            return ""
        return (
            "Deletes cannot name a version here. remove, keep_last, sweep and a take-over assume that a delete is"
            " carried out within a lease or never: each is sent once, early in a lease that was just renewed. After"
            " one without an answer the name is free again a lease and a quarter later."
        )


def by_user(record: CommitRecord) -> bool:
    """Tell whether the files of an attempt are its user's own writes, which nothing makes exclusive."""
    return record.direct and record.committed is None
