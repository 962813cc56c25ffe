"""The upload in blocks: staged in parallel, and one conditional Put Block List.

Uncommitted blocks belong to the blob's name, not to who staged them: the identifiers are of this very
upload, or two writers' lists would name each other's bytes. Nothing can take back a staged block: those
of an upload that was given up are not visible, and Azure discards them after a week, or sooner, when
the blob is written ("Put Block", remarks). Azurite takes them for a blob that Put Blob must not replace.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock

from atomicpath.abc import Entry, Environment
from atomicpath.errors import BackendError
from atomicpath.storage import Answer, Source, send_parts

from .accounts import Account
from .errors import Watch
from .names import Address, split

__all__ = [
    "BLOCK",
    "MARK",
    "TOKEN",
    "Asks",
    "create_in_blocks",
    "is_marked",
    "properties",
    "upload_blocks",
    "version_of",
]

T = TypeVar("T")

BLOCK = 16 * 2**20
"""Bytes of a file above which it is sent in blocks."""

_LEAST = 8 * 2**20  # bytes of a block, so that many are under way at once

TOKEN = "atomicpath_token"  # noqa: S105 - names an attempt, opens nothing
"""The key of the owner in a blob's metadata, which must be an identifier of C#."""

MARK = "atomicpath_upload"
"""The same for this very request, by which one whose reply was lost is recognised."""

_BLOCKS = 50_000  # "Scalability and performance targets for Blob storage"


class Asks(Protocol):
    """What is used of the storage."""

    environment: Environment

    def ask(self, address: Address, send: Callable[[Account], Awaitable[T]], watch: Watch) -> Awaitable[T]:
        """Make one request; `watch.patient` if it moves data and so may take long."""


async def upload_blocks(storage: Asks, source: Source, path: str, *, owner: str) -> Entry:
    """Create the blob from the file; the contract is that of `Storage.upload`."""
    address, mark = split(path), storage.environment.token()
    names = await _stage_all(storage, source, address, mark)
    try:
        reply = await _commit(storage, address, names, {TOKEN: owner, MARK: mark})
    except OSError as error:
        # The client repeats a list whose reply was lost, and then hears that the blob exists, or that
        # there are no such blocks; so whatever it heard, the blob itself says whose it is.
        try:
            found = await storage.ask(address, lambda account: properties(account, address), Watch())
        except (OSError, BackendError):
            raise error from None
        if is_marked(found, mark) and found.number("size") == source.size:
            return Entry(name="", size=source.size, version=version_of(found))
        if isinstance(error, FileExistsError):
            raise
        raise FileExistsError(f"something is at abfs://{path}") from error
    return Entry(name="", size=source.size, version=version_of(Answer(f"abfs://{path}", "commit_block_list", reply)))


async def create_in_blocks(storage: Asks, path: str, data: bytes) -> None:
    """Create a blob from bytes by a list of one block. The contract is that of `MultipartStorage.create_in_parts`."""
    address = split(path)
    name = _name(storage.environment.token(), 0)
    await _stage(storage, address, name, data)
    await _commit(storage, address, [name], {})


def version_of(reply: Answer) -> str:
    """Return the version in a reply or listing without quotes, which only one of the two has."""
    return reply.text("etag").strip('"')


def is_marked(found: Answer, mark: str) -> bool:
    """Tell whether a blob was written by the request of this mark."""
    return found.part("metadata").text_or_none(MARK) == mark


async def _stage_all(storage: Asks, source: Source, address: Address, mark: str) -> list[str]:
    async def stage(number: int, data: bytes) -> str:
        name = _name(mark, number)
        await _stage(storage, address, name, data)
        return name

    return await send_parts(storage.environment, source, stage, least=min(BLOCK, _LEAST), most=_BLOCKS)


async def _stage(storage: Asks, address: Address, name: str, data: bytes) -> None:
    async def send(account: Account) -> None:
        await account.blob(address).stage_block(name, data, length=len(data))

    await storage.ask(address, send, Watch(writes=True, patient=True))


async def _commit(storage: Asks, address: Address, names: list[str], metadata: dict[str, str]) -> Any:
    async def send(account: Account) -> Any:
        blocks = [BlobBlock(name) for name in names]
        condition = MatchConditions.IfMissing
        return await account.blob(address).commit_block_list(blocks, metadata=metadata, match_condition=condition)

    return await storage.ask(address, send, Watch(writes=True, patient=True))


async def properties(account: Account, address: Address) -> Answer:
    """Return what the store says of a blob, or of what stands for a directory."""
    found = await account.blob(address).get_blob_properties()
    return Answer(f"abfs://{address.path}", "get_blob_properties", vars(found))


def _name(mark: str, number: int) -> str:
    return f"{mark}-{number:05}"  # all block names of a blob must have one length
