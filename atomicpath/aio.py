"""The async face: coroutines on asyncio and on trio; the blocking face at the top level is made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any, Literal

from upath import UPath

from . import cleaning, fetch, inspect
from .abc import Coordinator, FileOptions, TemporaryPath
from .cleaning import Swept
from .commit import Writing
from .commit import put as put_directory
from .commit_options import CommitOptions
from .create_all import create_all, create_all_async, on_commit_callback
from .errors import IntegrityError
from .explain import Explanation, explained
from .guarantees import NONE, Guarantee, Profile
from .inspect import Attempt, Commit, Verification
from .location import PathLike, local_directory, locate
from .order import Order, StepRule
from .probing import profile_of
from .record import CommitRecord, JSONValue
from .reporting import at_root, at_url, reported, reporting
from .runner import protected, run_detached, run_protected
from .selection import select
from .staging import Progress

__all__ = [
    "attempts",
    "commit",
    "committed",
    "create_all",
    "create_all_async",
    "explain",
    "get",
    "is_committed",
    "keep_last",
    "latest",
    "on_commit_callback",
    "profile",
    "put",
    "read_record",
    "remove",
    "resolve",
    "select",
    "sweep",
    "verify",
]

Options = Mapping[str, object] | None


def _at_second(_: PathLike, url: PathLike, **options: Any) -> object:
    return at_url(url, **options)


class Committing:
    """What `commit` returns: an async context manager, to be entered once."""

    def __init__(self, writing: Writing) -> None:
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


def commit(
    url: PathLike,
    *,
    storage_options: Options = None,
    temporary_path_class: type[TemporaryPath] | None = None,
    direct: bool = False,
    replace: bool = False,
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
) -> Committing:
    """Write a directory in a `with` block; at its end it is committed, and had the block raised, nothing is visible.

    Here in `atomicpath.aio` the block is an `async with`, and a cancelled one leaves nothing visible either.

    The block gets a real local directory: the attempt's own where the target is one, else a staging directory,
    uploaded at the end. That lies in `staging_dir`, else in the directory that the environment variable
    ATOMICPATH_STAGING_DIR names, else in the system's temporary directory; where others may write there, in a
    directory of this user alone, `atomicpath-<uid>`. What processes that are provably dead have staged there is
    deleted. With `direct` the block writes on the store itself, through a `UPath`.

    `metadata` (JSON) travels in the record, `checksums` adds the SHA-256 of every file to it. `durable=False`
    leaves out the syncs of a real file system. `progress` is called with the bytes uploaded and the bytes
    in all, or True for a bar. `file_options` sets the directory's mode. `temporary_path_class` names the
    strategy; left out, it follows from what the location guarantees, to which `guarantees` adds what
    the caller knows. `unsafe_takeover` takes the place of an unfinished attempt that nothing here could
    stop, should it still be writing.

    A block that wrote no file is refused (ValidationError) unless `allow_empty`: most often it wrote elsewhere. So is a
    file that still changes when the block has ended, and one by whose name another tool says that it has not finished
    it (Orbax, torch.distributed.checkpoint, huggingface_hub, TensorFlow, TensorStore, rclone): nothing is committed.

    On a local file system modes, empty directories and holes stay as the block made them; a store has none of these,
    and one line in the log (logger "atomicpath") says so where there were any.

    `marker` names a file that tells other tools that the directory is complete, such as "_SUCCESS"; None is none. By
    default only the commit-file strategy writes one, `commit_success.txt`. atomicpath itself reads the record.
    `coordinator` says which processes commit together: None is this process alone, "auto" is every process of the
    engine that is initialised (torch.distributed, JAX or MPI), a `Coordinator` every process of that one. All of them
    call with the same arguments. None is ValidationError, at once, where an engine of several processes is initialised:
    pass "auto" in every rank, or `SingleProcess()` in the one that commits alone.

    With `replace` a committed directory at the URL is no error: at the end of the block the new one takes its name
    and it loses it, in one step, and then it is deleted. There is no moment at which neither is there; of two that
    replace, the last one stays. Only a committed directory is ever replaced. It needs RENAME_EXCHANGE, which known
    disks of Linux have; elsewhere it is GuaranteeError. With `durable=False` a power cut may take both.

    Raises AlreadyCommittedError or ConflictError, on entry or at the end, if another attempt has the
    path; GuaranteeError if no strategy is safe there; OutcomeUnknownError if the storage does not say
    what became of the commit. After any other error nothing was committed.

    An unfinished attempt that holds the path on an object store is taken over at once if its process is provably
    gone on this host. Otherwise it is watched for one lease (60 s; what its record states, between 10 s and 10 min),
    by this host's own clock and however old the record seems: renewed meanwhile, it is a ConflictError.
    """
    options = CommitOptions(**_but(locals(), "url"))  # type: ignore[arg-type]  # same names
    with reporting("cannot begin to write {}", partial(locate, url, storage_options)):
        return Committing(Writing(url, options))


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
) -> None:
    """Commit a copy of an existing local directory; arguments and errors are those of `commit`.

    Links to files are followed. If the directory is itself a committed one, its record and marker are
    not copied: they describe that commit. One that was begun and never committed is IntegrityError, and so is one that
    lacks files of its manifest. A directory that changes or is replaced while it is copied is ValidationError, and
    nothing is committed. To a local file system modes and empty directories are copied, as `cp -r` does.
    """
    options = CommitOptions(**_but(locals(), "url", "local_dir"))  # type: ignore[arg-type]  # same names
    await put_directory(local_dir, url, options)


@protected
@reported("cannot fetch {}", at_url)
async def get(url: PathLike, local_dir: PathLike, *, verify: bool = True, storage_options: Options = None) -> Path:
    """Download a committed directory to `local_dir`, which must not exist and then is itself committed, or nothing.

    With `verify` sizes, versions and recorded checksums are compared on the way: IntegrityError. A directory that is
    replaced meanwhile is read again, for as long as half a minute: then CommitError. From a local file system modes and
    empty directories are copied, as `cp -r` does; a store has neither.
    """
    return await fetch.get(locate(url, storage_options), local_directory(local_dir, "local_dir"), verify=verify)


@reported("cannot look at {}", at_url)
async def resolve(url: PathLike, *, storage_options: Options = None) -> UPath:
    """The path of a committed directory, to read from; NotCommittedError if there is none."""
    return (await inspect.load(locate(url, storage_options))).path


@reported("cannot say whether {} is committed", at_url)
async def is_committed(url: PathLike, *, storage_options: Options = None) -> bool:
    """Whether a complete directory is at the URL. Raises, rather than guess, where the storage does not answer.

    A link to a complete directory counts as one. A copy of one counts once all its files have arrived. A path that is
    often replaced, and always committed, is never said not to be. IntegrityError if its record was written by a newer
    version, which alone can tell. NotCommittedError if not even the bucket is there, whose name may be misspelt.
    """
    return await inspect.is_complete(locate(url, storage_options))


@reported("cannot read the record of {}", at_url)
async def read_record(url: PathLike, *, storage_options: Options = None) -> CommitRecord:
    """The record of a committed directory; NotCommittedError, or IntegrityError if it is damaged."""
    location = locate(url, storage_options)
    record = (await inspect.load(location)).record
    if record is None:
        raise IntegrityError(f"{location} was committed by another tool, which left a marker and no record")
    return record


@reported("cannot list what is committed below {}", at_root)
async def committed(
    root: PathLike, *, step: StepRule | None = None, prefix: str | None = None, storage_options: Options = None
) -> list[Commit]:
    """The complete directories right below a root, oldest first.

    The step of a directory is `metadata["step"]` of its record if that is an integer, else what its name tells: `100`,
    `step_100`, `checkpoint-100` and DeepSpeed's `global_step100` do; a date, a hash, or a name with several numbers
    does not. Names with the same text before the step are one series, in the order of their steps, and equal steps in
    the order of their commits. Several series follow one another, last the one that was last committed to. Those
    without a step come first, in the order of their commits: by the writers' clocks, but within one boot of a host by
    the clock that nobody can set.

    Each is looked at on its own. What is incomplete or cannot be looked at is left out and named in the log, logger
    "atomicpath"; so is a copy of a committed directory that lacks files. Links to committed directories are followed.

    Args:
        root: The directory that holds them.
        step: Which step a name has, instead of the above: a regular expression with one group, which is searched for
            in the name, or a function of the name that returns an int or None. Only names with a step are listed then,
            as one series.
        prefix: Only names that begin with it are listed, as one series; what follows it may be the step, too.
        storage_options: For the file system behind the URL.

    Raises:
        ValidationError: `step` or `prefix` cannot be used, or the root is a file.
        NotCommittedError: Nothing can be below the root, such as in a bucket that does not exist.
        OSError: The storage cannot be reached, or (AccessError) refuses everything.
    """
    return await inspect.committed(locate(root, storage_options), Order.of(step, prefix))


@reported("cannot find the latest below {}", at_root)
async def latest(
    root: PathLike, *, step: StepRule | None = None, prefix: str | None = None, storage_options: Options = None
) -> Commit | None:
    """The last of what `committed` lists, or None; arguments and errors are those of `committed`.

    It reads as little as it can: names that tell a step are believed, newest first, unless a record says otherwise.
    What newer is incomplete is named in the log.
    """
    return await inspect.latest(locate(root, storage_options), Order.of(step, prefix))


@reported("cannot list the attempts below {}", at_root)
async def attempts(root: PathLike, *, storage_options: Options = None) -> list[Attempt]:
    """What is right below a root, under way or left behind: temporary directories and unfinished final ones."""
    return await inspect.attempts(locate(root, storage_options))


@reported("cannot compare {} with its manifest", at_url)
async def verify(url: PathLike, *, checksums: bool = False, storage_options: Options = None) -> Verification:
    """Compare a committed directory with its manifest: names, sizes, versions; if asked, checksums of every file."""
    return await inspect.verify(locate(url, storage_options), checksums=checksums)


@protected
@reported("cannot sweep {}", at_root)
async def sweep(
    root: PathLike,
    *,
    older_than: timedelta = timedelta(hours=24),
    dry_run: bool = False,
    storage_options: Options = None,
) -> list[Swept]:
    """Delete what jobs that died have left right below a root, and add the markers that are missing.

    Only what is ours and abandoned: attempts, discarded and replaced directories, probes. An attempt of a live
    process of this host is never touched, one that cannot be judged from here only after its lease, and none before
    it is `older_than`. Ages are by the storage's own clock. A writer that wakes up afterwards loses cleanly.

    The result names everything found, also what was kept, and why. An error about one of them is in its entry, and
    does not stop the others. `dry_run` changes nothing, and the result says what would be done.
    """
    return await cleaning.sweep(locate(root, storage_options), older_than=older_than, dry_run=dry_run)


@protected
@reported("{} could not be removed, or not wholly", at_url)
async def remove(url: PathLike, *, guarantees: Guarantee | None = None, storage_options: Options = None) -> None:
    """Remove a committed directory, with all that is in it. Readers see it whole, or not at all.

    `guarantees` adds what the caller knows of the location, as for `commit`. Raises NotCommittedError if nothing
    complete is there; ConflictError if another process replaces or removes it; GuaranteeError where nothing could
    keep readers from seeing half of it; ValidationError if another tool committed it, or if it is a link;
    OutcomeUnknownError if the storage does not say what became of it. After any other error `sweep` deletes what is
    left.
    """
    await cleaning.remove(locate(url, storage_options), guarantees=guarantees or NONE)


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
    incomplete does not count and is not touched; nor is a link, nor what a link in the root points to, nor what another
    tool committed. Each goes only while a newer one is seen to be complete.

    Where a directory that would go may have been committed later than one that would stay, nothing is removed: after
    a run was rolled back to an earlier step, or where a clock was set back.

    Args:
        root: The directory that holds them.
        n: How many are kept, of each series; at least 1.
        protect: Names below the root, or URLs, that are kept besides. One that is not there protects nothing.
        step: As for `committed`. The order that it gives counts, whenever the directories were committed.
        prefix: As for `committed`: only names that begin with it are counted and removed.
        guarantees: What the caller knows of the location, as for `commit`.
        storage_options: For the file system behind the URL.

    Returns:
        What was removed. A directory that could not be removed is kept and named in the log.

    Raises:
        ValidationError: An argument cannot be used, or the order of steps and that of commits disagree.
        AtomicPathError, OSError: As for `remove`, if nothing could be removed.
    """
    location, order = locate(root, storage_options), Order.of(step, prefix)
    return await cleaning.keep_last(location, n, protect=protect, order=order, guarantees=guarantees or NONE)


@protected
@reported("cannot find out what {} guarantees", at_url)
async def profile(
    url: PathLike, *, storage_options: Options = None, guarantees: Guarantee | None = None, probe: bool = True
) -> Profile:
    """What the location guarantees, and how that is known.

    Where it is not documented for this very kind of location it is tried, at the target's parent, unless
    `probe` is false. `guarantees` are added as asserted.
    """
    return await profile_of(locate(url, storage_options), asserted=guarantees or NONE, probe=probe)


@protected
@reported("cannot find out what {} guarantees", at_url)
async def explain(
    url: PathLike, *, storage_options: Options = None, guarantees: Guarantee | None = None, probe: bool = True
) -> Explanation:
    """The profile, the strategy that follows, and why; `print` it."""
    location = locate(url, storage_options)
    found = await profile_of(location, asserted=guarantees or NONE, probe=probe)
    return explained(found, is_local=location.open().is_local)


def _but(arguments: dict[str, object], *left_out: str) -> dict[str, object]:
    return {name: value for name, value in arguments.items() if name not in left_out}
