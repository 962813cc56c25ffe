"""A storage on one of Cloud Storage's two fakes, and how its requests are told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from atomicpath.abc import Storage
from tests.protocol.worlds import Quick
from tests.support.proxy import Proxy, Request

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)


@dataclass(frozen=True)
class Store:
    """A storage that never waits, a bucket there, the server before it, and what that has stored."""

    storage: Storage
    bucket: str
    proxy: Proxy
    truth: Callable[[], dict[str, bytes]]
    options: dict[str, Any]
    environment: Quick

    def path(self, key: str) -> str:
        return f"{self.bucket}/{key}"


def uploads(request: Request) -> bool:
    """What stores bytes."""
    return request.method in ("POST", "PUT") and request.path.startswith(("/upload/", "/session/"))


def conditions(requests: list[Request]) -> list[tuple[str, str | None]]:
    """Method and condition of each."""
    return [(request.method, request.query.get("ifGenerationMatch")) for request in requests]
