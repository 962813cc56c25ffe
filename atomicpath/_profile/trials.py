"""The trials that probes are made of: each tries one guarantee, at a path of its own, and tells if it does not hold."""

from __future__ import annotations

import errno
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial, reduce

from atomicpath._core.tasks import map_concurrently, run_both
from atomicpath.abc import DirectoryStorage, EntryKind, MultipartStorage, Put, StaleVersionError, Storage, Update
from atomicpath.errors import AccessError, GuaranteeError
from atomicpath.guarantees import Guarantee

from .abilities import directories_at, need
from .contests import RACERS, NotShown, Race, Refuted, asked, contest, is_unsupported, names_of, only_winner

__all__ = [
    "LEFT",
    "SUCCESS",
    "TRIALS",
    "TRIED",
    "leaves_its_directory",
    "watch_rename",
]

_LOOKS = 200  # looks of a reader while a directory is renamed
_ROUNDS = 4  # of multi-part completions: on a store that breaks it, half of the rounds went well


async def _exclusive_create(storage: Storage, path: str) -> None:
    ended = await contest(storage.environment, lambda racer: storage.put(path, racer, mode=Put.CREATE))
    won = await only_winner(storage, path, ended, "creations of one name")
    if won is None:
        raise NotShown(_nobody(ended, "creations of one name"))
    try:
        await asked(storage.environment, lambda: storage.put(path, b"late", mode=Put.CREATE))
    except FileExistsError:
        if (await asked(storage.environment, lambda: storage.get(path))).data == won:
            return
    raise Refuted("a name that existed was created again")


async def _compare_and_swap(storage: Storage, path: str) -> None:
    environment = storage.environment
    told = await _place(storage, path, b"racer-?")  # as long as what is swapped for it: length alone tells nothing
    version = (await asked(environment, lambda: storage.get(path))).version
    if version is None:
        raise Refuted("the store gives no version")
    if told is not None and told != version:
        raise Refuted("the reply to a write gave another version than the next read")
    async with _permitted(storage, path, "a swap"):
        ended = await contest(environment, lambda racer: storage.put(path, racer, mode=Update(version)))
    won = await only_winner(storage, path, ended, "swaps from one version")
    if won is None:
        if not ended.unanswered:
            raise Refuted("every swap that named the present version was refused")
        raise NotShown(_nobody(ended, "swaps from one version"))
    try:
        await asked(environment, lambda: storage.put(path, b"late", mode=Update(version)))
    except StaleVersionError:
        if (await asked(environment, lambda: storage.get(path))).data == won:
            return
    raise Refuted("a swap that named an old version was not refused")


async def _conditional_delete(storage: Storage, path: str) -> None:
    environment = storage.environment
    await _place(storage, path, b"one")
    old = (await asked(environment, lambda: storage.get(path))).version
    async with _permitted(storage, path, "a delete"):
        await asked(environment, lambda: storage.delete(path))
    try:
        told = await _place(storage, path, b"two")
    except FileExistsError:
        raise Refuted("a delete that was acknowledged did nothing") from None
    new = (await asked(environment, lambda: storage.get(path))).version
    if old is None or new is None or old == new:
        raise Refuted("the store gives no versions that tell two contents apart")
    if told not in (new, None) or not await _is_listed(storage, path, new):
        raise Refuted("a write, a read and a listing gave different versions: what is listed could not be deleted")
    try:
        await asked(environment, lambda: storage.delete(path, version=old))
    except StaleVersionError:
        pass
    else:
        raise Refuted("a delete that named an old version was not refused")
    try:
        await asked(environment, lambda: storage.delete(path, version=new))
    except StaleVersionError:
        raise Refuted("a delete that named the present version was refused") from None
    if await asked(environment, lambda: storage.kind(path)) is not None:
        raise Refuted("a delete that named the present version did nothing")


async def _is_listed(storage: Storage, path: str, version: str) -> bool:
    """Tell whether a listing names the version that a read gave.

    A cleaner deletes the version that it has listed.
    """
    parent, _, name = path.rpartition("/")
    try:
        listing = await asked(storage.environment, lambda: storage.list(parent, recursive=True))
    except AccessError:
        return True  # whether this writer may list, and sees what it wrote, are findings of another trial
    return all(entry.version == version for entry in listing if entry.name == name)


