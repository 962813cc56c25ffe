"""The coordinator over JAX's coordination service."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from atomicpath._core.environment import current
from atomicpath.errors import CoordinationError

from .engine import engine_module
from .key_value_store import KeyValues
from .keyvalue import KeyValueCoordinator

__all__ = ["JaxCoordinator"]

_NEEDED = (
    "key_value_set_bytes",
    "key_value_try_get_bytes",
    "blocking_key_value_get_bytes",
    "key_value_increment",
    "key_value_delete",
)


class _Refused(enum.Enum):
    THAT = enum.auto()


class JaxCoordinator(KeyValueCoordinator):
    """Over the service that `jax.distributed.initialize` has connected this process to.

    JAX has no public name for its client; as Orbax does, we take it from `jax._src.distributed`.
    """

    def __init__(self, *, timeout: float = 600.0, name: str = "atomicpath") -> None:
        engine_module("jax", "jax")
        state = engine_module("jax._src.distributed", "jax").global_state
        if state.client is None:
            raise CoordinationError(
                "JAX's coordination service is not connected: call jax.distributed.initialize first"
            )
        super().__init__(_JaxValues(state), state.process_id, state.num_processes, timeout=timeout, name=name)


class _JaxValues(KeyValues):
    """JAX's own calls wait by themselves; what they say is told by the status code their message begins with."""

    def __init__(self, state: Any) -> None:
        self._state, self._client = state, state.client
        lacking = [name for name in _NEEDED if not hasattr(self._client, name)]
        if lacking:
            raise CoordinationError(
                f"this JAX's coordination service has no {', '.join(lacking)}: pip install -U 'atomicpath[jax]', or "
                "pass another coordinator="
            )

    def create(self, key: str, value: bytes) -> bytes:
        if self._try("ALREADY_EXISTS", self._client.key_value_set_bytes, key, value) is not _Refused.THAT:
            return value
        found: bytes = self._ask(self._client.key_value_try_get_bytes, key)
        return found

    def put(self, key: str, value: bytes) -> None:
        self._ask(self._client.key_value_set_bytes, key, value, True)

    def collect(self, keys: Sequence[str], seconds: float, waited: float) -> Mapping[str, bytes]:
        environment = current()
        deadline = environment.monotonic() + seconds
        found: dict[str, bytes] = {}
        for key in keys:
            milliseconds = int(1000 * (deadline - environment.monotonic()))
            value = self._wait(key, milliseconds) if milliseconds > 0 else self._look(key)
            if value is not None:
                found[key] = value
        return found

    def count(self, key: str) -> int:
        return int(self._ask(self._client.key_value_increment, key, 1))

    def delete(self, key: str) -> None:
        self._ask(self._client.key_value_delete, key)

    def _look(self, key: str) -> bytes | None:
        found = self._try("NOT_FOUND", self._client.key_value_try_get_bytes, key)
        return None if found is _Refused.THAT else bytes(found)

    def _wait(self, key: str, milliseconds: int) -> bytes | None:
        found = self._try("DEADLINE_EXCEEDED", self._client.blocking_key_value_get_bytes, key, milliseconds)
        return None if found is _Refused.THAT else bytes(found)

    def _ask(self, function: Callable[..., Any], *arguments: object) -> Any:
        return self._try(None, function, *arguments)

    def _try(self, expected: str | None, function: Callable[..., Any], *arguments: object) -> Any:
        """Return the service's answer, or _Refused.THAT for the one status that the caller expects."""
        if self._state.client is not self._client:
            raise CoordinationError(
                "JAX's coordination service was shut down since: call atomicpath before jax.distributed.shutdown, "
                "or make a new coordinator after the next jax.distributed.initialize"
            )
        try:
            return current().call(function, *arguments)
        except RuntimeError as error:  # JaxRuntimeError, whatever it is called in this version
            if expected is not None and str(error).startswith(f"{expected}:"):
                return _Refused.THAT
            raise CoordinationError(
                f"JAX's coordination service does not answer ({error}): process 0, which hosts it, has probably ended, "
                "or the service has given this job up because another process did"
            ) from error
