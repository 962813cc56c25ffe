"""The async face: coroutines on asyncio and on trio. The blocking face calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any, Literal, Self

from upath import UPath

from ._cleaning.policies import Mode
from ._cleaning.removal import remove as remove_committed
from ._cleaning.results import SweepResult
from ._cleaning.retention import Metric, Retained, Selection, Wanted
from ._cleaning.retention import keep_last as keep_newest
from ._cleaning.retention import retain as retain_below
from ._cleaning.sweeper import sweep as sweep_root
from ._commit import aliases, fetch, fetching, readers
from ._commit.explanation import Explanation, explained
from ._commit.handles import BegunCommit
from ._commit.meter import Progress
from ._commit.options import CommitOptions, Exists
from ._commit.readers import Commit, UnfinishedCommit, Verification
from ._commit.selection import select
from ._commit.session import CommitSession
from ._commit.session import put as put_directory
from ._commit.tickets import JoinedCommit, ticket_of
from ._commit.watching import Watcher
from ._core.record import CommitRecord, JSONValue
from ._core.runner import protected, run_detached, run_protected
from ._core.step_order import Order, StepRule
from ._jobs.create_all import create_all, create_all_async, on_commit_callback
from ._profile.location import PathLike, local_directory, locate, located_like
from ._profile.probing import profile_of
from ._profile.storage_errors import at_root, at_url, reported, reporting
from .abc import Coordinator, FileOptions, TemporaryPath
from .errors import CommitError, IntegrityError, ValidationError
from .guarantees import NONE, Guarantee, Profile

__all__ = [
    "alias",
    "attempts",
    "begin",
    "commit",
    "committed",
    "copy",
    "create_all",
    "create_all_async",
    "explain",
    "fetch_latest",
    "get",
    "is_committed",
    "join",
    "keep_last",
    "latest",
    "on_commit_callback",
    "profile",
    "put",
    "read_record",
    "remove",
    "resolve",
    "retain",
    "select",
    "sweep",
    "verify",
    "watch",
]

Options = Mapping[str, object] | None


def _at_second(_: PathLike, url: PathLike, **options: Any) -> object:
    return at_url(url, **options)


class AsyncCommit:
    """One commit: an async context manager, to be entered once."""

    def __init__(self, writing: CommitSession) -> None:
        self.writing = writing

    async def __aenter__(self) -> Path | UPath:
        self.writing.expect_new()
        try:
            return await run_protected(self.writing.begin)
        except GeneratorExit:
            raise  # as below
        except BaseException as error:
            if self.writing.is_open:
                await run_protected(partial(self.writing.abandon, error))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = partial(self.writing.end, error)
        if isinstance(error, GeneratorExit):  # of a coroutine that is dropped, which may not wait
            run_detached(end)
        else:
            await run_protected(end)

    @property
    def result(self) -> Commit:
        """Return what was committed, once the block has ended; CommitError before, and where nothing was. No I/O."""
        return self.writing.result()


class AsyncHandle:
    """One commit that was begun without a block, to be ended by one call, in any task and any thread."""

    def __init__(self, begun: BegunCommit, committing: AsyncCommit) -> None:
        self._begun = begun
        self._committing = committing

    @property
    def path(self) -> Path | UPath:
        """Return the directory to write in. No I/O."""
        return self._begun.path

    def ticket(self) -> bytes:
        """Return a ticket, by which other processes can `join` the commit: JSON, without credentials. No I/O.

        For frameworks that coordinate their own processes: send it to them, gather what `upload` returns there, and
        pass all of it to `finish`. Those of `direct=True` on a store write by themselves, and return nothing.

        Raises:
            ValidationError: A coordinator brings the processes of this commit together, or its strategy is the
                caller's own.
            CommitError: The commit is over.
        """
        return ticket_of(self._begun.session.invitation())

    async def finish(self, *, entries: Sequence[Mapping[str, JSONValue]] = ()) -> Commit:
        """Commit what was written. After an error nothing is committed, and the handle is over.

        Of several calls, in any threads, one ends the commit, and the others raise CommitError.

        Args:
            entries: What `upload` of every process that joined has returned, all in one.

        Returns:
            What was committed, with its record.

        Raises:
            CommitError: It was finished or given up before, another call is ending it, or this process is a forked
                child of the one that began it.
            AtomicPathError: As for `commit`, at the end of its block.
        """
        with self._begun.finishing(entries):
            await self._committing.__aexit__(None, None, None)
        return self._committing.result

    async def abandon(self, error: BaseException | None = None) -> None:
        """Give up what was written; nothing happens if it was given up, or failed, before.

        Args:
            error: Why. In a job of several processes the others are told.

        Raises:
            CommitError: It is committed, or another call is ending it.
            RankFailedError: In a job of several processes, in every one of them.
        """
        error = error or CommitError(f"{self._begun.session.location} was given up by abandon()")
        with self._begun.abandoning() as is_mine:
            if is_mine:
                await self._committing.__aexit__(type(error), error, error.__traceback__)


class AsyncJoined:
    """The part of one process in a commit that another one has begun."""

    def __init__(self, joined: JoinedCommit) -> None:
        self._joined = joined

    @property
    def path(self) -> Path | UPath:
        """Return the directory to write in. No I/O."""
        return self._joined.path

    async def upload(self) -> list[dict[str, JSONValue]]:
        """Add what was written, once, and return what the process that finishes needs of it: JSON.

        Raises:
            CommitError: It was called before, or the attempt is over.
            ValidationError: What was written cannot be committed.
            StorageError: The storage failed or did not answer.
        """
        return await run_protected(self._joined.upload)

    async def abandon(self) -> None:
        """Add nothing, and delete what was written on this host only. The commit itself is the other process's."""
        await run_protected(self._joined.abandon)


