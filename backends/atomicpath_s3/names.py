"""What may be a bucket and a key."""

from __future__ import annotations

import re

from atomicpath.storage import flaw_of_key, unusable

__all__ = ["DIRECTORY_BYTES", "KEY_BYTES", "is_directory_bucket", "join", "split"]

KEY_BYTES = 1024
"""The longest key, in UTF-8 (S3 User Guide, "Naming Amazon S3 objects")."""

DIRECTORY_BYTES = 900
"""The longest key of a directory: leaves room for the names of its files, ours and probes'."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")  # what botocore lets through; the store knows its own rules


def split(path: str, *, longest: int = KEY_BYTES) -> tuple[str, str]:
    """Return bucket and key of a path, "" for a bucket itself. ValidationError says why there can be no such object."""
    bucket, _, key = path.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise unusable(f"s3://{path}", f"{bucket!r} is no bucket's name (for an access point, use its alias)")
    if key and (flaw := flaw_of_key(key, longest=longest)):
        raise unusable(f"s3://{path}", flaw)
    return bucket, key


def join(bucket: str, key: str) -> str:
    """Return the path of a bucket and key."""
    return f"{bucket}/{key}" if key else bucket


def is_directory_bucket(bucket: str) -> bool:
    """Tell whether a bucket is one of S3 Express One Zone's, whose names end so by rule."""
    return bucket.endswith("--x-s3")
