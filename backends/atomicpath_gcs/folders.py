"""Folders of buckets with a hierarchical namespace: made, renamed and removed by the JSON API's own methods."""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from atomicpath.abc import EntryKind
from atomicpath.errors import AccessError, GuaranteeError
from atomicpath.storage import Answer, IOLoop, Paging, Refusal, together

from .asking import Asking
from .errors import TemporaryError
from .exchange import Reply, Request
from .names import split

__all__ = ["Layout", "kind", "layout", "make", "remove", "rename"]

_PATIENCE = 300.0  # seconds that a rename may take; it changes metadata only
_FIRST_LOOK, _LAST_LOOK = 0.05, 2.0  # seconds between looks at an operation
_TRIES = 4
_FIRST_PAUSE = 0.5  # seconds
_REFUSED = (400, 404, 409, 412)
_NOT_FOUND, _PERMISSION_DENIED = 5, 7  # google.rpc.Code


@dataclass(frozen=True, slots=True)
class Layout:
    """`hierarchical` is None if it could not be learnt; `reason` says in words how it is known, or why it is not."""

    hierarchical: bool | None
    reason: str


_known: dict[tuple[str, str], Layout] = {}
"""By endpoint and bucket, for the life of the process: a bucket's layout is chosen when it is made, for ever
(Cloud Storage, "Hierarchical namespace overview")."""


async def layout(storage: Asking, path: str) -> Layout:
    """Tell whether the bucket has folders, as `buckets.getStorageLayout` says.

    Anything but a clear answer is unknown.
    """
    bucket, _ = split(path)
    await storage.ready(path)
    place = storage.endpoint, bucket
    if place not in _known:
        request = Request(
            what="the bucket's storage layout",
            method="GET",
            url=storage.url(bucket, "storageLayout"),
            tries=2,
            accept=(400, 401, 403, 404, 405, 501),
        )
        try:
            reply = await storage.ask(path, request)
        except (OSError, AccessError) as error:  # the error is not kept: the next request may be answered
            return Layout(None, f"the bucket's storage layout is not known ({type(error).__name__})")
        _known[place] = _layout_of(reply)
    return _known[place]


async def kind(storage: Asking, path: str) -> EntryKind | None:
    """Return EntryKind.DIRECTORY if a folder is there, empty or not; else None."""
    return EntryKind.DIRECTORY if await _is_there(storage, path) else None


async def make(storage: Asking, path: str, *, mode: int | None) -> None:
    """Create a folder that must not exist, and the ancestors it needs."""
    if mode is not None:
        raise GuaranteeError(
            f"path_permission_mode cannot be honoured at gs://{path}: folders of Cloud Storage have no modes. Leave it"
            " out"
        )
    bucket, key = split(path)
    resource = json.dumps({"name": f"{key}/"}).encode()

    async def body(_: IOLoop) -> AsyncIterator[bytes | memoryview]:
        yield resource

    request = Request(
        what="making a folder",
        method="POST",
        url=storage.url(bucket, "folders"),
        query={"recursive": "true"},
        headers={"Content-Type": "application/json; charset=UTF-8"},
        body=body,
        length=len(resource),
        accept=(409,),
        tries=1,
    )
    reply, doubtful = await _insist(storage, path, request)
    if reply.status == 409:
        if doubtful:
            raise OSError(errno.EIO, f"gs://{path} is there, and may have been made by the first of two requests")
        raise FileExistsError(errno.EEXIST, f"something is at gs://{path}")


async def rename(storage: Asking, source: str, target: str) -> None:
    """Rename a folder to a name that must be free; the contract is that of `DirectoryStorage.rename_directory`.

    It is one indivisible operation, which on failure leaves everything as it was (Cloud Storage, "Rename and move
    folders"), and may go on after the reply: what cannot be followed to its end is unknown. So is what was sent
    again and then refused, since that does not tell what became of the first.
    """
    (bucket, old), (_, new) = split(source), split(target)
    request = Request(
        what="a rename",
        method="POST",
        url=storage.url(bucket, "folders", f"{old}/", "renameTo", "folders", f"{new}/"),
        accept=_REFUSED,
        tries=1,
    )
    reply, doubtful = await _insist(storage, source, request)
    if reply.status in _REFUSED:
        if doubtful:
            raise OSError(errno.EIO, f"the rename of gs://{source} was answered {reply.status} when it was sent again")
        raise await _refusal(storage, source, target, missing=reply.status == 404, said=f"answered {reply.status}")
    try:
        operation = await _ended(storage, source, bucket, reply.resource)
    except (AccessError, OSError) as error:
        raise OSError(
            errno.EIO, f"the rename of gs://{source} was begun, and could not be followed: {error}"
        ) from error
    if operation.is_set("error"):
        code = operation.part("error").text_or_none("code")
        if doubtful:
            raise OSError(errno.EIO, f"the rename of gs://{source} ended with code {code} when it was sent again")
        if code == str(_PERMISSION_DENIED):
            raise Refusal.RIGHTS.error(f"gs://{source}: the rename was refused")
        raise await _refusal(storage, source, target, missing=code == str(_NOT_FOUND), said=f"ended with code {code}")


