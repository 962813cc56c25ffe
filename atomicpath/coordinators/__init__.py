"""Coordinators: how the processes of one job pass messages, over the engine that already connects them."""

from __future__ import annotations

from .jax_service import JaxCoordinator
from .keyvalue import KeyValueCoordinator, KeyValues
from .single import SingleProcess
from .torch_store import TorchStoreCoordinator

__all__ = ["JaxCoordinator", "KeyValueCoordinator", "KeyValues", "SingleProcess", "TorchStoreCoordinator"]
