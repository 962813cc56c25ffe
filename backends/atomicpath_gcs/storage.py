"""Objects on Google Cloud Storage: each operation of `Storage` as the conditional request that carries it."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import gcsfs

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
    lacking,
)
from atomicpath.guarantees import NONE, Guarantee
from atomicpath.storage import (
    Paging,
    PerProcess,
    RangeRequest,
    Source,
    age_of,
    client_class,
    forget_cached,
    memory_for,
    receive_in_ranges,
    together,
)

from . import copies, folders
from .asking import Asking
from .errors import UnconfirmedError
from .exchange import GcsFilesystem, Reply, Request
from .names import split
from .settings import VENDOR, Settings
from .uploads import PART, TOKEN, create_in_parts, one_request, upload_in_parts, upload_in_stream

__all__ = ["GcsStorage", "open_gcs"]

_CONDITIONS = (
    Guarantee.LIST_AFTER_WRITE
    | Guarantee.EXCLUSIVE_CREATE
    | Guarantee.EXCLUSIVE_MULTIPART
    | Guarantee.COMPARE_AND_SWAP
    | Guarantee.CONDITIONAL_DELETE
)
_RENAMES = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE
_LOOKS = 3  # tries, because an object may appear during the look
_GENERATION = re.compile(r"[1-9][0-9]{0,18}")


_Client = client_class(gcsfs.GCSFileSystem)


def open_gcs(settings: Settings, environment: Environment) -> GcsStorage:
    """Return access under options that were resolved."""
    return GcsStorage(settings, environment)


def _make(options: dict[str, object]) -> GcsFilesystem:
    return cast("GcsFilesystem", _Client(**options))


class GcsStorage(Asking, DirectoryStorage, MultipartStorage, CopyingStorage):
    """Google Cloud Storage and servers that speak its JSON API, on flat and on hierarchical buckets."""

    largest_single = PART
    may_retain = True
    files_at_once = 64

    def __init__(self, settings: Settings, environment: Environment) -> None:
        super().__init__(
            PerProcess(_make, settings.options, under=settings.surroundings), settings.endpoint, environment
        )
        self._settings = settings

    def forget(self, used: object) -> None:
        super().forget(used)
        forget_cached(gcsfs.GCSFileSystem, self._settings.asked)

    async def declare(self, path: str) -> Declaration:
        bucket, _ = split(path)
        layout = await folders.layout(self, path)
        host = urlsplit(self.url(bucket)).hostname or ""
        evidence = {Guarantee.ATOMIC_WRITE: "the JSON API has no other way to store an object than whole"}
        if layout.hierarchical:
            evidence[Guarantee.DIRECTORIES] = "folders exist by themselves here, but have no modes"
            renames = _RENAMES
        else:
            evidence |= dict.fromkeys(_RENAMES, layout.reason)
            renames = NONE
        if host != VENDOR and not host.endswith(f".{VENDOR}"):
            return Declaration(declared=Guarantee.ATOMIC_WRITE, observable=_CONDITIONS | renames, evidence=evidence)
        evidence |= dict.fromkeys(_CONDITIONS, "Google documents it for buckets of every kind")
        evidence |= dict.fromkeys(renames, "Google documents it for folders, and the bucket has them")
        return Declaration(declared=Guarantee.ATOMIC_WRITE | _CONDITIONS | renames, evidence=evidence)

    # objects

    async def get(self, path: str) -> Content:
        reply = await self._bytes(path)
        return Content(data=reply.body, version=_version(reply), age=_age(reply))

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str:
        condition = {"ifGenerationMatch": "0"} if mode is Put.CREATE else {}
        if isinstance(mode, Update):
            condition = {"ifGenerationMatch": _generation(path, mode.version)}
        await self.ready(path)
        reply = await self.ask(path, one_request(self, path, data, condition=condition, owner=owner))
        return reply.resource.text("generation")

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        await self.ready(path)
        seen, data = await self.environment.step(Source.take, source)
        if seen.size > PART:
            # One request can be of any size that an object can have (Cloud Storage, "Quotas and limits").
            return await (upload_in_parts if multipart else upload_in_stream)(self, seen, path, owner=owner)
        async with memory_for(seen.size):
            if data is None:
                data = await self.environment.step(seen.read, 0, seen.size)
            request = one_request(self, path, data, condition={"ifGenerationMatch": "0"}, owner=owner, small=False)
            reply = await self.ask(path, request)
        return Entry(name="", size=seen.size, version=reply.resource.text("generation"))

    async def create_in_parts(self, path: str, data: bytes) -> None:
        await self.ready(path)
        await create_in_parts(self, path, data)

    async def download(self, path: str, target: Path) -> Entry:
        async def send(request: RangeRequest) -> None:
            await self._bytes(path, into=request)

        return await receive_in_ranges(self.environment, f"gs://{path}", target, send)

    async def stat(self, path: str) -> Entry | None:
        bucket, key = split(path)
        await self.ready(path)
        request = Request(
            what="a look",
            method="GET",
            url=self.url(bucket, "o", key),
            query={"fields": "size,generation,metadata,updated"},
            of_object=True,
        )
        try:
            reply = await self.ask(path, request)
        except FileNotFoundError:
            return None
        found = reply.resource
        return Entry(
            name="",
            size=found.number("size"),
            version=found.text("generation"),
            owner=found.part("metadata").text_or_none(TOKEN),
            age=age_of(_moment(found.text_or_none("updated"), datetime.fromisoformat), reply.headers.get("date")),
        )

    async def copy_files(self, source: str, target: str, names: Sequence[str]) -> None:
        await together(names, lambda name: copies.copy(self, f"{source}/{name}", f"{target}/{name}"))

    async def delete(self, path: str, *, version: str | None = None) -> None:
        bucket, key = split(path)
        condition = {} if version is None else {"ifGenerationMatch": _generation(path, version)}
        await self.ready(path)
        request = Request(
            what="a deletion",
            method="DELETE",
            url=self.url(bucket, "o", key),
            query=condition,
            tries=1,
            versioned=version is not None,
            of_object=True,
        )
        with suppress(FileNotFoundError):
            await self.ask(path, request)

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        bucket, key = split(path)
        prefix = f"{key}/" if key else ""
        found: dict[str, Entry] = {}
        query = {"prefix": prefix, "fields": "items(name,size,generation),prefixes,nextPageToken"}
        if not recursive:
            query |= {"delimiter": "/", "includeFoldersAsPrefixes": "true"}  # list the empty folders, too
        paging = Paging(f"gs://{path}")
        while True:
            page = await self.look(path, "a listing", bucket, "o", query=query)
            for below in page.texts("prefixes"):
                name = below[len(prefix) : -1]
                found[name] = Entry(name=name, kind=EntryKind.DIRECTORY)
            for item in page.parts("items"):
                name, size = item.text("name")[len(prefix) :], item.number("size")
                if (name.endswith("/") or not name) and not size:
                    continue  # an object that consoles create for an empty folder
                found.setdefault(name, Entry(name=name, size=size, version=item.text("generation")))
            token = page.text_or_none("nextPageToken")
            if not paging.goes_on(token, len(found)):
                return [found[name] for name in sorted(found) if name]
            query["pageToken"] = str(token)

    async def kind(self, path: str) -> EntryKind | None:
        bucket, key = split(path)
        if key and (await folders.layout(self, path)).hierarchical:
            return EntryKind.FILE if await self.stat(path) else await folders.kind(self, path)
        # One request tells, unless a sibling such as "key-1" comes before "key/".
        for prefix in (key, f"{key}/") if key else ("",):
            query = {"prefix": prefix, "maxResults": "1", "fields": "items(name)"}
            page = await self.look(path, "a listing", bucket, "o", query=query)
            first = next((item.text("name") for item in page.parts("items")), None)
            if first is None:
                return None
            if first == key:
                return EntryKind.FILE
            if not key or first.startswith(f"{key}/"):
                return EntryKind.DIRECTORY
        return None

    # folders, on buckets that have them

    async def make_directory(self, path: str, *, mode: int | None, durable: bool) -> None:  # noqa: ARG002 - the port's
        await self._need_folders(path, Guarantee.DIRECTORIES)
        await folders.make(self, path, mode=mode)

    async def rename_directory(self, source: str, target: str) -> None:
        await self._need_folders(source, Guarantee.ATOMIC_RENAME)
        await folders.rename(self, source, target)

    async def remove_tree(self, path: str) -> None:
        await self._need_folders(path, Guarantee.DIRECTORIES)
        names = [entry.name for entry in await self.list(path, recursive=True)]
        await together(names, lambda name: self.delete(f"{path}/{name}"))
        await folders.remove(self, path)

    async def _need_folders(self, path: str, guarantee: Guarantee) -> None:
        if not (await folders.layout(self, path)).hierarchical:
            raise lacking(self, guarantee)

    async def _bytes(self, path: str, *, into: RangeRequest | None = None) -> Reply:
        """Return the bytes of an object.

        Where a 404 is not in the store's own words, the object's resource says what is there.
        """
        bucket, key = split(path)
        await self.ready(path)
        for again in range(_LOOKS - 1, -1, -1):
            try:
                return await self.ask(path, _media(self.url(bucket, "o", key), into), into=into)
            except UnconfirmedError as error:
                if await self.stat(path) is None:
                    raise FileNotFoundError(errno.ENOENT, f"nothing is at gs://{path}") from error
                if not again:
                    raise
        raise AssertionError("unreachable")


def _media(url: str, into: RangeRequest | None) -> Request:
    query, headers = {"alt": "media"}, dict[str, str]()
    if into is not None and into.header is not None:
        headers["Range"] = into.header
        query["ifGenerationMatch"] = str(into.version)
    return Request(
        what="a read",
        method="GET",
        url=url,
        query=query,
        headers=headers,
        patient=into is not None,
        versioned="ifGenerationMatch" in query,
        of_object=True,
    )


def _generation(path: str, version: str) -> str:
    """Return a version as a condition.

    Generation 0 would mean that nothing may be there, and an empty one would be no condition.
    """
    if not _GENERATION.fullmatch(version):
        raise StaleVersionError(f"gs://{path} never had the version {version!r}")
    return version


def _version(reply: Reply) -> str:
    return reply.head.text("x-goog-generation")


def _age(reply: Reply) -> float | None:
    return age_of(_moment(reply.headers.get("last-modified"), parsedate_to_datetime), reply.headers.get("date"))


def _moment(text: str | None, read: Callable[[str], datetime]) -> datetime | None:
    """Return the moment that a reply tells, or None if it tells none that can be read."""
    try:
        return read(text) if text else None
    except ValueError:
        return None