@protected
async def join(ticket: bytes, *, rank: int, storage_options: Options = None) -> AsyncJoined:
    """Take part in a commit that another process has begun, by its ticket.

    Write in `path`, then call `upload`, and send what it returns to the process that has the handle, for
    `Handle.finish(entries=...)`. Until that has returned, readers see nothing. On a store the commit fails if two
    processes add a file of one name; on a disk they write into one directory.

    Args:
        ticket: What `Handle.ticket()` returned there.
        rank: The number of this process, which no other one that joins this commit has.
        storage_options: For the file system behind the URL. They are not in the ticket.

    Returns:
        The part of this process: `path`, `upload()` and `abandon()`.

    Raises:
        ValidationError: It is no ticket, or the rank is no number.
        AbandonedError: The attempt is over.
        CommitError: The attempt is not to be seen from here.
        StorageError: The storage failed or did not answer.
    """
    return AsyncJoined(await JoinedCommit.join(ticket, rank, storage_options))


def _session(url: PathLike, options: CommitOptions) -> AsyncCommit:
    with reporting("cannot begin to write {}", partial(locate, url, options.storage_options)):
        return AsyncCommit(CommitSession(url, options))


def commit(
    url: PathLike,
    *,
    storage_options: Options = None,
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
) -> AsyncCommit:
    """Write a directory in a block; at its end it is committed, and had the block raised, nothing is visible.

    Enter the result with `async with`. The block gets a real local directory: the attempt's own where the target is
    one, else a staging directory, which is uploaded at the end. A file that still changes when the block has ended, and
    one by whose name another tool says that it has not finished it (Orbax, torch.distributed.checkpoint,
    huggingface_hub, TensorFlow, TensorStore, rclone), is refused: nothing is committed.

    On a local file system modes, empty directories and holes stay as the block made them. A store has none of these,
    and one line in the log (logger "atomicpath") says so where there were any.

    Readers see all of it or nothing. Of two concurrent writers of one path one commits, and the other gets an error
    that says who did; of two that replace, the last one stays. An unfinished attempt on an object store is taken over
    at once if its process is provably gone on this host. Otherwise it is watched for one lease (60 s; what its record
    states, between 10 s and 10 min) by this host's own clock: renewed meanwhile, it is a ConflictError.

    Args:
        url: The final place: a URL, a path or a UPath.
        storage_options: For the file system behind the URL. No message shows them.
        temporary_path_class: The strategy; left out, it follows from what the location guarantees.
        direct: Write on the store itself, through a `UPath`, not in a staging directory that is uploaded at the end.
        replace: A committed directory at the URL is no error: the new one atomically takes over its name, and the old
            one is then deleted. It needs RENAME_EXCHANGE, which known disks of Linux have. With `durable=False` a power
            cut may take both.
        exists: What to do if a committed directory is at the URL. "error", the default, raises AlreadyCommittedError.
            "replace" is the same as `replace=True`. "keep" makes it the result: what is written now is discarded, so
            that a save can be repeated. The block runs all the same, in a directory that is then deleted.
        durable: Sync files, directories and the final name on a file system of this host.
        coordinator: Which processes commit together: None is this process alone, "auto" every process of the engine
            that is initialised (torch.distributed, JAX or MPI), a `Coordinator` every process of that one. All of them
            call with the same arguments. Where an engine of several processes is initialised None is ValidationError:
            pass "auto" in every rank, or `SingleProcess()` in the one that commits alone.
        file_options: The mode of the directory.
        metadata: JSON that travels in the record.
        checksums: Add the SHA-256 of every file to the record.
        staging_dir: Where the staging directory is made; else where the environment variable ATOMICPATH_STAGING_DIR
            says, else in the system's temporary directory. Where others may write there, it is in a directory of this
            user alone, `atomicpath-<uid>`. What processes that are provably dead have staged there is deleted.
        progress: Called with the bytes uploaded and the bytes in all; True shows a bar.
        guarantees: What you know of the location, which is added to what is known of it. Probes may refute it.
        unsafe_takeover: Take the place of an unfinished attempt that nothing here could stop, should it still write.
        allow_empty: Commit a directory without files, too. Most often the block wrote elsewhere.
        marker: The name of a file that tells other tools that the directory is complete, such as "_SUCCESS"; None is
            none. By default only the commit-file strategy writes one, `commit_success.txt`. atomicpath reads the
            record.

    Returns:
        An async context manager that gives the directory to write in. After the block its `result` is the `Commit`.

    Raises:
        AlreadyCommittedError: A committed directory is there; `record` says by whom.
        ConflictError: A live attempt or foreign files hold the path.
        AbandonedError: Another process swept or took over this attempt.
        GuaranteeError: No strategy is safe there; the message says what is missing and what to do.
        OutcomeUnknownError: The storage does not say what became of the commit; nothing was cleaned up.
        ValidationError: An argument cannot be used, or what was written may not be complete.
        AtomicPathError: Anything else; nothing was committed.
    """
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
    return _session(url, options)


