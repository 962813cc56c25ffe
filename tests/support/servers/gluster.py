"""GlusterFS: a volume of a glusterd of its own, mounted twice; each mount stands for a host of a cluster.

Everything runs in a network namespace of its own, so that the fixed port of glusterd collides with nobody's, and lies
below one directory. What was started is ended and unmounted with the block, also after failures.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.servers.base import missing, running
from tests.support.servers.fuse import expect_fuse, unmount

__all__ = ["gluster_mounts"]

_PATIENCE = 120.0  # seconds for each thing that is waited for, on a machine that does much else
_MANAGEMENT = """volume management
    type mgmt/glusterd
    option working-directory {directory}/work
    option run-directory {directory}/run
    option glusterd-sockfile {directory}/run/cli.sock
    option transport-type socket
    option ping-timeout 0
    option event-threads 1
end-volume
"""
_SIOCSIFADDR, _SIOCSIFFLAGS, _IFF_UP = 0x8916, 0x8914, 1


@contextmanager
def gluster_mounts(directory: Path, *, bricks: int = 1) -> Iterator[tuple[Path, Path]]:
    """Start a volume of so many bricks, and mount it at two places."""
    expect_fuse()
    how = "apt-get install glusterfs-server glusterfs-client"
    for program in ("glusterd", "gluster", "mount.glusterfs"):
        if not shutil.which(program):
            missing(program, how)
    host = socket.gethostname()
    for name in ("work", "run", "log", "A", "B"):
        (directory / name).mkdir()
    settings = directory / "glusterd.vol"
    settings.write_text(_MANAGEMENT.format(directory=directory))
    with ExitStack() as stack:
        namespace = stack.enter_context(_network(directory, host))
        command = [*namespace, "glusterd", "-N", "-f", str(settings), "-l", str(directory / "log" / "glusterd")]
        stack.callback(_end_bricks, directory)
        cli = directory / "run" / "cli.sock"
        stack.enter_context(running(command, cli.exists, directory / "log" / "output"))
        gluster = [*namespace, "gluster", "--mode=script", f"--glusterd-sock={cli}", "volume"]
        places = [f"{host}:{directory}/brick{number}" for number in range(bricks)]
        _until_done([*gluster, "create", "v", *places, "force"])
        _until_done([*gluster, "start", "v"])
        points = (directory / "A", directory / "B")
        for point in points:
            stack.callback(_unmount_if_mounted, point)
            log = f"log-file={directory}/log/{point.name}"
            _until_done([*namespace, "mount", "-t", "glusterfs", "-o", log, f"{host}:/v", str(point)])
        yield points


@contextmanager
def _network(directory: Path, host: str) -> Iterator[list[str]]:
    """Keep a network namespace with nothing but loopback; what a command begins with to run in it."""
    address = socket.gethostbyname(host)
    script = (
        f"from tests.support.servers.gluster import hold_network; hold_network({address!r}, {str(directory / 'up')!r})"
    )
    command = ["unshare", "--net", sys.executable, "-c", script]
    path = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, sys.path)])
    ready = (directory / "up").exists
    with running(command, ready, directory / "log" / "network", {"PYTHONPATH": path}) as process:
        yield ["nsenter", f"--net=/proc/{process.pid}/ns/net"]


def hold_network(address: str, up: str) -> None:
    """Set loopback up, and give it the address that this host's name stands for; then wait to be ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
        if not address.startswith("127."):
            name = struct.pack("16sH2s4s8x", b"lo:1", socket.AF_INET, b"", socket.inet_aton(address))
            fcntl.ioctl(control, _SIOCSIFADDR, name)
    Path(up).touch()
    signal.pause()


def _until_done(command: Sequence[str]) -> None:
    """Run a command again until it succeeds: glusterd takes a moment to be ready for each."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        time.sleep(0.2)


def _end_bricks(directory: Path) -> None:
    """End what glusterd has started; it leaves the number of each process below its run directory."""
    for file in (directory / "run").rglob("*.pid"):
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)


def _unmount_if_mounted(point: Path) -> None:
    if f" {point} fuse.glusterfs " in Path("/proc/mounts").read_text():
        unmount(point)
