"""Scripts that are interrupted: what each of them needs, and how it is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FULL = os.environ.get("ATOMICPATH_FULL") == "1"
_PATIENCE = 300.0  # seconds on a machine that does much else; nothing here is expected to take as long

PRELUDE = """
import asyncio, atexit, faulthandler, gc, json, os, random, signal, sys, threading, time, warnings
from pathlib import Path
import anyio
import atomicpath
from atomicpath import aio, commit  # at once, and not while a timer runs

faulthandler.dump_traceback_later(280, exit=True)
root, options, arguments = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])

def say(*words):
    print(json.dumps(words), flush=True)

warnings.simplefilter("ignore", ResourceWarning)  # of a file that a handler's exception leaves open in the block

def write(path, files=2):
    for number in range(files):
        (path / f"file-{number}").write_bytes(b"x" * 100)

def save(name, files=2, **more):
    with atomicpath.commit(f"{root}/{name}", storage_options=options, **more) as path:
        write(path, files)

def there(name):
    return atomicpath.is_committed(f"{root}/{name}", storage_options=options)

def held():
    # what this process holds, beside fsspec's own event loop and threads that wait to be used again
    gc.collect()
    from atomicpath._core import liveness
    threads = [t.name for t in threading.enumerate() if t.name.startswith("atomicpath")]
    ours = (f"{root}/", *arguments.get("staging", ()))
    open_files = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(ours):
            open_files.append(target)
    return [threads, sorted(liveness._held), open_files]
"""


def run(script: str, root: str, options: dict[str, Any], **arguments: Any) -> list[list[Any]]:
    """Run a script in a process of its own, which has to end by itself and without a complaint; what it said."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + script, root, json.dumps(options), json.dumps(arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=_PATIENCE,
    )
    print(done.stderr, file=sys.stderr)  # with the log, for who reads of a failure
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
