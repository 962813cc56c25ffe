"""One object copied by the store itself, in as many requests as it takes."""

from __future__ import annotations

from .asking import Asking
from .exchange import Request
from .names import split

__all__ = ["copy"]


async def copy(storage: Asking, source: str, target: str) -> None:
    """Copy by `objects.rewrite`.

    A large object, or one of another place, takes several calls; each passes on the token of the last one.

    The target, which must not exist, appears whole with the last call ("Objects: rewrite"). A call that is refused may
    have been carried out by an earlier try of itself, whose answer was lost: then the target has the size and the
    checksum.
    """
    (from_bucket, old), (to_bucket, new) = split(source), split(target)
    await storage.ready(source)
    url = storage.url(from_bucket, "o", old, "rewriteTo", "b", to_bucket, "o", new)
    query = {"ifGenerationMatch": "0"}
    while True:
        request = Request(what="a copy", method="POST", url=url, query=query, of_object=True, patient=True)
        try:
            reply = (await storage.ask(source, request)).resource
        except FileExistsError:
            if await _content(storage, source) != await _content(storage, target):
                raise
            return
        if reply.is_set("done"):
            return
        query = {**query, "rewriteToken": reply.text("rewriteToken")}


async def _content(storage: Asking, path: str) -> tuple[str, str]:
    bucket, key = split(path)
    query = {"fields": "size,crc32c"}
    found = await storage.look(path, "a look", bucket, "o", key, query=query, of_object=True)
    return found.text("size"), found.text("crc32c")
