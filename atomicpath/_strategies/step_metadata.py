"""When a metadata store is asked to write during an attempt, and how its file becomes one of the attempt's."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from upath import UPath

from atomicpath._core.environment import Environment, cleaning_up
from atomicpath._core.layout import METADATA_FILE
from atomicpath.abc import MetadataStore, TemporaryPath
from atomicpath.errors import AtomicPathError, CommitError

from .metadata_store import StepMetadata

__all__ = ["StepMetadataWriter"]

_LOG = logging.getLogger("atomicpath")


class StepMetadataWriter:
    """The metadata of one attempt; without a store it does nothing.

    Where the user writes on the target itself, the store does too, from `create` on. An attempt whose files
    are uploaded at the end has the store write a local file then, which is uploaded as one more.
    A store that fails fails the attempt: nothing is committed.
    """

    def __init__(self, store: MetadataStore | None, environment: Environment) -> None:
        self._store = store
        self._environment = environment
        self._begun: StepMetadata | None = None
        self._under_way = False

    async def begin(self, attempt: TemporaryPath, *, staged: bool) -> None:
        """Note when the attempt was begun, and the user's own metadata, at the end of `create`.

        Both are written at once, unless the files are `staged`.
        """
        if self._store is None:
            return
        begun = self._begun = StepMetadata(
            init_timestamp_nsecs=self._environment.wall_ns(), custom_metadata=attempt.options.metadata
        )
        if not staged:
            self._under_way = True
            with _in_our_words():
                await self._environment.step(_write, self._store, attempt.get() / METADATA_FILE, begun)

    async def finish(self, attempt: TemporaryPath, *, staged: bool) -> None:
        """Write the time of the commit, at the start of `finalize` and before the manifest.

        Return once it is written.
        """
        store, begun = self._store, self._begun
        if store is None or begun is None:
            return
        step, now = self._environment.step, self._environment.wall_ns()
        if not staged:
            with _in_our_words():
                await step(_complete, store, attempt.get() / METADATA_FILE, now)
            self._under_way = False
            return
        call = self._environment.call
        directory = Path(await step(call, tempfile.mkdtemp, prefix="atomicpath-metadata-"))
        try:
            path = UPath(directory / METADATA_FILE)
            with _in_our_words():
                await step(_write, store, path, begun)
                await step(_complete, store, path, now)
            await attempt.add(METADATA_FILE, directory / METADATA_FILE)
        finally:
            with cleaning_up(directory):
                await step(call, rmtree, directory, ignore_errors=True)  # only ours, and nobody reads it again

    async def rest(self) -> None:
        """Wait for a write in the background before an attempt is discarded.

        The write would otherwise recreate what was deleted.
        """
        if self._store is None or not self._under_way:
            return
        self._under_way = False
        try:
            await self._environment.step(self._store.wait_until_finished)
        except Exception as error:  # noqa: BLE001 - the attempt fails already, and that error counts
            _LOG.warning("the metadata store failed too: %s", error)


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Turn any error of the metadata store into CommitError.

    A store may raise anything. An `OSError` of its file would otherwise be taken for an error of the commit protocol.
    """
    try:
        yield
    except AtomicPathError:
        raise
    except Exception as error:
        raise CommitError(
            f"the metadata store failed ({type(error).__name__}: {error}), so nothing was committed; the attempt was"
            " discarded"
        ) from error


def _write(store: MetadataStore, path: UPath, metadata: StepMetadata) -> None:
    store.write(file_path=path, metadata=metadata.to_json())


def _complete(store: MetadataStore, path: UPath, now: int) -> None:
    store.wait_until_finished()
    store.update(file_path=path, commit_timestamp_nsecs=now)
    store.wait_until_finished()
