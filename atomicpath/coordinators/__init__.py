"""Coordinators: how the processes of one job pass messages, over the engine that already connects them."""

from __future__ import annotations

from .detection import chosen, initialised
from .gloo import GlooCoordinator
from .jax_service import JaxCoordinator
from .keyvalue import KeyValueCoordinator, KeyValues
from .messages import MessageCoordinator, Messages
from .mpi import MpiCoordinator
from .single import SingleProcess
from .torch_store import TorchStoreCoordinator

__all__ = [
    "GlooCoordinator",
    "JaxCoordinator",
    "KeyValueCoordinator",
    "KeyValues",
    "MessageCoordinator",
    "Messages",
    "MpiCoordinator",
    "SingleProcess",
    "TorchStoreCoordinator",
    "chosen",
    "initialised",
]