async def remove(storage: Asking, path: str) -> None:
    """Delete a folder and those in it, which must be without objects; nothing there is fine."""
    bucket, key = split(path)
    names = {f"{key}/"}
    query = {"prefix": f"{key}/", "fields": "items(name),nextPageToken"}
    paging = Paging(f"gs://{path}")
    while True:
        page = await storage.look(path, "a listing of folders", bucket, "folders", query=query)
        names |= {item.text("name") for item in page.parts("items")}
        token = page.text_or_none("nextPageToken")
        if not paging.goes_on(token, len(names)):
            break
        query["pageToken"] = str(token)

    async def delete(name: str) -> None:
        url = storage.url(bucket, "folders", name)
        with suppress(FileNotFoundError):
            await storage.ask(path, Request(what="a folder's deletion", method="DELETE", url=url, of_object=True))

    depths = {name.count("/") for name in names}
    for depth in sorted(depths, reverse=True):  # only an empty folder can be deleted
        await together([name for name in names if name.count("/") == depth], delete)


async def _insist(storage: Asking, path: str, request: Request) -> tuple[Reply, bool]:
    """Send a request, again if it had no answer; it must be one that may be sent again.

    Return the answer, and whether an earlier try may have been carried out.
    """
    for again in range(_TRIES):
        try:
            return await storage.ask(path, request), bool(again)
        except AccessError as error:
            if again:
                raise OSError(errno.EIO, str(error)) from None
            raise
        except (ConnectionError, TimeoutError, TemporaryError):
            if again == _TRIES - 1:
                raise
            await storage.environment.sleep(_FIRST_PAUSE * 2**again)
    raise AssertionError("unreachable")


async def _ended(storage: Asking, path: str, bucket: str, operation: Answer) -> Answer:
    """Wait until the operation is done, and return it; TimeoutError if that takes too long."""
    environment = storage.environment
    end, pause = environment.monotonic() + _PATIENCE, _FIRST_LOOK
    while not operation.is_set("done"):
        if environment.monotonic() > end:
            raise TimeoutError(errno.ETIMEDOUT, f"it is not done after {_PATIENCE:.0f} s")
        await environment.sleep(pause)
        pause = min(2 * pause, _LAST_LOOK)
        name = operation.text("name").rpartition("/")[2]
        operation = await storage.look(path, "the state of a rename", bucket, "operations", name, query={})
    return operation


async def _refusal(storage: Asking, source: str, target: str, *, missing: bool, said: str) -> OSError:
    """Return why a rename that did not happen was refused. Codes do not tell what was in the way, so look."""
    if await _is_there(storage, target):
        return FileExistsError(errno.EEXIST, f"something is at gs://{target}")
    if missing and not await _is_there(storage, source):
        return FileNotFoundError(errno.ENOENT, f"nothing is at gs://{source}")
    return OSError(errno.EBUSY, f"the rename of gs://{source} was refused ({said})")


async def _is_there(storage: Asking, path: str) -> bool:
    bucket, key = split(path)
    try:
        await storage.look(path, "a look", bucket, "folders", f"{key}/", query={"fields": "name"}, of_object=True)
    except FileNotFoundError:
        return False
    return True


def _layout_of(reply: Reply) -> Layout:
    """Return what the answer says. Answers for flat buckets have no `hierarchicalNamespace`."""
    if reply.status != 200:
        return Layout(None, f"the bucket's storage layout is not known (the endpoint answered {reply.status})")
    try:
        resource = reply.resource
        if resource.text_or_none("kind") != "storage#storageLayout":
            return Layout(None, "the bucket's storage layout is not known (the endpoint answered something else)")
        has_folders = resource.part("hierarchicalNamespace").is_set("enabled")
    except OSError as error:
        return Layout(None, f"the bucket's storage layout is not known ({error.strerror})")
    if has_folders:
        return Layout(True, "the bucket has a hierarchical namespace")
    return Layout(False, "the bucket's storage layout is flat, without folders to rename")
