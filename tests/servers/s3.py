"""What tests need of any server that speaks S3: boto's own client, which asks once and says what it heard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

from tests.roots import SECRET

__all__ = ["KEY", "client"]

KEY = "key"


@contextmanager
def client(endpoint: str) -> Iterator[Any]:
    """A client with the credentials of `S3Root`, which repeats nothing by itself."""
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
