"""The multi-part upload: parts in parallel, one conditional completion, and nothing left of a failed one."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

import anyio

from atomicpath.abc import Entry, Environment
from atomicpath.errors import BackendError
from atomicpath.storage import Answer, Source, send_parts

from .checksums import CHECKSUMS
from .names import split

__all__ = ["PART", "TOKEN", "Asks", "create_in_parts", "upload_parts", "version_of"]

PART = 16 * 2**20
"""Bytes of a file above which it is sent in parts."""

_LEAST = 8 * 2**20  # bytes of a part, so that many are under way at once

TOKEN = "atomicpath-token"  # noqa: S105 - names an attempt, opens nothing
"""The key of the owner in an object's metadata."""

_UPLOAD = "atomicpath-upload"  # the same for this very upload, by which a completion of unknown outcome is recognised
_PARTS = 10_000  # S3 User Guide, "Amazon S3 multipart upload limits"


class Asks(Protocol):
    """What is used of the storage."""

    environment: Environment

    def ask(
        self, path: str, operation: str, parameters: Mapping[str, object], *, patient: bool = False
    ) -> Awaitable[Answer]:
        """Make one request about an object."""


async def upload_parts(storage: Asks, source: Source, path: str, *, owner: str) -> Entry:
    """Create the object from the file, which must not be empty; the contract is that of `Storage.upload`."""
    bucket, key = split(path)
    place = {"Bucket": bucket, "Key": key}
    mark = storage.environment.token()
    with anyio.CancelScope(shield=True):  # if cancelled here, an upload would exist whose id nobody knows
        begun = await storage.ask(path, "create_multipart_upload", {**place, "Metadata": {TOKEN: owner, _UPLOAD: mark}})
    try:
        upload = {**place, "UploadId": begun.text("UploadId")}
    except OSError as error:
        error.add_note(f"An upload to s3://{path} may have been begun, which nobody can end: a lifecycle rule can")
        raise
    try:
        parts = await _send(storage, source, path, upload)
        return await _complete(storage, source, path, upload, parts, mark)
    except BaseException as error:
        try:
            with anyio.CancelScope(shield=True):
                await storage.ask(path, "abort_multipart_upload", upload)
        except (OSError, BackendError) as failed:
            error.add_note(f"The parts of an unfinished upload may be left at s3://{path}: {failed}")
        raise


async def create_in_parts(storage: Asks, path: str, data: bytes) -> None:
    """Create an object from bytes by an upload of one part.

    The contract is that of `MultipartStorage.create_in_parts`.
    """
    bucket, key = split(path)
    place = {"Bucket": bucket, "Key": key}
    begun = await storage.ask(path, "create_multipart_upload", place)
    upload = {**place, "UploadId": begun.text("UploadId")}
    part = {"PartNumber": 1}
    sent = await storage.ask(path, "upload_part", {**upload, **part, "Body": data})
    whole = {**upload, "MultipartUpload": {"Parts": [_part(1, sent)]}, "IfNoneMatch": "*"}
    try:
        await storage.ask(path, "complete_multipart_upload", whole)
    except OSError:
        await storage.ask(path, "abort_multipart_upload", upload)
        raise


async def _send(storage: Asks, source: Source, path: str, upload: Mapping[str, object]) -> list[dict[str, object]]:
    async def send(number: int, data: bytes) -> dict[str, object]:
        part = {**upload, "PartNumber": number + 1, "Body": data}
        reply = await storage.ask(path, "upload_part", part, patient=True)
        return _part(number + 1, reply)

    return await send_parts(storage.environment, source, send, least=min(PART, _LEAST), most=_PARTS)


def _part(number: int, reply: Answer) -> dict[str, object]:
    """Return a part as the completion names it.

    Where a checksum was asked for, S3 wants the checksum of each part ("Checking object integrity"), and refuses the
    completion without it.
    """
    given = {name: reply.text_or_none(name) for name in CHECKSUMS}
    return {"PartNumber": number, "ETag": reply.text("ETag"), **{name: value for name, value in given.items() if value}}


async def _complete(
    storage: Asks, source: Source, path: str, upload: Mapping[str, object], parts: list[dict[str, object]], mark: str
) -> Entry:
    try:
        whole = {**upload, "MultipartUpload": {"Parts": parts}, "IfNoneMatch": "*"}
        reply = await storage.ask(path, "complete_multipart_upload", whole, patient=True)
    except OSError as error:
        # The client repeats a completion whose reply was lost, and then hears that the object exists or
        # that there is no such upload; so whatever it heard, the object itself says whose it is.
        try:
            found = await storage.ask(path, "head_object", {name: upload[name] for name in ("Bucket", "Key")})
        except (OSError, BackendError):
            raise error from error.__cause__
        if found.part("Metadata").text_or_none(_UPLOAD) == mark and found.number("ContentLength") == source.size:
            return Entry(name="", size=source.size, version=version_of(found))
        if isinstance(error, FileExistsError):
            raise
        raise FileExistsError(f"something is at s3://{path}") from error
    return Entry(name="", size=source.size, version=version_of(reply))


def version_of(reply: Answer) -> str:
    """Return the version in a reply or listing: the ETag without its quotes, which RGW 16 does not take back."""
    return reply.text("ETag").strip('"')
