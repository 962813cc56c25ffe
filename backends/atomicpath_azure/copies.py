"""One blob copied by the service itself, and followed until it has been."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from azure.core import MatchConditions

from atomicpath.storage import Answer

from .accounts import Account
from .asking import AccountStorage
from .blocks import MARK, is_marked
from .errors import Watch
from .names import Address, split

__all__ = ["copy"]

_PENDING, _DONE = "pending", "success"
_FIRST_LOOK, _LAST_LOOK = 0.05, 2.0  # seconds between looks at a copy
_PATIENCE = 3600.0  # seconds a copy may take


async def copy(storage: AccountStorage, source: str, target: str) -> None:
    """Copy by "Copy Blob": within an account, any size, by the account's own credentials. The target must not exist.

    "Copy Blob From URL" and "Put Blob From URL" end with the reply, but take only what another credential in the URL
    gives access to, and only up to 256 MiB or 5,000 MiB. The mark identifies the work of a try whose answer was lost.
    """
    old, new = split(source), split(target)
    mark = storage.environment.token()

    async def begin(account: Any) -> Mapping[str, Any]:
        blob, condition = account.blob(new), MatchConditions.IfMissing
        reply: Mapping[str, Any] = await blob.start_copy_from_url(
            account.blob(old).url, metadata={MARK: mark}, match_condition=condition
        )
        return reply

    try:
        begun = Answer(f"abfs://{target}", "start_copy_from_url", await storage.ask(new, begin, Watch(writes=True)))
        status: str | None = begun.text("copy_status")
    except FileExistsError:
        status = await _status(storage, new, mark)
        if status is None:
            raise
    environment = storage.environment
    end, pause = environment.monotonic() + _PATIENCE, _FIRST_LOOK
    while status == _PENDING:
        if environment.monotonic() > end:
            raise TimeoutError(errno.ETIMEDOUT, f"the copy to abfs://{target} is not done after {_PATIENCE:.0f} s")
        await environment.sleep(pause)
        pause = min(2 * pause, _LAST_LOOK)
        status = await _status(storage, new, mark)
    if status != _DONE:
        raise OSError(errno.EIO, f"the copy of abfs://{source} ended as {status or 'overwritten'}")


async def _status(storage: AccountStorage, address: Address, mark: str) -> str | None:
    """Return how far our own copy is, or None if what is there is not ours."""
    found = await storage.ask(address, lambda account: _copy_of(account, address), Watch())
    return found.text("status") if is_marked(found, mark) else None


async def _copy_of(account: Account, address: Address) -> Answer:
    found = await account.blob(address).get_blob_properties()
    fields = {"metadata": found.metadata, "status": found.copy.status}
    return Answer(f"abfs://{address.path}", "get_blob_properties", fields)
