"""A fake of an Azure account with a hierarchical namespace, which no emulator has: what our clients ask of it.

Written after the public reference ("Blob service REST API", "Data Lake Storage Gen2 REST API"); it answers
at one address for both endpoints, under one lock, and takes any credentials.
"""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.proxy import Reply, Request
from tests.support.servers.azurite import ACCOUNT, AzureRoot

__all__ = ["AdlsRoot", "FakeAdls"]


@dataclass(slots=True)
class Node:
    """A file, or where `data` is None a directory."""

    data: bytes | None
    metadata: dict[str, str] = field(default_factory=dict)
    etag: str = field(default_factory=lambda: f"0x{uuid.uuid4().hex[:15].upper()}")
    modified: str = field(default_factory=lambda: formatdate(usegmt=True))
    mode: str = "0750"
    looks: int | None = None  # at a blob being copied, until it is said to be done

    @property
    def is_directory(self) -> bool:
        return self.data is None

    def headers(self) -> dict[str, str]:
        folder = {"hdi_isfolder": "true"} if self.is_directory else {}
        shown = {f"x-ms-meta-{name}": value for name, value in {**self.metadata, **folder}.items()}
        kind = "directory" if self.is_directory else "file"
        return {"ETag": f'"{self.etag}"', "Last-Modified": self.modified, "x-ms-resource-type": kind, **shown}


