"""A place inside another, and objects that somebody put there: refused where it shows, left alone where it did not."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atomicpath import aio
from atomicpath._cleaning import remove
from atomicpath._core.environment import use
from atomicpath._core.liveness import untrack_attempt
from atomicpath._core.record import CommitRecord, State, marker_of
from atomicpath._profile.location import Location, locate
from atomicpath._strategies import borders
from atomicpath._strategies.borders import foreign_below
from atomicpath._strategies.outcome import after_commit_point
from atomicpath._strategies.ownership import places_in
from atomicpath.abc import Put, StaleVersionError, Storage, Update
from atomicpath.errors import AbandonedError, AlreadyCommittedError, CommitError, ConflictError, OutcomeUnknownError
from atomicpath.guarantees import Guarantee
from atomicpath_local.storage import LocalStorage
from tests.protocol.worlds import ALL, MARKER, RECORD, Quick, attempt, decoded, trust, written
from tests.support.roots import LocalRoot, MemoryRoot, Root

EVERYWHERE = pytest.mark.parametrize("place", ["local", "memory", "moto"], indirect=True)
STORES = pytest.mark.parametrize("place", ["memory", "moto"], indirect=True)
ON_A_DISK = (
    Guarantee.ATOMIC_WRITE
    | Guarantee.LIST_AFTER_WRITE
    | Guarantee.EXCLUSIVE_CREATE
    | Guarantee.DIRECTORIES
    | Guarantee.SYNC
)


class Job:
    """An attempt by the commit file at one name of a place, and the files that it writes."""

    def __init__(
        self, place: Root, name: str, tmp_path: Path, *, environment: Quick | None = None, **more: Any
    ) -> None:
        self.place, self.name, self.tmp_path = place, name, tmp_path
        self.direct = more.pop("direct", place.kind == "local")
        self.attempt = attempt(
            f"{place.url}/{name}",
            place.storage_options,
            environment=environment or Quick(),
            guarantees=ON_A_DISK if place.kind == "local" else ALL,
            direct=self.direct,
            **more,
        )

    @property
    def token(self) -> str:
        return self.attempt.token

    async def begin(self, *files: str) -> Job:
        await self.attempt.create()
        for name in files:
            await self.write(name)
        return self

    async def write(self, name: str) -> None:
        data = f"{name} of {self.token}".encode()
        if self.direct:
            self.place.write(f"{self.name}/{name}", data)
        else:
            await self.attempt.add(name, written(self.tmp_path, "data", data))

    async def commit(self, *files: str) -> Job:
        await self.begin(*files)
        await self.attempt.finalize()
        return self

    def die(self) -> None:
        """Leave it as a process leaves it that was killed."""
        untrack_attempt(self.token)


def location(place: Root, name: str) -> Location:
    return locate(f"{place.url}/{name}", place.storage_options)


def storage_of(place: Root) -> Storage:
    with use(Quick()):
        return location(place, "x").open()


def crossed(place: Root, name: str) -> None:
    """As if the claim at `name` had looked above itself before the other place's record was there."""
    borders._free.add(location(place, name).parent.identity)


async def copy_in(place: Root, name: str, owner: str) -> None:
    """As an S3 copy does: the object comes with the owner that the original had."""
    await storage_of(place).put(location(place, name).path, b"a copy", mode=Put.CREATE, owner=owner)


def record(place: Root, name: str) -> CommitRecord:
    return decoded(place.read_all(name)[RECORD])


def intact(place: Root, job: Job, *files: str) -> bool:
    there = place.read_all(job.name)
    return (
        decoded(there[RECORD]).state is State.COMMITTED
        and decoded(there[RECORD]).token == job.token
        and there[MARKER] == marker_of(job.token)
        and all(there[name] == f"{name} of {job.token}".encode() for name in files)
    )


# what shows is refused


