"""What may be a bucket and a key."""

from __future__ import annotations

import re

from atomicpath.errors import ValidationError

__all__ = ["DIRECTORY_BYTES", "KEY_BYTES", "is_directory_bucket", "join", "split"]

KEY_BYTES = 1024
"""The longest key, in UTF-8 (S3 User Guide, "Naming Amazon S3 objects")."""

DIRECTORY_BYTES = 900
"""The longest key of a directory: leaves room for the names of its files, ours and probes'."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")  # what botocore lets through; the store knows its own rules


def split(path: str, *, longest: int = KEY_BYTES) -> tuple[str, str]:
    """Bucket and key of a path, "" for a bucket itself; ValidationError says why there can be no such object."""
    bucket, _, key = path.partition("/")
    reason = None
    if not _BUCKET.fullmatch(bucket):
        reason = f"{bucket!r} is no bucket's name (for an access point, use its alias)"
    elif key and any(part in ("", ".", "..") for part in key.split("/")):
        reason = "its key has an empty part, '.' or '..' in it, which other tools do not keep apart"
    else:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            reason = "its key is not valid Unicode"
        else:
            if size > longest:
                reason = f"its key is {size} bytes long, {longest} are possible"
    if reason:
        shown = path if len(path) <= 80 else f"{path[:77]}..."
        raise ValidationError(f"s3://{shown} cannot be used: {reason}".encode(errors="backslashreplace").decode())
    return bucket, key


def join(bucket: str, key: str) -> str:
    """The path of a bucket and key."""
    return f"{bucket}/{key}" if key else bucket


def is_directory_bucket(bucket: str) -> bool:
    """Whether it is one of S3 Express One Zone's, whose names end so by rule."""
    return bucket.endswith("--x-s3")
