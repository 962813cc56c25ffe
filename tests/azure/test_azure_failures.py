"""What the Azure storage says, and leaves, when requests and replies are lost, refused, repeated or cut."""

from __future__ import annotations

import errno
import logging
import os
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

import atomicpath_azure.asking
import atomicpath_azure.blocks
import atomicpath_azure.storage
from atomicpath.abc import Environment, Put, StaleVersionError, Storage, Update
from atomicpath.errors import AccessError
from atomicpath_azure import AzureBackend
from tests.support.proxy import (
    Proxy,
    Reply,
    Request,
    Rule,
    answer_after,
    drop_reply,
    drop_request,
    hold,
    is_,
    refuse,
    truncate,
)
from tests.support.servers.azurite import ACCOUNT, KEY
from tests.support.waiting import until

Truth = Callable[[], dict[str, bytes]]
BLOCK = 2**20 + 1
DATA = b"x" * BLOCK * 2 + b"y"


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def completes(request: Request) -> bool:
    return request.method == "PUT" and request.query.get("comp") == "blocklist"


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of three blocks."""
    monkeypatch.setattr(atomicpath_azure.blocks, "BLOCK", BLOCK)
    monkeypatch.setattr(atomicpath_azure.storage, "BLOCK", BLOCK)
    source = tmp_path / "source"
    source.write_bytes(DATA)
    return source


@pytest.mark.parametrize("action", [drop_reply, answer_after(500, "InternalError"), answer_after(503, "ServerBusy")])
async def test_won_but_exists_after_own_retry(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, action: Callable[..., Any]
) -> None:
    az_proxy.rules.append(Rule(match=is_("PUT"), action=action))
    with pytest.raises(FileExistsError):
        await azure.put(f"{bucket}/run/a", b"ours", mode=Put.CREATE, owner="token")
    assert truth() == {"run/a": b"ours"}
    found = await azure.stat(f"{bucket}/run/a")
    assert found is not None
    assert found.owner == "token"


@pytest.mark.parametrize("action", [drop_request, refuse(500, "InternalError")])
async def test_a_request_that_never_arrived_is_repeated(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, action: Callable[..., Any]
) -> None:
    az_proxy.rules.append(Rule(match=is_("PUT"), action=action))
    await azure.put(f"{bucket}/run/a", b"ours", mode=Put.CREATE)
    assert truth() == {"run/a": b"ours"}
    assert [request.conditions for request in az_proxy.requests] == [{"if-none-match": "*"}] * 2


@pytest.mark.parametrize(
    "action", [drop_reply, drop_request, answer_after(500, "InternalError"), refuse(503, "ServerBusy")]
)
async def test_a_delete_is_sent_once(azure: Storage, bucket: str, az_proxy: Proxy, action: Callable[..., Any]) -> None:
    """Whatever became of it: a second one could hit what somebody else has put there since."""
    written = await azure.put(f"{bucket}/run/a", b"ours", mode=Put.OVERWRITE)
    for version in (written, None):
        az_proxy.requests.clear()
        az_proxy.rules.append(Rule(match=is_("DELETE"), action=action))
        with pytest.raises(OSError, match="abfs://") as caught:
            await azure.delete(f"{bucket}/run/a", version=version)
        assert not isinstance(caught.value, (FileNotFoundError, PermissionError, StaleVersionError))
        assert az_proxy.count(is_("DELETE")) == 1


@pytest.mark.parametrize("status", [200, 202])
async def test_a_page_that_claims_success_deletes_nothing(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, status: int
) -> None:
    await azure.put(f"{bucket}/run/a", b"ours", mode=Put.OVERWRITE)
    page = Reply(status, {"Content-Type": "text/html"}, b"<html><body>welcome</body></html>")
    az_proxy.rules.append(Rule(match=is_("DELETE"), action=lambda request, send: page))
    with pytest.raises(OSError, match="abfs://") as caught:
        await azure.delete(f"{bucket}/run/a")
    assert not isinstance(caught.value, PermissionError | FileNotFoundError)
    assert truth() == {"run/a": b"ours"}


async def test_500_after_apply_on_a_swap_is_stale_with_our_bytes_stored(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth
) -> None:
    version = await azure.put(f"{bucket}/run/a", b"first", mode=Put.OVERWRITE)
    assert version is not None
    az_proxy.rules.append(Rule(match=is_("PUT"), action=answer_after(500, "InternalError")))
    with pytest.raises(StaleVersionError):
        await azure.put(f"{bucket}/run/a", b"second", mode=Update(version))
    assert truth() == {"run/a": b"second"}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "BlobAlreadyExists", FileExistsError),
        (412, "ConditionNotMet", FileExistsError),
        (412, "TargetConditionNotMet", FileExistsError),
        (404, "ContainerNotFound", FileNotFoundError),
        (409, "ContainerBeingDeleted", FileNotFoundError),
        (403, "AuthorizationFailure", AccessError),
        (409, "BlobImmutableDueToPolicy", AccessError),
    ],
)
async def test_each_answer_to_a_creation_has_one_meaning(
    azure: Storage, bucket: str, az_proxy: Proxy, status: int, code: str, kind: type[Exception]
) -> None:
    az_proxy.rules.append(Rule(match=is_("PUT"), action=refuse(status, code), times=None))
    with pytest.raises(kind):
        await azure.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)


@pytest.mark.parametrize("code", ["LeaseIdMissing", "BlobBeingRehydrated"])
@pytest.mark.parametrize("status", [409, 412])
async def test_a_refusal_that_says_nothing_of_versions_is_unknown(
    azure: Storage, bucket: str, az_proxy: Proxy, status: int, code: str
) -> None:
    az_proxy.rules.append(Rule(match=is_("PUT"), action=refuse(status, code), times=None))
    for attempt in (
        lambda: azure.put(f"{bucket}/run/a", b"x", mode=Put.CREATE),
        lambda: azure.put(f"{bucket}/run/a", b"x", mode=Update("0x1")),
    ):
        with pytest.raises(OSError, match=f"{status} {code}") as caught:
            await attempt()
        assert type(caught.value) is OSError
        assert caught.value.errno == errno.EBUSY


async def test_an_endpoint_that_answers_nothing_is_unknown(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth
) -> None:
    az_proxy.rules.append(Rule(match=is_("PUT"), action=drop_request, times=None))
    with pytest.raises(ConnectionError):
        await azure.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)
    assert truth() == {}


async def test_an_endpoint_that_never_answers_is_given_up(
    azure: Storage, bucket: str, az_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomicpath_azure.asking, "_PATIENCE", 1)
    seen, release = threading.Event(), threading.Event()
    az_proxy.rules.append(Rule(match=is_("DELETE"), action=hold(seen, release), times=None))
    with pytest.raises(TimeoutError, match="did not answer in time"):
        await azure.delete(f"{bucket}/run/a", version="0x1")
    release.set()
    assert seen.is_set()


async def test_an_endpoint_that_cannot_be_reached_says_so(bucket: str) -> None:
    options = {"connection_string": f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/{ACCOUNT}"}
    storage = AzureBackend().open(options, Environment())
    with pytest.raises(ConnectionRefusedError, match="cannot be reached"):
        await storage.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)


async def test_truncated_get_accepted(azure: Storage, bucket: str, az_proxy: Proxy, tmp_path: Path) -> None:
    await azure.put(f"{bucket}/run/a", b"x" * 100_000, mode=Put.OVERWRITE)
    az_proxy.rules.append(Rule(match=is_("GET"), action=truncate(1), times=None))
    with pytest.raises(OSError, match=r"no usable answer|the connection failed|the reply ended"):
        await azure.download(f"{bucket}/run/a", tmp_path / "copy")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match=r"no usable answer|the connection failed|the reply ended"):
        await azure.get(f"{bucket}/run/a")


@pytest.mark.parametrize(
    "action", [drop_reply, answer_after(500, "InternalError"), answer_after(400, "InvalidBlockList")]
)
async def test_multipart_complete_reply_lost(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, large: Path, action: Callable[..., Any]
) -> None:
    az_proxy.rules.append(Rule(match=completes, action=action))
    entry = await azure.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    assert truth() == {"run/a": DATA}
    assert (await azure.list(f"{bucket}/run", recursive=True))[0].version == entry.version


async def test_a_completion_that_another_of_the_same_owner_won_is_not_ours(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, large: Path
) -> None:
    await azure.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    az_proxy.rules.append(Rule(match=completes, action=refuse(400, "InvalidBlockList")))
    with pytest.raises(FileExistsError):
        await azure.upload(large, f"{bucket}/run/a", owner="token", multipart=True)


async def test_a_completion_of_which_nothing_is_there_is_unknown(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, large: Path
) -> None:
    az_proxy.rules.append(Rule(match=completes, action=refuse(500, "InternalError"), times=None))
    with pytest.raises(OSError, match="500 InternalError") as caught:
        await azure.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    assert not isinstance(caught.value, FileExistsError | FileNotFoundError)
    assert truth() == {}


async def test_a_block_that_fails_ends_the_upload(
    azure: Storage, bucket: str, az_proxy: Proxy, truth: Truth, large: Path
) -> None:
    az_proxy.rules.append(Rule(match=is_("PUT", comp="block"), action=refuse(403, "AuthenticationFailed")))
    with pytest.raises(AccessError):
        await azure.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    assert truth() == {}
    assert az_proxy.count(completes) == 0


async def test_a_refusal_after_a_repetition_is_unknown(azure: Storage, bucket: str, az_proxy: Proxy) -> None:
    """The first try may have been carried out."""
    az_proxy.rules.append(Rule(match=is_("PUT"), action=answer_after(500, "InternalError")))
    az_proxy.rules.append(Rule(match=is_("PUT"), action=refuse(403, "AuthenticationFailed")))
    with pytest.raises(OSError, match="when it was sent again") as caught:
        await azure.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)
    assert not isinstance(caught.value, PermissionError)


@pytest.mark.parametrize("secret", ["key", "signature"])
@pytest.mark.parametrize(
    "action",
    [
        lambda secret: refuse(403, "AuthenticationFailed", f"the MAC {secret} is not the same"),
        lambda secret: refuse(400, "InvalidQueryParameterValue", f"sig={secret}"),
        lambda secret: refuse(400, "InvalidHeaderValue", f"x-ms-rename-source: /c/a?sig={secret}"),
        lambda secret: refuse(500, "InternalError", secret),
        lambda secret: drop_request,
        lambda secret: lambda request, send: truncated_head(secret),
    ],
    ids=["403", "400-parameter", "400-header", "500", "dropped", "not-xml"],
)
async def test_no_error_shows_a_credential(
    bucket: str,
    az_proxy: Proxy,
    secret: str,
    action: Callable[[str], Any],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    until_then = datetime.now(UTC) + timedelta(hours=1)
    everything = ContainerSasPermissions(read=True, write=True, create=True, list=True, delete=True)
    sas = generate_container_sas(ACCOUNT, bucket, account_key=KEY, permission=everything, expiry=until_then)
    signature = next(part for part in sas.split("&") if part.startswith("sig=")).removeprefix("sig=")
    access = f"AccountKey={KEY}" if secret == "key" else f"SharedAccessSignature={sas}"
    hidden = KEY if secret == "key" else signature
    options = {"connection_string": f"AccountName={ACCOUNT};{access};BlobEndpoint={az_proxy.url}/{ACCOUNT}"}
    storage = AzureBackend().open(options, Environment())
    await storage.put(f"{bucket}/run/works", b"x", mode=Put.CREATE)
    if secret == "signature":
        assert az_proxy.requests[-1].query["sig"]
    az_proxy.rules.append(Rule(match=lambda request: True, action=action(hidden), times=None))
    for operation in (
        lambda: storage.put(f"{bucket}/run/a", b"x", mode=Put.CREATE),
        lambda: storage.get(f"{bucket}/run/a"),
        lambda: storage.list(f"{bucket}/run", recursive=True),
    ):
        with pytest.raises(OSError) as caught:
            await operation()
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert hidden not in shown
        assert caught.value.__cause__ is None
    location = AzureBackend().identity(f"{bucket}/run", options)
    assert hidden not in location
    ours = [record.getMessage() for record in caplog.records]
    assert not [text for text in ours if hidden in text]


def truncated_head(secret: str) -> Any:
    return Reply(400, {"Content-Type": "application/xml"}, f"<not xml {secret}".encode())


@pytest.mark.parametrize(
    "options",
    [
        {"connection_string": "AccountKey=s3cret"},
        {"connection_string": "s3cret"},
        {"account_name": "abc", "account_key": "s3cret"},
        {"account_key": "s3cret"},
    ],
    ids=["no-account", "no-form", "no-base64", "key-only"],
)
async def test_unusable_credentials_say_so_and_are_not_shown(bucket: str, options: dict[str, Any]) -> None:
    storage = AzureBackend().open(options, Environment())
    with pytest.raises(AccessError) as caught:
        await storage.get(f"{bucket}/run/a")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


async def test_a_missing_container_is_to_be_created_first(azure: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    path = "no-such-container/run/a"
    for operation in (
        lambda: azure.put(path, b"x", mode=Put.CREATE),
        lambda: azure.put(path, b"x", mode=Put.OVERWRITE),
        lambda: azure.put(path, b"x", mode=Update("0x1")),
        lambda: azure.upload(source, path, owner="token", multipart=True),
        lambda: azure.list("no-such-container/run", recursive=True),
    ):
        with pytest.raises(FileNotFoundError, match="container does not exist: create it first"):
            await operation()


async def test_cancelling_ends_the_request(azure: Storage, bucket: str, az_proxy: Proxy) -> None:
    """Nothing is sent again: an attempt that was given up does not go on."""
    seen, release = threading.Event(), threading.Event()
    az_proxy.rules.append(Rule(match=is_("PUT"), action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(partial(azure.put, mode=Put.CREATE), f"{bucket}/run/a", b"x")
        await until(seen)
        group.cancel_scope.cancel()
    release.set()
    assert az_proxy.count(is_("PUT")) == 1


async def test_a_cancelled_download_leaves_nothing(
    azure: Storage, bucket: str, az_proxy: Proxy, tmp_path: Path
) -> None:
    await azure.put(f"{bucket}/run/a", b"x" * 1000, mode=Put.OVERWRITE)
    seen, release = threading.Event(), threading.Event()
    az_proxy.rules.append(Rule(match=is_("GET"), action=hold(seen, release)))
    async with anyio.create_task_group() as group:
        group.start_soon(azure.download, f"{bucket}/run/a", tmp_path / "copy")
        await until(seen)
        group.cancel_scope.cancel()
    release.set()
    assert os.listdir(tmp_path) == []
