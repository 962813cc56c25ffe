"""What a storage raises comes out of every face as an error of ours; what is the user's own comes out as it is."""

from __future__ import annotations

import asyncio
import errno
import inspect
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import pytest
from upath import UPath

import atomicpath
from atomicpath import AtomicRenameTemporaryPath, aio
from atomicpath._core import runner
from atomicpath._core.environment import Environment, use
from tests.support.roots import LocalRoot, MemoryRoot

P = ParamSpec("P")
T = TypeVar("T")


class Failing(Environment):
    """Every step fails."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        raise type(self.error)(*self.error.args, self.error.filename)


def _at(url: str, path: Path) -> dict[str, tuple[Any, ...]]:
    """The functions of both faces that look at a storage, with arguments."""
    root = url.rpartition("/")[0]
    return {
        **dict.fromkeys(("resolve", "is_committed", "read_record", "verify", "remove", "explain"), (url,)),
        **dict.fromkeys(("committed", "latest", "attempts", "sweep"), (root,)),
        "keep_last": (root, 1),
        "profile": (url,),
        "put": (path, url),
        "get": (url, path / "copy"),
        "begin": (f"{root}/step_2",),
        "alias": (f"{root}/best", url),
        "copy": (url, f"{root}/step_2"),
        "fetch_latest": (root, path / "copies"),
        "retain": (root,),
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "data").write_bytes(b"x")
    return path


def _expect(error: BaseException, kind: type[OSError], place: str) -> None:
    assert isinstance(error, atomicpath.AtomicPathError)
    assert isinstance(error, kind)
    assert error.errno == errno.EIO
    assert place.rpartition("/")[0] in str(error)
    assert "says the test" in str(error)
    assert type(error.__cause__) is kind


@pytest.mark.parametrize("name", _at("/x/y", Path("/z")))
def test_a_storage_that_fails_is_an_error_of_ours_in_both_faces(name: str, local: LocalRoot, source: Path) -> None:
    url = local / "step_1"
    with atomicpath.commit(url) as path:
        (path / "data").write_bytes(b"1")
    arguments = _at(url, source)[name]
    named = {"keep_last": 1} if name == "retain" else {}
    with use(Failing(OSError(errno.EIO, "it fails, says the test"))):
        with pytest.raises(atomicpath.StorageError) as raised:
            getattr(atomicpath, name)(*arguments, **named)
        _expect(raised.value, OSError, url)
        with pytest.raises(atomicpath.StorageError) as raised:
            asyncio.run(getattr(aio, name)(*arguments, **named))
        _expect(raised.value, OSError, url)
    assert atomicpath.verify(url).ok


def test_every_function_that_looks_at_a_storage_is_tried_above() -> None:
    functions = {name for name in aio.__all__ if inspect.iscoroutinefunction(getattr(aio, name))}
    assert functions - {"create_all", "on_commit_callback", "join"} == set(_at("/x/y", Path("/z")))


async def test_a_commit_and_a_snapshot_that_cannot_begin_say_so_in_our_words(local: LocalRoot) -> None:
    url = local / "step_1"
    with use(Failing(OSError(errno.EIO, "it fails, says the test"))):
        with pytest.raises(atomicpath.StorageError) as raised:
            async with aio.commit(url):
                pass
        _expect(raised.value, OSError, url)
        with pytest.raises(atomicpath.StorageError) as raised, atomicpath.commit(url):
            pass
        _expect(raised.value, OSError, url)
        with pytest.raises(atomicpath.StorageError) as raised:
            await atomicpath.Snapshot(url).create_snapshot()
        _expect(raised.value, OSError, url)
        attempt = AtomicRenameTemporaryPath.from_final(UPath(url))
        with pytest.raises(atomicpath.StorageError) as raised:
            await attempt.create()
        _expect(raised.value, OSError, url)
        with pytest.raises(atomicpath.StorageError) as raised:
            await aio.create_all([AtomicRenameTemporaryPath.from_final(UPath(url))])
    assert local.names() == []


@pytest.mark.parametrize("kind", [TimeoutError, ConnectionResetError, BlockingIOError, PermissionError])
def test_the_builtin_class_and_the_details_stay_and_travel_to_other_processes(
    kind: type[OSError], local: LocalRoot
) -> None:
    with (
        use(Failing(kind(errno.EIO, "it fails", "/the/file"))),
        pytest.raises(atomicpath.AtomicPathError, match="it fails: '/the/file'") as raised,
    ):
        atomicpath.remove(local / "step_1")
    ours = atomicpath.AccessError if kind is PermissionError else atomicpath.StorageError
    raised.value.add_note("a note")
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
        assert isinstance(error, kind)
        assert isinstance(error, ours)
        assert (error.errno, error.strerror, error.filename) == (errno.EIO, "it fails", "/the/file")
        assert str(error) == str(raised.value)
        assert error.__notes__ == ["a note"]


class Own(ConnectionError):
    """An error of the user's own."""


def test_what_the_users_own_code_raises_comes_out_as_it_is(memory: MemoryRoot, local: LocalRoot) -> None:
    own = Own("by the user")

    def fail(*_: object) -> None:
        raise own

    class Refusing(AtomicRenameTemporaryPath):
        async def create(self) -> UPath:
            raise own

    with pytest.raises(Own) as raised, atomicpath.commit(memory / "step_1", progress=fail) as path:
        (path / "data").write_bytes(b"1")
    assert raised.value is own
    with pytest.raises(Own) as raised, atomicpath.commit(local / "step_1", temporary_path_class=Refusing):
        pass
    assert raised.value is own
    with pytest.raises(Own) as raised:
        atomicpath.create_all([Refusing.from_final(UPath(local / "step_1"))])
    assert raised.value is own
    with pytest.raises(Own) as raised, atomicpath.commit(local / "step_1"):
        raise own
    assert raised.value is own
    assert memory.names() == local.names() == []


def test_a_call_for_which_no_event_loop_can_be_started_says_what_to_do(
    memory: MemoryRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(runner.anyio, "run", fail)
    for call in (lambda: atomicpath.latest(memory.url), lambda: atomicpath.sweep(memory.url, older_than=timedelta(0))):
        with pytest.raises(atomicpath.StorageError, match=r"Too many open files.*ulimit -n"):
            call()


async def test_the_deadline_of_a_caller_is_no_error_of_the_storage(local: LocalRoot) -> None:
    class Slow(Environment):
        async def step(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            await anyio.sleep(3600)

    with use(Slow()), pytest.raises(TimeoutError) as raised, anyio.fail_after(0.01):
        await aio.is_committed(local / "step_1")
    assert not isinstance(raised.value, atomicpath.AtomicPathError)
