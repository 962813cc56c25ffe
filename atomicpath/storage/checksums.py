"""Cyclic checksums of 32 bits over a file whose pieces come in any order."""

from __future__ import annotations

import base64
import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["CRC32", "CRC32C", "Checksum"]

CRC32 = 0xEDB88320
"""The polynomial of zlib and Ethernet, least significant bit first."""

CRC32C = 0x82F63B78
"""Castagnoli's polynomial, the same way."""

_ONE = 1 << 31


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a store says of an object's bytes.

    Args:
        extend: Continues a checksum, which begins with 0, over more bytes.
        polynomial: The one that `extend` calculates with.
        expected: The checksum of the whole object as stores write it: big-endian, in base 64.
    """

    extend: Callable[[bytes, int], int]
    polynomial: int
    expected: str

    def check(self, pieces: Iterable[tuple[int, int]]) -> None:
        """Raise an `OSError` unless the pieces, each told by its checksum and length, make up the object in order."""
        whole = 0
        for crc, length in pieces:
            whole = _shifted(whole, length, self.polynomial) ^ crc
        if base64.b64encode(whole.to_bytes(4, "big")).decode() != self.expected:
            raise OSError(errno.EIO, "the reply's bytes do not have the checksum that its head announced")


def _shifted(crc: int, length: int, polynomial: int) -> int:
    """Return the checksum times x to the power of 8 * length, as zlib's `crc32_combine` does."""
    factor, power = _ONE, _ONE >> 8
    while length:
        if length & 1:
            factor = _product(power, factor, polynomial)
        power = _product(power, power, polynomial)
        length >>= 1
    return _product(factor, crc, polynomial)


def _product(first: int, second: int, polynomial: int) -> int:
    product, bit = 0, _ONE
    while bit:
        if first & bit:
            product ^= second
        bit >>= 1
        second = (second >> 1) ^ polynomial if second & 1 else second >> 1
    return product
