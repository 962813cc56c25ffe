"""Ceph's gateway, of Debian: one monitor, one storage daemon in memory, and as many gateways as are asked for.

The settings that it takes to run all of Ceph in one directory, without authentication between its parts, are those of
Ceph 16. Everything is on loopback and on free ports, and ends with the block.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.roots import SECRET
from tests.support.servers.base import answers, free_port, missing, running
from tests.support.servers.s3 import KEY

__all__ = ["Ceph", "ceph"]

_HOW = "apt-get install radosgw ceph-mon ceph-osd ceph-common"
_PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool")
_PATIENCE = 300.0  # seconds for each command, on a machine that does much else

_SETTINGS = """[global]
fsid = {fsid}
auth cluster required = none
auth service required = none
auth client required = none
mon host = [v2:127.0.0.1:{port}/0]
mon initial members = a
# without authentication there are no keys for the secure channel that clients of a monitor want by default
ms mon client mode = crc
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd objectstore = memstore
memstore device bytes = 1073741824
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data = {directory}/mon
osd data = {directory}/osd
run dir = {directory}/run
log file = {directory}/$name.log
admin socket = {directory}/run/$name.asok
pid file = {directory}/run/$name.pid
"""


@dataclass(frozen=True)
class Ceph:
    """The endpoint of a gateway, and of one that never says "100 Continue" (`rgw print continue = false`)."""

    url: str
    silent_url: str


@contextmanager
def ceph(directory: Path) -> Iterator[Ceph]:
    """A cluster with two gateways, which have one user with the credentials of the tests. It takes some 20 s."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    if not all(shutil.which(program, path=path) for program in _PROGRAMS):
        missing("Ceph", _HOW)
    for name in ("mon", "osd", "run"):
        (directory / name).mkdir()
    fsid, port = str(uuid.uuid4()), free_port()
    settings = directory / "ceph.conf"
    settings.write_text(_SETTINGS.format(fsid=fsid, port=port, directory=directory))
    environment = {"PATH": path, "HOME": str(directory)}

    def do(*command: str) -> str:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
            env={**os.environ, **environment},
        )
        if done.returncode:
            pytest.fail(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def daemon(*command: str, ready: int = 0) -> None:
        log = directory / f"output-{len(list(directory.iterdir()))}"
        arguments = [*command, "-c", str(settings), "-f"]
        stack.enter_context(running(arguments, lambda: not ready or answers(ready), log, environment))

    with ExitStack() as stack:
        places = f"{directory}/monmap"
        do("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{port}]", places)
        do("ceph-mon", "-c", str(settings), "--id", "a", "--mkfs", "--monmap", places)
        daemon("ceph-mon", "--id", "a", ready=port)
        identity = str(uuid.uuid4())
        number = do("ceph", "-c", str(settings), "--connect-timeout", "120", "osd", "new", identity)
        do("ceph-osd", "-c", str(settings), "--id", number, "--mkfs", "--osd-uuid", identity)
        daemon("ceph-osd", "--id", number)
        user = ("user", "create", "--uid", "tests", "--display-name", "tests")
        do("radosgw-admin", "-c", str(settings), *user, "--access-key", KEY, "--secret-key", SECRET)
        ports = free_port(), free_port()
        for gateway, says in zip(ports, ("true", "false"), strict=True):
            frontend = f"--rgw-frontends=beast endpoint=127.0.0.1:{gateway}"
            name = f"client.gateway-{gateway}"
            daemon("radosgw", "-n", name, frontend, f"--rgw-print-continue={says}", ready=gateway)
        yield Ceph(*(f"http://127.0.0.1:{gateway}" for gateway in ports))
