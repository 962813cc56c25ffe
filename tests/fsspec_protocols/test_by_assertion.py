"""Protocols of fsspec's without a plug-in: refused, used by assertion, and refuted where the assertion is wrong."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.registry import _registry
from upath import UPath
from upath.registry import register_implementation

import atomicpath
from atomicpath import Guarantee, aio
from atomicpath._profile.location import locate
from atomicpath.abc import AttemptOptions
from atomicpath.storage import fsspec_calls, fsspec_storage
from tests.fsspec_protocols import classes

WRITING = Guarantee.ATOMIC_WRITE | Guarantee.LIST_AFTER_WRITE | Guarantee.EXCLUSIVE_CREATE
FILES = {"a b.bin": b"1", "sub/ünï%41.bin": b"22", "deep/er/empty": b""}

Serve = Callable[[type[Any]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Register a class, with files of its own, and give a root on it."""
    registry: dict[str, Any] = _registry

    def register(kind: type[Any]) -> str:
        protocol = kind.protocol if isinstance(kind.protocol, str) else kind.protocol[0]
        own: dict[str, Any] = {"store": {}, "pseudo_dirs": [""], "made": 0, "instances": set(), "loops": set()}
        registry[protocol] = type(kind.__name__, (kind,), own)
        register_implementation(protocol, UPath, clobber=True)  # else universal-pathlib warns that it knows none
        return f"{protocol}://run-{uuid.uuid4().hex[:8]}"  # findings are kept by place, for the life of the process

    before = dict(registry)
    yield register
    registry.clear()
    registry.update(before)


def class_of(root: str) -> Any:
    return fsspec.get_filesystem_class(root.partition("://")[0])


