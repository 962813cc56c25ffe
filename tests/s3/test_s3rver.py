"""s3rver ignores every condition without a word: nothing is published there, and the refusal says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

import atomicpath
from atomicpath import Guarantee, GuaranteeError
from tests.support.servers.s3rver import KEY, s3rver

CONDITIONS = Guarantee.EXCLUSIVE_CREATE | Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3rver(tmp_path_factory.mktemp("s3rver")) as url:
        yield url


@pytest.fixture
def options(endpoint: str) -> dict[str, Any]:
    return {"endpoint_url": endpoint, "key": KEY, "secret": KEY}


@pytest.fixture
def client(endpoint: str) -> Iterator[Any]:
    made = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=KEY,
        config=Config(s3={"addressing_style": "path"}),
    )
    made.create_bucket(Bucket="places")
    made.put_object(Bucket="places", Key="run/of-somebody", Body=b"else")
    yield made
    made.close()


def test_a_store_that_ignores_conditions_is_refused_and_left_as_it_was(
    client: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(GuaranteeError) as caught:
        atomicpath.put(tmp_path, "s3://places/run/step_1", storage_options=options, guarantees=CONDITIONS)
    assert "EXCLUSIVE_CREATE, which was refuted" in str(caught.value)
    assert "concurrent creations of one name succeeded" in str(caught.value)
    found = atomicpath.profile("s3://places/run/step_1", storage_options=options)
    assert CONDITIONS in found.refuted
    assert Guarantee.LIST_AFTER_WRITE in found.observed
    listed = client.list_objects_v2(Bucket="places")["Contents"]
    assert [item["Key"] for item in listed] == ["run/of-somebody"], "the probes are gone, and nothing else came"