async def _list_after_write(storage: Storage, path: str) -> None:
    if (directories := await directories_at(storage, path)) is not None:
        await _make(directories, path)
    for name in ("a", "b"):
        await _place(storage, f"{path}/{name}", b"x")
        async with _permitted(storage, f"{path}/{name}", "a listing"):
            listing = await asked(storage.environment, lambda: storage.list(path, recursive=True))
        if name not in [entry.name for entry in listing]:
            raise Refuted("a listing did not show what had just been written")


async def _exclusive_multipart(storage: Storage, path: str) -> None:
    create = need(storage, MultipartStorage, Guarantee.EXCLUSIVE_MULTIPART).create_in_parts
    for again in range(_ROUNDS):
        async with _permitted(storage, f"{path}/{again}", "an upload in parts"):
            ended = await contest(storage.environment, partial(create, f"{path}/{again}"))
        if await only_winner(storage, f"{path}/{again}", ended, "multi-part completions of one name") is None:
            raise NotShown(_nobody(ended, "multi-part completions of one name"))


async def _place(storage: Storage, path: str, data: bytes) -> str | None:
    """Write what no other trial writes, at a path of its own; return its version, as the reply told.

    It is created where that can be done, because a bucket's policy may refuse writes without a condition.
    """
    try:
        return await asked(storage.environment, lambda: storage.put(path, data, mode=Put.CREATE))
    except FileExistsError:
        found = await asked(storage.environment, lambda: storage.get(path))
        if found.data == data:  # by an earlier try, whose reply was lost
            return found.version
        raise
    except (GuaranteeError, OSError) as error:
        lacks_links = isinstance(error, PermissionError) and not isinstance(error, AccessError)
        if isinstance(error, OSError) and not lacks_links and not is_unsupported(error):
            raise
    return await asked(storage.environment, lambda: storage.put(path, data, mode=Put.OVERWRITE))


@asynccontextmanager
async def _permitted(storage: Storage, path: str, what: str) -> AsyncIterator[None]:
    """Turn an AccessError of the block into the finding that `what` is refused.

    This is done only if the same credentials still read what is at `path`.
    """
    try:
        yield
    except AccessError as error:
        await asked(storage.environment, lambda: storage.get(path))
        raise Refuted(f"{what} was refused: {error}") from error


def _nobody(ended: Race, what: str) -> str:
    heard = f": {ended.unanswered[0]}" if ended.unanswered else ""
    return f"none of {RACERS} concurrent {what} was carried out{heard}"


async def _directories(storage: DirectoryStorage, path: str) -> None:
    await storage.make_directory(path, mode=None, durable=False)
    if await storage.kind(path) is not EntryKind.DIRECTORY:
        raise Refuted("a directory that was made is not there")


async def _atomic_rename(storage: DirectoryStorage, path: str) -> None:
    """Rename a directory while a reader watches.

    On a mount or server that copies, the reader finds some of the files at the new name.
    """
    source, target = f"{path}/source", f"{path}/target"
    await _make(storage, path)
    await _make(storage, source)
    names = [f"file-{number}" for number in range(RACERS)]
    for name in names:
        await storage.put(f"{source}/{name}", name.encode(), mode=Put.OVERWRITE)
    await watch_rename(storage, source, target, names, wrong=Refuted)


async def watch_rename(
    storage: DirectoryStorage, source: str, target: str, names: Sequence[str], *, wrong: Callable[[str], Exception]
) -> None:
    """Rename a directory while a reader lists its new name: it must see all of `names` or none.

    Args:
        storage: Where the directory is.
        source: Its path.
        target: Its new path, at which nothing is.
        names: Its files, sorted.
        wrong: Makes the exception that says what was seen, where the rename was not one.
    """
    renamed: list[str] = []

    async def rename() -> None:
        try:
            await storage.rename_directory(source, target)
        finally:
            renamed.append(target)

    async def look(*, last: bool) -> None:
        seen = [entry.name for entry in await storage.list(target, recursive=True)]
        if seen != names and (seen or last):
            raise wrong(f"a reader found {len(seen)} of the {len(names)} files of a directory being renamed")

    async def watch() -> None:
        for _ in range(_LOOKS):
            if renamed:
                return
            await look(last=False)
            await storage.environment.sleep(0)  # let the renamer run, where a listing does not

    await run_both(rename, watch)
    await look(last=True)
    if await storage.kind(source) is not None:
        raise wrong("a renamed directory is still at its old name")


