"""What is known of a bucket without trying it, and where that is written."""

from __future__ import annotations

from atomicpath.abc import Declaration
from atomicpath.guarantees import NONE, Guarantee

from .names import is_directory_bucket
from .stores import CONDITIONS, PARTS, Store, known

__all__ = ["declaration"]

_WHOLE = "S3's protocol has no other way to store an object than whole"
_UNPROVEN = "no probe can show it: a large file is sent in one request"


def declaration(endpoint: str, bucket: str, *, server: str) -> Declaration:
    """Declare by the endpoint, and by the `Server` header of its replies where it has answered.

    What the vendor of S3 itself documents is believed. What another vendor documents is declared, and tested all the
    same. A server that is recognised by its replies may be of any version: what its kind promises is tested first, and
    only what no test can show is declared.
    """
    store = known(endpoint, server)
    evidence = {Guarantee.ATOMIC_WRITE: _WHOLE, PARTS: _UNPROVEN}
    if store is None:
        # docs/design/0006-multipart-probes.md: a store that breaks it was found out in 16 of 20 tries
        return Declaration(declared=Guarantee.ATOMIC_WRITE, observable=CONDITIONS, refutable=PARTS, evidence=evidence)
    promised = _promised(store)
    for guarantees, words in store.promises.items():
        evidence |= dict.fromkeys(guarantees, f"{store.name} documents it: {words}")
    for guarantees, words in store.lacks.items():
        evidence |= dict.fromkeys(guarantees, f"{store.name}: {words}")
    if store.is_vendor:
        kind = "directory buckets" if is_directory_bucket(bucket) else "general purpose buckets"
        documented = dict.fromkeys(promised, f"AWS documents it for {kind}")
        return Declaration(declared=Guarantee.ATOMIC_WRITE | promised, evidence=evidence | documented)
    believed = promised if store.is_at(endpoint) else promised & PARTS
    unseen = CONDITIONS & store.beyond_probes
    return Declaration(
        declared=Guarantee.ATOMIC_WRITE | believed,
        observable=CONDITIONS & ~believed & ~unseen,
        refutable=PARTS | believed | unseen,
        evidence=evidence,
    )


def _promised(store: Store) -> Guarantee:
    promised = NONE
    for guarantees in store.promises:
        promised |= guarantees
    return promised
