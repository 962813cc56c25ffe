"""The checksums that S3 keeps of objects: which ones there are, and what they mean for a download in ranges."""

from __future__ import annotations

import zlib

from atomicpath.storage import CRC32, Answer, Checksum

__all__ = ["CHECKSUMS", "checksum_of", "is_divisible"]

CHECKSUMS = ("ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")
_ONLY_WHOLE = ("ChecksumSHA1", "ChecksumSHA256")  # botocore checks them itself, at the end of the body


def checksum_of(reply: Answer) -> Checksum | None:
    """Return the checksum of a whole object that can be checked over its ranges; None if its reply has none."""
    told = reply.text_or_none("ChecksumCRC32")
    return Checksum(zlib.crc32, CRC32, told) if told is not None and _is_of_all(told) else None


def is_divisible(reply: Answer) -> bool:
    """Tell whether nothing is lost where the body of this reply is not read to its end."""
    return not any((told := reply.text_or_none(name)) and _is_of_all(told) for name in _ONLY_WHOLE)


def _is_of_all(told: str) -> bool:
    return "-" not in told  # else it is made of the checksums of parts ("Checking object integrity")
