"""What no object's key may be, on any store, and what a file not yet finished is called."""

from __future__ import annotations

from atomicpath._core.layout import TMP_DIR_SUFFIX
from atomicpath.errors import ValidationError

__all__ = ["UNFINISHED", "flaw_of_key", "unusable"]

UNFINISHED = TMP_DIR_SUFFIX
"""Start of the name of a file that is being written, which never counts as content; short, so that long names fit."""


def flaw_of_key(key: str, *, longest: int) -> str | None:
    """Return why a key cannot be used, or None. `longest` is the store's bound in bytes of UTF-8."""
    if any(part in ("", ".", "..") for part in key.split("/")):
        return "its key has an empty part, '.' or '..' in it, which other tools do not keep apart"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "its key is not valid Unicode"
    return f"its key is {size} bytes long, {longest} are possible" if size > longest else None


def unusable(url: str, reason: str) -> ValidationError:
    """Return the error for a URL that can name nothing; a long URL is shown in part."""
    shown = url if len(url) <= 80 else f"{url[:77]}..."
    return ValidationError(f"{shown} cannot be used: {reason}".encode(errors="backslashreplace").decode())
