"""The trials that probes are made of: each tries one guarantee, at a path of its own, and tells if it does not hold."""

from __future__ import annotations

import errno
import operator
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial, reduce

from .abc import Declaration, StaleVersionError, Storage
from .guarantees import Guarantee
from .tasks import both, for_each

__all__ = [
    "SUCCESS",
    "TRIALS",
    "TRIED",
    "Refuted",
    "has_directories",
    "leaves_its_directory",
    "names_of",
    "race",
    "watch_rename",
]

_RACERS = 6
_LOOKS = 200  # of a reader while a directory is renamed
_ROUNDS = 4  # of multi-part completions: on a store that breaks it, half of the rounds went well
_OF_DIRECTORIES = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE | Guarantee.DIRECTORIES


class Refuted(Exception):  # noqa: N818 - a finding, not an error
    """The guarantee does not hold; the text says what was seen."""


async def _exclusive_create(storage: Storage, path: str) -> None:
    won = await race(lambda racer: storage.create(path, racer))
    if len(won) != 1:
        raise Refuted(f"{len(won)} of {_RACERS} concurrent creations of one name succeeded")
    if (await storage.read(path)).data != won[0]:
        raise Refuted("the content stored was not that of the one creation that succeeded")
    try:
        await storage.create(path, b"late")
    except FileExistsError:
        return
    raise Refuted("a name that existed was created again")


async def _compare_and_swap(storage: Storage, path: str) -> None:
    await storage.write(path, b"racer-?")  # as long as what is swapped for it: a version is more than a length
    version = (await storage.read(path)).version
    if version is None:
        raise Refuted("the store gives no version")
    won = await race(lambda racer: storage.swap(path, racer, version=version))
    if len(won) != 1:
        raise Refuted(f"{len(won)} of {_RACERS} concurrent swaps from one version succeeded")
    if (await storage.read(path)).data != won[0]:
        raise Refuted("the content stored was not that of the one swap that succeeded")
    try:
        await storage.swap(path, b"late", version=version)
    except StaleVersionError:
        return
    raise Refuted("a swap that named an old version was not refused")


async def _conditional_delete(storage: Storage, path: str) -> None:
    await storage.write(path, b"one")
    old = (await storage.read(path)).version
    await storage.write(path, b"two")
    new = (await storage.read(path)).version
    if old is None or new is None or old == new:
        raise Refuted("the store gives no versions that tell two contents apart")
    try:
        await storage.delete(path, version=old)
    except StaleVersionError:
        pass
    else:
        raise Refuted("a delete that named an old version was not refused")
    await storage.delete(path, version=new)
    if await storage.kind(path) is not None:
        raise Refuted("a delete that named the present version did nothing")


async def _list_after_write(storage: Storage, path: str) -> None:
    if has_directories(storage, await storage.declare(path)):
        await _make(storage, path)
    for name in ("a", "b"):
        await storage.write(f"{path}/{name}", b"x")
        if name not in [entry.name for entry in await storage.list(path, recursive=True)]:
            raise Refuted("a listing did not show what had just been written")


async def _exclusive_multipart(storage: Storage, path: str) -> None:
    for again in range(_ROUNDS):
        won = await race(partial(storage.create_in_parts, f"{path}/{again}"))
        if len(won) != 1:
            raise Refuted(f"{len(won)} of {_RACERS} concurrent multi-part completions of one name succeeded")


async def _directories(storage: Storage, path: str) -> None:
    await storage.make_directory(path, mode=None, durable=False)
    if await storage.kind(path) != "directory":
        raise Refuted("a directory that was made is not there")


async def _atomic_rename(storage: Storage, path: str) -> None:
    """A reader watches: on a mount or server that copies, it finds some of the files at the new name."""
    source, target = f"{path}/source", f"{path}/target"
    await _make(storage, path)
    await _make(storage, source)
    names = [f"file-{number}" for number in range(_RACERS)]
    for name in names:
        await storage.write(f"{source}/{name}", name.encode())
    await watch_rename(storage, source, target, names, wrong=Refuted)