@EVERYWHERE
@pytest.mark.parametrize("name", ["exp/step_1", "exp/sub/deeper/step_1"])
async def test_a_claim_inside_an_open_attempt_is_refused_and_leaves_nothing(
    place: Root, name: str, tmp_path: Path
) -> None:
    outer = await Job(place, "exp", tmp_path).begin("a")
    before = place.read_all()
    with pytest.raises(ConflictError, match=r"lies inside another place, .*/exp \(an attempt of process") as caught:
        await Job(place, name, tmp_path).begin()
    assert caught.value.record is not None
    assert caught.value.record.token == outer.token
    assert place.read_all() == before
    if place.kind == "local":
        assert not Path(f"{place.url}/exp/sub").exists()
    await outer.attempt.finalize()
    assert intact(place, outer, "a")


@EVERYWHERE
async def test_a_claim_inside_a_committed_directory_is_refused(place: Root, tmp_path: Path) -> None:
    outer = await Job(place, "exp", tmp_path).commit("a")
    before = place.read_all()
    with pytest.raises(ConflictError, match=r"lies inside another place, .*/exp \(committed by process"):
        await Job(place, "exp/step_1", tmp_path).begin()
    assert place.read_all() == before
    assert intact(place, outer, "a")


async def test_a_commit_by_rename_inside_a_committed_directory_is_refused(local_place: LocalRoot) -> None:
    async with aio.commit(f"{local_place.url}/exp") as path:
        Path(path, "a").write_bytes(b"a")
    before = local_place.read_all()
    with pytest.raises(ConflictError, match="lies inside another place"):
        async with aio.commit(f"{local_place.url}/exp/sub/step_1") as path:
            Path(path, "b").write_bytes(b"b")
    assert local_place.read_all() == before


@EVERYWHERE
@pytest.mark.parametrize("committed", [True, False], ids=["committed", "open"])
async def test_a_claim_around_another_place_is_refused_and_names_it(
    place: Root, committed: bool, tmp_path: Path
) -> None:
    inner = Job(place, "exp/sub/step_1", tmp_path)
    await (inner.commit("w") if committed else inner.begin("w"))
    before = place.read_all()
    with pytest.raises(
        ConflictError, match=r"exp/sub/step_1( \(and 1 more\))?, inside it, is another \(.*process"
    ) as caught:
        await Job(place, "exp", tmp_path).begin()
    assert caught.value.record is not None
    assert caught.value.record.token == inner.token
    assert place.read_all() == before


@STORES
async def test_a_former_name_of_the_record_is_a_place_too_if_it_is_a_record(place: Root, tmp_path: Path) -> None:
    await Job(place, "old", tmp_path).commit("w")
    place.write("exp/step_1/commit_record.json", place.read_all("old")[RECORD])
    with pytest.raises(ConflictError, match="exp/step_1, inside it"):
        await Job(place, "exp", tmp_path).begin()
    with pytest.raises(ConflictError, match="lies inside another place"):
        await Job(place, "exp/step_1/sub", tmp_path).begin()
    place.write("mine/commit_record.json", b'{"of": "somebody"}')
    await Job(place, "mine/step_1", tmp_path).commit("w")


