"""The directory that a final name is in: opened before an attempt writes, links followed, and synced by descriptor."""

from __future__ import annotations

import logging

from atomicpath._profile.abilities import need
from atomicpath._profile.location import Location
from atomicpath.abc import OpenDirectory, Storage, SyncingStorage
from atomicpath.guarantees import Guarantee

__all__ = ["FinalParent"]

_LOG = logging.getLogger("atomicpath")


class FinalParent:
    """The parent of one final path. A link in its path may be changed meanwhile: what was opened first counts."""

    def __init__(self, storage: Storage, final: Location) -> None:
        self._storage = storage
        self._final = final
        self._open: OpenDirectory | None = None

    async def open(self) -> None:
        """Open the directory, so that an error shows before anything is written."""
        if self._open is None and isinstance(self._storage, SyncingStorage):
            self._open = await self._storage.open_directory(self._final.parent.path)

    async def sync(self) -> None:
        """Make the names in it durable, by the descriptor if it was opened; any failure raises."""
        if self._open is not None:
            await self._open.sync()
        else:
            await need(self._storage, SyncingStorage, Guarantee.SYNC).sync_directory(self._final.parent.path)

    def close(self) -> None:
        """Close the directory.

        Nothing was written through it, so a failure changes nothing and is logged.
        """
        parent, self._open = self._open, None
        try:
            if parent is not None:
                parent.close()
        except OSError as error:
            _LOG.warning("%s could not be closed: %s", self._final.parent, error)
