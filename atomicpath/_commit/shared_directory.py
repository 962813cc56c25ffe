"""What the ranks of a job see of the directory that they share, and waiting until the primary sees all of it.

A network file system may show a name or a size to one host later than to another: NFS caches attributes for up to a
minute (acdirmax in nfs(5)). A manifest made from such a view would lack files, and all would be told "committed".
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import cast

from atomicpath._core.failures import Document
from atomicpath._profile.location import Location
from atomicpath._strategies.manifest import stamps_of
from atomicpath.abc import Storage
from atomicpath.errors import CommitError

__all__ = ["expect_all", "expect_visible", "seen_by_this_rank"]

_PATIENCE = 60.0  # seconds: as long as NFS keeps what it knows of a directory by default
_PAUSE, _LONGEST = 0.1, 2.0  # seconds between looks


async def seen_by_this_rank(storage: Storage, directory: Location) -> Document:
    """Return the names and sizes that this rank sees, for the primary to compare.

    Call this once all ranks have ended their blocks.
    """
    sizes = {name: size for name, (size, _) in stamps_of(await storage.list(directory.path, recursive=True)).items()}
    packed = zlib.compress(json.dumps(sizes).encode("ascii"))
    return {"seen": base64.b64encode(packed).decode("ascii")}


async def expect_all(storage: Storage, directory: Location, offers: Sequence[Document]) -> None:
    """Wait until this rank, the primary, sees every file that any rank sees, with its size.

    Raises:
        CommitError: It still does not after a minute; the message names a rank and a file. Nothing was committed.
    """
    await expect_visible(storage, directory, [_unpacked(offer) for offer in offers])


async def expect_visible(storage: Storage, directory: Location, wanted: Sequence[dict[str, int]]) -> None:
    """Wait until this rank sees every file in `wanted`, with its size.

    `wanted` has one mapping from name to size for each rank. The errors are those of `expect_all`.
    """
    environment = storage.environment
    ends, pause = environment.monotonic() + _PATIENCE, _PAUSE
    while True:
        listing = await storage.list(directory.path, recursive=True)
        here = {name: size for name, (size, _) in stamps_of(listing).items()}
        lacking = _first_lacking(wanted, here)
        if lacking is None:
            return
        if environment.monotonic() > ends:
            rank, name = lacking
            there = f"has {here[name]} bytes" if name in here else "is not to be seen"
            raise CommitError(
                f"{directory} is not seen alike by all ranks: {name!r} has {wanted[rank][name]} bytes for rank {rank},"
                f" and {there} for the primary, after {_PATIENCE:.0f} s. Nothing was committed: is the directory on one"
                " file system that all hosts share, and has every rank stopped writing when its block ends?"
            )
        await environment.sleep(pause)
        pause = min(2 * pause, _LONGEST)


def _first_lacking(wanted: Sequence[dict[str, int]], here: dict[str, int]) -> tuple[int, str] | None:
    for rank, sizes in enumerate(wanted):
        for name, size in sizes.items():
            if here.get(name) != size:
                return rank, name
    return None


def _unpacked(offer: Document) -> dict[str, int]:
    data = zlib.decompress(base64.b64decode(cast("str", offer["seen"])))
    return cast("dict[str, int]", json.loads(data))
