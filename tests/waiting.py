"""Waiting, in an asynchronous test, for what happens in a thread."""

from __future__ import annotations

import threading

import anyio


async def until(event: threading.Event) -> None:
    """Return once it is set. Can be cancelled, as a thread that waits cannot."""
    while not event.is_set():
        await anyio.sleep(0.002)
