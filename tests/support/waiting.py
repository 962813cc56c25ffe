"""How long a test waits: for conditions, within a bound that no busy machine reaches by itself."""

from __future__ import annotations

import threading

import anyio

__all__ = ["PATIENCE", "until"]

PATIENCE = 600.0
"""Seconds after which a wait is a failure. A test that passes never waits that long, however busy the machine is."""


async def until(event: threading.Event) -> None:
    """Return once it is set. Can be cancelled, as a thread that waits cannot."""
    while not event.is_set():
        await anyio.sleep(0.002)
