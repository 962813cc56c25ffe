"""What may be a bucket and an object's name."""

from __future__ import annotations

import re

from atomicpath.storage import flaw_of_key, unusable

__all__ = ["DIRECTORY_BYTES", "KEY_BYTES", "join", "split"]

KEY_BYTES = 1024
"""The longest name of an object, in UTF-8 (Cloud Storage, "About Cloud Storage objects")."""

DIRECTORY_BYTES = 900
"""The longest name of a directory: leaves room for the names of its files, ours and probes'."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")  # Cloud Storage, "About Cloud Storage buckets"


def split(path: str, *, longest: int = KEY_BYTES) -> tuple[str, str]:
    """Return bucket and key of a path, "" for a bucket itself. ValidationError says why there can be no such object."""
    bucket, _, key = path.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise unusable(f"gs://{path}", f"{bucket!r} is no bucket's name")
    if key and (flaw := flaw_of_key(key, longest=longest)):
        raise unusable(f"gs://{path}", flaw)
    if "\r" in key or "\n" in key:
        raise unusable(f"gs://{path}", "its key has a line break in it, which Cloud Storage does not allow")
    return bucket, key


def join(bucket: str, key: str) -> str:
    """Return the path of a bucket and key."""
    return f"{bucket}/{key}" if key else bucket
