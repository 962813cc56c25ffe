"""Bad input gets an error of ours that says what to do next; nothing is left half-done and no secret is shown."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from upath import UPath

import atomicpath
from atomicpath._commit.options import CommitOptions
from atomicpath._commit.session import CommitSession
from atomicpath._core.layout import temporary_of
from atomicpath._core.record import CommitRecord
from atomicpath._profile.location import locate
from atomicpath._profile.registry import _entry_points, _load
from tests.support.roots import SECRET, LocalRoot, MemoryRoot, Root, S3Root
from tests.support.waiting import PATIENCE

ONCE = {"config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 60, "read_timeout": 60}}


def _commit(url: Any, **options: Any) -> None:
    with atomicpath.commit(url, **options):
        pytest.fail("the block was entered")


def _every(url: Any, tmp_path: Path, **options: Any) -> list[Callable[[], object]]:
    """Every function of the API at one URL."""
    made = tmp_path / "source-of-every"
    made.mkdir(exist_ok=True)
    return [
        lambda: _commit(url, **options),
        lambda: atomicpath.put(made, url, **options),
        lambda: atomicpath.get(url, tmp_path / "got-by-every", **options),
        lambda: atomicpath.resolve(url, **options),
        lambda: atomicpath.is_committed(url, **options),
        lambda: atomicpath.read_record(url, **options),
        lambda: atomicpath.verify(url, **options),
        lambda: atomicpath.committed(url, **options),
        lambda: atomicpath.latest(url, **options),
        lambda: atomicpath.attempts(url, **options),
        lambda: atomicpath.profile(url, **options),
        lambda: atomicpath.explain(url, **options),
    ]


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[None]:
    """Nothing may appear in the test's directory, but for what `_every` made itself."""
    yield
    assert {path.name for path in tmp_path.iterdir()} <= {"root", "source-of-every", "staging", "left"}


# URLs


@pytest.mark.parametrize("url", ["", " ", "\t", "s3://", "memory://", "memory:///", "/", "s3:///key"])
def test_a_url_that_names_nothing(url: str, tmp_path: Path, quiet: None) -> None:
    for call in _every(url, tmp_path):
        with pytest.raises(atomicpath.ValidationError) as raised:
            call()
        assert any(word in str(raised.value) for word in ("pass a directory", "add its path", "name a", "no bucket"))


def test_a_relative_path_is_made_absolute_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with atomicpath.commit("step_1") as path:
        assert path.is_absolute()
        os.chdir(tmp_path / "two")
        (path / "x").write_bytes(b"1")
    attempt = atomicpath.AtomicRenameTemporaryPath.from_final(UPath("step_2"))
    os.chdir(tmp_path / "one")
    assert str(attempt.get_final()) == str(tmp_path / "two" / "step_2")
    assert atomicpath.is_committed(tmp_path / "one" / "step_1")
    assert atomicpath.is_committed("step_1")
    assert os.listdir(tmp_path / "two") == []


def test_a_relative_path_without_a_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(atomicpath.ValidationError, match="pass an absolute path"):
        atomicpath.is_committed("step_1")


@pytest.mark.parametrize("url", ["nope://bucket/x", "s4://b/k"])
def test_an_unknown_protocol(url: str, tmp_path: Path, quiet: None) -> None:
    for call in _every(url, tmp_path):
        with pytest.raises(atomicpath.BackendError, match="nstall or write a plug-in") as raised:
            call()
        assert "memory" in str(raised.value)


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for call in _every("s3://bucket/key", tmp_path):
        with pytest.raises(atomicpath.BackendError, match=r"pip install 'atomicpath\[s3\]'"):
            call()


def test_a_plug_in_that_does_not_load_costs_nobody_but_its_users(
    monkeypatch: pytest.MonkeyPatch, memory: MemoryRoot, caplog: pytest.LogCaptureFixture
) -> None:
    from importlib.metadata import EntryPoint

    import atomicpath._profile.registry as registry

    points = (*_entry_points(), EntryPoint("acme", "no_such_module:Backend", registry.GROUP))
    monkeypatch.setattr(registry, "_entry_points", lambda: points)
    assert not atomicpath.is_committed(memory / "a")
    with pytest.raises(atomicpath.BackendError, match=r"'acme' does not load.*no_such_module"):
        atomicpath.is_committed("acme://a/b")
    with pytest.raises(atomicpath.BackendError, match="Not loaded: acme"):
        atomicpath.is_committed("other://a/b")
    _load.cache_clear()