class Failure(Exception):
    """What the service answers instead."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class FakeAdls:
    """The server: `url` is its endpoint; the switches below make it go wrong, or be slow to tell."""

    detection: str = "true"
    """What it says of its own namespace; "refused" and "" are that it does not say."""
    page: int | None = None
    """The most entries in a listing, and the most paths deleted at once, whatever was asked."""
    renames_in_parts = False
    """Whether a rename ends with a continuation, as where the namespace is flat."""
    looks_at_a_copy = 0
    """How often a copy is looked at before it is said to be done."""
    copies_fail = False
    ignores_conditions = False
    """Whether it is an endpoint that does not know conditional requests."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.containers: dict[str, dict[str, Node]] = {}
        self.blocks: dict[tuple[str, str], dict[str, bytes]] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Request) -> Reply:
        """One request, alone."""
        path = request.path
        if not urlsplit(request.target).netloc:
            path = path.removeprefix(f"/{ACCOUNT}")  # an emulator's URLs have the account in the path
        container, _, key = path.strip("/").partition("/")
        with self.lock:
            try:
                return self._answer(request, container, key)
            except Failure as failure:
                return self._error(request, failure)

    def _answer(self, request: Request, container: str, key: str) -> Reply:
        query = request.query
        if query.get("restype") == "account":
            if self.detection == "refused":
                raise Failure(403, "AuthorizationPermissionMismatch")
            says = {"x-ms-is-hns-enabled": self.detection} if self.detection else {}
            return Reply(200, {"x-ms-sku-name": "Standard_LRS", "x-ms-account-kind": "StorageV2", **says})
        if request.method == "PUT" and query.get("restype") == "container":
            self.containers[container] = {}
            return Reply(201, {"ETag": '"0x1"', "Last-Modified": formatdate(usegmt=True)})
        tree = self.containers.get(container)
        if tree is None:
            raise Failure(404, "ContainerNotFound")
        if query.get("comp") == "list":
            return self._list_blobs(tree, query)
        if query.get("resource") == "filesystem":
            return self._list_paths(tree, query)
        if request.method == "PATCH" and query.get("action") == "setAccessControl":
            node = self._node(tree, key, "PathNotFound")
            node.mode = request.headers["x-ms-permissions"]
            return Reply(200, node.headers())
        if request.method == "DELETE" and "recursive" in query:
            return self._delete_path(tree, key)
        if "x-ms-rename-source" in request.headers:
            return self._rename(tree, request, container, key)
        if query.get("resource") == "directory":
            self._check(tree, request, key, exists="PathAlreadyExists")
            pairs = [pair.partition("=") for pair in request.headers.get("x-ms-properties", "").split(",") if pair]
            tree.setdefault(key, Node(None, {name: base64.b64decode(value).decode() for name, _, value in pairs}))
            self._parents(tree, key)
            return Reply(201, tree[key].headers())
        return self._blob(tree, request, container, key)

    def _blob(self, tree: dict[str, Node], request: Request, container: str, key: str) -> Reply:
        if request.method in ("GET", "HEAD"):
            node, copied = self._node(tree, key, "BlobNotFound"), {}
            if node.looks is not None:
                ended = "failed" if self.copies_fail else "success"
                copied = {"x-ms-copy-id": "1", "x-ms-copy-status": "pending" if node.looks > 1 else ended}
                node.looks -= 1
            reply = _content(node, request)
            return Reply(reply.status, {**reply.headers, **copied}, reply.body)
        if request.method == "DELETE":
            node = self._node(tree, key, "BlobNotFound")
            self._check(tree, request, key)
            if node.is_directory and any(name.startswith(f"{key}/") for name in tree):
                raise Failure(409, "DirectoryIsNotEmpty")
            del tree[key]
            return Reply(202, {})
        query, staged = request.query, self.blocks.setdefault((container, key), {})
        if query.get("comp") == "block":
            staged[query["blockid"]] = request.body
            return Reply(201, {})
        self._check(tree, request, key, exists="BlobAlreadyExists")
        data, copied = request.body, {}
        if "x-ms-copy-source" in request.headers:
            name = unquote(urlsplit(request.headers["x-ms-copy-source"]).path).partition(f"/{container}/")[2]
            data = self._node(tree, name, "CannotVerifyCopySource").data or b""
            copied = {"x-ms-copy-id": "1", "x-ms-copy-status": "pending" if self.looks_at_a_copy else "success"}
        if query.get("comp") == "blocklist":
            names = [part.partition("</Latest>")[0] for part in request.body.decode().split("<Latest>")[1:]]
            if not set(names) <= staged.keys():
                raise Failure(400, "InvalidBlockList")
            data = b"".join(staged[name] for name in names)
        if key in tree and tree[key].is_directory:
            raise Failure(409, "ResourceTypeMismatch")
        self._parents(tree, key)
        given = {name.removeprefix("x-ms-meta-"): value for name, value in request.headers.items()}
        tree[key] = Node(data, {name: value for name, value in given.items() if name not in request.headers})
        tree[key].looks = self.looks_at_a_copy if copied else None
        staged.clear()
        return Reply(202 if copied else 201, {**tree[key].headers(), **copied})

    def _rename(self, tree: dict[str, Node], request: Request, container: str, target: str) -> Reply:
        source = unquote(urlsplit(request.headers["x-ms-rename-source"]).path).removeprefix(f"/{container}/")
        if source not in tree:
            raise Failure(404, "SourcePathNotFound")
        parent = target.rpartition("/")[0]
        if parent and parent not in tree:
            raise Failure(404, "RenameDestinationParentPathNotFound")
        self._check(tree, request, target, exists="PathAlreadyExists")
        moved = {name: node for name, node in tree.items() if name == source or name.startswith(f"{source}/")}
        for name in [name for name in tree if name in moved or name == target or name.startswith(f"{target}/")]:
            del tree[name]  # by default what is at the destination is overwritten
        tree.update({target + name[len(source) :]: node for name, node in moved.items()})
        return Reply(201, {"x-ms-continuation": "more"} if self.renames_in_parts else {})

    def _delete_path(self, tree: dict[str, Node], key: str) -> Reply:
        self._node(tree, key, "PathNotFound")
        below = sorted((name for name in tree if name == key or name.startswith(f"{key}/")), reverse=True)
        for name in below[: self.page]:
            del tree[name]
        return Reply(200, {"x-ms-continuation": "more"} if key in tree else {})

    def _check(self, tree: dict[str, Node], request: Request, key: str, *, exists: str = "ConditionNotMet") -> None:
        if self.ignores_conditions:
            return
        if request.headers.get("if-none-match") == "*" and key in tree:
            raise Failure(409, exists)
        wanted = request.headers.get("if-match")
        if wanted and (key not in tree or wanted.strip('"') != tree[key].etag):
            raise Failure(412, "ConditionNotMet")

    def _node(self, tree: dict[str, Node], key: str, code: str) -> Node:
        if key not in tree:
            raise Failure(404, code)
        return tree[key]

    def _parents(self, tree: dict[str, Node], key: str) -> None:
        """The service makes the directories that a path needs."""
        while key := key.rpartition("/")[0]:
            if not tree.setdefault(key, Node(None)).is_directory:
                raise Failure(409, "PathConflict")

    def _list_paths(self, tree: dict[str, Node], query: dict[str, str]) -> Reply:
        directory = query.get("directory", "").strip("/")
        if directory:
            self._node(tree, directory, "PathNotFound")
        top = f"{directory}/" if directory else ""
        names = [name for name in sorted(tree) if name.startswith(top)]
        if query["recursive"].lower() != "true":
            names = [name for name in names if "/" not in name[len(top) :]]
        shown, after = self._cut(names, query.get("continuation", ""), int(query.get("maxResults", 5000)))
        paths = [
            {
                "name": name,
                "contentLength": str(len(tree[name].data or b"")),
                "etag": tree[name].etag,
                "lastModified": tree[name].modified,
                **({"isDirectory": "true"} if tree[name].is_directory else {}),
            }
            for name in shown
        ]
        body = json.dumps({"paths": paths}).encode()
        more = {"x-ms-continuation": after} if after else {}
        return Reply(200, {"Content-Type": "application/json;charset=utf-8", **more}, body)

    def _list_blobs(self, tree: dict[str, Node], query: dict[str, str]) -> Reply:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        found: dict[str, str] = {}
        for name in sorted(name for name in tree if name.startswith(prefix)):
            head, slash, _ = name[len(prefix) :].partition("/")
            if delimiter and slash:
                folder = f"{prefix}{head}/"
                found[folder] = f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>"
            else:
                found[name] = _blob_xml(name, tree[name])
        shown, after = self._cut(sorted(found), query.get("marker", ""), int(query.get("maxresults", 5000)))
        body = "".join(found[name] for name in shown)
        text = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{self.url}" ContainerName="c">'
            f"<Blobs>{body}</Blobs><NextMarker>{escape(after)}</NextMarker></EnumerationResults>"
        )
        return Reply(200, {"Content-Type": "application/xml"}, text.encode())

    def _cut(self, names: list[str], after: str, most: int) -> tuple[list[str], str]:
        rest = [name for name in names if name > after]
        shown = rest[: min(most, self.page or most)]
        return shown, shown[-1] if len(shown) < len(rest) else ""

    def _error(self, request: Request, failure: Failure) -> Reply:
        headers = {"x-ms-error-code": failure.code, "Content-Type": "application/xml"}
        return Reply(
            failure.status, headers, f"<Error><Code>{failure.code}</Code><Message>Refused.</Message></Error>".encode()
        )