async def test_that_nothing_is_above_is_asked_once_for_each_parent(memory_place: MemoryRoot, tmp_path: Path) -> None:
    seen: list[str] = []

    class Counting(Quick):
        async def step(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            seen.append(getattr(function, "__qualname__", ""))
            return await super().step(function, *args, **kwargs)

    counts = []
    for name in ("a/b/step_1", "a/b/step_2", "a/c/step_1"):
        seen.clear()
        await Job(memory_place, name, tmp_path, environment=Counting()).begin()
        counts.append(len(seen))
    ancestors = 3  # the root's own name, a, and a/b
    assert [counts[0] - counts[1], counts[2] - counts[1]] == [2 * ancestors, 2 * ancestors]


def test_which_names_show_another_place() -> None:
    assert places_in([RECORD, "a/b", "commit_record.json", "sub/.atomicpath-tmp-unfinished"]) == {}
    assert places_in([".atomicpath-pending-x/_commit_record.json"]) == {}, "an addition belongs to the directory"
    assert list(places_in(["a/b/_commit_record.json", "c/commit_record.json"])) == ["a/b", "c"]
    assert list(places_in(["a/.atomicpath/step_1.atomicpath-tmp-x.json"])) == ["a/.atomicpath"]
    assert list(places_in(["a/step_1.atomicpath-tmp-x/data"])) == ["a/step_1.atomicpath-tmp-x"]


# two claims that crossed


@EVERYWHERE
async def test_a_place_inside_outlives_an_outer_attempt_that_gives_up(place: Root, tmp_path: Path) -> None:
    outer = await Job(place, "exp", tmp_path).begin("a", "sub/b")
    crossed(place, "exp/step_1")
    inner = await Job(place, "exp/step_1", tmp_path).commit("w", "sub/v")
    await outer.attempt.discard()
    assert intact(place, inner, "w", "sub/v")
    assert all(name.startswith("step_1/") for name in place.read_all("exp")), "what is the outer's own has gone"


@EVERYWHERE
async def test_an_open_attempt_inside_outlives_an_outer_one_that_gives_up(place: Root, tmp_path: Path) -> None:
    outer = await Job(place, "exp", tmp_path).begin("a")
    crossed(place, "exp/step_1")
    inner = await Job(place, "exp/step_1", tmp_path).begin("w")
    await outer.attempt.discard()
    await inner.attempt.finalize()
    assert intact(place, inner, "w")


@STORES
async def test_an_upload_never_replaces_an_object_of_a_place_inside(place: Root, tmp_path: Path) -> None:
    outer = await Job(place, "exp", tmp_path).begin("a")
    crossed(place, "exp/step_1")
    inner = await Job(place, "exp/step_1", tmp_path).commit("weights")
    with pytest.raises(ConflictError, match="step_1, inside it, is another"):
        await outer.write("step_1/weights")
    await outer.attempt.discard()
    assert intact(place, inner, "weights")
    assert {name.partition("/")[0] for name in place.read_all("exp")} == {"step_1"}


@EVERYWHERE
async def test_a_listing_that_makes_the_manifest_refuses_a_place_inside(place: Root, tmp_path: Path) -> None:
    outer = await Job(place, "exp", tmp_path, direct=True).begin("a")
    crossed(place, "exp/step_1")
    inner = await Job(place, "exp/step_1", tmp_path).commit("w")
    with pytest.raises(ConflictError, match="step_1, inside it, is another"):
        await outer.attempt.finalize()
    assert intact(place, inner, "w")
    assert set(place.read_all()) == {f"exp/step_1/{name}" for name in (RECORD, MARKER, "w")}


@EVERYWHERE
async def test_what_a_killed_job_left_around_a_place_is_cleaned_up_without_it(place: Root, tmp_path: Path) -> None:
    outer = await Job(place, "exp", tmp_path).begin("a")
    outer.die()
    crossed(place, "exp/step_1")
    inner = await Job(place, "exp/step_1", tmp_path).commit("w")
    with pytest.raises(ConflictError, match="exp/step_1, inside it"):
        await Job(place, "exp", tmp_path, unsafe_takeover=True).begin()
    assert intact(place, inner, "w")
    (swept,) = [
        one
        for one in await aio.sweep(place.url, older_than=timedelta(0), storage_options=place.storage_options or None)
        if one.path.name == "exp"
    ]
    assert "step_1, inside it" in swept.reason
    assert intact(place, inner, "w")
    if place.kind != "local":  # where an object tells its owner, the killed job's have gone
        assert set(place.read_all("exp")) == {f"step_1/{name}" for name in (RECORD, MARKER, "w")}


async def test_a_place_that_comes_between_the_look_and_the_move_has_its_name_back(
    local_place: LocalRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = await Job(local_place, "exp", tmp_path).begin("a")
    crossed(local_place, "exp/step_1")
    inner = Job(local_place, "exp/step_1", tmp_path)
    move = LocalStorage.rename_directory

    async def come_first(self: LocalStorage, source: str, target: str) -> None:
        monkeypatch.setattr(LocalStorage, "rename_directory", move)
        await inner.commit("w")
        await move(self, source, target)

    monkeypatch.setattr(LocalStorage, "rename_directory", come_first)
    await outer.attempt.discard()
    assert intact(local_place, inner, "w")
    assert local_place.names() == ["exp"]
    assert all(name.startswith("step_1/") for name in local_place.read_all("exp"))


# objects of others


@STORES
async def test_copies_that_kept_their_owner_outlive_an_attempt_that_gives_up(place: Root, tmp_path: Path) -> None:
    first = await Job(place, "step_1", tmp_path).commit("w")
    job = await Job(place, "step_2", tmp_path).begin("a")
    await copy_in(place, "step_2/copied", first.token)
    await job.attempt.discard()
    assert place.read_all("step_2") == {"copied": b"a copy"}


@STORES
async def test_a_copied_marker_outlives_an_attempt_that_gives_up(place: Root, tmp_path: Path) -> None:
    first = await Job(place, "step_1", tmp_path).commit("w")
    job = await Job(place, "step_2", tmp_path).begin("a")
    marker = place.read_all("step_1")[MARKER]
    place.write(f"step_2/{MARKER}", marker)
    await job.attempt.discard()
    assert place.read_all("step_2") == {MARKER: marker}
    assert intact(place, first, "w")


@STORES
async def test_a_copy_where_an_attempt_is_to_write_is_neither_replaced_nor_deleted(place: Root, tmp_path: Path) -> None:
    job = await Job(place, "step_2", tmp_path).begin("a")
    await copy_in(place, "step_2/b", "some-other-token")
    with pytest.raises(ConflictError, match="not the attempt's own: b\\."):
        await job.write("b")
    await job.attempt.discard()
    assert place.read_all("step_2") == {"b": b"a copy"}


@STORES
async def test_a_direct_attempt_that_gives_up_deletes_what_its_user_wrote_and_no_copies(
    place: Root, tmp_path: Path
) -> None:
    job = await Job(place, "step_2", tmp_path, direct=True).begin("a", "sub/b")
    await copy_in(place, "step_2/copied", "some-other-token")
    await job.attempt.discard()
    assert place.read_all("step_2") == {"copied": b"a copy"}


@STORES
async def test_copies_outlive_the_attempt_of_a_killed_job_that_is_taken_over(place: Root, tmp_path: Path) -> None:
    job = await Job(place, "step_2", tmp_path).begin("a")
    job.die()
    await copy_in(place, "step_2/copied", "some-other-token")
    with pytest.raises(ConflictError, match="copied"):
        await Job(place, "step_2", tmp_path).begin()
    assert place.read_all("step_2") == {"copied": b"a copy"}


# chains of take-overs


@STORES
async def test_the_record_names_the_chain_of_attempts_whose_place_was_taken(place: Root, tmp_path: Path) -> None:
    first, second, third = (Job(place, "step_1", tmp_path) for _ in range(3))
    await first.begin("a")
    first.die()
    await second.begin("b")
    second.die()
    await third.begin()
    assert record(place, "step_1").took_over == (first.token, second.token)
    # the first does not know yet, and writes once more
    await first.write("late")
    await first.write("a")
    await third.write("a")
    await third.attempt.discard()
    assert place.read_all() == {}, "of everybody in the chain"
    with pytest.raises(AbandonedError):
        await first.attempt.finalize()


@STORES
async def test_a_late_object_of_the_chain_makes_room_and_the_committed_record_keeps_the_chain(
    place: Root, tmp_path: Path
) -> None:
    first, second, third = (Job(place, "step_1", tmp_path) for _ in range(3))
    await first.begin("a")
    first.die()
    await second.begin()
    second.die()
    await third.begin()
    await first.write("a")
    await third.write("a")
    await third.attempt.finalize()
    assert intact(place, third, "a")
    assert record(place, "step_1").took_over == (first.token, second.token)
    with pytest.raises(AlreadyCommittedError):
        await first.attempt.finalize()


@STORES
async def test_a_late_object_of_an_attempt_outside_of_the_chain_is_foreign(place: Root, tmp_path: Path) -> None:
    first = await Job(place, "step_1", tmp_path).begin("a")
    first.die()
    await (await Job(place, "step_1", tmp_path).begin()).attempt.discard()  # it takes over, and frees the place
    second = await Job(place, "step_1", tmp_path).begin()
    assert record(place, "step_1").took_over == ()
    await first.write("a")
    with pytest.raises(ConflictError, match="a"):
        await second.write("a")
    await second.attempt.discard()
    assert place.read_all("step_1") == {"a": f"a of {first.token}".encode()}


@STORES
async def test_a_removal_of_a_direct_commit_that_was_cut_short_is_ended_by_the_next_attempt(
    place: Root, tmp_path: Path
) -> None:
    old = await Job(place, "step_1", tmp_path, direct=True).commit("a", "sub/b")
    storage, path = storage_of(place), location(place, f"step_1/{RECORD}").path
    await storage.put(path, record(place, "step_1").moved_to(State.DISCARDED).encode(), mode=Put.OVERWRITE)
    untrack_attempt(old.token)
    new = await Job(place, "step_1", tmp_path).commit("c")
    assert intact(place, new, "c")
    assert set(place.read_all("step_1")) == {RECORD, MARKER, "c"}
    assert record(place, "step_1").took_over == (old.token,)


# remove and keep_last


async def committed_around(place: Root, tmp_path: Path, *, inner: str) -> tuple[Job, Job]:
    """A committed directory in which another place is, as where two claims crossed."""
    outer = await Job(place, "step_1", tmp_path).begin("a")
    for_the_inner = Job(place, "step_1/sub", tmp_path)
    if place.kind != "local":
        crossed(place, "step_1/sub")
        await (for_the_inner.commit("w") if inner == "committed" else for_the_inner.begin("w"))
        await outer.attempt.finalize()
    else:
        await outer.attempt.finalize()
        crossed(place, "step_1/sub")
        await (for_the_inner.commit("w") if inner == "committed" else for_the_inner.begin("w"))
    return outer, for_the_inner


@EVERYWHERE
@pytest.mark.parametrize("inner", ["committed", "open"])
async def test_what_has_another_place_in_it_is_not_removed(place: Root, inner: str, tmp_path: Path) -> None:
    await committed_around(place, tmp_path, inner=inner)
    before = place.read_all()
    if place.kind != "local":
        trust(f"{place.url}/step_1", place.storage_options, ALL)
    with pytest.raises(ConflictError, match=r"not all its own \(sub/.*yourself"):
        await remove(location(place, "step_1"))
    assert place.read_all() == before


@EVERYWHERE
async def test_keep_last_keeps_what_has_others_files_in_it_says_so_and_goes_on(
    place: Root, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if place.kind != "local":
        trust(f"{place.url}/step_1", place.storage_options, ALL)
    for step in (1, 2, 3):
        await Job(place, f"step_{step}", tmp_path).commit("a")
    place.write("step_1/log.txt", b"of the user")
    with caplog.at_level(logging.WARNING, logger="atomicpath"):
        gone = await aio.keep_last(place.url, 1, storage_options=place.storage_options or None)
    assert [one.name for one in gone] == ["step_2"]
    assert "log.txt" in caplog.text
    assert place.names() == ["step_1", "step_3"]
    assert place.read_all("step_1")["log.txt"] == b"of the user"


async def test_what_comes_between_the_look_and_the_move_of_a_removal_puts_the_directory_back(
    local_place: LocalRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Job(local_place, "step_1", tmp_path).commit("a")
    move = LocalStorage.rename_directory

    async def come_first(self: LocalStorage, source: str, target: str) -> None:
        monkeypatch.setattr(LocalStorage, "rename_directory", move)
        local_place.write("step_1/log.txt", b"of the user")
        await move(self, source, target)

    monkeypatch.setattr(LocalStorage, "rename_directory", come_first)
    with pytest.raises(ConflictError, match=r"log\.txt"):
        await remove(location(local_place, "step_1"))
    assert set(local_place.read_all("step_1")) == {RECORD, MARKER, "a", "log.txt"}
    assert await aio.is_committed(f"{local_place.url}/step_1")


@STORES
async def test_what_comes_in_while_a_directory_is_being_removed_stays(
    place: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Job(place, "step_1", tmp_path).commit("a")
    trust(f"{place.url}/step_1", place.storage_options, ALL)
    storage = storage_of(place)
    put = type(storage).put

    async def come_first(self: Storage, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str | None:
        if isinstance(mode, Update):
            monkeypatch.setattr(type(storage), "put", put)
            await copy_in(place, "step_1/copied", "some-other-token")
        return await put(self, path, data, mode=mode, owner=owner)

    monkeypatch.setattr(type(storage), "put", come_first)
    with pytest.raises(ConflictError, match="copied") as caught:
        await remove(location(place, "step_1"))
    assert "is removed; what came in" in "".join(caught.value.__notes__)
    assert place.read_all("step_1") == {"copied": b"a copy"}


async def test_foreign_below_names_other_places_first_and_not_what_belongs_to_the_directory(
    local_place: LocalRoot, tmp_path: Path
) -> None:
    await Job(local_place, "step_1", tmp_path).commit("a", "sub/b")
    for name in ("sub/z", ".atomicpath-pending-x/_commit_record.json", ".atomicpath-pending-x/more"):
        local_place.write(f"step_1/{name}", b"x")
    local_place.write("step_1/eval/_commit_record.json", b"x")
    local_place.write("step_1/eval/data", b"x")
    local_place.write("step_1/.atomicpath/sub.atomicpath-tmp-x.json", b"x")
    here = location(local_place, "step_1")
    assert await foreign_below(here.open(), here, record(local_place, "step_1")) == ["eval/", ".atomicpath/", "sub/z"]


# after the commit point


async def test_a_marker_on_a_disk_that_could_not_be_synced_is_an_unknown_outcome(
    local_place: LocalRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await Job(local_place, "step_1", tmp_path).begin("a")
    put = LocalStorage.put

    async def fail_after(self: LocalStorage, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> None:
        await put(self, path, data, mode=mode, owner=owner)
        if mode is Put.CREATE:
            raise OSError(errno.EIO, "the directory could not be synced")

    monkeypatch.setattr(LocalStorage, "put", fail_after)
    with pytest.raises(OutcomeUnknownError, match=r"visible.*power cut"):
        await job.attempt.finalize()
    assert intact(local_place, job, "a"), "nothing was removed"


async def test_a_lock_that_cannot_be_let_go_of_after_the_commit_is_a_warning(
    local_place: LocalRoot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = await Job(local_place, "step_1", tmp_path).begin("a")
    held = job.attempt._hold
    assert held is not None
    released = held.release
    held.release = _failing(released)  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, logger="atomicpath"):
        await job.attempt.finalize()
    assert "is held until this process ends" in caplog.text
    assert intact(local_place, job, "a")
    released()


async def test_a_lock_that_cannot_be_let_go_of_masks_no_error(local_place: LocalRoot, tmp_path: Path) -> None:
    job = await Job(local_place, "step_1", tmp_path).begin("a")
    Path(local_place.url, "step_1", "link").symlink_to("nowhere")
    held = job.attempt._hold
    assert held is not None
    held.release = _failing(held.release)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="symbolic link"):
        await job.attempt.finalize()


def _failing(function: Callable[[], None]) -> Callable[[], None]:
    def fail() -> None:
        function()
        raise OSError(errno.EIO, "as the test asked")

    return fail


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), ValueError("x"), CommitError("x"), StaleVersionError("x")])
def test_whatever_fails_after_the_commit_point_is_an_unknown_outcome(error: Exception, tmp_path: Path) -> None:
    with (
        pytest.raises(OutcomeUnknownError, match=r"visible.*is_committed") as caught,
        after_commit_point(locate(tmp_path / "x")),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_interruptions_and_unknown_outcomes_pass_the_commit_point_as_they_are(tmp_path: Path) -> None:
    for error in (KeyboardInterrupt(), SystemExit(3), OutcomeUnknownError("known to be unknown")):
        with pytest.raises(type(error)) as caught, after_commit_point(locate(tmp_path / "x")):
            raise error
        assert caught.value is error
