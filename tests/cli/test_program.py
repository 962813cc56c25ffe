"""The real program in processes of its own: interrupted, piped, on a terminal, and without what it needs."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath.cli.exits import ExitCode
from tests.cli import page
from tests.support.proxy import Proxy, Rule, fall_silent, is_
from tests.support.roots import SECRET
from tests.support.waiting import PATIENCE

PROGRAM = [sys.executable, "-m", "atomicpath"]


def variables(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": page.PYTHONPATH, **more}


def run(*command: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(one) for one in command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
        env=variables(**more.pop("variables", {})),
        **more,
    )


def test_help_and_version_do_not_import_the_library() -> None:
    script = "import sys, atomicpath.cli as cli\ntry: cli.main()\nfinally: print(*sys.modules, file=sys.stderr)\n"
    for argument in ("--help", "--version"):
        ended = run(sys.executable, "-c", script, argument)
        assert ended.returncode == 0, ended.stderr
        assert not {"atomicpath._public", "atomicpath.errors", "fsspec", "anyio", "rich.console", "asyncio"} & set(
            ended.stderr.split()
        )


def test_without_its_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('as the test asked', name='typer')")
    path = os.pathsep.join([str(tmp_path), page.PYTHONPATH])
    ended = run(*PROGRAM, "ls", variables={"PYTHONPATH": path})
    assert (ended.returncode, ended.stdout) == (ExitCode.SETUP, "")
    assert ended.stderr.splitlines() == ["the command line needs typer and rich: pip install 'atomicpath[cli]'"]


def test_completion_is_offered(tmp_path: Path) -> None:
    asked = {"_ATOMICPATH_COMPLETE": "complete_bash", "COMP_WORDS": "atomicpath ver", "COMP_CWORD": "1"}
    ended = run(*PROGRAM, variables=asked)
    assert ended.stdout.split() == ["verify"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "data").write_bytes(b"x" * 100)
    return tmp_path / "source"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_upload_leaves_nothing(
    number: signal.Signals, code: int, source: Path, proxy: Proxy, s3_options: dict[str, Any], bucket: str, truth: Any
) -> None:
    release = threading.Event()
    reached = threading.Event()
    silent = fall_silent(release)
    proxy.rules.append(Rule(is_("PUT", "/data"), lambda request, send: (reached.set(), silent(request, send))[1]))
    options = json.dumps({**s3_options, "endpoint_url": proxy.url})
    process = subprocess.Popen(
        [*PROGRAM, "put", str(source), f"s3://{bucket}/run/step_1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables(ATOMICPATH_STORAGE_OPTIONS=options),
    )
    try:
        assert reached.wait(PATIENCE)
        assert truth()
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        release.set()
        process.kill()
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    assert SECRET not in err
    assert truth() == {}


def test_output_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    for step in range(3):
        with atomicpath.commit(tmp_path / f"step_{step}") as path:
            (path / "data").write_text("x")
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [*PROGRAM, "ls", str(tmp_path)], stdout=writer, stderr=subprocess.PIPE, text=True, env=variables()
    )
    os.close(writer)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (ExitCode.BROKEN_PIPE, "")


def test_a_table_on_a_pipe_is_plain_and_never_cut(tmp_path: Path) -> None:
    name = "a-long-name-" * 15
    with atomicpath.commit(tmp_path / name) as path:
        (path / "data").write_text("x")
    ended = run(*PROGRAM, "ls", tmp_path, variables={"COLUMNS": "80", "FORCE_COLOR": "1"})
    assert name in ended.stdout
    assert "\x1b" not in ended.stdout
    assert len(ended.stdout.splitlines()) == 2


def test_on_a_terminal_it_asks_and_shows_progress_on_stderr_only(
    source: Path, tmp_path: Path, s3_options: dict[str, Any], bucket: str
) -> None:
    options = {"ATOMICPATH_STORAGE_OPTIONS": json.dumps(s3_options), "TERM": "xterm"}
    code, out, screen = on_a_terminal("put", source, f"s3://{bucket}/run/step_1", variables=options)
    assert (code, out) == (0, f"committed s3://{bucket}/run/step_1: 1 files, 100 bytes\n")
    assert "writing" in screen
    code, out, screen = on_a_terminal("rm", f"s3://{bucket}/run/step_1", variables=options, answer="y\n")
    assert (code, out) == (0, f"removed s3://{bucket}/run/step_1\n")
    assert "[y/N]" in screen


def on_a_terminal(*arguments: object, variables: dict[str, str], answer: str = "") -> tuple[int, str, str]:
    """Run the program with a terminal as stdin and stderr: its exit code, its stdout, and what the terminal showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "PYTHONPATH": page.PYTHONPATH, **variables},
    )
    os.close(theirs)
    screen, ends = b"", time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if not select.select([ours], [], [], 1.0)[0]:
            continue
        try:
            seen = os.read(ours, 4096)
        except OSError:  # Linux: the other end was closed
            break
        if not seen:
            break
        screen += seen
        if answer and b"[y/N]" in screen:
            os.write(ours, answer.encode())
            answer = ""
    out, _ = process.communicate(timeout=PATIENCE)
    os.close(ours)
    return process.returncode, out, screen.decode()
