"""Requests about an account: the way they are made, and whether its namespace is hierarchical."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import anyio

from atomicpath.errors import AccessError, GuaranteeError
from atomicpath.guarantees import Guarantee
from atomicpath.storage import FsspecStorage

from .accounts import WATCH, Account, Accounts
from .errors import Watch, answers
from .names import Address

__all__ = ["AccountStorage"]

T = TypeVar("T")

_PATIENCE = 20.0  # seconds for a request about one small blob, the client's own retries included


class AccountStorage(FsspecStorage[Accounts]):
    """What the operations of a storage on Azure are built with."""

    async def ask(self, address: Address, send: Callable[[Account], Awaitable[T]], watch: Watch) -> T:
        """Make one request; `watch.patient` if it moves data and so may take long."""

        async def run() -> T:
            WATCH.set(watch)
            return await send(self.filesystem.of(address))

        with answers(address.path, watch), nullcontext() if watch.patient else anyio.fail_after(_PATIENCE):
            return await self.request(run)

    async def account(self, address: Address) -> Account:
        return self.filesystem.of(address)

    async def is_hierarchical(self, address: Address) -> bool:
        """Whether the account has a hierarchical namespace: asked once; an error says that it is not known."""
        with answers(address.path, Watch()):
            account = await self.there(self.account, address)
        if account.hierarchical is not None:
            return account.hierarchical
        if account.unknown is not None:
            raise AccessError(account.unknown)

        async def get(account: Account) -> Any:
            return await account.container(address).get_account_information()  # a container's credentials suffice

        try:
            found = (await self.ask(address, get, Watch())).get("is_hns_enabled")
        except AccessError as error:
            account.unknown = str(error)
            raise
        account.hierarchical = bool(found)
        return account.hierarchical

    async def has_directories(self, address: Address) -> bool:
        """As far as is known: the requests for blobs are answered by both kinds of account."""
        try:
            return await self.is_hierarchical(address)
        except FileNotFoundError:
            raise
        except OSError:
            return False

    async def need_directories(self, address: Address, guarantee: Guarantee) -> None:
        if not await self.is_hierarchical(address):
            raise GuaranteeError(
                f"{guarantee} does not hold at abfs://{address.path}: the account has no hierarchical namespace"
            )