@pytest.mark.parametrize(
    "url", [f"s3://key:{SECRET}@bucket/x", f"s3://key:a/{SECRET}@bucket/x", f"ftp://me:{SECRET}@host/x"]
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str, tmp_path: Path, quiet: None) -> None:
    for call in _every(url, tmp_path):
        with pytest.raises(atomicpath.ValidationError, match="pass credentials in storage_options") as raised:
            call()
        _check_silent(raised.value)


@pytest.mark.parametrize("base", ["/tmp/a\0b", "memory://a\0b/c", "s3://bucket/a\0b"])
def test_a_nul_in_a_path(base: str, tmp_path: Path, quiet: None) -> None:
    for call in _every(base, tmp_path):
        with pytest.raises(atomicpath.ValidationError, match="NUL"):
            call()


def test_bytes_for_a_path() -> None:
    with pytest.raises(atomicpath.ValidationError, match="text"):
        atomicpath.is_committed(b"/tmp/x")  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["memory://a/../b", "memory://a//b", "s3://bucket/a/../b", "s3://bucket/./a"])
def test_dots_in_a_store_s_path(url: str, tmp_path: Path, quiet: None) -> None:
    for call in _every(url, tmp_path):
        with pytest.raises(atomicpath.ValidationError, match="empty part"):
            call()


# what is there already


def test_a_file_where_a_directory_is_expected(root: Root, tmp_path: Path) -> None:
    root.write("file", b"mine")
    options: dict[str, Any] = {"storage_options": root.storage_options}
    (tmp_path / "made").mkdir()
    if root.kind == "local":
        with pytest.raises(atomicpath.ConflictError, match=r"\(a file\).*move it away"):
            _commit(root / "file", **options)
        with pytest.raises(atomicpath.ConflictError, match="move it away"):
            atomicpath.put(tmp_path / "made", root / "file", **options)
        with pytest.raises(atomicpath.ValidationError, match="part of this path is a file"):
            _commit(root / "file/step_1", **options)
    for listing in (atomicpath.committed, atomicpath.latest, atomicpath.attempts):
        with pytest.raises(atomicpath.ValidationError, match="is a file: pass the directory"):
            listing(root / "file", **options)
    assert not atomicpath.is_committed(root / "file", **options)
    assert not atomicpath.is_committed(root / "file/below", **options)
    with pytest.raises(atomicpath.NotCommittedError, match="file is there"):
        atomicpath.resolve(root / "file", **options)
    assert root.read_all() == {"file": b"mine"}


def test_a_final_path_that_exists_uncommitted_and_foreign(root: Root, tmp_path: Path) -> None:
    root.write("step_1/notes", b"mine")
    (tmp_path / "made").mkdir()
    for call in (
        lambda: _commit(root / "step_1", storage_options=root.storage_options),
        lambda: _commit(root / "step_1", storage_options=root.storage_options, direct=True),
        lambda: atomicpath.put(tmp_path / "made", root / "step_1", storage_options=root.storage_options),
    ):
        with pytest.raises(atomicpath.ConflictError, match=r"move.*away, or commit under another name"):
            call()
    assert root.read_all() == {"step_1/notes": b"mine"}
    with pytest.raises(atomicpath.NotCommittedError, match="neither a commit record nor a marker"):
        atomicpath.resolve(root / "step_1", storage_options=root.storage_options)


def test_a_dangling_link_at_the_final_path_is_left_alone(local: LocalRoot) -> None:
    (local.path / "step_1").symlink_to("nowhere")
    with pytest.raises(atomicpath.ConflictError, match="alias for 'nowhere'"):
        _commit(local / "step_1")
    assert os.readlink(local.path / "step_1") == "nowhere"
    assert local.names() == ["step_1"]


