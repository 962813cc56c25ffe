"""Where no connection can be made to a store, on none of the protocols is it tried for long, and the reason is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from tests.support.servers.azurite import ACCOUNT, KEY
from tests.support.servers.base import free_port

CONTAINER = {"s3": "s3://places", "gs": "gs://places", "abfs": "abfs://places"}


def options_of(protocol: str, endpoint: str) -> dict[str, Any]:
    match protocol:
        case "s3":
            return {"endpoint_url": endpoint, "key": "key", "secret": "secret"}
        case "gs":
            return {"endpoint_url": endpoint, "token": "anon"}
        case _:
            return {"connection_string": f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint}/{ACCOUNT}"}


@pytest.mark.parametrize("protocol", CONTAINER)
@pytest.mark.parametrize("host", ["no-such-host.invalid:9000", "127.0.0.1"], ids=["name", "port"])
def test_a_store_that_cannot_be_reached_is_given_up_at_once_and_nothing_is_to_be_asserted(
    protocol: str, host: str, attempts: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").write_bytes(b"x")
    endpoint = f"http://{host if ':' in host else f'{host}:{free_port()}'}"
    with (
        caplog.at_level(logging.WARNING, "atomicpath"),
        pytest.raises(Exception, match="endpoint cannot be reached") as caught,
    ):
        atomicpath.put(tmp_path, f"{CONTAINER[protocol]}/run/step_1", storage_options=options_of(protocol, endpoint))
    assert isinstance(caught.value, atomicpath.AtomicPathError | ConnectionRefusedError)
    assert len(attempts) <= 3, "two about the kind of the place, where there are kinds, and one about the place"
    assert "guarantees=" not in str(caught.value)
    assert not [record for record in caplog.records if "could not delete" in record.getMessage()]
