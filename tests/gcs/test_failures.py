"""What the storage says, and leaves, when requests and replies are lost, refused, repeated or cut."""

from __future__ import annotations

import errno
import os
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from google.oauth2.credentials import Credentials

import atomicpath_gcs.asking
from atomicpath.abc import Environment, Put, StaleVersionError, Update
from atomicpath.errors import AccessError, ValidationError
from atomicpath_gcs import GcsBackend
from tests.gcs.stores import Store, both_loops, conditions, uploads
from tests.support.proxy import (
    Reply,
    Request,
    Rule,
    Send,
    answer_after,
    drop_reply,
    drop_request,
    hold,
    is_,
    refuse,
    truncate,
)
from tests.support.servers.base import free_port
from tests.support.waiting import until

SECRET = "do-not-show-this-anywhere"
both = pytest.mark.parametrize("store", ["flat", "fake-gcs-server"], indirect=True)
lost = pytest.mark.parametrize("action", [drop_reply, answer_after(503, "x"), answer_after(500, "x")])
never = pytest.mark.parametrize("action", [drop_request, refuse(503, "x"), refuse(429, "x")])


def second(store: Store, match: Callable[[Request], bool], action: Any) -> None:
    """Let the first that matches through, and do this with the next."""
    store.proxy.rules.append(Rule(match=match, action=lambda request, send: send(request)))
    store.proxy.rules.append(Rule(match=match, action=action))


@both
@lost
async def test_won_but_told_exists_after_the_own_retry(store: Store, action: Any) -> None:
    gcs, path = store.storage, store.path("run/a")
    store.proxy.rules.append(Rule(match=uploads, action=action))
    with pytest.raises(FileExistsError):
        await gcs.put(path, b"ours", mode=Put.CREATE, owner="token")
    assert store.truth() == {"run/a": b"ours"}
    assert (await gcs.stat(path)).owner == "token"  # type: ignore[union-attr]
    version = (await gcs.get(path)).version
    assert version is not None
    store.proxy.rules.append(Rule(match=uploads, action=action))
    with pytest.raises(StaleVersionError):
        await gcs.put(path, b"swapped", mode=Update(version))
    assert store.truth() == {"run/a": b"swapped"}


@both
@pytest.mark.parametrize(
    "action", [drop_reply, drop_request, answer_after(500, "x"), refuse(503, "x"), refuse(429, "x")]
)
async def test_a_delete_is_sent_once(store: Store, action: Any) -> None:
    """Whatever became of it: a second one could hit what somebody else has put there since."""
    written = await store.storage.put(store.path("run/a"), b"ours", mode=Put.OVERWRITE)
    for version in (written, None):
        store.proxy.requests.clear()
        store.proxy.rules.append(Rule(match=is_("DELETE"), action=action))
        with pytest.raises(OSError, match="gs://") as caught:
            await store.storage.delete(store.path("run/a"), version=version)
        assert not isinstance(caught.value, (FileNotFoundError, PermissionError, StaleVersionError))
        assert store.proxy.count(is_("DELETE")) == 1


@both
@never
async def test_a_request_that_was_not_served_is_repeated_with_its_condition(store: Store, action: Any) -> None:
    store.proxy.rules.append(Rule(match=uploads, action=action, times=3))
    await store.storage.put(store.path("run/a"), b"ours", mode=Put.CREATE)
    assert store.truth() == {"run/a": b"ours"}
    assert conditions(store.proxy.requests) == [("POST", "0")] * 4
    assert store.environment.slept == [0.5, 1.0, 2.0]


async def test_a_store_that_never_serves_is_an_unknown_outcome(store: Store) -> None:
    for action, kind in ((drop_request, ConnectionError), (refuse(503, "x"), OSError)):
        store.proxy.rules[:] = [Rule(match=uploads, action=action, times=None)]
        with pytest.raises(kind) as caught:
            await store.storage.put(store.path("run/a"), b"x", mode=Put.CREATE)
        assert not isinstance(caught.value, FileExistsError | FileNotFoundError | PermissionError)
    assert store.truth() == {}


