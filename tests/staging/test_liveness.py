"""Whether a process lives: only proof counts, whatever a record says and however little the system shows."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ParamSpec, TypeVar

import pytest

from atomicpath._core import liveness
from atomicpath._core.environment import Environment
from atomicpath._core.liveness import boot_clock, lives, this_process
from atomicpath._core.record import Writer

P = ParamSpec("P")
T = TypeVar("T")

_IDENTITY = """
import sys
from atomicpath._core.environment import Environment
from atomicpath._core.liveness import this_process
print(this_process(Environment()).document(), flush=True)
"""
_WAITS = _IDENTITY + "sys.stdin.read()\n"
_WITHOUT_A_MAIN_THREAD = (
    _IDENTITY
    + """
import ctypes, os, threading

def wait():
    while open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
        pass
    print("ended", flush=True)
    sys.stdin.readline()
    os._exit(0)

threading.Thread(target=wait).start()
ctypes.CDLL(None).pthread_exit(None)
"""
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells boots, namespaces and start times")


@pytest.fixture
def processes() -> Iterator[Callable[..., tuple[subprocess.Popen[str], Writer]]]:
    """Start a process that tells its identity."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *before: str) -> tuple[subprocess.Popen[str], Writer]:
        process = subprocess.Popen(
            [*before, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            pytest.skip(f"{' '.join(before)} is not possible here")
        return process, Writer.of(eval(line))

    yield start
    for process in started:
        process.kill()
        process.communicate()


Processes = Callable[..., tuple[subprocess.Popen[str], Writer]]


class Hiding(Environment):
    """Calls whose first argument begins so fail with this error."""

    def __init__(self, prefix: str, number: int) -> None:
        self.prefix, self.number = prefix, number

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if args and isinstance(args[0], str) and args[0].startswith(self.prefix):
            raise OSError(self.number, os.strerror(self.number), args[0])
        return super().call(function, *args, **kwargs)


def test_a_running_process_lives_and_a_killed_one_does_not_even_before_it_is_reaped(processes: Processes) -> None:
    process, writer = processes(_WAITS)
    assert lives(Environment(), writer) is True
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert lives(Environment(), writer) is False
    process.wait()
    assert lives(Environment(), writer) is False


def test_a_process_whose_main_thread_has_ended_lives_until_its_last_thread_ends(processes: Processes) -> None:
    process, writer = processes(_WITHOUT_A_MAIN_THREAD)
    assert process.stdout is not None
    assert process.stdout.readline() == "ended\n"
    assert lives(Environment(), writer) is True
    process.communicate("go on\n")
    assert lives(Environment(), writer) is False


def test_a_pid_that_is_used_again_is_another_process(processes: Processes) -> None:
    _, writer = processes(_WAITS)
    assert writer.start is not None
    assert lives(Environment(), replace(writer, start=writer.start - 1)) is False


@pytest.mark.parametrize("pid", [10**30, 2**63, 2**31, -(10**30), -1, 0])
def test_a_number_that_is_no_pid_proves_nothing(pid: int) -> None:
    assert lives(Environment(), replace(this_process(Environment()), pid=pid)) is None


@pytest.mark.parametrize("start", [10**30, 2**64, -1, -(10**30)])
def test_a_start_that_no_process_can_have_proves_nothing(start: int) -> None:
    assert lives(Environment(), replace(this_process(Environment()), start=start)) is None


@pytest.mark.parametrize("field", ["boot", "namespace", "host"])
def test_death_is_believed_only_of_this_boot_namespace_and_host(field: str, processes: Processes) -> None:
    process, writer = processes(_WAITS)
    process.kill()
    process.wait()
    assert lives(Environment(), writer) is False
    assert lives(Environment(), replace(writer, **{field: "another"})) is None


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EMFILE, errno.EIO])
def test_a_live_process_that_cannot_be_looked_at_is_not_dead(number: int, processes: Processes) -> None:
    process, writer = processes(_WAITS)
    this_process(Environment())
    assert lives(Hiding(f"/proc/{process.pid}", number), writer) is None


def test_threads_that_cannot_be_looked_at_are_not_dead(processes: Processes) -> None:
    process, writer = processes(_WITHOUT_A_MAIN_THREAD)
    assert process.stdout is not None
    process.stdout.readline()
    assert lives(Hiding(f"/proc/{process.pid}/task", errno.EMFILE), writer) is None


@pytest.fixture
def unknown_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process looks at itself again."""
    monkeypatch.setattr(liveness, "_identities", {})


@pytest.mark.usefixtures("unknown_to_itself")
def test_without_proc_nothing_is_provable() -> None:
    here = this_process(Hiding("/proc", errno.ENOENT))
    assert (here.boot, here.namespace, here.start, here.pid) == ("", "", None, os.getpid())
    assert lives(Environment(), here) is None
    assert boot_clock(Environment()) is None


class InAnotherNamespace(Environment):
    """The kernel says so of the namespaces of the given kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if args and args[0] == f"/proc/self/ns/{self.kind}":
            return f"{self.kind}:[1]"  # type: ignore[return-value]
        return super().call(function, *args, **kwargs)


@pytest.mark.usefixtures("unknown_to_itself")
def test_start_times_of_another_time_namespace_prove_nothing(processes: Processes) -> None:
    process, writer = processes(_WAITS)
    process.kill()
    process.wait()
    shifted = InAnotherNamespace("time")
    assert this_process(shifted).namespace != writer.namespace
    assert lives(shifted, writer) is None
    assert boot_clock(shifted) is None


@pytest.mark.parametrize("option", ["--pid", "--time"])
def test_a_live_process_of_another_namespace_is_never_taken_for_dead(option: str, processes: Processes) -> None:
    shift = ("--boottime", "1000000") if option == "--time" else ()
    _, writer = processes(_WAITS, "unshare", option, "--fork", *shift, "--kill-child")
    assert lives(Environment(), writer) is None


def test_a_proc_of_another_pid_namespace_is_not_believed(processes: Processes) -> None:
    _, writer = processes(_WAITS, "unshare", "--pid", "--fork", "--kill-child")
    assert (writer.boot, writer.namespace, writer.start) == ("", "", None), "its /proc shows other processes"