async def begin(
    url: PathLike,
    *,
    storage_options: Options = None,
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
) -> AsyncHandle:
    """Begin to write a directory without a block; `finish` of the result commits it, in any thread.

    It is `commit` for code that cannot keep a block open: hooks of a framework, or a save that another thread ends. The
    rules for what is written are those of `commit`, and so is what readers and concurrent writers see. Keep the handle:
    without it the attempt is one that `sweep`, or the next attempt at the same path, may remove. A handle that was not
    finished when the interpreter ends is given up. A forked child has no part in its parent's handles.

    Args:
        url: The final place: a URL, a path or a UPath.
        storage_options: For the file system behind the URL. No message shows them.
        temporary_path_class: The strategy; left out, it follows from what the location guarantees.
        direct: Write on the store itself, through a `UPath`, not in a staging directory that is uploaded at the end.
        replace: A committed directory at the URL is no error: the new one atomically takes over its name, and the old
            one is then deleted. It needs RENAME_EXCHANGE, which known disks of Linux have. With `durable=False` a power
            cut may take both.
        exists: What to do if a committed directory is at the URL. "error", the default, raises AlreadyCommittedError.
            "replace" is the same as `replace=True`. "keep" makes it the result: what is written now is discarded, so
            that a save can be repeated. The block runs all the same, in a directory that is then deleted.
        durable: Sync files, directories and the final name on a file system of this host.
        coordinator: Which processes commit together: None is this process alone, "auto" every process of the engine
            that is initialised (torch.distributed, JAX or MPI), a `Coordinator` every process of that one. All of them
            call with the same arguments. Where an engine of several processes is initialised None is ValidationError:
            pass "auto" in every rank, or `SingleProcess()` in the one that commits alone.
        file_options: The mode of the directory.
        metadata: JSON that travels in the record.
        checksums: Add the SHA-256 of every file to the record.
        staging_dir: Where the staging directory is made; else where the environment variable ATOMICPATH_STAGING_DIR
            says, else in the system's temporary directory. Where others may write there, it is in a directory of this
            user alone, `atomicpath-<uid>`. What processes that are provably dead have staged there is deleted.
        progress: Called with the bytes uploaded and the bytes in all; True shows a bar.
        guarantees: What you know of the location, which is added to what is known of it. Probes may refute it.
        unsafe_takeover: Take the place of an unfinished attempt that nothing here could stop, should it still write.
        allow_empty: Commit a directory without files, too. Most often the block wrote elsewhere.
        marker: The name of a file that tells other tools that the directory is complete, such as "_SUCCESS"; None is
            none. By default only the commit-file strategy writes one, `commit_success.txt`. atomicpath reads the
            record.

    Returns:
        A handle: `path` is the directory to write in, `finish()` commits and returns the `Commit`, and
        `abandon(error)` gives up.

    Raises:
        AlreadyCommittedError: A committed directory is there; `record` says by whom.
        ConflictError: A live attempt or foreign files hold the path.
        AbandonedError: Another process swept or took over this attempt.
        GuaranteeError: No strategy is safe there; the message says what is missing and what to do.
        OutcomeUnknownError: The storage does not say what became of the commit; nothing was cleaned up.
        ValidationError: An argument cannot be used, or what was written may not be complete.
        AtomicPathError: Anything else; nothing was committed.
    """
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
    committing = _session(url, options)
    path = await committing.__aenter__()
    return AsyncHandle(BegunCommit(committing.writing, path), committing)


@protected
@reported("cannot commit a copy at {}", _at_second)
async def put(
    local_dir: PathLike,
    url: PathLike,
    *,
    storage_options: Options = None,
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
    consume: bool = False,
) -> Commit:
    """Commit a copy of an existing local directory.

    Links to files are followed. If the directory is itself a committed one, its record and marker are not copied: they
    describe that commit. To a local file system modes and empty directories are copied, as `cp -r` does.

    Readers and concurrent writers of the path see what they see of `commit`.

    Args:
        local_dir: The directory on this host, which stays as it is, but with `consume`.
        url: The final place: a URL, a path or a UPath.
        storage_options: For the file system behind the URL. No message shows them.
        temporary_path_class: The strategy; left out, it follows from what the location guarantees.
        direct: Write on the store itself, through a `UPath`, not in a staging directory that is uploaded at the end.
        replace: A committed directory at the URL is no error: the new one atomically takes over its name, and the old
            one is then deleted. It needs RENAME_EXCHANGE, which known disks of Linux have. With `durable=False` a power
            cut may take both.
        exists: What to do if a committed directory is at the URL. "error", the default, raises AlreadyCommittedError.
            "replace" is the same as `replace=True`. "keep" makes it the result: what is written now is discarded, so
            that a save can be repeated. The block runs all the same, in a directory that is then deleted.
        durable: Sync files, directories and the final name on a file system of this host.
        coordinator: Which processes commit together: None is this process alone, "auto" every process of the engine
            that is initialised (torch.distributed, JAX or MPI), a `Coordinator` every process of that one. All of them
            call with the same arguments. Where an engine of several processes is initialised None is ValidationError:
            pass "auto" in every rank, or `SingleProcess()` in the one that commits alone.
        file_options: The mode of the directory.
        metadata: JSON that travels in the record.
        checksums: Add the SHA-256 of every file to the record.
        staging_dir: Where the staging directory is made; else where the environment variable ATOMICPATH_STAGING_DIR
            says, else in the system's temporary directory. Where others may write there, it is in a directory of this
            user alone, `atomicpath-<uid>`. What processes that are provably dead have staged there is deleted.
        progress: Called with the bytes uploaded and the bytes in all; True shows a bar.
        guarantees: What you know of the location, which is added to what is known of it. Probes may refute it.
        unsafe_takeover: Take the place of an unfinished attempt that nothing here could stop, should it still write.
        allow_empty: Commit a directory without files, too. Most often the block wrote elsewhere.
        marker: The name of a file that tells other tools that the directory is complete, such as "_SUCCESS"; None is
            none. By default only the commit-file strategy writes one, `commit_success.txt`. atomicpath reads the
            record.
        consume: Delete the directory once it is committed, and not before; to a local file system its files are linked
            where that is possible, and not copied. Nobody may write in it any more. With what `exists="keep"` keeps,
            and where the outcome is not known, it stays. One that is committed itself is refused.

    Returns:
        What was committed, with its record.

    Raises:
        AlreadyCommittedError: A committed directory is there; `record` says by whom.
        ConflictError: A live attempt or foreign files hold the path.
        AbandonedError: Another process swept or took over this attempt.
        GuaranteeError: No strategy is safe there; the message says what is missing and what to do.
        OutcomeUnknownError: The storage does not say what became of the commit; nothing was cleaned up.
        ValidationError: An argument cannot be used, or the directory changed while it was copied.
        IntegrityError: The directory was begun by atomicpath and never committed, or lacks files of its manifest.
        AtomicPathError: Anything else; nothing was committed.
    """
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
    return await put_directory(local_dir, url, options, consume=consume)