async def watch_rename(
    storage: Storage, source: str, target: str, names: Sequence[str], *, wrong: Callable[[str], Exception]
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
            await storage.environment.sleep(0)  # the renamer's turn, where a listing gives it none

    await both(rename, watch)
    await look(last=True)
    if await storage.kind(source) is not None:
        raise wrong("a renamed directory is still at its old name")


async def leaves_its_directory(storage: Storage, source: str, target: str) -> bool:
    """Tell whether a directory made at `source` can be renamed to `target`, in another directory; False for EXDEV."""
    await _make(storage, source)
    try:
        await storage.rename_directory(source, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    return True


async def _rename_noreplace(storage: Storage, path: str) -> None:
    target, empty = f"{path}/target", f"{path}/empty"
    await _make(storage, path)

    async def prepare(racer: bytes) -> None:
        await _make(storage, f"{path}/{racer.decode()}")
        await storage.write(f"{path}/{racer.decode()}/file-{racer.decode()}", racer, private=True)

    await for_each(names_of(_RACERS), prepare, at_once=_RACERS)  # before the race, so that it is one of renames only
    won = await race(lambda racer: storage.rename_directory(f"{path}/{racer.decode()}", target))
    if len(won) != 1:
        raise Refuted(f"{len(won)} of {_RACERS} directories were renamed to one name")
    found = [entry.name for entry in await storage.list(target, recursive=True)]
    if found != [f"file-{won[0].decode()}"]:
        raise Refuted("a directory renamed to a free name did not arrive as it was")
    await _make(storage, empty)
    try:
        await storage.rename_directory(target, empty)
    except FileExistsError:
        return
    raise Refuted("a directory was renamed onto an empty one")


async def _make(storage: Storage, path: str) -> None:
    await storage.make_directory(path, mode=None, durable=False)


async def race(attempt: Callable[[bytes], Awaitable[object]], racers: int = _RACERS) -> list[bytes]:
    """Those of several concurrent attempts that succeeded; a refusal is an answer, any other error ends the race."""

    async def one(racer: bytes) -> bytes | None:
        try:
            await attempt(racer)
        except (FileExistsError, StaleVersionError):
            return None
        except OSError as error:
            if error.errno == errno.EBUSY:
                return None  # S3 answers 409 to a write that met another under way, and has not done it
            raise
        return racer

    return [racer for racer in await for_each(names_of(racers), one, at_once=racers) if racer is not None]


def names_of(racers: int) -> list[bytes]:
    """What `race` hands to its attempts, of one length."""
    return [f"racer-{number}".encode() for number in range(racers)]


def has_directories(storage: Storage, declaration: Declaration) -> bool:
    """Whether a parent has to be made before what is in it, and removed afterwards."""
    return storage.is_local or bool(_OF_DIRECTORIES & (declaration.declared | declaration.observable))


TRIALS: Mapping[Guarantee, Callable[[Storage, str], Awaitable[None]]] = {
    Guarantee.LIST_AFTER_WRITE: _list_after_write,
    Guarantee.EXCLUSIVE_CREATE: _exclusive_create,
    Guarantee.EXCLUSIVE_MULTIPART: _exclusive_multipart,
    Guarantee.COMPARE_AND_SWAP: _compare_and_swap,
    Guarantee.CONDITIONAL_DELETE: _conditional_delete,
    Guarantee.DIRECTORIES: _directories,
    Guarantee.ATOMIC_RENAME: _atomic_rename,
    Guarantee.RENAME_NOREPLACE: _rename_noreplace,
}

TRIED = reduce(operator.or_, TRIALS)
"""What there is a probe for."""

SUCCESS: Mapping[Guarantee, str] = {
    Guarantee.LIST_AFTER_WRITE: "a probe saw each of its writes in the next listing",
    Guarantee.EXCLUSIVE_CREATE: f"a probe raced {_RACERS} creations of one name: one won, and its bytes were there",
    Guarantee.EXCLUSIVE_MULTIPART: f"a probe raced {_RACERS} multi-part completions {_ROUNDS} times: one won each",
    Guarantee.COMPARE_AND_SWAP: f"a probe raced {_RACERS} swaps from one version: one won, and its bytes were there",
    Guarantee.CONDITIONAL_DELETE: "a probe's delete naming an old version was refused, naming the present one was done",
    Guarantee.DIRECTORIES: "a probe made a directory and saw it",
    Guarantee.ATOMIC_RENAME: "a probe watched a directory being renamed: it was seen whole or not at all",
    Guarantee.RENAME_NOREPLACE: f"a probe raced {_RACERS} directories to one name: one won, no empty one was replaced",
}
