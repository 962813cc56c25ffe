"""Blobs on Azure: each operation of `Storage` as the conditional request that carries it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from azure.core import MatchConditions

from atomicpath.abc import (
    Content,
    CopyingStorage,
    Declaration,
    DirectoryStorage,
    Entry,
    EntryKind,
    Environment,
    MultipartStorage,
    Put,
    StaleVersionError,
    Update,
)
from atomicpath.errors import GuaranteeError
from atomicpath.guarantees import Guarantee
from atomicpath.storage import (
    Answer,
    Paging,
    RangeRequest,
    Source,
    age_of,
    check_length,
    memory_for,
    receive_in_ranges,
    together,
)

from . import copies, hierarchy
from .accounts import WINDOW, Account, Accounts
from .asking import AccountStorage
from .blocks import BLOCK, TOKEN, create_in_blocks, is_marked, properties, upload_blocks, version_of
from .declaring import declaration
from .errors import NoContainerError, Watch
from .names import Address, split
from .settings import Settings

__all__ = ["AzureStorage", "open_azure"]

T = TypeVar("T")
Entries: TypeAlias = list[Entry]
Page: TypeAlias = tuple[Entries, str | None]

_PAGE = 5000  # entries of a listing in one reply, the most that Azure gives
_FOLDER = "hdi_isfolder"  # metadata of what stands for a directory, on both kinds of account


def open_azure(settings: Settings, environment: Environment) -> AzureStorage:
    """Return access under options that were resolved."""
    accounts = Accounts(settings)
    return AzureStorage(lambda: accounts, environment)


class AzureStorage(AccountStorage, DirectoryStorage, MultipartStorage, CopyingStorage):
    """Azure Blob Storage, and Azure Data Lake Storage Gen2, which is the same with a hierarchical namespace."""

    largest_single = BLOCK
    may_retain = True
    files_at_once = 64

    async def declare(self, path: str) -> Declaration:
        address = split(path)
        problem = None
        try:
            await self.is_hierarchical(address)
        except FileNotFoundError:
            pass  # the container is missing, as the next request will report
        except (OSError, NotImplementedError) as error:
            problem = str(error)
        account = await self.there(self.account, address)
        return declaration(account.host, hierarchical=account.hierarchical, problem=problem)

    async def get(self, path: str) -> Content:
        address, watch = split(path), Watch(looks=True)

        async def get(account: Account) -> tuple[Answer, bytes]:
            reply = await account.blob(address).download_blob()
            data: bytes = await reply.readall()
            return _answer(address, "download_blob", reply.properties), data

        found, data = await self.ask(address, get, watch)
        check_length(len(data), found.number("size"))
        age = age_of(found.time("last_modified"), watch.headers.get("date"))
        return Content(data=data, version=version_of(found), age=age)

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str:
        version = mode.version if isinstance(mode, Update) else None
        metadata = {TOKEN: owner} if owner else {}
        return await self._put(path, data, overwrite=mode is not Put.CREATE, version=version, metadata=metadata)

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        seen, data = await self.environment.step(Source.take, source)
        if seen.size <= BLOCK:
            async with memory_for(seen.size):
                if data is None:
                    data = await self.environment.step(seen.read, 0, seen.size)
                version = await self._put(path, data, overwrite=False, metadata={TOKEN: owner}, patient=True)
            return Entry(name="", size=seen.size, version=version)
        if not multipart:
            raise GuaranteeError(
                f"{source} is too large for one request to abfs://{path}, and {Guarantee.EXCLUSIVE_MULTIPART} is not"
                " known to hold there: split the file, or assert it with guarantees="
            )
        return await upload_blocks(self, seen, path, owner=owner)

    async def create_in_parts(self, path: str, data: bytes) -> None:
        await create_in_blocks(self, path, data)

    async def download(self, path: str, target: Path) -> Entry:
        address = split(path)

        async def send(request: RangeRequest) -> None:
            watch = Watch(looks=True, patient=True, versioned=request.offset > 0)

            async def get(account: Account) -> None:
                blob = account.blob(address)
                if request.offset:
                    reply = await blob.download_blob(request.offset, request.length, **_condition(request.version))
                else:
                    reply = await blob.download_blob()  # later windows of the download name the version of the first
                found = _answer(address, "download_blob", reply.properties)
                request.begin(
                    version=version_of(found),
                    content_range=watch.headers.get("content-range") if request.offset else None,
                    length=found.number("size"),
                )
                async for data in reply.chunks():
                    await request.put(self.filesystem.loop, data)
                    if not request.is_wanting:
                        break

            await self.ask(address, get, watch)

        # the SDK has each window of a reply in memory
        return await receive_in_ranges(self.environment, f"abfs://{path}", target, send, length=WINDOW, held=WINDOW)

    async def stat(self, path: str) -> Entry | None:
        address, watch = split(path), Watch(looks=True)
        try:
            found = await self.ask(address, lambda account: properties(account, address), watch)
        except FileNotFoundError:
            return None
        age = age_of(found.time("last_modified"), watch.headers.get("date"))
        if _is_folder(found):
            return Entry(name="", kind=EntryKind.DIRECTORY, age=age)
        owner = found.part("metadata").text_or_none(TOKEN)
        return Entry(name="", size=found.number("size"), version=version_of(found), owner=owner, age=age)

    async def copy_files(self, source: str, target: str, names: Sequence[str]) -> None:
        await together(names, lambda name: copies.copy(self, f"{source}/{name}", f"{target}/{name}"))

    async def delete(self, path: str, *, version: str | None = None) -> None:
        address = split(path)

        async def drop(account: Account) -> None:
            await account.blob(address).delete_blob(retry_total=0, **_condition(version))

        try:
            await self.ask(address, drop, Watch(writes=True, versioned=version is not None))
        except FileNotFoundError:
            return
        except StaleVersionError:
            if await self.stat(path) is not None:  # a missing blob does not have that version either
                raise

    async def list(self, path: str, *, recursive: bool) -> Entries:
        address = split(path)
        page = self._lake_page if await self.has_directories(address) else self._blob_page
        found: dict[str, Entry] = {}
        paging = Paging(f"abfs://{path}")
        token: str | None = None
        while True:
            entries, token = await page(address, recursive=recursive, size=_PAGE, token=token)
            for entry in entries:
                if entry.kind is EntryKind.FILE:
                    found.setdefault(entry.name, entry)
                elif not recursive:
                    found[entry.name] = entry
            if not paging.goes_on(token, len(found)):
                return [found[name] for name in sorted(found)]

    async def kind(self, path: str) -> EntryKind | None:
        address = split(path)
        if address.key:
            exists_by_itself = await self.has_directories(address)
            there = await self.stat(path)
            if exists_by_itself or (there and there.kind is EntryKind.FILE):
                return there.kind if there else None
        return EntryKind.DIRECTORY if await self._has_files(address) else None

    # directories, where the account has a hierarchical namespace

    async def make_directory(self, path: str, *, mode: int | None, durable: bool) -> None:  # noqa: ARG002 - the port's
        address = split(path)
        text = None if mode is None else hierarchy.check_mode(mode)
        await self.need_directories(address, Guarantee.DIRECTORIES)
        mark = self.environment.token()
        make = Watch(writes=True)
        try:
            await self.ask(address, lambda account: hierarchy.make(account, address, mark), make)
        except FileExistsError:
            if not await self._was_made_by(address, mark):  # made by an earlier try of this client whose reply was lost
                raise
        if text is not None:
            change = Watch(writes=True)
            await self.ask(address, lambda account: hierarchy.set_mode(account, address, text), change)

    async def _was_made_by(self, address: Address, mark: str) -> bool:
        found = await self.ask(address, lambda account: properties(account, address), Watch())
        return is_marked(found, mark)

    async def rename_directory(self, source: str, target: str) -> None:
        old, new = split(source), split(target)
        await self.need_directories(old, Guarantee.ATOMIC_RENAME)
        watch = Watch(writes=True)
        await self.ask(new, lambda account: hierarchy.rename(account, old, new, watch), watch)

    async def remove_tree(self, path: str) -> None:
        address = split(path)
        await self.need_directories(address, Guarantee.DIRECTORIES)
        await self.ask(address, lambda account: hierarchy.remove(account, address), Watch(writes=True))

    # requests

    async def _put(
        self,
        path: str,
        data: bytes,
        *,
        overwrite: bool,
        version: str | None = None,
        metadata: Mapping[str, str] | None = None,
        patient: bool = False,
    ) -> str:
        address = split(path)

        async def put(account: Account) -> Any:
            options = {"length": len(data), "overwrite": overwrite, "metadata": metadata}
            return await account.blob(address).upload_blob(data, **options, **_condition(version))

        watch = Watch(writes=True, versioned=version is not None, patient=patient)
        return version_of(_answer(address, "upload_blob", await self.ask(address, put, watch)))

    async def _blob_page(self, address: Address, *, recursive: bool, size: int, token: str | None) -> Page:
        top = f"{address.key}/" if address.key else ""

        async def get(account: Account) -> Page:
            container = account.container(address)
            search = container.list_blobs if recursive else container.walk_blobs
            found = search(name_starts_with=top, include=["metadata"], results_per_page=size)
            pages = found.by_page(token)
            return [_entry(address, item, len(top)) async for item in await anext(pages)], pages.continuation_token

        entries, after = await self.ask(address, get, Watch())
        return [entry for entry in entries if entry.name], after

    async def _lake_page(self, address: Address, *, recursive: bool, size: int, token: str | None) -> Page:
        def get(account: Account) -> Awaitable[Page]:
            return hierarchy.list_page(account, address, recursive=recursive, size=size, token=token)

        try:
            return await self.ask(address, get, Watch())
        except NoContainerError:
            raise
        except FileNotFoundError:
            return [], None

    async def _has_files(self, address: Address) -> bool:
        paging, seen = Paging(f"abfs://{address.path}"), set[str]()
        token: str | None = None
        while True:
            entries, token = await self._blob_page(address, recursive=True, size=1, token=token)
            if any(entry.kind is EntryKind.FILE for entry in entries):
                return True
            seen |= {entry.name for entry in entries}
            if not paging.goes_on(token, len(seen)):
                return False


def _condition(version: str | None) -> dict[str, object]:
    if version is None:
        return {}
    return {"etag": f'"{version}"', "match_condition": MatchConditions.IfNotModified}


def _answer(address: Address, what: str, found: Any) -> Answer:
    return Answer(f"abfs://{address.path}", what, found if isinstance(found, Mapping) else vars(found))


def _is_folder(found: Answer) -> bool:
    return (found.part("metadata").text_or_none(_FOLDER) or "").lower() == "true"


def _entry(address: Address, item: Any, cut: int) -> Entry:
    name = item.name[cut:]
    if name.endswith("/") or not hasattr(item, "etag"):  # a prefix, or what tools put for an empty folder
        return Entry(name=name.rstrip("/"), kind=EntryKind.DIRECTORY)
    found = _answer(address, "a listing", item)
    if _is_folder(found):
        return Entry(name=name, kind=EntryKind.DIRECTORY)
    return Entry(name=name, size=found.number("size"), version=version_of(found))
