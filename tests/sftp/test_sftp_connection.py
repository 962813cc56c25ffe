"""Connections: shared, found again after they were lost, of their own after a fork, and silent about secrets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import asyncssh
import pytest

import atomicpath_sftp.storage
from atomicpath._profile.location import locate
from atomicpath.abc import EntryKind, Environment, Put, Storage
from atomicpath.errors import AccessError, BackendError, ValidationError
from atomicpath_sftp import SftpBackend
from tests.sftp.wire import Wire
from tests.support.roots import SECRET
from tests.support.servers.base import free_port
from tests.support.servers.sftp import SftpRoot
from tests.support.waiting import PATIENCE, until


def opened(place: SftpRoot, environment: Environment | None = None) -> tuple[Storage, str]:
    """A storage under the place's options as they are now, and the backend's path."""
    location = locate(place.url, place.storage_options)
    return SftpBackend().open(location.storage_options, environment or Environment()), location.path


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
def test_event_loops_and_threads_share_one_connection(sftp_place: SftpRoot, wire: Wire, anyio_backend: str) -> None:
    storage, top = opened(sftp_place)

    def one(number: int) -> None:
        anyio.run(partial(storage.put, mode=Put.CREATE), f"{top}/{number}", b"x", backend=anyio_backend)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(16)))
    one(16)
    assert set(sftp_place.read_all()) == {f"{number}" for number in range(17)}
    assert wire.made == 1


def test_a_forked_child_makes_its_own_connection(sftp_place: SftpRoot, wire: Wire) -> None:
    storage, top = opened(sftp_place)
    anyio.run(partial(storage.put, mode=Put.CREATE), f"{top}/parent", b"x")
    child = os.fork()
    if child == 0:
        try:
            anyio.run(partial(storage.put, mode=Put.CREATE), f"{top}/child", b"x")
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    anyio.run(partial(storage.put, mode=Put.CREATE), f"{top}/parent-again", b"x")
    assert set(sftp_place.read_all()) == {"parent", "child", "parent-again"}
    assert wire.made == 2


async def test_what_is_asked_at_once_goes_over_several_channels(sftp_place: SftpRoot, wire: Wire) -> None:
    """One channel is served by one process, one request after the other: a race on it would be none."""
    storage, top = opened(sftp_place)
    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(partial(storage.put, mode=Put.CREATE), f"{top}/{number}", b"x")
    (connection,) = storage.filesystem._connections.values()  # type: ignore[attr-defined]
    assert len(connection._channels) == 8, "sshd allows ten"
    assert {channel.uses for channel in connection._channels} == {0}
    assert wire.made == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_lost_connection_is_made_again(sftp_place: SftpRoot, wire: Wire) -> None:
    storage, top = opened(sftp_place)
    await storage.put(f"{top}/a", b"x", mode=Put.OVERWRITE)
    wire.deafen()
    async with anyio.create_task_group() as group:
        group.start_soon(_cut_once_arrived, wire, sftp_place)
        with pytest.raises(ConnectionError, match="connection was lost"):
            await storage.make_directory(f"{top}/d", mode=None, durable=False)
    assert (await storage.get(f"{top}/a")).data == b"x"
    assert wire.made == 2


async def _cut_once_arrived(wire: Wire, place: SftpRoot) -> None:
    while "d" not in place.names():
        await anyio.sleep(0.01)
    wire.cut()


async def test_an_overdue_answer_ends_the_connection(
    sftp_place: SftpRoot, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server has not begun by then it will never do."""
    storage, top = opened(sftp_place)
    await storage.put(f"{top}/a", b"x", mode=Put.OVERWRITE)
    monkeypatch.setattr(atomicpath_sftp.storage, "_PATIENCE", 0.5)
    wire.deafen()
    with pytest.raises(TimeoutError, match="did not answer in time"):
        await storage.kind(f"{top}/a")
    assert storage.filesystem._connections == {}  # type: ignore[attr-defined]
    wire.cut()
    monkeypatch.setattr(atomicpath_sftp.storage, "_PATIENCE", 30.0)
    assert await storage.kind(f"{top}/a") == EntryKind.FILE
    assert wire.made == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_cancelled_upload_leaves_nothing(sftp_place: SftpRoot, tmp_path: Any) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 5_000_000)
    begun, go_on = threading.Event(), threading.Event()
    storage, top = opened(sftp_place)
    read = atomicpath_sftp.storage.Source.read

    def slow(self: Any, offset: int, length: int) -> bytes:
        begun.set()
        go_on.wait(PATIENCE)
        return read(self, offset, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomicpath_sftp.storage.Source, "read", slow)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: storage.upload(source, f"{top}/a", owner="", multipart=True))
            await until(begun)
            assert [name for name in sftp_place.names() if name.startswith(".atomicpath-tmp-")]
            go_on.set()
            group.cancel_scope.cancel()
    assert sftp_place.names() == []


