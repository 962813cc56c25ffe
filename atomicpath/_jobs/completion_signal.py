"""The signal by which `create_all_async` says, to every process of a job, that its directories are there."""

from __future__ import annotations

import functools

from atomicpath._core.runner import run
from atomicpath.coordinators.options import MultiprocessingOptions
from atomicpath.coordinators.process_group import ProcessGroup, SharedOutcome
from atomicpath.errors import ValidationError

__all__ = ["CompletionSignal"]


class CompletionSignal:
    """Sent once by the primary, waited for in any process, thread and event loop, however late.

    Make the signals of one name equally often in all processes: the first of a name in one belongs to the
    first in the others, the second to the second. They need not be handed to `create_all_async` but in the primary.
    """

    def __init__(self, name: str, *, multiprocessing_options: MultiprocessingOptions | None = None) -> None:
        if not name:
            raise ValidationError("a signal needs a name, the same in all processes")
        self.name = name
        self._group = ProcessGroup(multiprocessing_options)
        key = self._group.key(f"signal/{name}")
        self._announcement = SharedOutcome(self._group, key, f"the signal {name!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def wait(self, timeout: float | None = None) -> None:
        """Wait until what the signal stands for is there.

        Raise RankFailedError if that has failed. Raise CoordinationTimeoutError after `timeout` seconds, by default
        those of the options.
        """
        run(functools.partial(self.wait_async, timeout))

    async def wait_async(self, timeout: float | None = None) -> None:
        """Wait as `wait` does, as a coroutine."""
        await self._announcement.wait(timeout)

    async def send(self, error: BaseException | None = None) -> None:
        """Send the signal, once and in the primary: what it stands for is there, or will not come because of `error`.

        `create_all_async` does this.
        """
        if not self._group.is_primary:
            raise ValidationError(
                f"{self!r} is sent by rank {self._group.primary_rank}, the primary, and this is another"
            )
        await self._announcement.set(error)
