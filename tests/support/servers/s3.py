"""What tests need of any server that speaks S3: boto's own client, which asks once and says what it heard."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.roots import SECRET

__all__ = ["KEY", "client", "moto"]

KEY = "key"
_SERVER = Path(__file__).parents[3] / "examples" / "s3_server.py"


@contextmanager
def moto() -> Iterator[str]:
    """The endpoint of moto's S3, in a process of its own for the block: it changes botocore in the one it runs in."""
    with subprocess.Popen(
        [sys.executable, str(_SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


@contextmanager
def client(endpoint: str) -> Iterator[Any]:
    """A client with the credentials of `S3Root`, which repeats nothing by itself."""
    import boto3
    from botocore.config import Config

    made = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=32),
    )
    try:
        yield made
    finally:
        made.close()
