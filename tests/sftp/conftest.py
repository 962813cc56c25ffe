"""A storage on a real OpenSSH server, directly and behind a wire that can be cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atomicpath._profile.location import locate
from atomicpath.abc import Environment, Storage
from atomicpath_sftp import SftpBackend
from tests.sftp.wire import Wire
from tests.support.servers.sftp import SftpRoot


@pytest.fixture
def anyio_backend() -> str:
    """One event loop where none of the caller's matters; the tests of the connection have both."""
    return "asyncio"


@pytest.fixture
def sftp(sftp_place: SftpRoot) -> Storage:
    return SftpBackend().open(locate(sftp_place.url, sftp_place.storage_options).storage_options, Environment())


@pytest.fixture
def top(sftp_place: SftpRoot) -> str:
    """The backend's own path of the test's directory."""
    return SftpBackend().parse_url(sftp_place.url)


@pytest.fixture
def wire(sftp_place: SftpRoot) -> Iterator[Wire]:
    """Between the client and the server; `sftp_place` then leads through it."""
    with Wire(sftp_place.server.port) as wire:
        port = f":{sftp_place.server.port}/"
        sftp_place.url = sftp_place.url.replace(port, f":{wire.port}/")
        sftp_place.storage_options["known_hosts"] = _any_port(sftp_place, wire.port)
        yield wire


def _any_port(place: SftpRoot, port: int) -> str:
    known = place.server.data.parent / f"known_hosts_{port}"
    text = (place.server.data.parent / "known_hosts").read_text()
    known.write_text(text.replace(f":{place.server.port} ", f":{port} "))
    return str(known)