@protected
@reported("cannot commit a copy at {}", _at_second)
async def copy(
    source: PathLike,
    url: PathLike,
    *,
    source_options: Options = None,
    storage_options: Options = None,
    temporary_path_class: type[TemporaryPath] | None = None,
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
    marker: str | EllipsisType | None = ...,
) -> Commit:
    """Commit a copy of a committed directory, on the same storage or from one to another.

    Every file is compared with the manifest of the source: its size, its version, and its checksum where one is
    recorded. The metadata travels. A source that is replaced meanwhile is read again, for as long as half a minute.

    A store that can copies the files by itself, if both are on it and it renames directories (Google Cloud Storage
    with hierarchical namespace, ADLS Gen2). Else they pass through this host one by one: at most 1 GiB of them, or one
    larger file, is on its disk at a time. In a job of several processes the primary copies.

    Readers and concurrent writers of the new path see what they see of `commit`.

    Args:
        source: The committed directory, or an alias: a URL, a path or a UPath.
        url: The final place: a URL, a path or a UPath.
        source_options: For the file system behind the source; by default those of the URL, if both have one protocol.
        storage_options: For the file system behind the URL. No message shows them.
        temporary_path_class: The strategy; left out, it follows from what the location guarantees.
        replace: A committed directory at the URL is no error: the new one atomically takes over its name, and the old
            one is then deleted. It needs RENAME_EXCHANGE, which known disks of Linux have. With `durable=False` a power
            cut may take both.
        exists: What to do if a committed directory is at the URL. "error", the default, raises AlreadyCommittedError.
            "replace" is the same as `replace=True`. "keep" makes it the result: what is written now is discarded, so
            that a save can be repeated. The block runs all the same, in a directory that is then deleted.
        durable: Sync files, directories and the final name on a file system of this host.
        coordinator: Which processes commit together: None is this process alone, "auto" every process of the engine
            that is initialised (torch.distributed, JAX or MPI), a `Coordinator` every process of that one. All of them
            call with the same arguments. Where an engine of several processes is initialised None is ValidationError:
            pass "auto" in every rank, or `SingleProcess()` in the one that commits alone.
        file_options: The mode of the directory.
        metadata: JSON that travels in the record; by default that of the source.
        checksums: Add the SHA-256 of every file to the record. Left out, it is added if the source has it.
        staging_dir: Where files on their way are put; else where the environment variable ATOMICPATH_STAGING_DIR
            says, else in the system's temporary directory. Where others may write there, it is in a directory of this
            user alone, `atomicpath-<uid>`. What processes that are provably dead have staged there is deleted.
        progress: Called with the bytes copied and the bytes in all; True shows a bar.
        guarantees: What you know of the location, which is added to what is known of it. Probes may refute it.
        unsafe_takeover: Take the place of an unfinished attempt that nothing here could stop, should it still write.
        marker: The name of a file that tells other tools that the directory is complete, such as "_SUCCESS"; None is
            none. By default only the commit-file strategy writes one, `commit_success.txt`. atomicpath reads the
            record.

    Returns:
        What was committed, with its record.

    Raises:
        AlreadyCommittedError: A committed directory is there; `record` says by whom.
        ConflictError: A live attempt or foreign files hold the path.
        AbandonedError: Another process swept or took over this attempt.
        GuaranteeError: No strategy is safe there; the message says what is missing and what to do.
        OutcomeUnknownError: The storage does not say what became of the commit; nothing was cleaned up.
        NotCommittedError: The source is not a complete directory.
        IntegrityError: What was read is not what the record of the source says.
        ValidationError: An argument cannot be used.
        AtomicPathError: Anything else; nothing was committed.
    """
    options = CommitOptions(
        storage_options=storage_options,
        temporary_path_class=temporary_path_class,
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
        marker=marker,
    )
    origin = located_like(source, url, source_options, storage_options)
    return (await fetch.copy(origin, url, options)).result()