async def test_every_request_passes_through_the_environment(sftp_place: SftpRoot, tmp_path: Any) -> None:
    made: list[str] = []

    class Counting(Environment):
        async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            made.append(args[1].__name__)
            return await super().request(function, *args, **kwargs)

    storage, top = opened(sftp_place, Counting())
    await storage.declare(f"{top}/a")
    await storage.make_directory(f"{top}/d", mode=None, durable=True)
    await storage.put(f"{top}/d/a", b"x", mode=Put.PRIVATE)
    await storage.get(f"{top}/d/a")
    await storage.list(f"{top}/d", recursive=True)
    await storage.rename_directory(f"{top}/d", f"{top}/e")
    await storage.put(f"{top}/a", b"x", mode=Put.CREATE)
    names = ["volume", "mkdir", "overwrite", "read", "scan", "rename", "look", "write", "publish", "remove"]
    assert made == names


async def test_a_server_that_is_not_there_is_named(sftp_place: SftpRoot) -> None:
    port = free_port()
    sftp_place.url = f"sftp://127.0.0.1:{port}/run"
    storage, top = opened(sftp_place)
    with pytest.raises(ConnectionError) as caught:
        await storage.get(top)
    assert f"127.0.0.1:{port}" in str(caught.value)


async def test_a_server_of_another_key_is_refused(sftp_place: SftpRoot, tmp_path: Any) -> None:
    """sshfs itself would take it: here only a known server is the one meant."""
    sftp_place.storage_options["known_hosts"] = str(tmp_path / "none")
    (tmp_path / "none").write_text("")
    storage, top = opened(sftp_place)
    with pytest.raises(AccessError, match="not in known_hosts"):
        await storage.get(top)


def test_unless_told_otherwise_only_known_servers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate("sftp://host/run").storage_options == {"known_hosts": ()}
    assert locate("sftp://host/run").upath.storage_options["known_hosts"] == ()
    assert locate("sftp://host/run", {"known_hosts": None}).storage_options == {"known_hosts": None}