def _content(node: Node, request: Request) -> Reply:
    data = node.data or b""
    headers = {**node.headers(), "x-ms-blob-type": "BlockBlob", "Accept-Ranges": "bytes"}
    asked = request.headers.get("x-ms-range") or request.headers.get("range")
    if node.etag != request.headers.get("if-match", node.etag).strip('"'):
        raise Failure(412, "ConditionNotMet")
    if not asked or request.method == "HEAD":
        return Reply(200, {**headers, "Content-Length": str(len(data))}, b"" if request.method == "HEAD" else data)
    first, _, last = asked.removeprefix("bytes=").partition("-")
    if int(first) >= len(data):
        raise Failure(416, "InvalidRange")
    part = data[int(first) : int(last) + 1 if last else None]
    span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
    return Reply(206, {**headers, "Content-Range": span}, part)


def _blob_xml(name: str, node: Node) -> str:
    shown = {**node.metadata, **({"hdi_isfolder": "true"} if node.is_directory else {})}
    metadata = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in shown.items())
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{node.modified}</Last-Modified>"
        f"<Etag>{node.etag}</Etag><Content-Length>{len(node.data or b'')}</Content-Length>"
        f"<BlobType>BlockBlob</BlobType></Properties><Metadata>{metadata}</Metadata></Blob>"
    )


class AdlsRoot(AzureRoot):
    """As on Azurite; directories exist here by themselves."""

    kind = "adls"

    def names(self) -> list[str]:
        found = self.container.list_blobs(name_starts_with=f"{self.top}/")
        return sorted({blob.name.removeprefix(f"{self.top}/").partition("/")[0] for blob in found})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    fake: FakeAdls

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as in tests/support/proxy.py
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def _do(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, b"".join(self._body()))
        reply = self.server.fake.answer(request)
        self.send_response(reply.status)
        always = {"Content-Length": str(len(reply.body)), "x-ms-request-id": str(uuid.uuid4())}
        for name, value in {**always, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else reply.body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_PATCH = _do  # noqa: N815 - the names that http.server calls

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