@protected
@reported("cannot fetch {}", at_url)
async def get(
    url: PathLike,
    local_dir: PathLike,
    *,
    verify: bool = True,
    progress: Progress | bool | None = None,
    storage_options: Options = None,
) -> Path:
    """Download a committed directory, whole or not at all.

    From a local file system modes and empty directories are copied, as `cp -r` does; a store has neither.

    The local directory appears at once, as a committed one. A remote directory that is replaced meanwhile is read
    again, for as long as half a minute: then CommitError.

    Args:
        url: The committed directory.
        local_dir: The new directory on this host, which must not exist.
        verify: Compare sizes, versions and recorded checksums on the way.
        progress: Called with the bytes downloaded and the bytes in all; True shows a bar.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        The local directory.

    Raises:
        NotCommittedError: No complete directory is there.
        IntegrityError: The record is damaged, or what was read is not what it says.
        StorageError: The storage failed or did not answer.
        AlreadyCommittedError: A committed directory is at `local_dir`.
        ConflictError: Something else is there.
    """
    return await fetch.get(
        locate(url, storage_options), local_directory(local_dir, "local_dir"), verify=verify, progress=progress
    )


@protected
@reported("cannot fetch the latest below {}", at_root)
async def fetch_latest(
    root: PathLike,
    into: PathLike,
    *,
    step: StepRule | None = None,
    prefix: str | None = None,
    storage_options: Options = None,
) -> Path | None:
    """Return a complete local copy of the newest committed directory, to resume from.

    The copy is below `into`, under the same name; under another one, with part of its token, if something else has that
    name there. The same commit has the same path, however often and wherever on this host it is asked for: of several
    processes one downloads, and the others wait for it. A copy that was damaged since is not returned. `keep_last(into,
    n)` removes older ones.

    Readers see the copy whole or not at all, also after a kill. If the newest directory is removed meanwhile, the next
    newest is fetched.

    Args:
        root: The directory that holds the committed ones.
        into: The directory on this host for the copies; it is made if it is missing.
        step: The rule by which a name tells a step: a regular expression with one group, which is searched for in the
            name, or a function of the name that returns an int or None. Only names with a step are taken, as one
            series.
        prefix: Only names that begin with it are taken, as one series; what follows it may be the step, too.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        The path of the copy; None if nothing is complete.

    Raises:
        ValidationError: An argument cannot be used, the disk has too little room, or another tool committed the newest.
        IntegrityError: What was read is not what the record says.
        ConflictError: Both names are taken by something else.
        NotCommittedError: Nothing can be below the root, such as in a bucket that does not exist.
        StorageError: The storage failed or did not answer.
    """
    order = Order.of(step, prefix)
    return await fetching.fetch_latest(locate(root, storage_options), local_directory(into, "into"), order)


@protected
@reported("cannot make {} an alias", at_url)
async def alias(
    url: PathLike, target: PathLike, *, guarantees: Guarantee | None = None, storage_options: Options = None
) -> None:
    """Make a URL lead to a committed directory of the same root from now on, such as `last` or `best`.

    An alias that is there already is moved, in one step: readers see the old target or the new one. Of concurrent
    callers the last one stays. On a disk it is a symbolic link, which other tools follow, too. On a store it is a small
    record, moved by compare-and-swap (COMPARE_AND_SWAP, EXCLUSIVE_CREATE).

    `resolve`, `is_committed`, `read_record`, `verify`, `get` and `copy` follow it. `committed`, `latest` and `sweep`
    leave it out. `remove` and `keep_last` never remove the target of an alias; `remove` of the alias leaves its target.

    Args:
        url: The alias. What is there already may be an alias, and nothing else.
        target: The committed directory, or another alias: a name in the same root, or its URL.
        guarantees: What you know of the location, as for `commit`.
        storage_options: For the file system behind the URL. No message shows them.

    Raises:
        NotCommittedError: The target is not complete.
        ValidationError: The target is not right beside the URL, or leads back to it.
        AlreadyCommittedError: A committed directory is at the URL.
        ConflictError: An attempt or foreign files are at the URL.
        GuaranteeError: Nothing there could move it in one step.
        OutcomeUnknownError: The storage does not say what became of it.
        StorageError: The storage failed or did not answer.
    """
    location = CommitOptions(storage_options=storage_options).final(url)
    await aliases.set_alias_at(location, target, guarantees=guarantees or NONE)


@reported("cannot look at {}", at_url)
async def resolve(url: PathLike, *, storage_options: Options = None) -> UPath:
    """Return the path of a committed directory, to read from.

    A directory that another process replaces or removes afterwards may be gone when it is read.

    Args:
        url: The committed directory.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        Its path, with the storage options in it.

    Raises:
        NotCommittedError: No complete directory is there.
        IntegrityError: Its record is damaged, or was written by a newer version.
        StorageError: The storage failed or did not answer.
    """
    return (await readers.load(locate(url, storage_options))).path


@reported("cannot say whether {} is committed", at_url)
async def is_committed(url: PathLike, *, storage_options: Options = None) -> bool:
    """Tell whether a complete directory is at the URL; raise, rather than guess, where the storage does not answer.

    A link to a complete directory counts as one. A copy of one counts once all its files have arrived.

    A path that is often replaced, and always committed, is never said not to be.

    Args:
        url: The place to look at.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        True if it is complete, False if it is not there or unfinished.

    Raises:
        NotCommittedError: Not even the bucket is there, whose name may be misspelt.
        IntegrityError: Its record is damaged, or was written by a newer version.
        StorageError: The storage failed or did not answer.
    """
    return await readers.is_complete(locate(url, storage_options))