async def test_a_conflict_is_unknown_and_not_repeated(store: Store) -> None:
    store.proxy.rules.append(Rule(match=uploads, action=refuse(409, "x")))
    with pytest.raises(OSError, match="answered 409") as caught:
        await store.storage.put(store.path("run/a"), b"x", mode=Put.CREATE)
    assert (type(caught.value), caught.value.errno) == (OSError, errno.EBUSY)


async def test_a_refusal_of_what_may_have_been_done_before_is_unknown(store: Store) -> None:
    store.proxy.rules.append(Rule(match=uploads, action=drop_reply))
    store.proxy.rules.append(Rule(match=uploads, action=refuse(403, "x")))
    with pytest.raises(OSError, match="when it was sent again") as caught:
        await store.storage.put(store.path("run/a"), b"x", mode=Put.CREATE)
    assert not isinstance(caught.value, PermissionError)
    assert store.truth() == {"run/a": b"x"}


@both_loops
async def test_an_endpoint_that_never_answers_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.storage.delete(store.path("run/a"))  # the session is there
    monkeypatch.setattr(atomicpath_gcs.asking, "_PATIENCE", 0.5)
    seen, release = threading.Event(), threading.Event()
    store.proxy.rules.append(Rule(match=is_("DELETE"), action=hold(seen, release), times=None))
    with pytest.raises(TimeoutError, match="did not answer in time"):
        await store.storage.delete(store.path("run/a"), version="123")
    release.set()
    assert seen.is_set()


async def test_an_endpoint_that_is_not_there_says_so(store: Store) -> None:
    options = {"endpoint_url": f"http://127.0.0.1:{free_port()}", "token": "anon"}
    storage = GcsBackend().open(options, store.environment)
    with pytest.raises(ConnectionRefusedError, match="cannot be reached: check endpoint_url"):
        await storage.get(store.path("run/a"))