def files(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    return tmp_path / "tree"


def got(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_without_an_assertion_it_is_refused_with_what_to_assert_and_nothing_is_asked(serve: Serve) -> None:
    root = serve(classes.Shelf)
    with pytest.raises(atomicpath.GuaranteeError) as caught, atomicpath.commit(f"{root}/step_1"):
        pytest.fail("the block was entered")
    wanted = "guarantees=Guarantee.ATOMIC_WRITE | Guarantee.LIST_AFTER_WRITE | Guarantee.EXCLUSIVE_CREATE"
    assert wanted in str(caught.value)
    assert class_of(root).made == 0


def test_by_assertion_it_is_committed_read_and_verified(serve: Serve, tmp_path: Path) -> None:
    root = serve(classes.Shelf)
    atomicpath.put(files(tmp_path), f"{root}/step_1", guarantees=WRITING, checksums=True)
    with pytest.raises(atomicpath.AlreadyCommittedError):
        atomicpath.put(files(tmp_path), f"{root}/step_1", guarantees=WRITING)
    assert atomicpath.verify(f"{root}/step_1", checksums=True).ok
    newest = atomicpath.latest(root)
    assert newest is not None
    assert newest.name == "step_1"
    assert got(atomicpath.get(newest.path, tmp_path / "got")).items() >= FILES.items()
    assert sorted(name for name in class_of(root).store if "/.atomicpath/" in name) == []


def test_a_block_that_raises_leaves_nothing(serve: Serve) -> None:
    root = serve(classes.Shelf)
    with pytest.raises(ZeroDivisionError), atomicpath.commit(f"{root}/step_1", guarantees=WRITING) as path:
        (path / "half").write_bytes(b"x")
        raise ZeroDivisionError
    assert class_of(root).store == {}


def test_of_many_threads_one_commits(serve: Serve) -> None:
    root = serve(classes.AsyncShelf)
    told: list[str] = []

    def commit(writer: int) -> None:
        try:
            with atomicpath.commit(f"{root}/step_1", guarantees=WRITING) as path:
                (path / "who").write_text(str(writer))
            told.append(str(writer))
        except (atomicpath.AlreadyCommittedError, atomicpath.ConflictError):
            pass

    threads = [threading.Thread(target=commit, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [class_of(root).store[f"{root.partition('://')[2]}/step_1/who"].decode()] == told


def test_what_looks_and_then_writes_is_refuted(serve: Serve) -> None:
    root = serve(classes.ChecksThenWrites)
    with (
        pytest.raises(atomicpath.GuaranteeError, match="EXCLUSIVE_CREATE, which was refuted") as caught,
        atomicpath.commit(f"{root}/step_1", guarantees=WRITING),
    ):
        pytest.fail("the block was entered")
    assert "6 of 6 concurrent creations of one name succeeded" in str(caught.value)
    assert class_of(root).store == {}


def test_a_rename_that_copies_cannot_be_asserted(serve: Serve) -> None:
    root = serve(classes.Shelf)
    asserted = atomicpath.AtomicRenameTemporaryPath.requires | Guarantee.DIRECTORIES
    with (
        pytest.raises(atomicpath.GuaranteeError, match="fsspec's mv copies"),
        atomicpath.commit(f"{root}/step_1", guarantees=asserted),
    ):
        pytest.fail("the block was entered")
    assert class_of(root).made == 0


@pytest.mark.parametrize("protocol", ["dir", "simplecache", "filecache", "blockcache", "zip", "tar", "reference"])
@pytest.mark.parametrize("chain", ["{}://run/step_1", "{}::s3://bucket/run/step_1"])
def test_what_lies_over_another_store_is_refused_with_the_reason(protocol: str, chain: str) -> None:
    url = chain.format(protocol)
    with (
        pytest.raises(atomicpath.ValidationError, match="does not pass on what the store below guarantees"),
        atomicpath.commit(url, guarantees=WRITING),
    ):
        pytest.fail("the block was entered")


def test_so_it_is_under_another_name(serve: Serve) -> None:
    root = serve(type("Lie", (DirFileSystem,), {"protocol": "shelf"}))
    with pytest.raises(atomicpath.ValidationError, match="lays one file system over another"):
        atomicpath.is_committed(f"{root}/step_1", storage_options={"fs": fsspec.filesystem("memory"), "path": "/x"})


@pytest.mark.parametrize("options", [{}, {"asynchronous": True, "loop": None, "skip_instance_cache": False}])
async def test_an_asynchronous_class_works_in_any_event_loop(
    serve: Serve, tmp_path: Path, options: dict[str, Any], anyio_backend: str
) -> None:
    root = serve(classes.AsyncShelf)
    known: dict[str, Any] = {"guarantees": WRITING | Guarantee.EXCLUSIVE_MULTIPART, "storage_options": options}
    await aio.put(files(tmp_path), f"{root}/step_1", **known)
    assert (await aio.verify(f"{root}/step_1", storage_options=options)).ok
    await aio.get(f"{root}/step_1", tmp_path / "got", storage_options=options)
    assert got(tmp_path / "got").items() >= FILES.items()
    assert threading.get_ident() not in class_of(root).loops, "it ran in the caller's own event loop"


@pytest.mark.parametrize("kind", [classes.Stale, classes.StaleWithACacheOfItsOwn])
def test_no_listing_is_from_a_cache(serve: Serve, kind: type[Any]) -> None:
    root = serve(kind)
    assert atomicpath.latest(root) is None
    for step in (1, 2):
        with atomicpath.commit(f"{root}/step_{step}", guarantees=WRITING) as path:
            (path / "file").write_bytes(b"x")
        assert [commit.step for commit in atomicpath.committed(root)] == list(range(1, step + 1))
    del class_of(root).store[f"/{root.partition('://')[2]}/step_2/file"]
    assert atomicpath.verify(f"{root}/step_2").missing == ("file",)


def test_an_instance_that_blocks_makes_one_call_at_a_time(serve: Serve) -> None:
    root = serve(classes.OneAtATime)
    with atomicpath.commit(f"{root}/step_1", guarantees=WRITING) as path:
        for number in range(50):
            (path / str(number)).write_bytes(b"x")
    assert class_of(root).clashes == 0
    assert 1 <= len(class_of(root).instances) <= fsspec_calls._AT_ONCE


def test_a_call_without_an_answer_ends(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    root = serve(classes.Silent)
    classes.Silent.answers.clear()
    monkeypatch.setattr(fsspec_calls, "_PATIENCE", 0.2)
    try:
        with pytest.raises(atomicpath.StorageError, match="no answer within") as caught:
            atomicpath.is_committed(f"{root}/step_1")
        assert isinstance(caught.value, TimeoutError)
    finally:
        classes.Silent.answers.set()
    assert not atomicpath.is_committed(f"{root}/step_1")


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (ValueError(classes.SECRET), atomicpath.StorageError, "it failed with ValueError"),
        (KeyError(classes.SECRET), atomicpath.StorageError, "it failed with KeyError"),
        (OSError(5, classes.SECRET), atomicpath.StorageError, "it failed with OSError"),
        (PermissionError(classes.SECRET), atomicpath.AccessError, "check the credentials"),
        (FileNotFoundError(2, "?", "/etc/a-token"), atomicpath.AccessError, "the client needs /etc/a-token"),
        (ConnectionResetError(classes.SECRET), ConnectionError, "the connection was lost"),
        (NotImplementedError(classes.SECRET), atomicpath.GuaranteeError, "the class does not implement it"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_only_the_class_s_own_word_means_that_nothing_is_there(
    serve: Serve, error: Exception, expected: type[Exception], said: str
) -> None:
    root = serve(type("Odd", (classes.Odd,), {"error": error}))
    with pytest.raises(expected, match=said) as caught:
        atomicpath.is_committed(f"{root}/step_1")
    assert classes.SECRET not in str(caught.value)


def test_half_a_file_is_no_file(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = serve(classes.Torn)
    monkeypatch.setattr(fsspec_storage.MethodStorage, "largest_single", 10)
    known = WRITING | Guarantee.EXCLUSIVE_MULTIPART
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(b"x" * 100)
    with pytest.raises(atomicpath.AtomicPathError, match="50 of 100 bytes|EXCLUSIVE_MULTIPART, which was refuted"):
        atomicpath.put(tmp_path / "tree", f"{root}/step_1", guarantees=known)
    monkeypatch.undo()
    atomicpath.put(tmp_path / "tree", f"{root}/step_2", guarantees=WRITING)
    with pytest.raises(atomicpath.StorageError, match="50 of 100 bytes"):
        atomicpath.get(f"{root}/step_2", tmp_path / "got")
    assert not (tmp_path / "got").exists()
    assert os.listdir(tmp_path) == ["tree"]


def test_a_file_too_large_for_one_request_needs_its_own_assertion(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = serve(classes.AsyncShelf)
    monkeypatch.setattr(fsspec_storage.MethodStorage, "largest_single", 1)
    with pytest.raises(atomicpath.GuaranteeError, match=r'if put_file\(mode="create"\) there never overwrites'):
        atomicpath.put(files(tmp_path), f"{root}/step_1", guarantees=WRITING)
    atomicpath.put(files(tmp_path), f"{root}/step_2", guarantees=WRITING | Guarantee.EXCLUSIVE_MULTIPART)
    assert atomicpath.verify(f"{root}/step_2").ok


async def test_what_was_written_before_a_failure_is_deleted(serve: Serve, tmp_path: Path, anyio_backend: str) -> None:
    root = serve(classes.Shelf)
    attempt = atomicpath.CommitFileTemporaryPath.from_final(UPath(f"{root}/step_1"))
    attempt.configure(AttemptOptions(guarantees=WRITING, direct=False))
    await attempt.create()
    for name in FILES:
        await attempt.add(name, files(tmp_path) / name)
    assert len(class_of(root).store) == len(FILES) + 1
    await attempt.discard()
    assert class_of(root).store == {}


def test_options_that_do_not_fit_are_named(serve: Serve) -> None:
    root = serve(type("Needy", (classes.Shelf,), {"__init__": lambda self, host, *, port=1: None}))
    with pytest.raises(atomicpath.ValidationError, match="missing a required argument: 'host'"):
        atomicpath.is_committed(f"{root}/step_1")
    with pytest.raises(atomicpath.ValidationError, match="unexpected keyword argument 'prot'"):
        atomicpath.is_committed(f"{root}/step_1", storage_options={"host": "x", "prot": 2})


def test_a_class_that_is_not_installed_is_named_with_what_brings_it() -> None:
    with pytest.raises(atomicpath.BackendError, match="Please install boxfs"):
        atomicpath.is_committed("box://run/step_1")


def test_a_host_stands_in_the_url_or_in_the_options() -> None:
    inside = locate("ftp://me@host:2121/run/step_1")
    assert str(inside) == "ftp://host:2121/run/step_1"
    assert inside.storage_options == {"host": "host", "port": 2121, "username": "me"}
    beside = locate("ftp:///run/step_1", {"host": "host", "port": 2121, "username": "me"})
    assert (beside.path, beside.place) == (inside.path, inside.place)
    assert locate(inside.upath) == inside
    with pytest.raises(atomicpath.ValidationError, match="it says host 'host', and storage_options say something else"):
        locate("ftp://host/run/step_1", {"host": "other"})
    with pytest.raises(atomicpath.ValidationError, match="it names no host"):
        locate("ftp:///run/step_1")


def test_a_place_depends_on_options_and_shows_none(serve: Serve, tmp_path: Path) -> None:
    root = serve(classes.Shelf)
    plain, other = locate(f"{root}/step_1"), locate(f"{root}/step_1", {"max_paths": classes.SECRET, "o": object()})
    assert plain.place != other.place
    assert classes.SECRET not in other.place
    assert other.place == locate(f"{root}/step_1", {"max_paths": classes.SECRET, "o": object()}).place
    atomicpath.put(files(tmp_path), f"{root}/step_1", guarantees=WRITING)
    assert not atomicpath.read_record(f"{root}/step_1").place


def test_fsspec_s_configuration_reaches_the_class(serve: Serve, conf: dict[str, dict[str, Any]]) -> None:
    root = serve(type("Needy", (classes.Shelf,), {"__init__": _with_host}))
    conf["shelf"] = {"host": "configured"}
    assert not atomicpath.is_committed(f"{root}/step_1")
    assert class_of(root).host == "configured"


def _with_host(self: Any, host: str) -> None:
    super(classes.Shelf, self).__init__()
    type(self).host = host


@pytest.mark.filterwarnings("ignore:The async:DeprecationWarning")  # pyftpdlib imports asyncore, on Python before 3.12
def test_a_real_ftp_server_is_refuted(tmp_path: Path) -> None:
    """fsspec's FTP has no exclusive creation: it asks whether a file exists, and then stores it."""
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer

    authorizer = DummyAuthorizer()
    authorizer.add_user("me", classes.SECRET, str(tmp_path), perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    logging.getLogger("pyftpdlib").setLevel(logging.ERROR)
    server = ThreadedFTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        options = {"username": "me", "password": classes.SECRET}
        url = f"ftp://127.0.0.1:{server.address[1]}/run/step_1"
        with (
            pytest.raises(atomicpath.GuaranteeError, match="EXCLUSIVE_CREATE, which was refuted") as caught,
            atomicpath.commit(url, storage_options=options, guarantees=WRITING),
        ):
            pytest.fail("the block was entered")
        assert classes.SECRET not in str(caught.value)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        assert not atomicpath.is_committed(url, storage_options=options)
    finally:
        server.close_all()
        thread.join(timeout=classes.PATIENCE)