@reported("cannot read the record of {}", at_url)
async def read_record(url: PathLike, *, storage_options: Options = None) -> CommitRecord:
    """Read the record of a committed directory.

    A record is written once: later readers see the same one, or that of a directory that took its place.

    Args:
        url: The committed directory.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        The record: writer, times, manifest, metadata.

    Raises:
        NotCommittedError: No complete directory is there.
        IntegrityError: Its record is damaged, was written by a newer version, or another tool left a marker only.
        StorageError: The storage failed or did not answer.
    """
    location = locate(url, storage_options)
    record = (await readers.load(location)).record
    if record is None:
        raise IntegrityError(f"{location} was committed by another tool, which left a marker and no record")
    return record


@reported("cannot list what is committed below {}", at_root)
async def committed(
    root: PathLike, *, step: StepRule | None = None, prefix: str | None = None, storage_options: Options = None
) -> list[Commit]:
    """List the complete directories right below a root, oldest first.

    The step of a directory is `metadata["step"]` of its record if that is an integer, else what its name tells: `100`,
    `step_100`, `checkpoint-100` and DeepSpeed's `global_step100` do; a date, a hash, or a name with several numbers
    does not. Names with the same text before the step are one series, in the order of their steps, and equal steps in
    the order of their commits. Several series follow one another, last the one that was last committed to. Those
    without a step come first, in the order of their commits: by the writers' clocks, but within one boot of a host by
    the clock that nobody can set.

    What is incomplete or cannot be looked at is left out and named in the log, logger "atomicpath"; so is a copy of a
    committed directory that lacks files. Links to committed directories elsewhere are followed. Aliases are left out.

    Each directory is looked at on its own: one that is committed or removed meanwhile may be listed or not.

    Args:
        root: The directory that holds them.
        step: The rule by which a name tells a step: a regular expression with one group, which is searched for in the
            name, or a function of the name that returns an int or None. Only names with a step are taken, as one
            series.
        prefix: Only names that begin with it are taken, as one series; what follows it may be the step, too.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        What is complete.

    Raises:
        ValidationError: `step` or `prefix` cannot be used, or the root is a file.
        NotCommittedError: Nothing can be below the root, such as in a bucket that does not exist.
        StorageError: The storage failed or did not answer.
        AccessError: The storage refuses everything.
    """
    return await readers.committed(locate(root, storage_options), Order.of(step, prefix))


@reported("cannot find the latest below {}", at_root)
async def latest(
    root: PathLike, *, step: StepRule | None = None, prefix: str | None = None, storage_options: Options = None
) -> Commit | None:
    """Find the last of what `committed` lists.

    It reads as little as it can: names that tell a step are believed, newest first, unless a record says otherwise.
    What newer is incomplete is named in the log.

    A directory that is committed meanwhile may be the answer or not.

    Args:
        root: The directory that holds them.
        step: The rule by which a name tells a step: a regular expression with one group, which is searched for in the
            name, or a function of the name that returns an int or None. Only names with a step are taken, as one
            series.
        prefix: Only names that begin with it are taken, as one series; what follows it may be the step, too.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        The last one; None if none is complete.

    Raises:
        ValidationError: `step` or `prefix` cannot be used, or the root is a file.
        NotCommittedError: Nothing can be below the root, such as in a bucket that does not exist.
        StorageError: The storage failed or did not answer.
        AccessError: The storage refuses everything.
    """
    return await readers.latest(locate(root, storage_options), Order.of(step, prefix))


