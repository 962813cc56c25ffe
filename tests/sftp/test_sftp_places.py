"""A place on an SFTP server is the server that a name leads to, and only that server says what is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath._profile.location import locate
from atomicpath.abc import Environment, Put, Storage
from atomicpath.errors import AccessError, ValidationError
from atomicpath_sftp import SftpBackend
from atomicpath_sftp.settings import resolve
from tests.support.roots import SECRET
from tests.support.servers.sftp import SftpRoot


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory, whose SSH configuration is still to be written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def place(url: str, **options: object) -> str:
    return locate(url, options).identity


def test_a_name_of_the_ssh_configuration_is_the_server_it_leads_to(home: Path) -> None:
    file = home / ".ssh" / "config"
    file.write_text("Host cluster\n  HostName login1.example.org\n  User me\n  Port 2222\n")
    assert place("sftp://cluster/run") == "sftp://me@login1.example.org:2222/run"
    assert place("sftp://cluster/run", config=None) == "sftp://cluster/run"
    assert place("sftp://you@cluster:22/run") == "sftp://you@login1.example.org:22/run"
    file.write_text("Host cluster\n  HostName login2.example.org\n")
    assert place("sftp://cluster/run") == "sftp://login2.example.org/run"
    file.write_text("Host cluster\n  ProxyJump gate.example.org\n")
    by_way = place("sftp://cluster/run")
    file.write_text(f"Host cluster\n  ProxyCommand connect {SECRET}\n")
    assert len({by_way, place("sftp://cluster/run"), place("sftp://cluster/run", config=None)}) == 3
    assert SECRET not in place("sftp://cluster/run")


def test_what_the_ssh_configuration_includes_counts_as_it_is_now(home: Path) -> None:
    (home / ".ssh" / "config").write_text("Host *\n  Include ~/conf.d/*.conf named-alone\n")
    (home / "conf.d").mkdir()
    inner, alone = home / "with a space", home / ".ssh" / "named-alone"
    seen: list[str] = []

    def written(path: Path, text: str) -> str:
        path.write_text(text)
        seen.append(resolve({}).surroundings)
        return place("sftp://cluster/run")

    assert written(home / "conf.d" / "a.conf", f'include="{inner}"\n') == "sftp://cluster/run"
    assert written(inner, "Host cluster\n  HostName login1.example.org\n") == "sftp://login1.example.org/run"
    assert written(inner, "Host cluster\n  HostName another.example.org\n") == "sftp://another.example.org/run"
    assert written(inner, "Host elsewhere\n") == "sftp://cluster/run"
    assert written(alone, "Host cluster\n  Port 2222\n") == "sftp://cluster:2222/run"
    assert len(set(seen)) == len(seen), "a client that was made before is not used after a change"


def test_a_configuration_that_includes_itself_is_an_error(home: Path) -> None:
    file = home / ".ssh" / "config"
    file.write_text(f"Include {file}\n")
    with pytest.raises(ValidationError, match=r"\.ssh/config cannot be used"):
        place("sftp://cluster/run")


def test_a_configuration_that_cannot_be_read_is_named(home: Path) -> None:
    with pytest.raises(ValidationError, match=r"/nowhere/config cannot be used: .*No such file"):
        place("sftp://cluster/run", config="/nowhere/config")
    (home / ".ssh" / "config").write_text("Host cluster\n  Port many\n")
    with pytest.raises(ValidationError, match=r"\.ssh/config cannot be used"):
        place("sftp://cluster/run")


async def test_what_fsspec_is_configured_with_is_used(sftp_place: SftpRoot, conf: dict[str, dict[str, Any]]) -> None:
    conf["sftp"] = dict(sftp_place.storage_options)
    location = locate(sftp_place.url)
    await SftpBackend().open(location.storage_options, Environment()).put(f"{location.path}/a", b"x", mode=Put.CREATE)
    assert sftp_place.read_all() == {"a": b"x"}


def test_paramikos_spellings_are_understood() -> None:
    location = locate("sftp:///run", {"hostname": "host", "user": "me", "key_filename": "/k", "password": SECRET})
    assert location.path == "me@host/run"
    assert location.storage_options == {"known_hosts": (), "client_keys": ["/k"], "password": SECRET}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pkey": SECRET}, "'pkey' in storage_options is no option of sshfs"),
        ({"user_name": SECRET}, "is 'username' meant"),
        ({"user": "me", "username": "you"}, "'username' and 'user' .* differ"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options: dict[str, Any], words: str) -> None:
    for call in (atomicpath.is_committed, atomicpath.latest, atomicpath.profile):
        with pytest.raises(ValidationError, match=words) as caught:
            call("sftp://host/run", storage_options=options)  # type: ignore[operator]
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["known_hosts", "client_keys", "config"])
async def test_a_file_that_the_client_lacks_is_named_and_is_no_absence(sftp_place: SftpRoot, name: str) -> None:
    missing = "/nowhere/file"
    options = {**sftp_place.storage_options, name: [missing] if name == "client_keys" else missing}
    location = locate(sftp_place.url, options)
    storage = SftpBackend().open(location.storage_options, Environment())
    for operation in (storage.get, storage.stat, storage.kind, storage.delete):
        with pytest.raises(AccessError, match=f"{missing}, which cannot be read"):
            await operation(location.path)
    with pytest.raises((AccessError, ValidationError), match=missing):
        atomicpath.is_committed(sftp_place.url, storage_options=options)


async def test_a_local_file_that_goes_while_it_is_sent_is_no_absence_on_the_server(
    sftp: Storage, top: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    ask = sftp.ask  # type: ignore[attr-defined]

    async def gone(path: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        source.unlink(missing_ok=True)
        return await ask(path, function, *args, **kwargs)

    monkeypatch.setattr(sftp, "ask", gone)
    with pytest.raises(OSError, match=r"source, which cannot be read") as caught:
        await sftp.upload(source, f"{top}/a", owner="", multipart=False)
    assert not isinstance(caught.value, FileNotFoundError)
