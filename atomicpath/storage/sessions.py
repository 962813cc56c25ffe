"""What a client sends by itself, beyond what it was asked to send."""

from __future__ import annotations

from typing import Any

__all__ = ["repeats_nothing"]


def repeats_nothing(session: Any) -> None:
    """Have a session of aiohttp send what it is given once.

    It sends GET, PUT and DELETE again, without a word, when the connection breaks before the reply (aiohttp 3.10 and
    later, `ClientSession._request`). A delete that arrives twice may hit the next attempt's object, and whether another
    request is worth a second try is for whoever settles its outcome to say. There is no public switch.
    """
    if hasattr(session, "_retry_connection"):
        session._retry_connection = False  # noqa: SLF001 - as above
