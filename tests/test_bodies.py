"""A body in memory is there once, whatever a client asks of it."""

from __future__ import annotations

from atomicpath.storage import WatchedBytes


def test_the_buffer_of_a_body_is_no_copy_of_it() -> None:
    data = bytes(100)
    body = WatchedBytes(data, 60)
    assert body.getbuffer().obj is data
    assert body.read() == data