async def test_refused_credentials_are_not_shown(sftp_place: SftpRoot, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    sftp_place.storage_options.update(client_keys=None, password=SECRET, agent_path=None)
    storage, top = opened(sftp_place)
    with pytest.raises(AccessError, match="refused the login") as caught:
        await storage.get(top)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error!r}"
        error = error.__cause__
    assert SECRET not in caplog.text
    assert SECRET not in repr(storage)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"client_keys": ["/nowhere/key"]}, AccessError, "cannot be read"),
        ({"no_such_option": SECRET}, ValidationError, "no_such_option"),
    ],
)
async def test_unusable_options_are_named(
    sftp_place: SftpRoot, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    sftp_place.storage_options.update(options)
    with pytest.raises(error, match=words) as caught:
        storage, top = opened(sftp_place)
        await storage.get(top)
    assert SECRET not in str(caught.value)


async def test_options_of_sshfs_and_fsspec_are_understood(sftp_place: SftpRoot) -> None:
    sftp_place.storage_options.update(
        timeout=7,
        max_sessions=3,
        sftp_client_kwargs={},
        skip_instance_cache=True,
        username=os.environ.get("USER", "root"),
    )
    storage, top = opened(sftp_place)
    await storage.put(f"{top}/a", b"x", mode=Put.CREATE)
    assert "@127.0.0.1:" in top
    link = next(iter(storage.filesystem._connections.values())).link  # type: ignore[attr-defined]
    assert isinstance(link, asyncssh.SSHClientConnection)


def test_interpreter_exit_is_quiet(sftp_place: SftpRoot) -> None:
    program = f"""
import anyio
from atomicpath.abc import Environment
from atomicpath_sftp import SftpBackend
sftp = SftpBackend().open({sftp_place.storage_options!r}, Environment())
from functools import partial
from atomicpath.abc import Put
anyio.run(partial(sftp.put, mode=Put.CREATE), {SftpBackend().parse_url(sftp_place.url)!r} + "/a", b"x")
anyio.run(sftp.get, {SftpBackend().parse_url(sftp_place.url)!r} + "/a", backend="trio")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_sshfs_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sshfs", None)
    with pytest.raises(BackendError, match=r"pip install 'atomicpath\[sftp\]'"):
        SftpBackend().open({}, Environment())


def test_the_backend_is_imported_without_sshfs() -> None:
    program = "import sys; import atomicpath_sftp; assert not {'sshfs', 'asyncssh', 'cryptography'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("url", "options", "path"),
    [
        ("sftp://host/run/step_1", {}, "host/run/step_1"),
        ("ssh://me@host:2222/run/", {}, "me@host:2222/run"),
        ("sftp://host/run", {"username": "me", "port": 2222}, "me@host:2222/run"),
        ("sftp:///run", {"host": "host", "port": "22"}, "host:22/run"),
        ("sftp://me@host/run", {"username": "me"}, "me@host/run"),
        ("sftp://host/a b%20é", {}, "host/a b%20é"),
    ],
)
def test_a_path_is_the_server_and_the_path_there(url: str, options: dict[str, Any], path: str) -> None:
    location = locate(url, options)
    assert location.path == path
    assert SftpBackend().parse_url(str(location)) == path
    assert not {"host", "username", "port"} & set(location.storage_options)
    assert locate(location.upath) == location, "what users get leads to the same place"
    assert locate(location.upath).storage_options == location.storage_options


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("sftp:///run", {}, "names no host"),
        ("sftp://host/run", {"host": "other"}, "leave one out"),
        ("sftp://me@host/run", {"username": "you"}, "leave one out"),
        ("sftp://host:x/run", {}, "no port"),
        ("sftp://host/run?x", {}, "rename"),
        ("sftp://host/run#1", {}, "rename"),
        ("sftp://[::1]/run", {}, "IPv6"),
        ("sftp://host/a//b", {}, "empty part"),
        ("sftp://host/../b", {}, "empty part"),
        ("sftp://host/" + "n" * 256, {}, "255 bytes"),
        ("sftp://me:secret@host/run", {}, "password"),
    ],
)
def test_an_unusable_url_is_refused(url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        locate(url, options)


def test_a_place_has_server_and_user_and_no_credentials() -> None:
    def place(url: str, **options: object) -> str:
        return locate(url, options).identity

    assert place("sftp://me@Host:22/run", password=SECRET) == "sftp://me@host:22/run"
    assert place("ssh://me@host:22/run") == "sftp://me@host:22/run"
    assert len({place("sftp://host/run"), place("sftp://me@host/run"), place("sftp://host:23/run")}) == 3
    assert place("sftp://host/run", proxy_command=SECRET) != place("sftp://host/run")
    assert SECRET not in place("sftp://host/run", proxy_command=SECRET)
