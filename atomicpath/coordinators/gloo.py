"""The coordinator over a gloo process group of torch.distributed, by messages from rank to rank."""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from atomicpath._core.environment import current
from atomicpath.errors import CoordinationError, ValidationError

from .engine import engine_module
from .messages import MessageCoordinator, Messages

__all__ = ["GlooCoordinator"]

T = TypeVar("T")

_EVER = timedelta(days=300)  # a wait of gloo that runs out closes all its connections
_SENT = 10_000  # messages kept because gloo does not tell when a message was fetched
_FIRST_TAG = 7_000_000
_made: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


class GlooCoordinator(MessageCoordinator):
    """Over `group`, whose processes make it in the same order; its collectives are never called.

    Where the default process group has a store, `TorchStoreCoordinator` does more: it tells which process
    of this host has ended, and tells two jobs apart.
    """

    def __init__(self, group: Any, *, timeout: float = 600.0) -> None:
        distributed = engine_module("torch.distributed", "torch")
        backends = _backends(distributed, group)
        if "cpu:gloo" not in backends.split(","):
            raise ValidationError(
                f"the process group works by {backends}, and only gloo passes messages between processes without their "
                "accelerators: pass torch.distributed.new_group(backend='gloo'), or a TorchStoreCoordinator"
            )
        number = _made[group] = _made.get(group, -1) + 1
        messages = _GlooMessages(distributed, group, _FIRST_TAG + 2 * number)
        super().__init__(messages, group.rank(), group.size(), timeout=timeout)

    @property
    def leave_together(self) -> bool:
        """Return True: a receive from any rank fails as soon as one rank's connection is closed.

        Every message is received in that way.
        """
        return True


def _backends(distributed: Any, group: Any) -> str:
    try:
        return str(distributed.get_backend_config(group))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CoordinationError(
            f"this is no process group of torch.distributed, or it was destroyed ({error}): make the coordinator after "
            "init_process_group, and call atomicpath before destroy_process_group"
        ) from error


class _GlooMessages(Messages):
    """One receive of gloo is under way while anybody waits, in a thread that outlives a time-out or a cancellation.

    What it brings then is the next call's. A time-out of gloo's own would end the group.
    """

    def __init__(self, distributed: Any, group: Any, tag: int) -> None:
        self._torch = engine_module("torch", "torch")
        self._distributed, self._group, self._tag = distributed, group, tag
        self._sent: deque[object] = deque(maxlen=_SENT)
        self._received: queue.SimpleQueue[tuple[int, bytes] | CoordinationError] = queue.SimpleQueue()
        self._receiver: threading.Thread | None = None

    def send(self, to: int, data: bytes) -> None:
        length = self._torch.tensor([len(data)], dtype=self._torch.int64)
        body = self._torch.frombuffer(bytearray(data), dtype=self._torch.uint8)
        self._sent.append((length, self._ask(self._group.send, [length], to, self._tag)))
        self._sent.append((body, self._ask(self._group.send, [body], to, self._tag + 1)))

    def receive(self, seconds: float, waited: float) -> tuple[int, bytes] | None:
        if self._receiver is None:
            _backends(self._distributed, self._group)
            self._receiver = threading.Thread(target=self._receive, name="atomicpath-gloo", daemon=True)
            self._receiver.start()
        try:
            received = self._received.get(timeout=seconds) if seconds else self._received.get_nowait()
        except queue.Empty:
            return None
        self._receiver.join()
        self._receiver = None
        if isinstance(received, CoordinationError):
            raise received
        return received

    def _receive(self) -> None:
        try:
            length = self._torch.zeros(1, dtype=self._torch.int64)
            work = self._ask(self._group.recv_anysource, [length], self._tag)
            self._ask(work.wait, _EVER)
            sender = int(self._ask(work._source_rank))  # noqa: SLF001 - as torch.distributed.recv itself does
            body = self._torch.zeros(int(length), dtype=self._torch.uint8)
            self._ask(self._ask(self._group.recv, [body], sender, self._tag + 1).wait, _EVER)
            self._received.put((sender, body.numpy().tobytes()))
        except CoordinationError as error:
            self._received.put(error)

    def _ask(self, function: Callable[..., T], *arguments: object) -> T:
        _backends(self._distributed, self._group)
        try:
            return current().call(function, *arguments)
        except RuntimeError as error:
            raise CoordinationError(
                f"the gloo group does not answer ({error}): another process has ended, or a time-out of the group "
                "closed it. Pass a TorchStoreCoordinator, which survives both"
            ) from error