async def leaves_its_directory(storage: DirectoryStorage, source: str, target: str) -> bool:
    """Tell whether a directory made at `source` can be renamed to `target`, in another directory.

    Return False for EXDEV.
    """
    await _make(storage, source)
    try:
        await storage.rename_directory(source, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    return True


async def _rename_noreplace(storage: DirectoryStorage, path: str) -> None:
    target, empty = f"{path}/target", f"{path}/empty"
    await _make(storage, path)

    async def prepare(racer: bytes) -> None:
        await _make(storage, f"{path}/{racer.decode()}")
        await storage.put(f"{path}/{racer.decode()}/file-{racer.decode()}", racer, mode=Put.PRIVATE)

    await map_concurrently(names_of(RACERS), prepare, at_once=RACERS)  # done before the race, so that only renames race
    ended = await contest(
        storage.environment, lambda racer: storage.rename_directory(f"{path}/{racer.decode()}", target)
    )
    if len(ended.won) > 1:
        raise Refuted(f"{len(ended.won)} of {RACERS} directories were renamed to one name")
    found = [entry.name for entry in await storage.list(target, recursive=True)]
    if not found and not ended.won:
        raise NotShown(_nobody(ended, "renames to one name"))
    if found not in [[f"file-{racer.decode()}"] for racer in ended.won or names_of(RACERS)]:
        raise Refuted("a directory renamed to a free name did not arrive as it was")
    await _make(storage, empty)
    try:
        await storage.rename_directory(target, empty)
    except FileExistsError:
        return
    raise Refuted("a directory was renamed onto an empty one")


async def _make(storage: DirectoryStorage, path: str) -> None:
    await storage.make_directory(path, mode=None, durable=False)


def _in_directories(
    trial: Callable[[DirectoryStorage, str], Awaitable[None]],
) -> Callable[[Storage, str], Awaitable[None]]:
    async def tried(storage: Storage, path: str) -> None:
        await trial(need(storage, DirectoryStorage, Guarantee.DIRECTORIES), path)

    return tried


TRIALS: Mapping[Guarantee, Callable[[Storage, str], Awaitable[None]]] = {
    Guarantee.LIST_AFTER_WRITE: _list_after_write,
    Guarantee.EXCLUSIVE_CREATE: _exclusive_create,
    Guarantee.EXCLUSIVE_MULTIPART: _exclusive_multipart,
    Guarantee.COMPARE_AND_SWAP: _compare_and_swap,
    Guarantee.CONDITIONAL_DELETE: _conditional_delete,
    Guarantee.DIRECTORIES: _in_directories(_directories),
    Guarantee.ATOMIC_RENAME: _in_directories(_atomic_rename),
    Guarantee.RENAME_NOREPLACE: _in_directories(_rename_noreplace),
}

LEFT: Mapping[Guarantee, tuple[str, ...]] = {
    Guarantee.LIST_AFTER_WRITE: ("a", "b"),
    Guarantee.EXCLUSIVE_MULTIPART: tuple(str(again) for again in range(_ROUNDS)),
}
"""The names below its path that a trial may leave, where it writes below it; else it writes the path itself."""

TRIED = reduce(operator.or_, TRIALS)
"""What there is a probe for."""

SUCCESS: Mapping[Guarantee, str] = {
    Guarantee.LIST_AFTER_WRITE: "a probe saw each of its writes in the next listing",
    Guarantee.EXCLUSIVE_CREATE: f"a probe raced {RACERS} creations of one name: one won and was stored",
    Guarantee.EXCLUSIVE_MULTIPART: f"a probe raced {RACERS} multi-part completions {_ROUNDS} times: one won each",
    Guarantee.COMPARE_AND_SWAP: f"a probe raced {RACERS} swaps from one version: one won and was stored",
    Guarantee.CONDITIONAL_DELETE: "a probe deleted the present version, and no old one",
    Guarantee.DIRECTORIES: "a probe made a directory and saw it",
    Guarantee.ATOMIC_RENAME: "a probe watched a directory renamed: it was seen whole or not at all",
    Guarantee.RENAME_NOREPLACE: f"a probe raced {RACERS} renames to one name: one won, nothing was replaced",
}