@both
@pytest.mark.parametrize("times", [1, None])
async def test_a_reply_that_is_cut_short_is_no_file(store: Store, tmp_path: Path, times: int | None) -> None:
    path, data = store.path("run/a"), os.urandom(3_000_000)
    await store.storage.put(path, data, mode=Put.OVERWRITE)
    store.proxy.rules.append(Rule(match=is_("GET", alt="media"), action=truncate(1), times=times))
    if times:
        await store.storage.download(path, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data
        return
    with pytest.raises(ConnectionError):
        await store.storage.download(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []
    with pytest.raises(ConnectionError):
        await store.storage.get(path)


@both
async def test_bytes_that_are_not_what_the_head_announced_are_no_file(store: Store, tmp_path: Path) -> None:
    def garble(request: Request, send: Send) -> Reply:
        reply = send(request)
        return Reply(reply.status, reply.headers, bytes([reply.body[0] ^ 1]) + reply.body[1:])

    await store.storage.put(store.path("run/a"), b"data", mode=Put.OVERWRITE)
    store.proxy.rules.append(Rule(match=is_("GET", alt="media"), action=garble, times=None))
    with pytest.raises(OSError, match="checksum"):
        await store.storage.download(store.path("run/a"), tmp_path / "copy")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="checksum"):
        await store.storage.get(store.path("run/a"))


async def test_bytes_garbled_on_their_way_are_not_stored(store: Store) -> None:
    def garble(request: Request, send: Send) -> Reply:
        return send(Request(request.method, request.target, request.headers, request.body.replace(b"data", b"dada")))

    store.proxy.rules.append(Rule(match=uploads, action=garble))
    with pytest.raises(OSError, match="answered 400 invalid"):
        await store.storage.put(store.path("run/a"), b"data", mode=Put.CREATE)
    assert store.truth() == {}


@pytest.mark.parametrize("action", [drop_reply, drop_request, answer_after(503, "x"), refuse(500, "x")])
@pytest.mark.parametrize("part", [0, 1, 2])
async def test_a_resumable_upload_goes_on_where_the_store_is(
    store: Store, tmp_path: Path, small_parts: int, action: Any, part: int
) -> None:
    source, path = tmp_path / "source", store.path("run/a")
    source.write_bytes(os.urandom(2 * small_parts + 7))
    data = is_("PUT")
    store.proxy.rules.append(Rule(match=data, action=lambda request, send: send(request), times=part))
    store.proxy.rules.append(Rule(match=data, action=action))
    entry = await store.storage.upload(source, path, owner="token", multipart=True)
    assert store.truth() == {"run/a": source.read_bytes()}
    assert (await store.storage.get(path)).version == entry.version


async def test_an_uploads_address_is_shown_nowhere(
    store: Store, tmp_path: Path, small_parts: int, fake_gcs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Until the upload has ended, it lets anybody write."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 2 * small_parts)
    store.proxy.rules.append(Rule(match=is_("PUT"), action=drop_request, times=None))
    store.proxy.rules.append(Rule(match=is_("DELETE"), action=drop_request, times=None))
    with pytest.raises(ConnectionError) as caught:
        await store.storage.upload(source, store.path("run/a"), owner="token", multipart=True)
    (left,) = fake_gcs.sessions
    assert left not in "".join(traceback.format_exception(caught.value)) + caplog.text


async def test_a_session_that_is_lost_is_an_unknown_outcome(
    store: Store, tmp_path: Path, small_parts: int, fake_gcs: Any
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 2 * small_parts)

    def forget(request: Request, send: Send) -> Reply:
        fake_gcs.sessions.clear()
        return send(request)

    second(store, is_("PUT"), forget)
    with pytest.raises(OSError, match="the upload has ended") as caught:
        await store.storage.upload(source, store.path("run/a"), owner="token", multipart=True)
    assert type(caught.value) is OSError
    assert store.truth() == {}


async def test_a_part_that_is_refused_ends_the_session_and_masks_nothing(
    store: Store, tmp_path: Path, small_parts: int, fake_gcs: Any
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 2 * small_parts)
    store.proxy.rules.append(Rule(match=is_("PUT"), action=refuse(403, "x"), times=None))
    with pytest.raises(AccessError):
        await store.storage.upload(source, store.path("run/a"), owner="token", multipart=True)
    assert fake_gcs.sessions == {}
    store.proxy.rules.append(Rule(match=is_("DELETE"), action=refuse(403, "x"), times=None))
    with pytest.raises(AccessError) as caught:
        await store.storage.upload(source, store.path("run/a"), owner="token", multipart=True)
    assert "was not cancelled" in caught.value.__notes__[0]
    (session,) = fake_gcs.sessions
    assert session not in str(caught.value) + caught.value.__notes__[0], "it would let anybody write"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_says_to_check_the_credentials_and_shows_none(
    store: Store, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"endpoint_url": store.proxy.url, "token": Credentials(SECRET), "project": "p"}
    storage = GcsBackend().open(options, store.environment)
    store.proxy.rules.append(Rule(match=uploads, action=refuse(status, SECRET, f"bad token {SECRET}")))
    with pytest.raises(AccessError, match=f"{status}.*: check the credentials") as caught:
        await storage.put(store.path("run/a"), b"x", mode=Put.CREATE)
    assert store.proxy.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert isinstance(caught.value, PermissionError)
    assert SECRET not in str(caught.value) + repr(caught.value) + caplog.text
    assert caught.value.__cause__ is None
    assert len(store.proxy.requests) == 1


async def test_credentials_that_cannot_be_refreshed_say_so_and_show_none(store: Store) -> None:
    token = {
        "type": "authorized_user",
        "refresh_token": SECRET,
        "client_id": "id",
        "client_secret": SECRET,
        "token_uri": f"http://127.0.0.1:{free_port()}",
    }
    storage = GcsBackend().open({"endpoint_url": store.proxy.url, "token": token}, store.environment)
    storage.filesystem.credentials.credentials._token_uri = token["token_uri"]  # type: ignore[attr-defined]
    with pytest.raises(AccessError, match="no usable credentials") as caught:
        await storage.get(store.path("run/a"))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert store.proxy.requests == []


@pytest.mark.parametrize("token", [17, {"what": SECRET}])
async def test_options_that_are_no_credentials_say_so(store: Store, token: object) -> None:
    storage = GcsBackend().open({"endpoint_url": store.proxy.url, "token": token}, store.environment)
    with pytest.raises(AccessError, match="no usable credentials") as caught:
        await storage.get(store.path("run/a"))
    assert SECRET not in str(caught.value)


async def test_an_endpoint_that_is_no_url_says_so_and_shows_none(store: Store) -> None:
    options = {"endpoint_url": f"http://user:{SECRET}@host:port", "token": "anon"}
    with pytest.raises(ValidationError, match="endpoint_url must be a URL") as caught:
        await GcsBackend().open(options, store.environment).get(store.path("run/a"))
    assert SECRET not in str(caught.value)


@both
async def test_a_missing_bucket_is_to_be_created_first(store: Store, tmp_path: Path) -> None:
    gcs, path = store.storage, "no-such-bucket/run/a"
    (tmp_path / "source").write_bytes(b"x")
    for operation in (
        lambda: gcs.put(path, b"x", mode=Put.CREATE),
        lambda: gcs.put(path, b"x", mode=Put.OVERWRITE),
        lambda: gcs.put(path, b"x", mode=Update("123")),
        lambda: gcs.upload(tmp_path / "source", path, owner="token", multipart=True),
        lambda: gcs.list("no-such-bucket/run", recursive=True),
    ):
        with pytest.raises(FileNotFoundError, match="bucket does not exist: create it first"):
            await operation()


@both_loops
async def test_cancelling_ends_the_request(store: Store) -> None:
    """Nothing is sent again: an attempt that was given up does not go on."""
    seen, release = threading.Event(), threading.Event()
    store.proxy.rules.append(Rule(match=uploads, action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(partial(store.storage.put, mode=Put.CREATE), store.path("run/a"), b"x")
        await until(seen)
        group.cancel_scope.cancel()
    release.set()
    assert store.proxy.count(uploads) == 1


@both_loops
async def test_a_cancelled_download_leaves_nothing(store: Store, tmp_path: Path) -> None:
    await store.storage.put(store.path("run/a"), b"x" * 1000, mode=Put.OVERWRITE)
    seen, release = threading.Event(), threading.Event()
    store.proxy.rules.append(Rule(match=is_("GET", alt="media"), action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(store.storage.download, store.path("run/a"), tmp_path / "copy")
        await until(seen)
        group.cancel_scope.cancel()
    release.set()
    assert os.listdir(tmp_path) == []


async def test_every_request_passes_through_the_environment(store: Store) -> None:
    class Counting(Environment):
        made = 0

        async def request(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.made += 1
            return await super().request(function, *args, **kwargs)

    environment, path = Counting(), store.path("run/a")
    storage = GcsBackend().open(store.options, environment)
    await storage.declare(path)
    await storage.put(path, b"x", mode=Put.CREATE)
    await storage.get(path)
    await storage.list(store.path("run"), recursive=False)
    await storage.delete(path)
    assert environment.made == len(store.proxy.requests) == 5


async def test_a_page_that_claims_success_deletes_nothing(store: Store) -> None:
    await store.storage.put(store.path("run/a"), b"x", mode=Put.CREATE)
    page = Reply(200, {"Content-Type": "text/html"}, b"<html><body>welcome</body></html>")
    store.proxy.rules.append(Rule(match=is_("DELETE"), action=lambda request, send: page))
    with pytest.raises(OSError, match="a deletion was answered 200 with a page, which is not the store's own"):
        await store.storage.delete(store.path("run/a"))
    assert store.truth() == {"run/a": b"x"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}"])
async def test_a_success_that_is_no_resource_is_an_unknown_outcome(store: Store, body: bytes) -> None:
    store.proxy.rules.append(Rule(match=uploads, action=lambda request, send: Reply(200, send(request).headers, body)))
    with pytest.raises(OSError, match="the reply"):
        await store.storage.put(store.path("run/a"), b"x", mode=Put.CREATE)
    assert store.truth() == {"run/a": b"x"}
