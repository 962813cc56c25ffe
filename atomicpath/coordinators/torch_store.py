"""The coordinator over a store of torch.distributed: TCPStore, FileStore, HashStore, or the default group's own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from atomicpath._core.environment import current
from atomicpath.errors import CoordinationError, ValidationError

from .chunked_store import InParts
from .engine import engine_module
from .key_value_store import KeyValues, poll
from .keyvalue import KeyValueCoordinator

__all__ = ["TorchStoreCoordinator"]

T = TypeVar("T")

_ANSWER = timedelta(seconds=30)  # for a store to answer what does not wait for another rank
_LARGEST = 4 << 20  # bytes in one value: TCPStore's server ends the connection of who sends more than 8 MiB (measured)


class TorchStoreCoordinator(KeyValueCoordinator):
    """Over `store`, with this process's `rank` of `world_size`; left out, over the default process group's.

    Its own connection is used where the store can be cloned (torch 2.8 and newer), so that torch's waits and
    ours do not hold one another up. It is the store that is used, whatever backend the group has.
    """

    def __init__(
        self,
        store: Any = None,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        timeout: float = 600.0,
        name: str = "atomicpath",
    ) -> None:
        distributed = engine_module("torch.distributed", "torch")
        is_open: Callable[[], bool] = _always
        find: Callable[[], Any] = partial(_itself, store)  # kept: a server may end with its object
        if store is None:
            if rank is not None or world_size is not None:
                raise ValidationError("rank= and world_size= belong to store=: the default group has its own")
            find, rank, world_size, is_open = _default(distributed)
        elif rank is None or world_size is None:
            raise ValidationError("a store does not know which ranks use it: pass rank= and world_size= as well")
        elif not isinstance(store, distributed.Store):
            raise ValidationError(f"store={store!r} is no torch.distributed.Store")
        values = _TorchValues(find, is_open)
        super().__init__(InParts(values, _LARGEST), rank, world_size, timeout=timeout, name=name)
        values.connect()  # last, as torch waits minutes for a server that has gone; but now, while every rank is there


def _always() -> bool:
    return True


def _itself(store: Any) -> Any:
    return store


def _default(distributed: Any) -> tuple[Callable[[], Any], int, int, Callable[[], bool]]:
    if not distributed.is_available() or not distributed.is_initialized():
        raise CoordinationError(
            "torch.distributed has no default process group: call torch.distributed.init_process_group first, "
            "or pass store=, rank= and world_size="
        )
    group = distributed.group.WORLD
    find = distributed.distributed_c10d._get_default_store  # noqa: SLF001 - torch has no public name for it
    known = weakref.ref(group)  # so that it ends when it is destroyed

    def is_open() -> bool:
        return distributed.group.WORLD is not None and distributed.group.WORLD is known()

    return find, distributed.get_rank(), distributed.get_world_size(), is_open


class _TorchValues(KeyValues):
    """Asked again and again, never waited on: torch logs a warning for each wait of its store that runs out.

    So no request lasts longer than an answer, and the connection is free for other threads in between.
    """

    def __init__(self, find: Callable[[], Any], is_open: Callable[[], bool]) -> None:
        self._find = find
        self._is_open = is_open

    def connect(self) -> None:
        """Get a connection of our own, for as long as the store itself waits for its server."""
        self._store = self._ask(self._find)
        if hasattr(self._store, "clone"):
            self._store = self._ask(self._store.clone)
            self._store.set_timeout(_ANSWER)
        self._gets_many = bool(getattr(self._store, "has_extended_api", lambda: False)())

    def create(self, key: str, value: bytes) -> bytes:
        return bytes(self._ask(self._store.compare_set, key, b"", value))

    def put(self, key: str, value: bytes) -> None:
        self._ask(self._store.set, key, value)

    def collect(self, keys: Sequence[str], seconds: float, waited: float) -> Mapping[str, bytes]:
        wanted = [*keys]
        if self._poll(wanted, seconds, waited):
            return self._get(wanted)
        return self._get([key for key in wanted if self._ask(self._store.check, [key])]) if len(wanted) > 1 else {}

    def count(self, key: str) -> int:
        return int(self._ask(self._store.add, key, 1))

    def delete(self, key: str) -> None:
        self._ask(self._store.delete_key, key)

    def _poll(self, keys: list[str], seconds: float, waited: float) -> bool:
        return bool(poll(current(), lambda: self._ask(self._store.check, keys) or None, seconds, waited))

    def _get(self, keys: list[str]) -> Mapping[str, bytes]:
        if self._gets_many and len(keys) > 1:
            found = self._ask(self._store.multi_get, keys)
        else:
            found = [self._ask(self._store.get, key) for key in keys]
        return {key: bytes(value) for key, value in zip(keys, found, strict=True)}

    def _ask(self, function: Callable[..., T], *arguments: object) -> T:
        if not self._is_open():
            raise CoordinationError(
                "the default process group of torch.distributed was shut down since: call atomicpath before "
                "destroy_process_group, or make a new coordinator after the next init_process_group"
            )
        try:
            return current().call(function, *arguments)
        except RuntimeError as error:  # torch.distributed.DistError is one, and not all its stores raise it
            raise CoordinationError(
                f"the store of torch.distributed does not answer ({error}): the process that hosts it, usually rank "
                "0's, has probably ended"
            ) from error
