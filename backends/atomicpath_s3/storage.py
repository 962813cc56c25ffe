"""Objects on S3: each operation of `Storage` as the conditional request that carries it."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakSet

import anyio
import s3fs

from atomicpath.abc import (
    Content,
    Declaration,
    Entry,
    EntryKind,
    Environment,
    LearningStorage,
    MultipartStorage,
    Put,
    StaleVersionError,
    Update,
)
from atomicpath.errors import GuaranteeError
from atomicpath.guarantees import Guarantee
from atomicpath.storage import (
    CHUNK,
    Answer,
    AsyncFilesystem,
    FsspecStorage,
    Paging,
    PerProcess,
    RangeRequest,
    Source,
    Watch,
    age_of,
    check_length,
    client_class,
    forget_cached,
    memory_for,
    receive_in_ranges,
)

from . import contact
from .checksums import checksum_of, is_divisible
from .declaring import declaration
from .errors import UnconfirmedError, translate_errors
from .manners import Manner, learn, manner_of, named
from .multipart import PART, TOKEN, create_in_parts, upload_parts, version_of
from .names import is_directory_bucket, join, split
from .sending import send_deletes_once
from .settings import Settings
from .wire import no_pages, no_waiting, watched

__all__ = ["S3Storage", "open_s3"]

_PATIENCE = 20.0  # seconds for a request about one small object, the client's own retries included

Reply: TypeAlias = Mapping[str, Any]

_LOOKS = 3  # tries, because an object may appear during the look
_LARGEST_PUT = 5 * 2**30  # S3 User Guide, "Uploading objects"


P = ParamSpec("P")
T = TypeVar("T")

_WATCH: ContextVar[Watch] = ContextVar("atomicpath_s3_watch")
"""What watches the requests of the task at hand."""


class S3Filesystem(AsyncFilesystem, Protocol):
    """What is used of `s3fs.S3FileSystem`."""

    async def set_session(self) -> object: ...
    async def get_s3(self, bucket: object) -> Any: ...
    def _get_s3_method_kwargs(self, method: object) -> dict[str, object]: ...


_Client = client_class(s3fs.S3FileSystem)


def open_s3(settings: Settings, environment: Environment) -> S3Storage:
    """Return access under options that were resolved."""
    return S3Storage(settings, environment)


def _make(options: dict[str, object]) -> S3Filesystem:
    return cast("S3Filesystem", _Client(**options))


class S3Storage(FsspecStorage[S3Filesystem], MultipartStorage, LearningStorage):
    """S3 and stores that speak its protocol."""

    largest_single = PART
    may_retain = True
    files_at_once = 64

    def __init__(self, settings: Settings, environment: Environment) -> None:
        super().__init__(PerProcess(_make, settings.options, under=settings.surroundings), environment)
        self._settings = settings
        self._manners: dict[str, Manner] = {}  # by bucket

    def forget(self, used: object) -> None:
        super().forget(used)
        forget_cached(s3fs.S3FileSystem, self._settings.asked)

    async def declare(self, path: str) -> Declaration:
        bucket, _ = split(path)
        endpoint = await self._looked_up(path, bucket)
        return declaration(endpoint, bucket, server=self._manners[bucket].server)

    async def learn(self, path: str) -> bool:
        bucket, _ = split(path)
        await self._looked_up(path, bucket)
        if self._manners[bucket].is_learnt:
            return False
        await learn(self, path, self._manners[bucket])
        return True

    async def _looked_up(self, path: str, bucket: str) -> str:
        watch = Watch()
        with translate_errors(path, watch):
            return await self.there(self._endpoint, bucket, watch)

    async def get(self, path: str) -> Content:
        reply, data = await self._asked(path, Watch(), self._read, path)
        return Content(data=data, version=version_of(reply), age=_age(reply))

    async def put(self, path: str, data: bytes, *, mode: Put | Update, owner: str = "") -> str:
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if mode is Put.CREATE else {}
        if isinstance(mode, Update):
            condition = {"IfMatch": mode.version}
        return await self._put(path, Body=data, Metadata={TOKEN: owner} if owner else {}, **condition)

    async def upload(self, source: Path, path: str, *, owner: str, multipart: bool) -> Entry:
        seen, data = await self.environment.step(Source.take, source)
        if seen.size <= PART:
            async with memory_for(seen.size):
                if data is None:
                    data = await self.environment.step(seen.read, 0, seen.size)
                version = await self._put(path, patient=True, Body=data, IfNoneMatch="*", Metadata={TOKEN: owner})
            sent = Entry(name="", size=seen.size, version=version)
        elif multipart:
            sent = await upload_parts(self, seen, path, owner=owner)
        else:
            sent = await self._stream(seen, path, owner)
        return sent if self._manners[split(path)[0]].versions_agree else replace(sent, version=None)

    async def create_in_parts(self, path: str, data: bytes) -> None:
        await create_in_parts(self, path, data)

    async def download(self, path: str, target: Path) -> Entry:
        async def send(request: RangeRequest) -> None:
            await self._asked(path, Watch(patient=True), self._fetch, path, request)

        return await receive_in_ranges(self.environment, f"s3://{path}", target, send)

    async def stat(self, path: str) -> Entry | None:
        reply = await self._head(path)
        if reply is None:
            return None
        return Entry(
            name="",
            size=reply.number("ContentLength"),
            version=version_of(reply),
            owner=reply.part("Metadata").text_or_none(TOKEN),
            age=_age(reply),
        )

    async def _head(self, path: str) -> Answer | None:
        """Return the head of an object, or None if the object is absent.

        The reply to a HEAD has no body. Where it does not show whose answer it is, a request whose reply has a body
        tells that, and what is there.
        """
        bucket, key = split(path)
        place = {"Bucket": bucket, "Key": key}
        for again in range(_LOOKS - 1, -1, -1):
            try:
                return await self.ask(path, "head_object", place)
            except UnconfirmedError:
                try:
                    await self.ask(path, "get_object", {**place, "Range": "bytes=0-0"})
                except FileNotFoundError:
                    return None
                if not again:
                    raise
        raise AssertionError("unreachable")

    async def delete(self, path: str, *, version: str | None = None) -> None:
        bucket, key = split(path)
        condition = {} if version is None else {"IfMatch": version}
        with suppress(FileNotFoundError):
            try:
                await self.ask(path, "delete_object", {"Bucket": bucket, "Key": key, **condition})
            except StaleVersionError:  # S3 answers 404 where nothing is there, SeaweedFS 412
                if await self.stat(path) is not None:
                    raise

    async def list(self, path: str, *, recursive: bool) -> list[Entry]:
        bucket, key = split(path)
        prefix = f"{key}/" if key else ""
        found: dict[str, Entry] = {}
        paging = Paging(f"s3://{path}")
        page: dict[str, object] = {"Bucket": bucket, "Prefix": prefix, **({} if recursive else {"Delimiter": "/"})}
        while True:
            reply = await self._page(path, page)
            for item in reply.parts("CommonPrefixes"):
                name = item.text("Prefix")[len(prefix) : -1]
                found[name] = Entry(name=name, kind=EntryKind.DIRECTORY)
            for item in reply.parts("Contents"):
                name, size = item.text("Key")[len(prefix) :], item.number("Size")
                if (name.endswith("/") or not name) and not size:
                    continue  # an object that consoles create for an empty folder
                found.setdefault(name, Entry(name=name, size=size, version=version_of(item)))
            token = reply.text("NextContinuationToken") if reply.is_set("IsTruncated") else None
            if not paging.goes_on(token, len(found)):
                entries = [found[name] for name in sorted(found)]
                if self._manners[bucket].versions_agree:
                    return entries
                return [replace(entry, version=None) for entry in entries]  # writes return other versions than listings
            page["ContinuationToken"] = token

    async def kind(self, path: str) -> EntryKind | None:
        bucket, key = split(path)
        prefixes: tuple[str, ...] = (key, f"{key}/") if key else ("",)
        if key and is_directory_bucket(bucket):  # those list only below a prefix that ends with "/"
            if await self.stat(path) is not None:
                return EntryKind.FILE
            prefixes = prefixes[1:]
        # One request tells, unless a sibling such as "key-1" comes before "key/".
        for prefix in prefixes:
            reply = await self._page(path, {"Bucket": bucket, "Prefix": prefix, "MaxKeys": 1})
            first = next((item.text("Key") for item in reply.parts("Contents")), None)
            if first is None:
                return None
            if first == key:
                return EntryKind.FILE
            if not key or first.startswith(f"{key}/"):
                return EntryKind.DIRECTORY
        return None

    async def _page(self, path: str, parameters: Mapping[str, object]) -> Answer:
        """Return one page of a listing; the reply must say that it is a listing, even if it is empty."""
        reply = await self.ask(path, "list_objects_v2", parameters)
        reply.expect("Name", "IsTruncated")  # "ListObjectsV2" of S3's API reference
        return reply

    async def ask(
        self, path: str, operation: str, parameters: Mapping[str, object], *, patient: bool = False
    ) -> Answer:
        """Make one request about an object; `patient` if it moves data and so may take long."""
        writes = not operation.startswith(("get_", "head_", "list_"))
        watch = Watch(writes=writes, versioned="IfMatch" in parameters, patient=patient)
        return Answer(f"s3://{path}", operation, await self._asked(path, watch, self._call, operation, parameters))

    async def _asked(
        self, path: str, watch: Watch, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run one operation under a watch, which also holds its client until it is over."""
        bound = nullcontext() if watch.patient else anyio.fail_after(_PATIENCE)
        try:
            with translate_errors(path, watch), bound:
                return await self.request(_watched, watch, function, *args, **kwargs)
        finally:
            if watch.is_stale:
                self.forget(watch.client)

    async def _put(self, path: str, *, patient: bool = False, **parameters: object) -> str:
        bucket, key = split(path)
        put = {"Bucket": bucket, "Key": key, **parameters}
        return version_of(await self.ask(path, "put_object", put, patient=patient))

    async def _stream(self, source: Source, path: str, owner: str) -> Entry:
        if source.size > _LARGEST_PUT:
            raise GuaranteeError(
                f"{source.path} is too large for one request to s3://{path}, and {Guarantee.EXCLUSIVE_MULTIPART} is not"
                " known to hold there: split the file, or assert it with guarantees="
            )
        file = await self.environment.step(source.open)
        try:
            version = await self._put(path, patient=True, Body=file, IfNoneMatch="*", Metadata={TOKEN: owner})
            await self.environment.step(source.check, file)
        finally:
            file.close()
        return Entry(name="", size=source.size, version=version)

    # the methods below run in the file system's own event loop

    async def _endpoint(self, bucket: str, watch: Watch) -> str:
        watch.client = filesystem = self.filesystem
        client = await _client(filesystem, bucket)
        self._manners[bucket] = manner_of(client.meta.endpoint_url, bucket)
        return str(client.meta.endpoint_url)

    async def _call(self, operation: str, parameters: Mapping[str, object]) -> Reply:
        _WATCH.get().client = filesystem = self.filesystem
        bucket = str(parameters["Bucket"])
        client = await _client(filesystem, bucket)
        endpoint = str(client.meta.endpoint_url)
        manner = self._manners[bucket] = manner_of(endpoint, bucket)
        method = getattr(client, operation)
        if "IfMatch" in parameters:
            parameters = {**parameters, "IfMatch": named(endpoint, manner, parameters["IfMatch"])}
        if "Body" in parameters:
            parameters = {**parameters, "Body": watched(parameters["Body"], client)}
        # Not through s3fs's `_call_s3`: it drops parameters that an older botocore does not know, conditions
        # included, and repeats an upload from wherever its file stands. The user's own parameters
        # (encryption, requester pays) come from where it takes them.
        defaults = filesystem._get_s3_method_kwargs(method)  # noqa: SLF001 - has no public name
        try:
            reply: Reply = await method(**{**defaults, **parameters})
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # botocore, for a reply not of S3
            where = f"s3://{join(bucket, str(parameters.get('Key', '')))}"
            raise OSError(
                errno.EIO, f"{where}: the reply to {operation} cannot be read ({type(error).__name__})"
            ) from error
        head = Answer(f"s3://{bucket}", operation, reply).part("ResponseMetadata").part("HTTPHeaders")
        manner.server = head.text_or_none("server") or manner.server
        return reply

    async def _get(self, path: str, **parameters: object) -> tuple[Answer, Any]:
        bucket, key = split(path)
        reply = await self._call("get_object", {"Bucket": bucket, "Key": key, **parameters})
        return Answer(f"s3://{path}", "get_object", reply), reply["Body"]

    async def _read(self, path: str) -> tuple[Answer, bytes]:
        reply, body = await self._get(path)
        async with body:
            data: bytes = await body.read()
        check_length(len(data), reply.number("ContentLength"))
        return reply, data

    async def _fetch(self, path: str, request: RangeRequest) -> None:
        # No `If-Match`: some stores take it in one form only, and the version in the reply's head tells the same.
        asked = {} if request.header is None else {"Range": request.header}
        reply, body = await self._get(path, **asked)
        async with body:  # not `as`: older versions of aiobotocore can read that object only whole
            request.begin(
                version=version_of(reply),
                content_range=reply.text_or_none("ContentRange"),
                length=reply.number("ContentLength"),
                checksum=checksum_of(reply),
                is_divisible=is_divisible(reply),
            )
            while request.is_wanting and (data := await body.read(CHUNK)):
                await request.put(self.filesystem.loop, data)


async def _watched(watch: Watch, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    _WATCH.set(watch)
    return await function(*args, **kwargs)


async def _client(filesystem: S3Filesystem, bucket: object) -> Any:
    await filesystem.set_session()
    client = await filesystem.get_s3(bucket)
    if client not in _prepared:
        no_waiting(client)
        no_pages(client)
        contact.watch(client)
        send_deletes_once(client)
        client.meta.events.register("before-send.s3", _count, unique_id="atomicpath, sent")
        _prepared.add(client)
    return client


_prepared: WeakSet[Any] = WeakSet()
"""The clients that have all handlers of ours: to register one takes longer than to sign a request."""


def _count(**_: object) -> None:
    watch = _WATCH.get(None)  # s3fs itself asks for a bucket's region, if it is told to
    if watch is not None:
        watch.sent += 1


def _age(reply: Answer) -> float | None:
    date = reply.part("ResponseMetadata").part("HTTPHeaders").text_or_none("date")
    return age_of(reply.time("LastModified"), date)