class AsyncWatch:
    """An async iterator over new commits. It holds nothing between two looks."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Commit:
        found = await self._watcher.next()
        if found is None:
            raise StopAsyncIteration
        return found


def watch(
    root: PathLike,
    *,
    after: int | None = None,
    timeout: float | None = None,
    step: StepRule | None = None,
    prefix: str | None = None,
    storage_options: Options = None,
) -> AsyncIterator[Commit]:
    """Wait for new complete directories right below a root, and yield each once.

    First come those that are there already, as `committed` lists them, then the others as they are committed. The root
    is looked at again after 0.2 s at first, then less and less often: on a disk at least every 2 s, on a store every
    15 s. A look costs one listing, and one request for each name that was not complete before.

    A root that is missing, or that is deleted, is one in which nothing is yet. A storage that fails is looked at again,
    with a warning in the log, for up to 10 minutes. Aliases are left out. A directory that is seen to be gone, and is
    committed anew, is new. One that another process replaces is not, and one that another process removes may be gone
    when it is read.

    An iterator may be left at any time: between two looks nothing is open. It is for one consumer.

    Args:
        root: The directory that holds them.
        after: A step: only greater ones are yielded, and none without a step.
        timeout: Seconds without a new one after which the iteration ends; None waits for ever, 0 only looks.
        step: The rule by which a name tells a step: a regular expression with one group, which is searched for in the
            name, or a function of the name that returns an int or None. Only names with a step are taken, as one
            series.
        prefix: Only names that begin with it are taken, as one series; what follows it may be the step, too.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        An iterator of what is complete.

    Raises:
        ValidationError: An argument cannot be used, or the root is a file.
        NotCommittedError: Nothing can be below the root, such as in a bucket that does not exist.
        StorageError: The storage has failed for 10 minutes.
        AccessError: The storage refuses everything.
    """
    watched = locate(root, storage_options)
    return AsyncWatch(Watcher(watched, after=after, timeout=timeout, order=Order.of(step, prefix)))


@reported("cannot list the attempts below {}", at_root)
async def attempts(root: PathLike, *, storage_options: Options = None) -> list[UnfinishedCommit]:
    """List what is right below a root under way or left behind: temporary directories and unfinished final ones.

    An attempt that ends meanwhile may be listed or not.

    Args:
        root: The directory that holds them.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        The attempts.

    Raises:
        NotCommittedError: Nothing can be below the root, such as in a bucket that does not exist.
        StorageError: The storage failed or did not answer.
    """
    return await readers.attempts(locate(root, storage_options))


@reported("cannot compare {} with its manifest", at_url)
async def verify(
    url: PathLike,
    *,
    checksums: bool = False,
    progress: Progress | bool | None = None,
    storage_options: Options = None,
) -> Verification:
    """Compare a committed directory with its manifest: names, sizes and versions.

    A directory that is replaced or removed meanwhile may be found incomplete.

    Args:
        url: The committed directory.
        checksums: Read every file and compare its SHA-256, where one is recorded.
        progress: With `checksums`, called with the bytes read and the bytes in all; True shows a bar.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        What is missing, altered or extra; `ok` if nothing is.

    Raises:
        NotCommittedError: No complete directory is there.
        IntegrityError: Its record is damaged, or was written by a newer version.
        StorageError: The storage failed or did not answer.
    """
    return await readers.verify(
        locate(url, storage_options), checksums=checksums, progress=CommitOptions(progress=progress).callback()
    )


@protected
@reported("cannot sweep {}", at_root)
async def sweep(
    root: PathLike,
    *,
    older_than: timedelta = timedelta(hours=24),
    dry_run: bool = False,
    storage_options: Options = None,
) -> list[SweepResult]:
    """Delete what jobs that died have left right below a root, and add the markers that are missing.

    Only what is ours and abandoned is deleted: attempts, discarded and replaced directories, probes. Ages are by the
    storage's own clock. An error about one of them is in its entry, and does not stop the others.

    An attempt of a live process of this host is never touched, one that cannot be judged from here only after its
    lease. A writer that wakes up afterwards loses cleanly.

    Args:
        root: The directory that holds them.
        older_than: Nothing younger is touched.
        dry_run: Change nothing, and say what would be done.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        Everything found, also what was kept, and why.

    Raises:
        ValidationError: An argument cannot be used.
        NotCommittedError: Nothing can be below the root.
        StorageError: The storage failed or did not answer.
    """
    return await sweep_root(locate(root, storage_options), older_than=older_than, dry_run=dry_run)


@protected
@reported("{} could not be removed, or not wholly", at_url)
async def remove(url: PathLike, *, guarantees: Guarantee | None = None, storage_options: Options = None) -> None:
    """Remove a committed directory, with all that is in it; or an alias, whose target stays.

    Readers see it whole, or not at all. The target of an alias is not removed.

    Args:
        url: The committed directory, or the alias.
        guarantees: What you know of the location, as for `commit`.
        storage_options: For the file system behind the URL. No message shows them.

    Raises:
        NotCommittedError: Nothing complete is there.
        ConflictError: Another process replaces or removes it, or an alias leads to it.
        GuaranteeError: Nothing could keep readers from seeing half of it.
        ValidationError: Another tool committed it, or it is a link.
        OutcomeUnknownError: The storage does not say what became of it.
        AtomicPathError: Anything else; `sweep` deletes what is left.
    """
    await remove_committed(locate(url, storage_options), guarantees=guarantees or NONE)


@protected
@reported("cannot remove old directories below {}", at_root)
async def keep_last(
    root: PathLike,
    n: int,
    *,
    protect: Iterable[PathLike] = (),
    step: StepRule | None = None,
    prefix: str | None = None,
    guarantees: Guarantee | None = None,
    storage_options: Options = None,
) -> list[Commit]:
    """Remove the committed directories right below a root, oldest first, but the newest `n` and the protected.

    The order is that of `committed`. Where names tell a step, they are the series: a `best` beside them is neither
    counted nor removed. Of several series, such as `checkpoint-` and `step_`, each keeps its newest `n`. What is
    incomplete does not count and is not touched; nor is a link, nor what a link or an alias in the root leads to, nor
    what another tool committed.

    Where a directory that would go may have been committed later than one that would stay, nothing is removed: after a
    run was rolled back to an earlier step, or where a clock was set back.

    Each goes only while a newer one is seen to be complete, and readers see it whole or not at all.

    Args:
        root: The directory that holds them.
        n: How many are kept, of each series; at least 1.
        protect: Names below the root, or URLs, that are kept besides. One that is not there protects nothing.
        step: The rule by which a name tells a step: a regular expression with one group, which is searched for in the
            name, or a function of the name that returns an int or None. Only names with a step are taken, as one
            series.
        prefix: Only names that begin with it are taken, as one series; what follows it may be the step, too.
        guarantees: What you know of the location, as for `commit`.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        What was removed. A directory that could not be removed is kept and named in the log.

    Raises:
        ValidationError: An argument cannot be used, or the order of steps and that of commits disagree.
        AtomicPathError: As for `remove`, if nothing could be removed.
    """
    location, order = locate(root, storage_options), Order.of(step, prefix)
    return await keep_newest(location, n, protect=protect, order=order, guarantees=guarantees or NONE)


@protected
@reported("cannot remove old directories below {}", at_root)
async def retain(
    root: PathLike,
    *,
    keep_last: int | None = None,
    keep_every_n_steps: int | None = None,
    keep_every: timedelta | None = None,
    keep_within: timedelta | None = None,
    keep_best: int | None = None,
    metric: Metric | None = None,
    mode: Mode = "min",
    keep: Wanted | None = None,
    protect: Iterable[PathLike] = (),
    dry_run: bool = False,
    step: StepRule | None = None,
    prefix: str | None = None,
    guarantees: Guarantee | None = None,
    storage_options: Options = None,
) -> list[Retained]:
    """Remove the committed directories right below a root that no rule keeps, and say of each why it stays or goes.

    A directory stays if any rule keeps it. Whatever the rules say these stay: the newest complete one, what was
    committed last, what is protected, what a link in the root points to, links, and what another tool committed. What
    is incomplete does not count and is not touched.

    The order is that of `committed`. Where names tell a step, they are the series: a `best` beside them is neither
    counted nor removed. The rules hold for each of several series by itself, such as `checkpoint-` and `step_`.

    Where a directory that would go may have been committed later than one of the newest, nothing is removed: after a
    run was rolled back to an earlier step, or where a clock was set back. With `step=` you say which order counts, and
    then what was committed last may go.

    A temporary commit of a `CheckpointManager` goes once a newer one is there, and no rule counts it.

    Each goes only while a newer one is seen to be complete, and readers see it whole or not at all.

    Args:
        root: The directory that holds them.
        keep_last: The newest so many stay.
        keep_every_n_steps: Those stay whose step is a multiple of it. One without a step is not kept by this.
        keep_every: One stays for each such time, by the times of the commits: the first, and each that came at least so
            long after the last one that stays.
        keep_within: Those stay that were committed at most so long before the newest one. The clock of this host does
            not matter: where all are old, the newest ones are still kept.
        keep_best: The best so many by `metric` stay. A directory without the metric, or with NaN, is not counted among
            them. Of equal ones the newer is better. If none has the metric, nothing is removed.
        metric: The name of a number in `metadata["metrics"]`, or else in the metadata; or a function of the `Commit`
            that returns a float or None.
        mode: Whether the least ("min") or the greatest ("max") value is the best.
        keep: A function of the `Commit` that returns True for what stays. If it fails, nothing is removed.
        protect: Names below the root, or URLs, that stay besides. One that is not there protects nothing.
        dry_run: Change nothing, and say what would be done.
        step: The rule by which a name tells a step: a regular expression with one group, which is searched for in the
            name, or a function of the name that returns an int or None. Only names with a step are taken, as one
            series.
        prefix: Only names that begin with it are taken, as one series; what follows it may be the step, too.
        guarantees: What you know of the location, as for `commit`.
        storage_options: For the file system behind the URL. No message shows them.

    Returns:
        Each complete directory, oldest first, with the reason. One that could not be removed is kept, with that reason.

    Raises:
        ValidationError: There is no rule, an argument cannot be used, or the order of steps and that of commits
            disagree.
        AtomicPathError: As for `remove`, if nothing could be removed.
    """
    selection = Selection.of(
        keep_last=keep_last,
        keep_every_n_steps=keep_every_n_steps,
        keep_every=keep_every,
        keep_within=keep_within,
        keep_best=keep_best,
        metric=metric,
        mode=mode,
        keep=keep,
    )
    if selection.rules.is_empty:
        raise ValidationError("retain needs a rule that says what stays, such as keep_last=3")
    location, order = locate(root, storage_options), Order.of(step, prefix)
    done = await retain_below(
        location, selection, protect=protect, order=order, guarantees=guarantees or NONE, dry_run=dry_run
    )
    return done.results


@protected
@reported("cannot find out what {} guarantees", at_url)
async def profile(
    url: PathLike, *, storage_options: Options = None, guarantees: Guarantee | None = None, probe: bool = True
) -> Profile:
    """Find out what a location guarantees, and how that is known.

    Probes work under random names, and clean up after themselves. They are made once per place and process.

    Args:
        url: A place at which something may be committed.
        storage_options: For the file system behind the URL. No message shows them.
        guarantees: What you know of the location, added as asserted.
        probe: Try, at the parent of the target, what is not documented for this very kind of location.

    Returns:
        The guarantees, with evidence.

    Raises:
        ValidationError: The URL cannot be used.
        BackendError: No backend serves the URL.
        StorageError: The storage failed or did not answer.
    """
    return await profile_of(locate(url, storage_options), asserted=guarantees or NONE, probe=probe)


@protected
@reported("cannot find out what {} guarantees", at_url)
async def explain(
    url: PathLike, *, storage_options: Options = None, guarantees: Guarantee | None = None, probe: bool = True
) -> Explanation:
    """Find out what a location guarantees, and the strategy that follows; `print` the result.

    Probes work under random names, and clean up after themselves. They are made once per place and process.

    Args:
        url: A place at which something may be committed.
        storage_options: For the file system behind the URL. No message shows them.
        guarantees: What you know of the location, added as asserted.
        probe: Try, at the parent of the target, what is not documented for this very kind of location.

    Returns:
        The profile, the strategy or None, and the reason.

    Raises:
        ValidationError: The URL cannot be used.
        BackendError: No backend serves the URL.
        StorageError: The storage failed or did not answer.
    """
    location = locate(url, storage_options)
    found = await profile_of(location, asserted=guarantees or NONE, probe=probe)
    return explained(found, is_local=location.open().is_local)
