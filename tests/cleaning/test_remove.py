"""Removal: whole or not at all for readers, three outcomes, and never what another has put in the place."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

import atomicpath
from atomicpath import aio
from atomicpath._core import environment
from atomicpath._core.layout import DISCARDED_SUFFIX
from atomicpath._core.liveness import proof_of_life
from atomicpath._core.record import CommitRecord, State
from atomicpath._profile.location import locate
from atomicpath._strategies.directory_lock import hold_final
from atomicpath._strategies.discard import CleaningAttemptRecord, delete_below
from atomicpath._strategies.ownership import Ownership, Whose
from atomicpath.abc import Entry
from atomicpath.errors import AbandonedError
from atomicpath.guarantees import Guarantee
from tests.cleaning.leftovers import MARKER, NOW, RECORD, commit, from_elsewhere, options_of, rewrite, sweep, told
from tests.protocol.worlds import ALL, decoded, swaps_to, trust
from tests.support.processes import content_of
from tests.support.proxy import Proxy, Request, Rule, answer_after, drop_reply, drop_request, refuse
from tests.support.roots import LocalRoot, MemoryRoot, Root, S3Root

ALL_PLACES = pytest.mark.parametrize("place", ["local", "memory", "moto"], indirect=True)
BOTH = pytest.mark.parametrize("place", ["local", "moto"], indirect=True)


def remove(place: Root, name: str = "step_1") -> None:
    atomicpath.remove(f"{place.url}/{name}", **options_of(place))


@ALL_PLACES
@pytest.mark.parametrize("direct", [False, True], ids=["staged", "direct"])
def test_a_removed_directory_is_gone_with_all_that_was_in_it(place: Root, direct: bool) -> None:
    commit(place, "step_1", direct=direct)
    commit(place, "step_10")
    kept = place.read_all("step_10")
    remove(place)
    assert place.names() == ["step_10"]
    assert place.read_all("step_10") == kept
    with pytest.raises(atomicpath.NotCommittedError):
        remove(place)
    commit(place, "step_1", direct=direct)
    assert atomicpath.verify(f"{place.url}/step_1", **options_of(place)).ok


@ALL_PLACES
@pytest.mark.parametrize("direct", [False, True], ids=["staged", "direct"])
def test_files_that_others_put_there_later_are_named_and_nothing_is_removed(place: Root, direct: bool) -> None:
    commit(place, "step_1", direct=direct)
    for name in ("added/later", "notes", "tail", "zeros"):
        place.write(f"step_1/{name}", b"by the user")
    before = place.read_all()
    with pytest.raises(atomicpath.ConflictError, match=r"added/later, notes, tail and 1 more.*yourself"):
        remove(place)
    assert place.read_all() == before


@ALL_PLACES
def test_what_is_not_committed_by_us_is_not_removed(place: Root) -> None:
    place.write("theirs/commit_success.txt", b"of another tool")
    place.write("logs/events", b"x")
    commit(place, "step_1")
    rewrite(place, f"step_1/{RECORD}", state=State.WRITING)
    before = place.read_all()
    with pytest.raises(atomicpath.ValidationError, match="another tool"):
        remove(place, "theirs")
    for name in ("logs", "step_1", "nothing"):
        with pytest.raises(atomicpath.NotCommittedError):
            remove(place, name)
    assert place.read_all() == before


@pytest.mark.parametrize("place", ["memory", "moto"], indirect=True)
@pytest.mark.parametrize("direct", [False, True], ids=["staged", "direct"])
def test_a_marker_that_comes_after_the_removal_keeps_nobody_from_the_place(place: Root, direct: bool) -> None:
    """Of a writer that slept between its commit and its marker, or of a sweep that adds one."""
    commit(place, "step_1")
    late = place.read_all("step_1")[MARKER]
    remove(place)
    place.write(f"step_1/{MARKER}", late)
    commit(place, "step_1", direct=direct)
    assert place.read_all("step_1")[MARKER] != late
    assert atomicpath.verify(f"{place.url}/step_1", **options_of(place)).ok


async def test_one_who_removes_too_late_does_not_let_go_of_what_another_in_this_process_removes(
    memory_place: MemoryRoot,
) -> None:
    """Else a commit beside them would take over at once, in the middle of the deletes, instead of after a lease."""
    await aio.put(Path(__file__).parent, f"{memory_place.url}/step_1")
    location = locate(f"{memory_place.url}/step_1")
    storage = location.open()
    seen = await storage.get(location.child(RECORD).path)
    record = CommitRecord.decode(seen.data, where="the test")

    async def clear() -> None:
        register = CleaningAttemptRecord(storage, location, seen, record, conditional_delete=True)
        ownership = TooLate.of(storage, location, record)
        await delete_below(storage, location, register, ownership=ownership, was_committed=True)

    class TooLate(Ownership):
        async def judge(self, entry: Entry) -> Whose:
            with pytest.raises(AbandonedError):
                await clear()
            now = CommitRecord.decode((await storage.get(location.child(RECORD).path)).data, where="the test")
            assert proof_of_life(storage.environment, now) is True
            return Whose.OURS

    await clear()
    assert memory_place.names() == []


def test_the_parent_of_a_directory_with_the_longest_name_is_no_obstacle(local_place: LocalRoot) -> None:
    name = "x" * 219  # an attempt's name is 36 bytes longer
    commit(local_place, name)
    remove(local_place, name)
    assert local_place.names() == []


def test_a_directory_that_another_holds_is_a_conflict(local_place: LocalRoot) -> None:
    commit(local_place, "step_1")
    location = locate(f"{local_place.url}/step_1")

    async def main() -> None:
        held = await hold_final(location.open(), location)
        assert held.excludes_others
        with pytest.raises(atomicpath.ConflictError, match="another process"):
            await aio.remove(location.upath)
        await held.release()

    anyio.run(main)
    assert atomicpath.verify(location.upath).ok
    remove(local_place)


def test_where_half_of_it_could_be_seen_it_is_refused(moto_place: S3Root) -> None:
    url, lacking = f"{moto_place.url}/step_1", Guarantee.COMPARE_AND_SWAP
    commit(moto_place, "step_1")
    before = moto_place.read_all()
    trust(url, moto_place.storage_options, ALL & ~lacking, refuted=lacking)
    try:
        with pytest.raises(atomicpath.GuaranteeError, match=str(lacking)):
            remove(moto_place)
    finally:
        trust(url, moto_place.storage_options, ALL)
    assert moto_place.read_all() == before


# readers


@BOTH
def test_sweep_deletes_version_being_read(place: Root, tmp_path: Path) -> None:
    """A reader gets the whole, or is told that nothing is committed there."""
    seen: list[str] = []
    for number in range(6):
        commit(place, "step_1")
        begun = threading.Event()

        def read(number: int = number, begun: threading.Event = begun) -> None:
            for again in range(8):
                target = tmp_path / f"{number}-{again}"
                begun.set()
                try:
                    atomicpath.get(f"{place.url}/step_1", target, **options_of(place))
                except atomicpath.NotCommittedError:
                    seen.append("nothing")
                    assert not target.exists()
                except Exception as error:
                    seen.append(repr(error))
                else:
                    seen.append("whole")
                    assert {name: (target / name).read_bytes() for name in content_of("step_1")} == content_of("step_1")

        reader = threading.Thread(target=read)
        reader.start()
        begun.wait()
        remove(place)
        reader.join()
    assert {*seen} <= {"whole", "nothing"}
    assert "nothing" in seen


@BOTH
def test_whatever_a_reader_is_at_when_it_is_removed_it_is_told_so(
    place: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(place, "step_1")
    storage = type(locate(place.url, place.storage_options).open())
    download = storage.download

    async def too_late(self: Any, path: str, target: Path) -> Any:
        await aio.remove(f"{place.url}/step_1", **options_of(place)) if place.names() else None
        return await download(self, path, target)

    monkeypatch.setattr(storage, "download", too_late)
    with pytest.raises(atomicpath.NotCommittedError):
        atomicpath.get(f"{place.url}/step_1", tmp_path / "copy", **options_of(place))


# on a store, request by request


@pytest.fixture
def options(proxy: Proxy) -> dict[str, Any]:
    retries = {"retries": {"total_max_attempts": 1, "mode": "legacy"}}
    return {"endpoint_url": proxy.url, "key": "key", "secret": "secret", "config_kwargs": retries}


@pytest.fixture
def url(moto_place: S3Root, options: dict[str, Any]) -> str:
    commit(moto_place, "step_1")
    final = f"{moto_place.url}/step_1"
    trust(final, options, ALL)
    return final


def deletes(name: str) -> Callable[[Request], bool]:
    return lambda request: request.method == "DELETE" and request.path.endswith(name)


def test_the_record_is_moved_first_then_the_marker_goes_then_the_rest(
    moto_place: S3Root, url: str, options: dict[str, Any], proxy: Proxy
) -> None:
    atomicpath.remove(url, storage_options=options)
    writes = [
        (request.method, request.path.partition("step_1/")[2], bool(request.conditions))
        for request in proxy.requests
        if request.method in ("PUT", "DELETE")
    ]
    assert writes[:2] == [("PUT", RECORD, True), ("DELETE", MARKER, True)]
    assert writes[-1] == ("DELETE", RECORD, True)
    assert all(conditional for _, _, conditional in writes)
    assert moto_place.read_all() == {}


@pytest.mark.parametrize(
    "action", [drop_reply, drop_request, answer_after(500, "InternalError"), refuse(503, "SlowDown")]
)
def test_a_removal_whose_swap_has_no_answer_is_settled(
    moto_place: S3Root, url: str, options: dict[str, Any], proxy: Proxy, action: Any
) -> None:
    proxy.rules.append(Rule(match=swaps_to("discarded"), action=action))
    atomicpath.remove(url, storage_options=options)
    assert moto_place.read_all() == {}


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
def test_a_removal_of_which_the_store_says_nothing_is_unknown_and_deletes_nothing(
    moto_place: S3Root, url: str, options: dict[str, Any], proxy: Proxy, done: bool
) -> None:
    before = moto_place.read_all()
    moved = threading.Event()

    def silent(request: Request, send: Any) -> None:
        moved.set()
        if done and request.method == "PUT":
            send(request)

    proxy.rules.append(Rule(match=swaps_to("discarded"), action=silent, times=None))
    proxy.rules.append(Rule(match=lambda request: moved.is_set(), action=drop_request, times=None))
    with pytest.raises(atomicpath.OutcomeUnknownError, match="look again later"):
        atomicpath.remove(url, storage_options=options)
    proxy.rules.clear()
    after = moto_place.read_all()
    assert {name: data for name, data in after.items() if not name.endswith(RECORD)} == {
        name: data for name, data in before.items() if not name.endswith(RECORD)
    }
    assert (after == before) is not done
    if done:
        with pytest.raises(atomicpath.NotCommittedError, match="being removed"):
            remove(moto_place)
        assert told(sweep(moto_place)) == [("step_1", "discarded", "remove", True)], "the next sweep ends it"
    else:
        remove(moto_place)
    assert moto_place.read_all() == {}


def test_a_removal_that_meets_another_commit_of_the_name_leaves_it(
    moto_place: S3Root, url: str, options: dict[str, Any], proxy: Proxy
) -> None:
    def replaced(request: Request, send: Any) -> Any:
        remove(moto_place)
        commit(moto_place, "step_1", metadata={"second": True})
        return send(request)

    proxy.rules.append(Rule(match=swaps_to("discarded"), action=replaced))
    with pytest.raises(atomicpath.ConflictError, match="changed meanwhile"):
        atomicpath.remove(url, storage_options=options)
    assert atomicpath.verify(url, **options_of(moto_place)).ok
    assert atomicpath.read_record(url, **options_of(moto_place)).metadata == {"second": True}


def test_a_sweeper_never_adopts_a_holder_that_has_renewed(
    moto_place: S3Root, url: str, options: dict[str, Any], proxy: Proxy
) -> None:
    rewrite(moto_place, f"step_1/{RECORD}", state=State.WRITING, committed=None)
    from_elsewhere(moto_place, f"step_1/{RECORD}")

    def renewed(request: Request, send: Any) -> Any:
        from_elsewhere(moto_place, f"step_1/{RECORD}", lease=7.0)
        return send(request)

    before = moto_place.read_all()
    proxy.rules.append(Rule(match=swaps_to("discarded"), action=renewed))
    (swept,) = atomicpath.sweep(moto_place.url, older_than=NOW, storage_options=options)
    assert (swept.action, swept.done) == ("keep", False)
    assert "moved meanwhile" in swept.reason
    assert decoded(moto_place.read_all("step_1")[RECORD]).state is State.WRITING
    assert moto_place.read_all().keys() == before.keys()


@pytest.mark.parametrize("direct", [False, True], ids=["staged", "direct"])
def test_the_next_writer_of_the_name_ends_a_removal_that_was_cut_short(memory_place: MemoryRoot, direct: bool) -> None:
    """Of a directory that a user wrote by himself, too: nobody writes there any more."""
    commit(memory_place, "step_1", direct=direct)
    rewrite(memory_place, f"step_1/{RECORD}", state=State.DISCARDED)
    commit(memory_place, "step_1", direct=direct)
    assert atomicpath.verify(f"{memory_place.url}/step_1").ok


@pytest.mark.parametrize("direct", [False, True], ids=["staged", "direct"])
def test_the_next_writer_of_the_name_leaves_what_the_removed_directory_did_not_name(
    memory_place: MemoryRoot, direct: bool
) -> None:
    commit(memory_place, "step_1", direct=direct)
    memory_place.write("step_1/added", b"by the user")
    rewrite(memory_place, f"step_1/{RECORD}", state=State.DISCARDED)
    with pytest.raises(atomicpath.ConflictError, match="added"):
        commit(memory_place, "step_1", direct=direct)
    assert memory_place.read_all("step_1") == {"added": b"by the user"}


def test_of_many_removers_one_removes(memory_place: MemoryRoot) -> None:
    for _ in range(20):
        commit(memory_place, "step_1")
        outcomes: list[str] = []

        def one(outcomes: list[str] = outcomes) -> None:
            with suppress(atomicpath.NotCommittedError):
                remove(memory_place)
                outcomes.append("removed")

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == ["removed"]
        assert memory_place.read_all() == {}


class Breaking(environment.Environment):
    """From the first call on whose arguments match, once, and for as many as `times`, it fails."""

    def __init__(self, name: str, times: int = 1) -> None:
        self.name = name
        self.times = times

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        moved = any(isinstance(arg, str) and arg.endswith(DISCARDED_SUFFIX) for arg in args)
        if moved and self.times and getattr(function, "__name__", "") == self.name:
            self.times -= 1
            raise OSError(errno.EIO, "it fails, says the test")
        return function(*args, **kwargs)


def test_a_removal_that_cannot_look_at_what_it_has_moved_is_undone(local_place: LocalRoot) -> None:
    commit(local_place, "step_1")
    before = local_place.read_all()
    with environment.use(Breaking("_scan")), pytest.raises(atomicpath.StorageError, match="says the test") as raised:
        remove(local_place)
    assert "is removed for readers" not in "".join(getattr(raised.value, "__notes__", ()))
    assert local_place.read_all() == before
    assert atomicpath.verify(local_place / "step_1").ok
    remove(local_place)
    assert local_place.names() == []


def test_a_removal_that_cannot_delete_what_it_has_moved_says_that_readers_have_lost_it(local_place: LocalRoot) -> None:
    commit(local_place, "step_1")
    with environment.use(Breaking("open")), pytest.raises(atomicpath.StorageError) as raised:
        remove(local_place)
    assert "is removed for readers" in "".join(raised.value.__notes__)
    assert not atomicpath.is_committed(local_place / "step_1")
    assert [one.done for one in sweep(local_place)] == [True]
    assert local_place.names() == []