def test_a_final_path_below_a_temporary_one(root: Root) -> None:
    for name in (temporary_of("step_1", "ffff"), f"{temporary_of('step_1', 'ffff')}/step_2"):
        with pytest.raises(atomicpath.ValidationError, match=r"below a temporary path.*use another"):
            atomicpath.commit(root / name, storage_options=root.storage_options)  # before it is entered
        strategy = atomicpath.AtomicRenameTemporaryPath
        if root.kind != "local":
            strategy = atomicpath.CommitFileTemporaryPath
        options: dict[str, Any] = root.storage_options
        with pytest.raises(atomicpath.ValidationError, match=r"below a temporary path.*use another"):
            anyio.run(strategy.from_final(UPath(root / name, **options)).create)
    assert root.read_all() == {}


# records


def _published(root: Root) -> dict[str, Any]:
    with atomicpath.commit(root / "step_1", storage_options=root.storage_options) as path:
        (path / "x").write_bytes(b"1")
    found: dict[str, Any] = json.loads(root.read_all("step_1")["_commit_record.json"])
    return found


_DAMAGES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda record: b"",
    "truncated": lambda record: json.dumps(record).encode()[:-20],
    "no JSON": lambda record: b"\xff\xfe not JSON",
    "no object": lambda record: b"[]",
    "deeply nested": lambda record: b"[" * 100_000,
    "newer": lambda record: json.dumps({**record, "format": 2}).encode(),
    "no format": lambda record: json.dumps({key: record[key] for key in record if key != "format"}).encode(),
    "unknown state": lambda record: json.dumps({**record, "state": "nearly"}).encode(),
    "dots": lambda record: json.dumps({**record, "files": [{"name": "../x", "size": 1}]}).encode(),
    "absolute": lambda record: json.dumps({**record, "files": [{"name": "/etc/passwd", "size": 1}]}).encode(),
    "hidden dots": lambda record: json.dumps({**record, "files": [{"name": "a/../../x", "size": 1}]}).encode(),
    "reserved": lambda record: json.dumps({**record, "files": [{"name": "_commit_record.json", "size": 1}]}).encode(),
    "marker": lambda record: json.dumps({**record, "files": [{"name": "commit_success.txt", "size": 1}]}).encode(),
    "NUL": lambda record: json.dumps({**record, "files": [{"name": "a\0", "size": 1}]}).encode(),
    "negative": lambda record: json.dumps({**record, "files": [{"name": "a", "size": -1}]}).encode(),
    "twice": lambda record: json.dumps({**record, "files": [{"name": "a", "size": 1}] * 2}).encode(),
    "long name": lambda record: json.dumps({**record, "files": [{"name": "a" * 5000, "size": 1}]}).encode(),
    "deep name": lambda record: json.dumps({**record, "files": [{"name": "a/" * 10_000 + "a", "size": 1}]}).encode(),
    "endless lease": lambda record: json.dumps({**record, "lease": {"seconds": 1e999}}).encode(),
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_record_that_cannot_be_used(root: Root, damage: str, tmp_path: Path) -> None:
    record = _published(root)
    root.write("step_1/_commit_record.json", _DAMAGES[damage](record))
    before = root.read_all()
    location, options = root / "step_1", {"storage_options": root.storage_options}
    for call in (
        lambda: atomicpath.resolve(location, **options),
        lambda: atomicpath.read_record(location, **options),
        lambda: atomicpath.verify(location, **options),
        lambda: atomicpath.get(location, tmp_path / "copy", **options),
        lambda: _commit(location, **options),
    ):
        with pytest.raises(atomicpath.IntegrityError) as raised:
            call()
        assert (root / "step_1") in str(raised.value), "which record?"
        assert "commit record" in str(raised.value)
        assert len(str(raised.value)) < 1000
        if damage == "newer":
            assert "pip install -U atomicpath" in str(raised.value)
    assert atomicpath.latest(root.url, **options) is None
    if damage == "newer":  # only a newer version can tell
        with pytest.raises(atomicpath.IntegrityError, match="pip install -U atomicpath"):
            atomicpath.is_committed(location, **options)
    else:
        assert not atomicpath.is_committed(location, **options)
    assert root.read_all() == before
    assert not (tmp_path / "copy").exists()


# names


@pytest.mark.parametrize("strategy", [None, pytest.param(atomicpath.CommitFileTemporaryPath, marks=pytest.mark.full)])
def test_a_directory_ten_thousand_deep_on_a_disk(local: LocalRoot, strategy: Any) -> None:
    with (
        pytest.raises(atomicpath.ValidationError, match=r"nest less deeply|longer than"),
        atomicpath.commit(local / "step_1", temporary_path_class=strategy) as path,
    ):
        _dig(path, 10_000)
    assert local.names() == []


