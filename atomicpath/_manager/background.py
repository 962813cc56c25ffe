"""Committing a copy of a local directory while the caller goes on."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from types import EllipsisType
from typing import Literal

from atomicpath._commit.meter import Progress
from atomicpath._commit.options import CommitOptions, Exists
from atomicpath._commit.readers import Commit
from atomicpath._commit.session import CommitSession, copy_and_commit, source_of
from atomicpath._commit.staging import LocalFile
from atomicpath._core.record import JSONValue
from atomicpath._core.runner import run
from atomicpath._profile.location import Location, PathLike, local_directory, locate
from atomicpath._profile.storage_errors import reporting
from atomicpath.abc import Coordinator, FileOptions, TemporaryPath
from atomicpath.errors import ValidationError
from atomicpath.guarantees import Guarantee

from .lanes import COMMITS, Cancelled, Job, Promise

__all__ = ["BackgroundCommit", "commit_in_background", "copying", "expect_alone"]

_LOG = logging.getLogger("atomicpath")
_failed: list[Promise[Commit]] = []
"""What failed and was not asked for yet. Taking an element out of a list is indivisible."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_failed.clear)  # it is the parent's to ask for


class BackgroundCommit:
    """A commit under way in the background.

    Attributes:
        reusable: A future that is done once nothing more is read from the local directory: it may be changed, or
            deleted. If the commit failed before that, it has the same error: what is there was not saved.
        committed: A future with the `Commit`, or the error. Its `cancel()` drops a commit that has not begun.
    """

    def __init__(self, url: str, reusable: Promise[None], committed: Promise[Commit]) -> None:
        self._url = url
        self.reusable = reusable
        self.committed = committed

    def __repr__(self) -> str:
        states = {True: "done", False: "under way"}
        return f"<{type(self).__name__} of {self._url}: {states[self.committed.done()]}>"


def commit_in_background(
    local_dir: PathLike,
    url: PathLike,
    *,
    storage_options: Mapping[str, object] | None = None,
    temporary_path_class: type[TemporaryPath] | None = None,
    direct: bool = False,
    replace: bool = False,
    exists: Exists | None = None,
    durable: bool = True,
    coordinator: Coordinator | Literal["auto"] | None = None,
    file_options: FileOptions | None = None,
    metadata: Mapping[str, JSONValue] | None = None,
    checksums: bool = False,
    staging_dir: PathLike | None = None,
    progress: Progress | bool | None = None,
    guarantees: Guarantee | None = None,
    unsafe_takeover: bool = False,
    allow_empty: bool = False,
    marker: str | EllipsisType | None = ...,
) -> BackgroundCommit:
    """Begin to commit a copy of an existing local directory, and return at once.

    It is `put` in a thread that this process has for all such commits: they are made one after another, in the order of
    the calls. Leave the directory as it is until `reusable` is done. A change before that is an error, and nothing is
    committed. What the directory is made from, such as tensors in memory, may be changed at once.

    An error is in the future `committed`, and once in the log. If nobody has asked the future for it, the next call of
    this function raises it, before anything of that call has begun: call again then.

    The end of the interpreter waits for what is under way, for at most 10 minutes. Ctrl-C ends that wait. A forked
    child has no part in the commits of its parent.

    Readers and concurrent writers of the path see what they see of `commit`.

    Args:
        local_dir: The directory on this host.
        url: The final place: a URL, a path or a UPath.
        storage_options: For the file system behind the URL. No message shows them.
        temporary_path_class: The strategy; left out, it follows from what the location guarantees.
        direct: As for `put`.
        replace: As for `put`.
        exists: As for `put`: "error", "keep" or "replace".
        durable: Sync files, directories and the final name on a file system of this host.
        coordinator: None, or `SingleProcess()` in one process of a job of several: no other may take part, since the
            order of the commits would not be the same in all of them.
        file_options: The mode of the directory.
        metadata: JSON that travels in the record.
        checksums: Add the SHA-256 of every file to the record.
        staging_dir: As for `put`.
        progress: Called in the background with the bytes copied and the bytes in all; True shows a bar.
        guarantees: What you know of the location, which is added to what is known of it. Probes may refute it.
        unsafe_takeover: Take the place of an unfinished attempt that nothing here could stop, should it still write.
        allow_empty: Commit a directory without files, too.
        marker: As for `put`.

    Returns:
        Its futures `reusable` and `committed`.

    Raises:
        ValidationError: An argument cannot be used, or the directory cannot be read.
        AtomicPathError: An earlier commit in the background failed, and nobody has asked for its error.
    """
    raise_failed(f"the commit of {url!s} was not begun")
    options = CommitOptions(
        storage_options=storage_options,
        temporary_path_class=temporary_path_class,
        direct=direct,
        replace=replace,
        exists=exists,
        durable=durable,
        coordinator=coordinator,
        file_options=file_options,
        metadata=metadata,
        checksums=checksums,
        staging_dir=staging_dir,
        progress=progress,
        guarantees=guarantees,
        unsafe_takeover=unsafe_takeover,
        allow_empty=allow_empty,
        marker=marker,
    )
    directory = local_directory(local_dir, "local_dir")
    with reporting("cannot begin to write {}", functools.partial(locate, url, storage_options)):
        writing = CommitSession(url, options)
    expect_alone(writing, "commit_in_background")

    async def look() -> list[LocalFile]:
        with reporting("cannot read {}", lambda: directory):
            return await (await source_of(directory, writing.location)).files()

    return copying(local_dir, writing, run(look))


def copying(local_dir: PathLike, writing: CommitSession, seen: list[LocalFile]) -> BackgroundCommit:
    """Add the commit of a copy of a directory, as it was seen by its user, to the work of this process."""
    directory, location = local_directory(local_dir, "local_dir"), writing.location
    what = f"the commit of {location}"
    reusable: Promise[None] = Promise(what, can_be_cancelled=False)

    async def main() -> Commit:
        with reporting("cannot commit a copy at {}", lambda: location):
            return await copy_and_commit(directory, writing, seen=seen, copied=lambda: reusable.set_result(None))

    def settled(_: list[Commit], error: BaseException | None) -> None:
        if error is None:
            return
        tell(location, error)
        if not job.promise.cancelled():
            _failed.append(job.promise)
        if not reusable.done():
            reusable.set_exception(error)

    job = Job(what, main, settled)
    COMMITS.add(job)
    return BackgroundCommit(str(location), reusable, job.promise)


def expect_alone(writing: CommitSession, function: str) -> None:
    """Raise ValidationError if other processes take part in a commit."""
    if not writing.is_alone:
        raise ValidationError(
            f"{function} commits for this process alone: in a job of several the order of the commits would not be the"
            " same in all of them. Pass coordinator=atomicpath.SingleProcess() in the one process that commits, or use"
            " commit(..., coordinator='auto') in all of them"
        )


def tell(location: Location, error: BaseException) -> None:
    """Log, once, that a commit in the background failed."""
    level = logging.INFO if isinstance(error, Cancelled) else logging.ERROR
    _LOG.log(level, "%s was not committed in the background: %s", location, error)


def raise_failed(consequence: str) -> None:
    """Raise the error of the first commit in the background that failed and was not asked for, once."""
    while _failed:
        try:
            promise = _failed.pop(0)
        except IndexError:  # another thread was faster
            return
        if promise.is_seen:
            continue
        error = promise.exception()
        if error is not None:
            error.add_note(f"This is the error of an earlier commit in the background. {consequence}: call again")
            raise error
