"""Checks of files and objects: what every storage does, and what the conditional operations guarantee."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from atomicpath._core.tasks import both
from atomicpath._profile.contests import race
from atomicpath.abc import StaleVersionError
from atomicpath.guarantees import Guarantee

from .check import Subject, check, expect

__all__: list[str] = []

_RACERS = 8
_ROUNDS = 4
_ODD = ("with space", "plus+and&", "percent%41", "hash#1", "question?mark", "ünïcødé", "a.b-c_d~e", "quote'd")
_BIG = 256 * 1024


@check()
async def what_is_created_can_be_read(at: Subject) -> None:
    """`create`, then `read`: the same bytes and the same version."""
    for name, data in {"text": b"content", "empty": b"", "binary": bytes(range(256)) * 64}.items():
        version = await at.storage.create(at.path(name), data)
        content = await at.storage.read(at.path(name))
        expect(content.data == data, f"{name}: {len(content.data)} bytes were read where {len(data)} were created")
        expect(content.version == version, f"{name}: version {content.version} was read, {version} was created")
        expect(content.age is None or content.age >= 0, f"{name}: an age of {content.age} seconds")


@check()
async def what_was_acknowledged_is_stored(at: Subject) -> None:
    """Whatever has returned is seen by another client at once, in that order."""
    await at.storage.create(at.path("created"), b"1")
    expect(await at.stored() == {"created": b"1"}, "after `create` returned, the store did not have the object")
    await at.storage.write(at.path("created"), b"22")
    expect(await at.stored() == {"created": b"22"}, "after `write` returned, the store had the old content")
    source = at.file("source", b"333")
    await at.storage.upload(source, at.path("uploaded"), owner="me", multipart=False)
    expect(await at.stored() == {"created": b"22", "uploaded": b"333"}, "after `upload` returned, it was not stored")
    await at.storage.delete(at.path("created"))
    expect(await at.stored() == {"uploaded": b"333"}, "after `delete` returned, the object was still stored")


@check()
async def a_free_name_is_never_said_to_be_taken(at: Subject) -> None:
    """With nobody else there, every creation succeeds and says so."""
    for number in range(12):
        path = at.path(f"free-{number}")
        try:
            await at.storage.create(path, b"x")
        except OSError as error:
            expect(False, f"creation {number} of a free name was answered {type(error).__name__}: {error}")


@check()
async def nothing_is_there(at: Subject) -> None:
    """What does not exist is `FileNotFoundError`, None or empty, and can be deleted."""
    path = at.path("missing")
    await _expect_missing(partial(at.storage.read, path))
    await _expect_missing(partial(at.storage.download, path, at.scratch / "target"))
    expect(not (at.scratch / "target").exists(), "a failed download left a file")
    expect(await at.storage.stat(path) is None, "`stat` of nothing gave something")
    expect(await at.storage.kind(path) is None, "`kind` of nothing gave something")
    expect(await at.storage.list(path, recursive=True) == [], "a listing of nothing was not empty")
    expect(await at.storage.list(path, recursive=False) == [], "a listing of nothing was not empty")
    await at.storage.delete(path)


@check()
async def names_are_kept_as_they_are(at: Subject) -> None:
    """Spaces, signs and letters beyond ASCII survive creation, listing, reading and another client."""
    for name in _ODD:
        await at.storage.create(at.path(name), name.encode())
    expect(await at.stored() == {name: name.encode() for name in _ODD}, f"stored as {sorted(await at.stored())}")
    listed = [entry.name for entry in await at.storage.list(at.path(), recursive=True)]
    expect(listed == sorted(_ODD), f"listed as {listed}")
    for name in _ODD:
        expect((await at.storage.read(at.path(name))).data == name.encode(), f"{name!r} was read as something else")


@check()
async def a_listing_is_exact(at: Subject) -> None:
    """Children or files at any depth, sorted, of this directory alone; sizes and versions as `stat` tells them."""
    await at.directory("tree/b/d")
    await at.directory("tree/bb")
    for name in ("tree/a", "tree/b/c", "tree/b/d/e", "tree/b-1", "tree/bb/f", "tree-1"):
        await at.storage.create(at.path(name), name.encode())
    children = await at.storage.list(at.path("tree"), recursive=False)
    expected = [("a", "file"), ("b", "directory"), ("b-1", "file"), ("bb", "directory")]
    expect([(entry.name, entry.kind) for entry in children] == expected, f"children were {children}")
    below = await at.storage.list(at.path("tree/b"), recursive=True)
    expect([entry.name for entry in below] == ["c", "d/e"], f"files below a directory were {below}")
    everything = await at.storage.list(at.path("tree"), recursive=True)
    for entry in everything:
        found = await at.storage.stat(at.path(f"tree/{entry.name}"))
        expect(found is not None, f"{entry.name} is listed, but `stat` does not find it")
        told = found and (found.size, found.version, found.kind)
        expect(told == (entry.size, entry.version, entry.kind), f"{entry.name}: listed {entry}, `stat` says {found}")
    expect([entry.name for entry in everything] == ["a", "b-1", "b/c", "b/d/e", "bb/f"], f"listed {everything}")
    kinds = [await at.storage.kind(at.path(name)) for name in ("tree", "tree/b", "tree/b/c", "tree/b-")]
    expect(kinds == ["directory", "directory", "file", None], f"kinds were {kinds}")


@check(Guarantee.LIST_AFTER_WRITE)
async def a_listing_shows_what_was_written(at: Subject) -> None:
    """A listing begun after a creation or deletion returned shows it."""
    there: list[str] = []
    for number in range(10):
        there.append(f"n{number}")
        await at.storage.create(at.path(there[-1]), b"x")
        for recursive in (False, True):
            names = [entry.name for entry in await at.storage.list(at.path(), recursive=recursive)]
            expect(names == there, f"{there} were written, {names} listed")
    while there:
        await at.storage.delete(at.path(there.pop()))
        names = [entry.name for entry in await at.storage.list(at.path(), recursive=True)]
        expect(names == there, f"{there} were left, {names} listed")


@check(Guarantee.ATOMIC_WRITE)
async def a_reader_sees_all_of_a_file_or_none(at: Subject) -> None:
    """While an object is created or overwritten, readers find the old one or the new one, whole."""
    contents = [bytes([letter]) * (_BIG + letter) for letter in (97, 98, 99)]

    written: set[str] = set()

    async def write_all(name: str) -> None:
        await at.storage.create(at.path(name), contents[0])
        for content in contents[1:]:
            await at.storage.write(at.path(name), content)
        written.add(name)

    async def watch(name: str) -> None:
        seen, last = b"", False
        while not last:
            last = name in written  # one more look after the end
            try:
                seen = (await at.storage.read(at.path(name))).data
            except FileNotFoundError:
                expect(not seen, "an object that was being overwritten was not there")
                continue
            expect(seen in contents, f"a reader found {len(seen)} bytes that nobody had written")

    for number in range(_ROUNDS):
        name = f"watched-{number}"
        await both(partial(write_all, name), partial(watch, name))
        content = (await at.storage.read(at.path(name))).data
        expect(content == contents[-1], "what was written last was not read afterwards")


@check()
async def versions_tell_contents_apart(at: Subject) -> None:
    """Where there are versions, every change of content changes it, and everybody tells the same one."""
    seen: list[str | None] = []
    path = at.path("changing")
    for data in (b"one", b"two", b"six", b"seven"):
        version = await at.storage.write(path, data)
        found, content = await at.storage.stat(path), await at.storage.read(path)
        listed = [entry.version for entry in await at.storage.list(at.path(), recursive=True)]
        expect(found is not None, "what was written is not there")
        told = {version, found.version if found else None, content.version, *listed}
        expect(len(told) == 1, f"one content has the versions {told}")
        expect(version is None or version not in seen, f"two contents have the version {version}")
        seen.append(version)


@check()
async def an_owner_is_kept_or_not_told(at: Subject) -> None:
    """`owner` is what the object was created with, or None: never another's."""
    await at.storage.create(at.path("ours"), b"x", owner="0123abcd")
    await at.storage.upload(at.file("source", b"y"), at.path("theirs"), owner="4567ef", multipart=False)
    await at.storage.create(at.path("nobody's"), b"z")
    for name, owner in {"ours": "0123abcd", "theirs": "4567ef", "nobody's": None}.items():
        found = await at.storage.stat(at.path(name))
        expect(found is not None and found.owner in (owner, None), f"{name} has the owner {found and found.owner}")


