"""A fake of Cloud Storage in this process: what atomicpath uses of its JSON API, with folders and every condition.

Written from the public reference ("Cloud Storage JSON API": objects, folders, operations, buckets.getStorageLayout;
"Rename and move folders"; "Resumable uploads"), since no emulator has folders, and fake-gcs-server ignores
conditions on resumable uploads and deletes. It shows that the backend keeps to the reference, not that Google does.

It is a `Proxy` that carries requests out itself, so the rules of that, and its list of requests, are here too.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote, urlsplit

import google_crc32c

from tests.support.proxy import Proxy, Reply, Request

_GENERATIONS = itertools.count(1_700_000_000_000_001)


@dataclass
class Stored:
    data: bytes
    metadata: dict[str, str] = field(default_factory=dict)
    cache_control: str | None = None
    generation: int = field(default_factory=lambda: next(_GENERATIONS))
    updated: str = field(default_factory=lambda: formatdate(usegmt=True))

    @property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.value(self.data).to_bytes(4, "big")).decode()

    def resource(self, name: str) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "name": name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "metadata": self.metadata,
            "crc32c": self.crc32c,
        }


@dataclass
class Bucket:
    hierarchical: bool
    objects: dict[str, Stored] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)


@dataclass
class Session:
    bucket: str
    resource: dict[str, Any]
    condition: str | None
    data: bytearray = field(default_factory=bytearray)
    done: Reply | None = None


@dataclass
class Operation:
    source: str
    target: str
    bucket: str
    looks: int
    """How often it is looked at before it is done."""
    result: dict[str, Any] | None = None


class Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.reply = _json({"error": {"code": status, "message": reason, "errors": [{"reason": reason}]}}, status)


class FakeGcs(Proxy):
    """`slow`: how many looks at it a rename takes to be done; it is carried out at the last."""

    rewritten_per_call = 1 << 20

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.buckets: dict[str, Bucket] = {}
        self.sessions: dict[str, Session] = {}
        self.operations: dict[str, Operation] = {}
        self.slow = 0
        self._world = threading.RLock()

    def make_bucket(self, *, hierarchical: bool) -> str:
        name = f"b-{uuid.uuid4().hex[:12]}"
        self.buckets[name] = Bucket(hierarchical)
        return name

    def truth(self, bucket: str) -> dict[str, bytes]:
        with self._world:
            return {name: stored.data for name, stored in sorted(self.buckets[bucket].objects.items())}

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Store an object, whatever is there."""
        with self._world:
            self._store(bucket, name, {}, data, None)

    def send(self, request: Request) -> Reply:
        parts = [unquote(part) for part in urlsplit(request.target).path.strip("/").split("/")]
        kind = parts.pop(0) if parts[0] in ("upload", "download", "session") else ""
        try:
            with self._world:
                if kind == "session":
                    return self._resume(parts[0], request)
                parts = parts[parts.index("b") + 1 :]
                if parts[0] not in self.buckets:
                    raise Refused(404, "notFound")
                return self._route(kind, parts, request)
        except Refused as refused:
            return refused.reply

    def _route(self, kind: str, parts: list[str], request: Request) -> Reply:
        match (kind, request.method, *parts):
            case ("upload", "POST", bucket, "o"):
                return self._upload(bucket, request)
            case ("", "GET", bucket, "o"):
                return self._list(bucket, request.query)
            case ("" | "download", "GET", bucket, "o", name):
                return self._get(bucket, name, request.query, request.headers.get("range"))
            case ("", "POST", bucket, "o", name, "rewriteTo", "b", target_bucket, "o", target):
                return self._rewrite(bucket, name, target_bucket, target, request.query)
            case ("", "DELETE", bucket, "o", name):
                return self._delete(bucket, name, request.query)
            case ("", "GET", bucket, "storageLayout"):
                kind = {"hierarchicalNamespace": {"enabled": True}} if self.buckets[bucket].hierarchical else {}
                return _json({"kind": "storage#storageLayout", "bucket": bucket, **kind})
            case ("", "GET", _, "operations", name):
                return self._look_at(name)
            case ("", _, bucket, "folders", *rest) if self.buckets[bucket].hierarchical:
                return self._folders(bucket, rest, request)
        raise Refused(400, "invalid")

    # objects

    def _upload(self, bucket: str, request: Request) -> Reply:
        condition = request.query.get("ifGenerationMatch")
        if request.query["uploadType"] == "resumable":
            resource = json.loads(request.body)
            self._check(bucket, resource["name"], condition)
            name = uuid.uuid4().hex
            self.sessions[name] = Session(bucket, resource, condition)
            return Reply(200, {"Location": f"http://{request.headers['host']}/session/{name}"})
        found = re.fullmatch(r'multipart/related; boundary="?([^"]+?)"?', request.headers["content-type"])
        assert found is not None
        _, head, media, end = request.body.split(f"--{found[1]}".encode(), 3)
        assert end.strip() == b"--"
        data = media.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return self._store(bucket, **_named(json.loads(head.partition(b"\r\n\r\n")[2])), data=data, condition=condition)

    def _store(self, bucket: str, name: str, resource: dict[str, Any], data: bytes, condition: str | None) -> Reply:
        self._check(bucket, name, condition)
        stored = Stored(data, resource.get("metadata", {}), resource.get("cacheControl"))
        if resource.get("crc32c", stored.crc32c) != stored.crc32c:
            raise Refused(400, "invalid")
        self._unlocked(bucket, name)
        place = self.buckets[bucket]
        place.objects[name] = stored
        if place.hierarchical:
            place.folders |= set(_ancestors(name))
        return _json(stored.resource(name))

    def _rewrite(self, bucket: str, name: str, to: str, target: str, query: dict[str, str]) -> Reply:
        """An object larger than `rewritten_per_call` takes several calls, each with the token of the last."""
        found = self.buckets[bucket].objects.get(name)
        if found is None:
            raise Refused(404, "notFound")
        self._check(to, target, query.get("ifGenerationMatch"))
        done = int(query.get("rewriteToken", "0").partition("-")[0]) + self.rewritten_per_call
        if done < len(found.data):
            return _json({"kind": "storage#rewriteResponse", "done": False, "rewriteToken": f"{done}-of-{name}"})
        resource = {"metadata": found.metadata, "cacheControl": found.cache_control}
        self._store(to, target, resource, found.data, query.get("ifGenerationMatch"))
        return _json({"kind": "storage#rewriteResponse", "done": True, "resource": resource})

    def _resume(self, session_name: str, request: Request) -> Reply:
        session = self.sessions.get(session_name)
        if session is None:
            raise Refused(404, "notFound")
        if request.method == "DELETE":
            del self.sessions[session_name]
            return Reply(499, {})
        if session.done:
            return session.done
        span, _, size = request.headers["content-range"].removeprefix("bytes ").partition("/")
        if span != "*":
            assert int(span.partition("-")[0]) == len(session.data)
            session.data += request.body
        if len(session.data) == int(size):
            resource = _named(session.resource)
            session.done = self._store(
                session.bucket, **resource, data=bytes(session.data), condition=session.condition
            )
            return session.done
        assert len(session.data) % 2**18 == 0
        return Reply(308, {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {})

    def _check(self, bucket: str, name: str, condition: str | None) -> None:
        found = self.buckets[bucket].objects.get(name)
        if condition is not None and int(condition) != (found.generation if found else 0):
            raise Refused(412, "conditionNotMet")

    def _get(self, bucket: str, name: str, query: dict[str, str], span: str | None) -> Reply:
        found = self.buckets[bucket].objects.get(name)
        if found is None:
            raise Refused(404, "notFound")
        self._check(bucket, name, query.get("ifGenerationMatch"))
        if query.get("alt") != "media":
            return _json(found.resource(name))
        headers = {
            "X-Goog-Generation": str(found.generation),
            "X-Goog-Hash": f"crc32c={found.crc32c}",
            "Last-Modified": found.updated,
            "Date": formatdate(usegmt=True),
        }
        if span is None:
            return Reply(200, headers, found.data)
        first, _, last = span.removeprefix("bytes=").partition("-")
        data = found.data[int(first) : int(last) + 1]
        told = f"bytes {first}-{int(first) + len(data) - 1}/{len(found.data)}"
        return Reply(206, {**headers, "Content-Range": told}, data)

    def _delete(self, bucket: str, name: str, query: dict[str, str]) -> Reply:
        if name not in self.buckets[bucket].objects:
            raise Refused(404, "notFound")
        self._check(bucket, name, query.get("ifGenerationMatch"))
        self._unlocked(bucket, name)
        del self.buckets[bucket].objects[name]
        return Reply(204, {})

    def _list(self, bucket: str, query: dict[str, str]) -> Reply:
        place, prefix, delimiter = self.buckets[bucket], query.get("prefix", ""), query.get("delimiter")
        items: dict[str, Stored | None] = {}
        for name, stored in place.objects.items():
            if name.startswith(prefix):
                below, separator, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                items[prefix + below + separator if separator else name] = None if separator else stored
        if delimiter and query.get("includeFoldersAsPrefixes") == "true":
            direct = (f for f in place.folders if f.startswith(prefix) and f[len(prefix) :].count("/") == 1)
            items |= dict.fromkeys(direct)
        after = query.get("pageToken", "")
        names = sorted(name for name in items if name > after)
        page = names[: int(query.get("maxResults", 1000))]
        reply: dict[str, Any] = {"kind": "storage#objects"}
        if found := [stored.resource(name) for name in page if (stored := items[name])]:
            reply["items"] = found
        if prefixes := [name for name in page if items[name] is None]:
            reply["prefixes"] = prefixes
        if len(page) < len(names):
            reply["nextPageToken"] = page[-1]
        return _json(reply)

    # folders

    def _folders(self, bucket: str, rest: list[str], request: Request) -> Reply:
        folders = self.buckets[bucket].folders
        match (request.method, *rest):
            case ("POST",):
                name = json.loads(request.body)["name"]
                if name in folders:
                    raise Refused(409, "conflict")
                parents = set(_ancestors(name.rstrip("/")))
                if not parents <= folders and request.query.get("recursive") != "true":
                    raise Refused(412, "failedPrecondition")
                folders |= {name, *parents}
                return _json({"kind": "storage#folder", "name": name})
            case ("GET",):
                below = sorted(name for name in folders if name.startswith(request.query.get("prefix", "")))
                return _json({"kind": "storage#folders", "items": [{"name": name} for name in below]})
            case ("GET", name) if name in folders:
                return _json({"kind": "storage#folder", "name": name})
            case ("DELETE", name) if name in folders:
                if any(other.startswith(name) and other != name for other in (*folders, *self.buckets[bucket].objects)):
                    raise Refused(409, "conflict")
                folders.remove(name)
                return Reply(204, {})
            case ("POST", source, "renameTo", "folders", target):
                return self._rename(bucket, source, target)
        raise Refused(404, "notFound")

    def _rename(self, bucket: str, source: str, target: str) -> Reply:
        folders = self.buckets[bucket].folders
        if source not in folders:
            raise Refused(404, "notFound")
        if target in folders:
            raise Refused(409, "conflict")
        if not set(_ancestors(target.rstrip("/"))) <= folders:
            raise Refused(412, "failedPrecondition")
        self._unlocked(bucket, source)
        name = f"projects/_/buckets/{bucket}/operations/{uuid.uuid4().hex}"
        self.operations[name.rpartition("/")[2]] = operation = Operation(source, target, bucket, self.slow)
        return self._state(name, operation)

    def _look_at(self, name: str) -> Reply:
        operation = self.operations.get(name)
        if operation is None:
            raise Refused(404, "notFound")
        operation.looks -= 1
        return self._state(f"projects/_/buckets/{operation.bucket}/operations/{name}", operation)

    def finish(self) -> None:
        """Carry out every rename that is under way."""
        with self._world:
            for operation in self.operations.values():
                operation.looks = 0
                self._state("", operation)

    def _state(self, name: str, operation: Operation) -> Reply:
        if operation.looks > 0:
            return _json({"name": name, "done": False})
        if operation.result is None:
            operation.result = self._move(self.buckets[operation.bucket], operation.source, operation.target)
        return _json({"name": name, "done": True, **operation.result})

    def _move(self, bucket: Bucket, source: str, target: str) -> dict[str, Any]:
        if target in bucket.folders:
            return {"error": {"code": 6, "message": "exists"}}
        if source not in bucket.folders:
            return {"error": {"code": 5, "message": "not found"}}
        bucket.folders = {_moved(name, source, target) for name in bucket.folders}
        bucket.objects = {_moved(name, source, target): stored for name, stored in bucket.objects.items()}
        return {"response": {"name": target}}

    def _unlocked(self, bucket: str, name: str) -> None:
        """What is being renamed cannot be written to."""
        for operation in self.operations.values():
            if operation.result is None and operation.bucket == bucket and name.startswith(operation.source):
                raise Refused(409, "conflict")


def _named(resource: dict[str, Any]) -> dict[str, Any]:
    return {"name": resource["name"], "resource": resource}


def _moved(name: str, source: str, target: str) -> str:
    return target + name[len(source) :] if name.startswith(source) else name


def _ancestors(name: str) -> Iterator[str]:
    parts = name.split("/")[:-1]
    return ("/".join(parts[: depth + 1]) + "/" for depth in range(len(parts)))


def _json(content: Any, status: int = 200) -> Reply:
    return Reply(status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(content).encode())
