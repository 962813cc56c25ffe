"""Coordinators: how the processes of one job pass messages, over the engine that already connects them."""

from __future__ import annotations

from .keyvalue import KeyValueCoordinator, KeyValues
from .single import SingleProcess

__all__ = ["KeyValueCoordinator", "KeyValues", "SingleProcess", "initialised"]

_ALONE = SingleProcess()


def initialised() -> SingleProcess:
    """Until engines are found."""
    return _ALONE