@check()
async def a_file_goes_up_and_comes_down_whole(at: Subject) -> None:
    """Every size; neither end is overwritten, and a changed or missing source is an error."""
    multipart = Guarantee.EXCLUSIVE_MULTIPART in at.claimed
    sizes = [0, 1, 2**20 + 1]
    if multipart and at.storage.largest_single < 2**28:
        sizes.append(at.storage.largest_single + 1)
    for size in sizes:
        name, data = f"file-{size}", (b"0123456789abcdef" * (size // 16 + 1))[:size]
        source = at.file(name, data)
        sent = await at.storage.upload(source, at.path(name), owner="me", multipart=multipart)
        expect(sent.size == size, f"{size} bytes were uploaded, {sent.size} reported")
        expect((await at.stored())[name] == data, f"a file of {size} bytes is stored as something else")
        found = await at.storage.stat(at.path(name))
        told = found and (found.size, found.version)
        expect(told == (size, sent.version), f"`stat` gives {told}, `upload` gave {(size, sent.version)}")
        got = await at.storage.download(at.path(name), at.scratch / f"{name}.down")
        expect((got.size, got.version) == (size, sent.version), f"downloaded {got}, uploaded {sent}")
        expect((at.scratch / f"{name}.down").read_bytes() == data, f"{size} bytes came back as something else")
    kept = at.file("kept", b"kept")
    try:
        await at.storage.download(at.path("file-1"), kept)
    except FileExistsError:
        expect(kept.read_bytes() == b"kept", "a download overwrote a local file")
    else:
        expect(False, "a download to a file that exists was not refused")
    upload = partial(at.storage.upload, at.scratch / "nowhere", at.path("never"), owner="me", multipart=multipart)
    await _expect_missing(upload)
    expect("never" not in await at.stored(), "an upload of a missing file stored something")


@check(Guarantee.EXCLUSIVE_CREATE)
async def what_exists_is_not_created_again(at: Subject) -> None:
    """A second creation, and an upload, are `FileExistsError` and change nothing."""
    await at.storage.create(at.path("first"), b"first")
    other = at.file("other", b"other")
    for operation in (
        partial(at.storage.create, at.path("first"), b"second"),
        partial(at.storage.upload, other, at.path("first"), owner="me", multipart=False),
    ):
        try:
            await operation()
        except FileExistsError:
            pass
        else:
            expect(False, "a name that existed was created again")
    expect(await at.stored() == {"first": b"first"}, "a refused creation changed the object")


@check(Guarantee.EXCLUSIVE_CREATE)
async def of_many_creations_one_succeeds(at: Subject) -> None:
    """Creations of one name at the same moment: one wins, and its bytes are there."""
    for number in range(_ROUNDS):
        won = await race(partial(at.storage.create, at.path(f"raced-{number}")), _RACERS)
        await _expect_winner(at, f"raced-{number}", won)


@check(Guarantee.EXCLUSIVE_CREATE)
async def of_many_uploads_one_succeeds(at: Subject) -> None:
    """The same for uploads of files."""
    for number in range(_ROUNDS):
        name = f"raced-{number}"

        async def upload(racer: bytes, name: str = name) -> None:
            source = at.file(f"{name}-{racer.decode()}", racer)
            await at.storage.upload(source, at.path(name), owner=racer.decode(), multipart=False)

        await _expect_winner(at, name, await race(upload, _RACERS))


@check(Guarantee.EXCLUSIVE_MULTIPART)
async def of_many_uploads_in_parts_one_succeeds(at: Subject) -> None:
    """The same for the completion of multi-part uploads."""
    for number in range(_ROUNDS):
        won = await race(partial(at.storage.create_in_parts, at.path(f"parts-{number}")), _RACERS)
        await _expect_winner(at, f"parts-{number}", won)


@check(Guarantee.COMPARE_AND_SWAP)
async def of_many_swaps_one_succeeds(at: Subject) -> None:
    """Swaps from one version at the same moment: one wins; a stale version swaps nothing."""
    for number in range(_ROUNDS):
        name, path = f"register-{number}", at.path(f"register-{number}")
        first = await at.storage.create(path, b"first")
        expect(first is not None, "the store gives no version")
        won = await race(partial(_swap, at, path, str(first)), _RACERS)
        await _expect_winner(at, name, won)
        await _expect_stale(partial(at.storage.swap, path, b"late", version=str(first)))
        await _expect_winner(at, name, won)
    await _expect_stale(partial(at.storage.swap, at.path("nothing"), b"late", version=str(first)))
    expect("nothing" not in await at.stored(), "a swap created an object")


@check(Guarantee.CONDITIONAL_DELETE)
async def a_stale_version_deletes_nothing(at: Subject) -> None:
    """A delete that names an old version is refused; one that names the present version is done."""
    path = at.path("doomed")
    old = await at.storage.create(path, b"old")
    new = await at.storage.write(path, b"new!")
    expect(old is not None and new is not None, "the store gives no versions")
    await _expect_stale(partial(at.storage.delete, path, version=str(old)))
    expect(await at.stored() == {"doomed": b"new!"}, "a refused delete deleted")
    await at.storage.delete(path, version=str(new))
    expect(await at.stored() == {}, "a delete that named the present version did nothing")


async def _swap(at: Subject, path: str, version: str, racer: bytes) -> None:
    await at.storage.swap(path, racer, version=version)


async def _expect_winner(at: Subject, name: str, won: list[bytes]) -> None:
    expect(len(won) == 1, f"{len(won)} of {_RACERS} succeeded at {name}")
    stored = (await at.stored()).get(name)
    expect(stored == won[0], f"{won[0]!r} was told that it succeeded, {stored!r} is stored")


async def _expect_stale(operation: Callable[[], Awaitable[object]]) -> None:
    try:
        await operation()
    except (StaleVersionError, FileNotFoundError):
        return
    expect(False, "an operation that named an old version was not refused")


async def _expect_missing(operation: Callable[[], Awaitable[object]]) -> None:
    try:
        await operation()
    except FileNotFoundError:
        return
    expect(False, "what does not exist was found")
