"""Which engine this process was started under: looked up among the modules that are imported, never imported here."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from atomicpath._core.concurrency import Lock
from atomicpath.abc import Coordinator
from atomicpath.errors import CoordinationError, ValidationError

from .gloo import GlooCoordinator
from .jax_service import JaxCoordinator
from .mpi import MpiCoordinator
from .single import SingleProcess
from .torch_store import TorchStoreCoordinator

__all__ = ["chosen", "initialised"]

_NAME = "atomicpath-initialised"  # prefix of keys; a coordinator that the user makes on the same store has another


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """One that is initialised here; `state` is another object after it was initialised anew."""

    name: str
    rank: int
    world_size: int
    state: Any
    coordinator: Callable[[], Coordinator]


_SINGLE = SingleProcess()
_lock = Lock()
_found: dict[str, tuple[Callable[[], Any], Coordinator]] = {}
_inherited: dict[str, Callable[[], Any]] = {}


def initialised() -> Coordinator:
    """Return the coordinator of the engine that is initialised in this process, or SingleProcess if there is none.

    torch.distributed goes before JAX, and JAX before MPI. The object stays the same until the engine is initialised
    anew. Raise CoordinationError if two engines disagree on rank or size. Raise it too in a child that was forked after
    the engine was initialised, because that child is no rank of the job.
    """
    engines = [*_engines()]
    if not engines:
        return _SINGLE
    first = engines[0]
    for other in engines[1:]:
        if (other.rank, other.world_size) != (first.rank, first.world_size):
            raise CoordinationError(
                f"{first.name} says that this is rank {first.rank} of {first.world_size}, {other.name} that it is rank "
                f"{other.rank} of {other.world_size}: say which is meant with coordinator="
            )
    with _lock:
        if first.name in _inherited and _inherited[first.name]() is first.state:
            raise CoordinationError(
                f"process {os.getpid()} was forked from rank {first.rank} of {first.name} and is no rank itself: pass "
                "coordinator=SingleProcess() for what it writes alone"
            )
        known = _found.get(first.name)
        if known is None or known[0]() is not first.state:
            _found[first.name] = known = (_reference(first.state), first.coordinator())
        return known[1]


def chosen(coordinator: Coordinator | Literal["auto"] | None) -> Coordinator:
    """Return the coordinator that a caller means.

    That is the coordinator passed; for "auto" the one of the initialised engine; for None this process alone.

    None is ValidationError where an engine of more than one process is initialised. In such a job the caller may mean
    that all ranks act together, or that this rank acts alone. One wrong guess waits for ranks that never come, the
    other commits one rank's part as the whole.
    """
    if coordinator == "auto":
        return initialised()
    if coordinator is not None:
        return coordinator
    for engine in _engines():
        if engine.world_size > 1:
            raise ValidationError(
                f"{engine.name} is initialised here as rank {engine.rank} of {engine.world_size}, and coordinator= does"
                ' not say who acts: pass coordinator="auto" in every rank to act together, or'
                " coordinator=atomicpath.SingleProcess() for this process alone. Nothing was begun"
            )
    return _SINGLE


def _engines() -> Iterator[_Engine]:
    for find in (_torch, _jax, _mpi):
        engine = find()
        if engine is not None:
            yield engine


def _torch() -> _Engine | None:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    group = distributed.group.WORLD

    def coordinator() -> Coordinator:
        if distributed.distributed_c10d._world.pg_map[group][1] is None:  # noqa: SLF001 - as torch's own tools do
            return GlooCoordinator(group)
        return TorchStoreCoordinator(name=_NAME)

    rank, size = distributed.get_rank(), distributed.get_world_size()
    return _Engine(name="torch.distributed", rank=rank, world_size=size, state=group, coordinator=coordinator)


def _jax() -> _Engine | None:
    state = getattr(sys.modules.get("jax._src.distributed"), "global_state", None)
    if state is None or state.client is None or state.num_processes < 2:
        return None

    def coordinator() -> Coordinator:
        return JaxCoordinator(name=_NAME)

    rank, size = state.process_id, state.num_processes
    return _Engine(name="JAX", rank=rank, world_size=size, state=state.client, coordinator=coordinator)


def _mpi() -> _Engine | None:
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized() or mpi.COMM_WORLD.Get_size() < 2:
        return None
    world = mpi.COMM_WORLD
    return _Engine(
        name="MPI", rank=world.Get_rank(), world_size=world.Get_size(), state=world, coordinator=MpiCoordinator
    )


def _reference(state: Any) -> Callable[[], Any]:
    """Return a reference that, where the engine allows weak ones, does not keep alive an engine that was shut down."""
    try:
        return weakref.ref(state)
    except TypeError:
        return lambda: state


def _leave_the_parents_job() -> None:
    _found.clear()
    _inherited.clear()
    _inherited.update({engine.name: _reference(engine.state) for engine in _engines()})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_the_parents_job)
