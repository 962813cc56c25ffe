"""docs/command-line.md as tests read it: its sessions, which are run, and its schema.

    python -m tests.cli.page --write

writes into the page what the program prints now.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE

__all__ = ["PAGE", "PYTHONPATH", "conforms", "run", "schema", "sessions", "stable", "transcript"]

TOP = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(TOP), str(TOP / "backends")])
PAGE = TOP / "docs" / "command-line.md"

_SESSION = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
_EXIT_CODE = '; echo "exit code $?"'
_VARIABLE = {
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d": "<time>",
    r"process \d+ on \S+": "<process>",
    r"\b[0-9a-f]{20}\b": "<token>",
    r"(?<=atomicpath-doctor-)[0-9a-f]{12}": "<random>",
    r"(?<=commits use ).*": "<what the disk guarantees>",
    r"\d+ system calls, in \d+ ms": "<cost>",
    r"Python 3\..*": "<versions>",
    r"(?<=  )[\d.]+ +[\d.]+ +[\d.]+$": "<measured>",
    r" {2,}": "  ",
}
"""What differs from run to run, machine to machine, and version to version."""


def sessions(text: str) -> list[str]:
    """The blocks of a page that are sessions of a terminal."""
    return _SESSION.findall(text)


def transcript(session: str) -> str:
    """Run the commands of a session in the current directory; what was typed and shown, with a home of somebody's."""
    lines = [line for line in session.splitlines() if line.startswith("$ ")]
    shown = "".join(f"{line}\n{_run(line[2:])}" for line in lines)
    shown = shown.replace(os.path.realpath(os.getcwd()), "/home/ada")
    return re.sub(r"process (\d+) on [^\s;]+", r"process \1 on host-a", shown)


def stable(shown: str) -> list[str]:
    """The lines of a session, without what differs from run to run."""
    lines = shown.splitlines()
    for pattern, standing in _VARIABLE.items():
        lines = [re.sub(pattern, standing, line) for line in lines]
    return lines


def run(*arguments: str) -> tuple[int, str]:
    """Run the program in this process: its exit code, and stdout and stderr as they came."""
    from atomicpath.cli.app import app

    screen = io.StringIO()
    with redirect_stdout(screen), redirect_stderr(screen):
        try:
            app(list(arguments), prog_name="atomicpath")
        except SystemExit as ended:
            return int(ended.code or 0), screen.getvalue()
    raise AssertionError("the program did not end")


def _run(line: str) -> str:
    """Run one line: of the program in this process, for imports take most of its time; any other in a shell."""
    command = line.removesuffix(_EXIT_CODE)
    if not command.startswith("atomicpath "):
        return _run_in_shell(line)
    code, screen = run(*shlex.split(command)[1:])
    if command != line:
        return f"{screen}exit code {code}\n"
    assert code == 0, screen
    return screen


def _run_in_shell(line: str) -> str:
    program = Path(sys.executable).parent
    variables = {**os.environ, "PATH": f"{program}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": PYTHONPATH}
    ended = subprocess.run(
        line, shell=True, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False
    )
    return ended.stdout.decode()


def schema(text: str) -> dict[str, dict[str, str]]:
    """The types of the fields of each object that the page describes, by its heading."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in text.partition("\n## JSON\n")[2].splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").strip("`").removeprefix("atomicpath ")
        elif row := re.match(r"\| `(\w+)` \| ([^|]+) \|", line):
            found.setdefault(heading, {})[row[1]] = row[2].strip()
        elif link := re.match(r"A \[(\w+)\]", line):
            found[heading] = found[link[1]]
    return found


def conforms(value: Any, kind: str, known: dict[str, dict[str, str]], where: str = "it") -> Iterator[str]:
    """Say how a value differs from what the page says of it; nothing if it does not."""
    kind, _, rest = kind.replace("true or false", "boolean").partition(" or ")
    if value is None and rest == "null":
        return
    simple = {"text": str, "integer": int, "boolean": bool, "object": dict, "number": (int, float), "time": str}
    if kind.startswith("list of "):
        if not isinstance(value, list):
            yield f"{where} is no list: {value!r}"
            return
        for number, item in enumerate(value):
            yield from conforms(item, kind.removeprefix("list of "), known, f"{where}[{number}]")
    elif kind in simple:
        is_kind = isinstance(value, simple[kind]) and (kind == "boolean" or not isinstance(value, bool))
        if not is_kind or (kind == "time" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", value)):
            yield f"{where} is not {kind}: {value!r}"
    elif not isinstance(value, dict) or value.keys() != known[kind].keys():
        yield f"{where} has other fields than {kind}: {value!r}"
    else:
        for name, inner in known[kind].items():
            yield from conforms(value[name], inner, known, f"{where}.{name}")


def _write() -> None:
    text = PAGE.read_text(encoding="utf-8")
    home = Path("/tmp", secrets.token_hex(2))  # as long as /home/ada: tables keep their columns
    home.mkdir()
    os.chdir(home)
    for session in sessions(text):
        text = text.replace(session, transcript(session), 1)
    shutil.rmtree(home)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    _write()
