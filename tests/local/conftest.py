"""A world in which every call of the local backend is recorded and can be made to fail."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from atomicpath.abc import Environment
from atomicpath_local.storage import LocalStorage
from tests.support.mounts import ASKED, answer

P = ParamSpec("P")
T = TypeVar("T")
Fault = Callable[..., object]


class World(Environment):
    """`faults` maps a function to what is called in its place; `fail_at` makes the call of that number fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.synced: list[str] = []
        self.steps = 0
        self.faults: dict[object, Fault] = {}
        self.fail_at: int | None = None
        self.error: BaseException = OSError()
        self.dead = False

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.dead:
            raise self.error
        self.calls.append(function.__name__)
        if function is os.fsync:
            self.synced.append(os.readlink(f"/proc/self/fd/{args[0]}"))
        if self.fail_at == len(self.calls) - 1:
            if isinstance(self.error, OSError) and function is os.close:
                function(*args, **kwargs)  # Linux frees the descriptor even if closing fails
            self.dead = not isinstance(self.error, OSError)
            raise self.error
        if function in self.faults:
            return self.faults[function](*args, **kwargs)  # type: ignore[return-value]
        return function(*args, **kwargs)

    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        self.steps += 1
        return await super().step(function, *args, **kwargs)

    def refuse(self, function: object, code: int) -> None:
        """Let every call of `function` fail, undone."""

        def refused(*args: object, **kwargs: object) -> object:
            raise OSError(code, os.strerror(code))

        self.faults[function] = refused

    def mount(self, mountinfo: str) -> None:
        """Let the kernel report other mounts, and no number for a descriptor."""
        for asked in ASKED:
            self.faults[asked] = partial(answer, mountinfo, asked)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def storage(world: World) -> LocalStorage:
    return LocalStorage(world)


@pytest.fixture
def no_descriptor_leaks(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A check that no descriptor is open on anything of the test that was not before."""

    def names() -> list[str]:
        found = []
        for number in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{number}"))
            except FileNotFoundError:  # the one of this listing
                continue
        return sorted(name for name in found if name.startswith(str(tmp_path)))

    before = names()

    def check() -> None:
        assert names() == before

    yield check
    check()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount something for the test: `mount("-t", "tmpfs", "-o", "size=64k", "tmpfs")` gives the directory."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("needs root and mount(8)")
    points: list[Path] = []

    def make(*arguments: str) -> Path:
        point = tmp_path / f"mount{len(points)}"
        point.mkdir()
        done = subprocess.run(["mount", *arguments, str(point)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mount(8) refused: {done.stderr.strip()}")
        points.append(point)
        return point

    yield make
    for point in reversed(points):
        subprocess.run(["umount", "-l", str(point)], check=True)


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start scripts in processes of their own, with the same import path."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):  # nobody of it is left
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def put_no_file(path: Path, what: str) -> bool:
    """Put a directory, a FIFO, a socket or a link at a path; False for anything else, which is the caller's to make.

    The current directory must be that of the path: the name of a socket has at most 107 bytes.
    """
    if what == "a directory":
        path.mkdir()
    elif what == "a FIFO":
        os.mkfifo(path)
    elif what == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    elif what == "a symbolic link":
        path.with_name("theirs").write_bytes(b"theirs")
        path.symlink_to("theirs")
    else:
        return False
    return True
