"""Whether a store lets what was created be overwritten: under retention it does not, whoever asks.

A retention policy, an object lock or a bucket's own policy keeps a record in its first state for ever, so that nothing
there can be committed, and the name is lost until the retention ends. Probes find that out where they try a swap. Where
the swap is documented for the very kind of store none is tried: then the first record that a process claims at a place
is moved once before any data is sent.
"""

from __future__ import annotations

from atomicpath._core.layout import RECORD_FILE
from atomicpath._profile.location import Location
from atomicpath.abc import Storage
from atomicpath.errors import AccessError, CommitError
from atomicpath.guarantees import Guarantee

from .attempt_record import RecordRegister, Register

__all__ = ["expect_overwriting"]

_seen: set[str] = set()
"""Places at which a record of this process's was overwritten. Only ever added to."""


async def expect_overwriting(storage: Storage, final: Location, register: Register) -> None:
    """Move a record that was just claimed, once for each place and process, where nobody has tried that there.

    Raises:
        AccessError: The store refused to overwrite it. No data was sent; the record stays there if the store keeps it.
    """
    place = final.parent.place
    if not storage.may_retain or not isinstance(register, RecordRegister) or place in _seen:
        return
    if Guarantee.COMPARE_AND_SWAP not in (await storage.declare(final.path)).declared:
        return
    try:
        await register.renew()
    except CommitError as error:
        if not isinstance(error.__cause__, AccessError):
            raise
        raise AccessError(
            f"{final} cannot be committed: what was created there may not be overwritten ({error.__cause__}). The"
            " credentials lack the right, or a retention policy, an object lock or a bucket policy forbids it. No data"
            f" was sent; {final.child(RECORD_FILE)} is left if it may not be deleted either. Commit to a bucket that"
            " lets objects be overwritten"
        ) from error.__cause__
    _seen.add(place)
