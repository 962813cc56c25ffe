"""Checks of directories, where a storage has them: made, renamed, synced, removed."""

from __future__ import annotations

from atomicpath._core.tasks import both
from atomicpath._profile.contests import race
from atomicpath._profile.trials import watch_rename
from atomicpath.guarantees import Guarantee

from .check import ConformanceError, Subject, check, expect

__all__: list[str] = []

_RACERS = 8
_ROUNDS = 4
_FILES = 12


@check(Guarantee.DIRECTORIES)
async def a_directory_is_made_once(at: Subject) -> None:
    """It and its ancestors are there, empty; made again it is `FileExistsError`; removed it is gone with all in it."""
    await _make(at, "new/deep/er")
    for name in ("new", "new/deep", "new/deep/er"):
        expect(await at.storage.kind(at.path(name)) == "directory", f"{name} is {await at.storage.kind(at.path(name))}")
    expect(await at.storage.list(at.path("new/deep/er"), recursive=False) == [], "a new directory is not empty")
    children = [(entry.name, entry.kind) for entry in await at.storage.list(at.path("new"), recursive=False)]
    expect(children == [("deep", "directory")], f"its parent lists {children}")
    try:
        await _make(at, "new/deep/er")
    except FileExistsError:
        pass
    else:
        expect(False, "a directory that existed was made again")
    await at.storage.write(at.path("new/deep/file"), b"x")
    await at.storage.remove_tree(at.path("new"))
    expect(await at.storage.kind(at.path("new")) is None, "a removed directory is still there")
    expect(await at.stored() == {}, "a removed directory left files")


@check(Guarantee.DIRECTORIES)
async def of_many_makings_of_a_directory_one_succeeds(at: Subject) -> None:
    """Directories of one name made at the same moment: one wins."""
    for number in range(_ROUNDS):
        name = f"made-{number}"
        won = await race(lambda _, name=name: _make(at, name), _RACERS)  # type: ignore[misc]
        expect(len(won) == 1, f"{len(won)} of {_RACERS} made {name}")


@check(Guarantee.ATOMIC_RENAME)
async def a_renamed_directory_is_seen_whole_or_not_at_all(at: Subject) -> None:
    """While a directory is renamed, the new name shows everything or nothing; afterwards the old one is gone."""
    expected = [f"sub/{number}" for number in range(_FILES)]

    for number in range(_ROUNDS):
        source, target = f"from-{number}", f"to-{number}"
        await _make(at, f"{source}/sub")
        for name in expected:
            await at.storage.write(at.path(f"{source}/{name}"), name.encode())
        await watch_rename(at.storage, at.path(source), at.path(target), sorted(expected), wrong=ConformanceError)
        expect(await at.stored(source) == {}, "a renamed directory left files at its old name")
        expect(await at.stored(target) == {name: name.encode() for name in expected}, "it arrived changed")


@check(Guarantee.ATOMIC_RENAME)
async def what_is_not_there_is_not_renamed(at: Subject) -> None:
    """A missing source is `FileNotFoundError`, and nothing appears."""
    try:
        await at.storage.rename_directory(at.path("missing"), at.path("target"))
    except FileNotFoundError:
        expect(await at.storage.kind(at.path("target")) is None, "a directory appeared from nowhere")
    else:
        expect(False, "a missing directory was renamed")


@check(Guarantee.RENAME_NOREPLACE)
async def a_rename_never_replaces(at: Subject) -> None:
    """A directory in the way, full or empty, is `FileExistsError`; so is a file, or it stays beside the directory."""
    await _make(at, "source")
    await at.storage.write(at.path("source/new"), b"new")
    await _make(at, "full")
    await at.storage.write(at.path("full/old"), b"old")
    await _make(at, "empty")
    await at.storage.write(at.path("file"), b"file")
    before = {"source/new": b"new", "full/old": b"old", "file": b"file"}
    for target in ("full", "empty"):
        expect(not await _renamed(at, target), f"a directory was renamed onto one that is {target}")
        expect(await at.stored() == before, f"a refused rename onto {target} changed something")
        expect(await at.storage.kind(at.path("empty")) == "directory", "the empty directory is gone")
    if await _renamed(at, "file"):  # object stores may have both a/b and a
        before["file/new"] = before.pop("source/new")
    expect(await at.stored() == before, "a rename to the name of a file changed something else")


async def _renamed(at: Subject, target: str) -> bool:
    try:
        await at.storage.rename_directory(at.path("source"), at.path(target))
    except FileExistsError:
        return False
    return True


@check(Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE)
async def of_many_renames_one_succeeds(at: Subject) -> None:
    """Directories renamed to one name at the same moment: one arrives, alone."""
    for number in range(_ROUNDS):
        target = f"target-{number}"

        async def rename(racer: bytes, number: int = number, target: str = target) -> None:
            source = f"{racer.decode()}-{number}"
            await _make(at, source)
            await at.storage.write(at.path(f"{source}/file-{racer.decode()}"), racer)
            await at.storage.rename_directory(at.path(source), at.path(target))

        won = await race(rename, _RACERS)
        expect(len(won) == 1, f"{len(won)} of {_RACERS} directories were renamed to one name")
        stored = await at.stored(target)
        expect(stored == {f"file-{won[0].decode()}": won[0]}, f"{won[0]!r} won, {sorted(stored)} is there")


@check(Guarantee.RENAME_EXCHANGE)
async def two_directories_swap_names_at_once(at: Subject) -> None:
    """While two directories swap names, each name is that of one of them; with one missing nothing happens."""
    names, contents = ("first", "second"), (b"one", b"two")
    for name, content in zip(names, contents, strict=True):
        await _make(at, name)
        await at.storage.write(at.path(f"{name}/file"), content)
    swapped: list[int] = []

    async def swap() -> None:
        for number in range(_ROUNDS):
            await at.storage.exchange_directories(at.path(names[0]), at.path(names[1]))
            swapped.append(number)

    async def watch() -> None:
        while len(swapped) < _ROUNDS:
            for name in names:
                try:
                    found = (await at.storage.read(at.path(f"{name}/file"))).data
                except FileNotFoundError:
                    expect(False, f"{name} was nobody's name for a moment")
                expect(found in contents, f"{name} shows {found!r}")

    await both(swap, watch)
    await at.storage.exchange_directories(at.path(names[0]), at.path(names[1]))
    crossed = contents if _ROUNDS % 2 else contents[::-1]
    expect(
        await at.stored() == {f"{name}/file": data for name, data in zip(names, crossed, strict=True)},
        "the directories did not swap names, or changed",
    )
    before = await at.stored()
    for pair in (("first", "missing"), ("missing", "first")):
        try:
            await at.storage.exchange_directories(at.path(pair[0]), at.path(pair[1]))
        except FileNotFoundError:
            expect(await at.stored() == before, "a refused exchange changed something")
        else:
            expect(False, "a directory swapped names with one that is missing")


@check(Guarantee.SYNC)
async def what_is_there_can_be_synced(at: Subject) -> None:
    """Trees and directories can be synced; what is not there raises rather than pass for synced."""
    await _make(at, "tree/sub")
    await at.storage.write(at.path("tree/sub/file"), b"x")
    await at.storage.sync_tree(at.path("tree"))
    await at.storage.sync_directory(at.path())
    for sync in (at.storage.sync_tree, at.storage.sync_directory):
        try:
            await sync(at.path("missing"))
        except FileNotFoundError:
            continue
        expect(False, "what does not exist was synced")


async def _make(at: Subject, name: str) -> None:
    await at.storage.make_directory(at.path(name), mode=None, durable=False)
