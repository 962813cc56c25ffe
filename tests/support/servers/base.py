"""How a server is started, and what happens where it is not installed."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.waiting import PATIENCE

__all__ = ["answers", "find", "find_of_npm", "free_port", "missing", "running"]

_PR_SET_PDEATHSIG = 1


def find(program: str, how: str) -> str:
    """The path of a program: beside this Python (where pip puts it), then on PATH. `how` it is installed, in words."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    return found or missing(program, how)


def find_of_npm(program: str, server: str, how: str) -> str:
    """Return the path of a program for Node.js: below this Python's environment, where make has it put, or on PATH."""
    beside = Path(sys.prefix) / "node" / "node_modules" / ".bin" / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if not found or not shutil.which("node"):
        missing(server, how)
    return found


def missing(server: str, how: str) -> NoReturn:
    """Skip, saying what to install; fail where ATOMICPATH_SERVERS=all says that no server may be missing."""
    text = f"{server} is not installed, so nothing was tested on it: {how}"
    if os.environ.get("ATOMICPATH_SERVERS") == "all":
        pytest.fail(text)
    pytest.skip(text)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def running(
    command: Sequence[str], ready: Callable[[], bool], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process of its own, which ends with the block, or with this process however that ends."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            preexec_fn=_end_with_parent,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + PATIENCE
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{command[0]} did not start ({process.returncode}): {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
