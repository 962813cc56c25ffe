"""s3rver, a server that speaks S3 and was written for tests of others, on loopback: it ignores every condition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers.base import answers, find_of_npm, free_port, running

__all__ = ["HOW", "KEY", "s3rver"]

HOW = "npm install --prefix .venv/node s3rver@3 (make does it where there is npm)"

KEY = "S3RVER"
"""Its only key, and the secret of it."""


@contextmanager
def s3rver(directory: Path) -> Iterator[str]:
    """Its endpoint."""
    port = free_port()
    (directory / "data").mkdir()
    command = [
        find_of_npm("s3rver", "s3rver", HOW),
        "--directory",
        str(directory / "data"),
        "--address",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with running([*command, "--silent"], lambda: answers(port), directory / "log"):
        yield f"http://127.0.0.1:{port}"
