"""How an engine that may be missing, broken or of another version is reached: by name, with a clear error."""

from __future__ import annotations

import importlib
from typing import Any

from atomicpath.errors import CoordinationError

__all__ = ["engine_module"]


def engine_module(name: str, extra: str) -> Any:
    """Import the engine's module; raise CoordinationError, saying what to install, if there is none."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CoordinationError(f"{name} cannot be imported ({error}): pip install 'atomicpath[{extra}]'") from error