@pytest.mark.parametrize("store", ["memory", pytest.param("s3", marks=pytest.mark.full)], indirect=True)
def test_a_directory_ten_thousand_deep_is_not_put(store: Root, tmp_path: Path, staging: Path) -> None:
    with (
        pytest.raises(atomicpath.ValidationError, match="shorten its path"),
        atomicpath.commit(store / "step_1", storage_options=store.storage_options, staging_dir=staging) as path,
    ):
        _dig(path, 10_000)
    assert store.read_all() == {}
    assert list(staging.iterdir()) == []


def _dig(top: Path, depth: int) -> None:
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("x", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


@pytest.mark.parametrize("length", [256, 300, 5000])
def test_a_name_too_long_for_a_disk(local: LocalRoot, length: int) -> None:
    with pytest.raises(atomicpath.ValidationError, match="shorten it"):
        _commit(local / ("a" * length))
    assert not atomicpath.is_committed(local / ("a" * 200))
    assert local.names() == []


def test_a_name_too_long_for_a_store(s3: S3Root, tmp_path: Path) -> None:
    for call in _every(s3 / ("a" * 5000), tmp_path, storage_options=s3.storage_options):
        with pytest.raises(atomicpath.ValidationError, match="bytes long"):
            call()
    assert s3.read_all() == {}


@pytest.mark.parametrize("name", ["_commit_record.json", "commit_success.txt", "back\\slash"])
def test_a_reserved_or_impossible_name_in_a_staged_block(store: Root, name: str) -> None:
    with (
        pytest.raises(atomicpath.ValidationError, match="cannot be the name of a file"),
        atomicpath.commit(store / "step_1", storage_options=store.storage_options) as path,
    ):
        (path / name).write_bytes(b"mine")
    assert store.read_all() == {}


def test_a_reserved_name_below_the_top_is_an_ordinary_one(root: Root) -> None:
    with atomicpath.commit(root / "step_1", storage_options=root.storage_options) as path:
        (path / "a").mkdir()
        (path / "a" / "_commit_record.json").write_bytes(b"mine")
    assert [f.name for f in atomicpath.read_record(root / "step_1", storage_options=root.storage_options).files] == [
        "a/_commit_record.json"
    ]


@pytest.mark.parametrize("kind", ["link", "FIFO"])
@pytest.mark.parametrize("strategy", [None, atomicpath.CommitFileTemporaryPath])
def test_a_link_or_fifo_in_the_block(root: Root, kind: str, strategy: Any) -> None:
    with (
        pytest.raises(atomicpath.ValidationError, match=r"'a/odd'.*[Pp]ut a file in its place"),
        atomicpath.commit(root / "step_1", storage_options=root.storage_options, temporary_path_class=strategy) as path,
    ):
        (path / "a").mkdir()
        if kind == "link":
            (path / "a" / "odd").symlink_to("/etc/hostname")
        else:
            os.mkfifo(path / "a" / "odd")
    assert root.names() == []


# options


def test_a_mode_on_a_store_and_checksums_of_what_is_written_directly(store: Root) -> None:
    mode = atomicpath.FileOptions(path_permission_mode=0o750)
    with pytest.raises(atomicpath.GuaranteeError, match="Leave it out"):
        _commit(store / "step_1", storage_options=store.storage_options, file_options=mode)
    with (
        pytest.raises(atomicpath.ValidationError, match=r"use staging \(direct=False\)"),
        atomicpath.commit(store / "step_1", storage_options=store.storage_options, direct=True, checksums=True) as path,
    ):
        (path / "x").write_bytes(b"1")
    assert store.read_all() == {}


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": float("nan")}, {"a": b"x"}, [1], {"a": {1, 2}}])
def test_metadata_that_json_cannot_hold(root: Root, metadata: Any) -> None:
    with pytest.raises(atomicpath.ValidationError, match="JSON"):
        _commit(root / "step_1", storage_options=root.storage_options, metadata=metadata)
    assert root.read_all() == {}


# access

_MAY_DO_ANYTHING = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root passes every permission
_PR_CAPBSET_DROP = 24

_REFUSED = """
import json, sys
import atomicpath
top, call = sys.argv[1:]
def commit(path, **options):
    with atomicpath.commit(path, **options) as inside:
        (inside / "x").write_bytes(b"1")
try:
    eval(call)
except atomicpath.AtomicPathError as error:
    print(json.dumps([type(error).__name__, isinstance(error, PermissionError), str(error)]))
"""


def _bow_to_permissions() -> None:
    """In a child that is about to run another program: even as root it will be refused what the modes do not allow."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for capability in _MAY_DO_ANYTHING if not os.geteuid() else ():
        if prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


@pytest.mark.parametrize(
    ("call", "mode"),
    [
        ("commit(top + '/step_1')", 0o555),
        ("commit(top + '/step_1')", 0o000),
        ("commit(top + '/step_1', temporary_path_class=atomicpath.CommitFileTemporaryPath)", 0o555),
        ("commit(top + '/deep/er/step_1')", 0o555),
        ("atomicpath.is_committed(top + '/done')", 0o000),
        ("atomicpath.resolve(top + '/done')", 0o000),
        ("atomicpath.latest(top)", 0o311),
        ("atomicpath.committed(top)", 0o000),
        ("atomicpath.verify(top + '/done')", 0o000),
        ("atomicpath.put(top + '/done', '/tmp/never')", 0o000),
    ],
)
def test_permissions_that_do_not_allow_it(local: LocalRoot, call: str, mode: int) -> None:
    with atomicpath.commit(local / "done") as path:
        (path / "x").write_bytes(b"1")
    before = local.read_all()
    local.path.chmod(mode)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _REFUSED, local.url, call],
            preexec_fn=_bow_to_permissions,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    finally:
        local.path.chmod(0o755)
    assert done.stdout, f"no error of ours: {done.stderr[-2000:]}"
    kind, is_permission, message = json.loads(done.stdout)
    assert kind in ("AccessError", "ValidationError"), (kind, message)
    assert is_permission == (kind == "AccessError")
    assert "check the permissions" in message or "not a directory" in message or "Make it readable" in message
    assert local.read_all() == before
    assert not Path("/tmp/never").exists()


class _Refusing(BaseHTTPRequestHandler):
    """Answers everything as S3 does to wrong credentials; like S3, it quotes what was sent."""

    protocol_version = "HTTP/1.1"  # uploads ask whether to go on
    disable_nagle_algorithm = True

    def _refuse(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        body = (
            "<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code>"
            f"<Message>the key {SECRET} is wrong</Message><Token>{SECRET}</Token></Error>"
        ).encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _refuse  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def _check_silent(error: BaseException) -> None:
    """The secret is in no text of the error, nor of what it was raised from."""
    chain: BaseException | None = error
    while chain is not None:
        assert SECRET not in str(chain)
        assert SECRET not in repr(chain)
        assert not [note for note in getattr(chain, "__notes__", ()) if SECRET in note]
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)


@pytest.mark.servers
def test_credentials_that_are_wrong(
    refusing: str, tmp_path: Path, staging: Path, caplog: pytest.LogCaptureFixture, quiet: None
) -> None:
    options = {"endpoint_url": refusing, "key": "key", "secret": SECRET, "token": SECRET}
    for call in _every("s3://bucket/run/step_1", tmp_path, storage_options=options):
        with pytest.raises(atomicpath.AccessError, match="check the credentials") as raised:
            call()
        assert isinstance(raised.value, PermissionError)
        assert isinstance(raised.value, atomicpath.BackendError)
        assert "s3://bucket/run" in str(raised.value)
        _check_silent(raised.value)
    with pytest.raises(atomicpath.AccessError):
        _commit("s3://bucket/run/step_1", storage_options=options, staging_dir=staging)
    assert list(staging.iterdir()) == []
    assert SECRET not in caplog.text


def test_no_credentials_at_all(s3: S3Root) -> None:
    options = {"endpoint_url": s3.storage_options["endpoint_url"]}
    with pytest.raises(atomicpath.AccessError, match=r"no usable credentials|check the credentials"):
        _commit(s3 / "step_1", storage_options=options)
    assert s3.read_all() == {}


def test_nothing_that_people_print_shows_the_credentials(s3: S3Root) -> None:
    options = {
        **s3.storage_options,
        "token": SECRET,
        "endpoint_url": str(s3.storage_options["endpoint_url"]).replace("//", f"//u:{SECRET}@"),
    }
    location = locate(s3 / "step_1", options)
    plain = {**s3.storage_options, "token": SECRET}
    writing = CommitSession(s3 / "step_1", CommitOptions(storage_options=plain))
    with atomicpath.commit(s3 / "step_1", storage_options=plain) as path:
        (path / "x").write_bytes(b"1")
    shown: list[object] = [
        location,
        location.identity,
        location.child("x"),
        writing,
        atomicpath.commit(s3 / "step_2", storage_options=plain),
        atomicpath.latest(s3.url, storage_options=plain),
        atomicpath.resolve(s3 / "step_1", storage_options=plain),
        atomicpath.profile(s3 / "step_1", storage_options=plain),
        atomicpath.explain(s3 / "step_1", storage_options=plain),
        atomicpath.CommitFileTemporaryPath.from_final(atomicpath.resolve(s3 / "step_1", storage_options=plain)),
        CommitOptions(storage_options=plain),
    ]
    for thing in shown:
        assert SECRET not in str(thing), type(thing)
        assert SECRET not in repr(thing), type(thing)
    for data in s3.read_all().values():
        assert SECRET.encode() not in data


# endpoints


@pytest.mark.servers
def test_an_endpoint_that_cannot_be_reached(tmp_path: Path, staging: Path, quiet: None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "key": "key", "secret": SECRET, **ONCE}
    for call in _every("s3://bucket/run/step_1", tmp_path, storage_options=options):
        with pytest.raises(ConnectionError, match="cannot be reached: check endpoint_url") as raised:
            call()
        assert "s3://bucket/run" in str(raised.value)
        _check_silent(raised.value)
    with pytest.raises(ConnectionError):
        _commit("s3://bucket/run/step_1", storage_options=options, staging_dir=staging)
    assert list(staging.iterdir()) == []


@pytest.mark.servers
@pytest.mark.parametrize("endpoint", ["localhost:9000", f"u:{SECRET}@host", "not a url"])
def test_an_endpoint_that_is_no_url(endpoint: str, tmp_path: Path, quiet: None) -> None:
    options = {"endpoint_url": endpoint, "key": "key", "secret": SECRET}
    for call in _every("s3://bucket/run/step_1", tmp_path, storage_options=options):
        with pytest.raises(atomicpath.ValidationError, match="endpoint_url must be a URL such as") as raised:
            call()
        _check_silent(raised.value)


def test_a_bucket_that_does_not_exist(s3: S3Root, tmp_path: Path) -> None:
    options = {"storage_options": s3.storage_options}
    url = "s3://no-such-bucket-here/run/step_1"
    with pytest.raises(atomicpath.ValidationError, match="the bucket does not exist: create it first"):
        _commit(url, **options)
    for listing in (atomicpath.latest, atomicpath.committed, atomicpath.attempts):
        with pytest.raises(atomicpath.NotCommittedError, match="the bucket does not exist"):
            listing("s3://no-such-bucket-here/run", **options)
    with pytest.raises(atomicpath.NotCommittedError):
        atomicpath.get(url, tmp_path / "copy", **options)
    assert not (tmp_path / "copy").exists()


def test_get_into_the_committed_directory_itself(local: LocalRoot) -> None:
    _published(local)
    before = local.read_all()
    with pytest.raises(atomicpath.ValidationError, match="use another place"):
        atomicpath.get(local / "step_1", local / "step_1/copy")
    assert local.read_all() == before


def test_get_of_names_that_this_disk_cannot_hold(memory: MemoryRoot, tmp_path: Path) -> None:
    record = _published(memory)
    name = "a" * 300
    memory.write(f"step_1/{name}", b"1")
    record["files"].append({"name": name, "size": 1})
    memory.write("step_1/_commit_record.json", json.dumps(record).encode())
    assert CommitRecord.decode(json.dumps(record).encode(), where="here")
    (tmp_path / "left").mkdir()
    with pytest.raises((atomicpath.AtomicPathError, OSError)) as raised:
        atomicpath.get(memory / "step_1", tmp_path / "left" / "copy")
    assert "too long" in str(raised.value)
    assert list((tmp_path / "left").iterdir()) == []
