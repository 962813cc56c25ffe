"""Requests about an account: the way they are made, and whether its namespace is hierarchical."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import anyio

from atomicpath.errors import AccessError, GuaranteeError
from atomicpath.guarantees import Guarantee
from atomicpath.storage import FsspecStorage, foreign_answer

from .accounts import WATCH, Account, Accounts
from .errors import Watch, translate_errors
from .names import Address

__all__ = ["AccountStorage"]

T = TypeVar("T")

_OF_THE_SERVICE = "x-ms-request-id"  # a header of each reply of Azure ("Common REST API response headers")
_PATIENCE = 20.0  # seconds for a request about one small blob, the client's own retries included


class AccountStorage(FsspecStorage[Accounts]):
    """What the operations of a storage on Azure are built with."""

    async def ask(self, address: Address, send: Callable[[Account], Awaitable[T]], watch: Watch) -> T:
        """Make one request; `watch.patient` if it moves data and so may take long."""

        async def run() -> T:
            WATCH.set(watch)
            account = self.filesystem.of(address)
            watch.client, watch.is_anonymous = account, account.is_anonymous
            return await send(account)

        try:
            with translate_errors(address.path, watch), nullcontext() if watch.patient else anyio.fail_after(_PATIENCE):
                done = await self.request(run)
                if watch.writes and _OF_THE_SERVICE not in watch.headers:
                    raise foreign_answer(f"abfs://{address.path}: the reply has no {_OF_THE_SERVICE}")
                return done
        finally:
            if watch.is_stale:
                self.filesystem.drop(address, watch.client)

    async def account(self, address: Address) -> Account:
        """Return the account that an address is in. Runs in fsspec's event loop."""
        return self.filesystem.of(address)

    async def is_hierarchical(self, address: Address) -> bool:
        """Tell whether the account has a hierarchical namespace; raise an error if that is not known.

        The account is asked once. After an answer, and after a refusal to answer, it is not asked again.
        """
        account = await self.there(self.account, address)
        if account.unknown is not None:
            raise type(account.unknown)(*account.unknown.args)
        if account.hierarchical is None:
            try:
                account.hierarchical = await self._ask_what_it_is(address)
            except (AccessError, NotImplementedError) as error:
                account.unknown = error
                raise
        return account.hierarchical

    async def has_directories(self, address: Address) -> bool:
        """Tell whether the account has directories, as far as is known.

        Both kinds of account answer the requests for blobs.
        """
        try:
            return await self.is_hierarchical(address)
        except FileNotFoundError:
            raise
        except (OSError, NotImplementedError):
            return False

    async def need_directories(self, address: Address, guarantee: Guarantee) -> None:
        """Raise GuaranteeError unless the account has a hierarchical namespace."""
        why = "the account has no hierarchical namespace"
        try:
            if await self.is_hierarchical(address):
                return
        except NotImplementedError as error:
            why = str(error)
        raise GuaranteeError(f"{guarantee} is not known to hold at abfs://{address.path}: {why}")

    async def _ask_what_it_is(self, address: Address) -> bool:
        async def get(account: Account) -> Any:
            return await account.container(address).get_account_information()  # a container's credentials suffice

        found = (await self.ask(address, get, Watch())).get("is_hns_enabled")
        if found is None:
            raise NotImplementedError("the endpoint does not tell whether it has a hierarchical namespace")
        return bool(found)
