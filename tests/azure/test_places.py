"""A place on Azure is what was resolved, and only the store's own word means that something is absent there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import adlfs
import fsspec
import fsspec.config
import pytest

import atomicpath
from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._profile.location import locate
from atomicpath.abc import Environment, NoBucketError, Put, StaleVersionError, Storage, Update
from atomicpath.errors import AccessError, NotCommittedError, OutcomeUnknownError, ValidationError
from atomicpath_azure import AzureBackend
from atomicpath_azure.accounts import Accounts
from atomicpath_azure.names import split
from atomicpath_azure.settings import resolve
from tests.protocol.worlds import Quick
from tests.support.proxy import Proxy, Reply, Request, Rule, Send, drop_reply
from tests.support.roots import SECRET

KEY = "c2VjcmV0"
OTHER = f"AccountName=other;AccountKey={KEY}"
MINE = f"AccountName=mine;AccountKey={KEY};BlobEndpoint=http://store:9000/mine"
PAGES = pytest.mark.parametrize("body", [b"<!DOCTYPE html><h1>404 Not Found</h1>", b""], ids=["html", "nothing"])


def page(body: bytes, status: int = 404) -> Callable[[Request, Send], Reply]:
    headers = {"Content-Type": "text/html"}
    return lambda request, send: Reply(status, headers, b"" if request.method == "HEAD" else body)


def everything(request: Request) -> bool:
    return True


@pytest.mark.parametrize(
    ("options", "variables", "configuration", "endpoint"),
    [
        ({"connection_string": MINE}, {"AZURE_STORAGE_CONNECTION_STRING": OTHER}, {}, "store:9000/mine"),
        ({}, {"AZURE_STORAGE_CONNECTION_STRING": MINE}, {}, "store:9000/mine"),
        ({}, {"AZURE_STORAGE_CONNECTION_STRING": OTHER}, {"connection_string": MINE}, "store:9000/mine"),
        ({"conn_str": MINE}, {}, {}, "store:9000/mine"),
        ({}, {"AZURE_STORAGE_ACCOUNT_NAME": "acct"}, {"account_key": KEY}, "acct.blob.core.windows.net"),
        ({}, {}, {"account_name": "acct", "account_key": KEY}, "acct.blob.core.windows.net"),
        (
            {"account_url": "https://acct.blob.core.chinacloudapi.cn", "account_key": KEY},
            {},
            {},
            "acct.blob.core.chinacloudapi.cn",
        ),
    ],
)
def test_wherever_an_endpoint_is_named_it_is_the_places_and_the_clients(
    options: dict[str, Any],
    variables: dict[str, str],
    configuration: dict[str, Any],
    endpoint: str,
    conf: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf["abfs"] = configuration
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert AzureBackend().identity("box/run", options) == f"abfs://box/run at {endpoint}"
    assert Accounts(resolve(options)).of(split("box/run")).endpoint == endpoint


def test_a_client_that_would_ask_elsewhere_than_its_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = Accounts(resolve({"account_name": "fresh", "account_key": KEY}))
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", MINE)
    with pytest.raises(ValidationError, match="names another endpoint by now"):
        accounts.of(split("box/run"))


async def test_another_packages_abfs_in_fsspecs_registry_is_not_used(
    options: dict[str, Any], bucket: str, truth: Callable[[], dict[str, bytes]]
) -> None:
    class Other(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "abfs"

    fsspec.register_implementation("abfs", Other, clobber=True)
    try:
        await AzureBackend().open({**options, "timeout": 9}, Environment()).put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)
    finally:
        fsspec.register_implementation("abfs", adlfs.AzureBlobFileSystem, clobber=True)
    assert truth() == {"a": b"x"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (
            {"azure_storage_account_name": "a", "azure_storage_account_key": "k"},
            {"account_name": "a", "account_key": "k"},
        ),
        ({"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_TOKEN": "t"}, {"account_name": "a", "sas_token": "t"}),
        ({"adls.account-name": "a", "adls.account-key": "k"}, {"account_name": "a", "account_key": "k"}),
        (
            {"account_url": "https://acct.dfs.core.windows.net/", "credential": None},
            {"account_name": "acct", "account_host": "acct.blob.core.windows.net", "credential": None},
        ),
        ({"use_emulator": True}, {"connection_string": "UseDevelopmentStorage=true"}),
        ({"anonymous": "true", "account": "a"}, {"anon": True, "account_name": "a"}),
    ],
)
def test_other_libraries_spellings_are_understood(given: dict[str, Any], meant: dict[str, Any]) -> None:
    assert dict(locate("abfs://box/run", given).upath.storage_options) == meant
    AzureBackend().open(given, Environment())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"acount_name": "a"}, "'acount_name' in storage_options is no option of adlfs .is 'account_name' meant"),
        ({"use_azure_cli": True}, "'use_azure_cli'.*account_key, .*sas_token"),
        ({"account_url": f"https://a?sig={SECRET}"}, "'account_url'.*must be of the form https://ACCOUNT"),
        ({"account_url": "http://127.0.0.1:10000/devstoreaccount1"}, "connection_string='BlobEndpoint="),
        ({"account_name": "a", "account_url": "https://other.blob.core.windows.net"}, "'account_name' and .* differ"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options: dict[str, Any], words: str) -> None:
    for call in (atomicpath.is_committed, atomicpath.latest, atomicpath.profile):
        with pytest.raises(ValidationError, match=words) as caught:
            call("abfs://box/run", storage_options=options)  # type: ignore[operator]
        assert SECRET not in str(caught.value)


def operations(azure: Storage, path: str, tmp_path: Path) -> dict[str, Callable[[], Awaitable[object]]]:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    return {
        "read": lambda: azure.get(path),
        "stat": lambda: azure.stat(path),
        "list": lambda: azure.list(path, recursive=True),
        "delete": lambda: azure.delete(path),
        "delete of a version": lambda: azure.delete(path, version="0x1"),
        "create": lambda: azure.put(path, b"x", mode=Put.CREATE),
        "swap": lambda: azure.put(path, b"x", mode=Update("0x1")),
        "upload": lambda: azure.upload(source, path, owner="o", multipart=True),
        "download": lambda: azure.download(path, tmp_path / "copy"),
    }


@PAGES
async def test_a_proxys_404_is_no_word_of_the_stores(
    azure: Storage, bucket: str, az_proxy: Proxy, tmp_path: Path, body: bytes
) -> None:
    az_proxy.rules.append(Rule(match=everything, action=page(body), times=None))
    for name, operation in operations(azure, f"{bucket}/run/a", tmp_path).items():
        with pytest.raises(OSError, match="not the store's own answer") as caught:
            await operation()
        known = FileNotFoundError | FileExistsError | PermissionError | StaleVersionError
        assert not isinstance(caught.value, known), (name, caught.value)


async def test_a_container_that_is_missing_is_no_answer_to_a_reader(azure: Storage, options: dict[str, Any]) -> None:
    for operation in (azure.get("no-such-container/a"), azure.stat("no-such-container/a")):
        with pytest.raises(NoBucketError, match="the container does not exist: create it first"):
            await operation
    with pytest.raises(NotCommittedError, match="the container does not exist"):
        await aio.is_committed("abfs://no-such-container/run", storage_options=options)


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><h1>Welcome</h1>",
        b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body/></html>',
        b"",
    ],
    ids=["html", "xhtml", "nothing"],
)
async def test_a_proxys_page_that_claims_success_is_no_empty_directory(
    azure: Storage, bucket: str, az_proxy: Proxy, body: bytes
) -> None:
    path = f"{bucket}/run"
    az_proxy.rules.append(Rule(match=everything, action=page(body, 200), times=None))
    for looking in (azure.list(path, recursive=True), azure.list(path, recursive=False), azure.kind(path)):
        with pytest.raises(OSError, match=r"reply|answer") as caught:
            await looking
        assert not isinstance(caught.value, FileNotFoundError)


@PAGES
async def test_a_lost_reply_and_a_proxys_404_leave_the_outcome_unknown(
    options: dict[str, Any], bucket: str, az_proxy: Proxy, tmp_path: Path, body: bytes
) -> None:
    url = f"abfs://{bucket}/run/step_1"
    source = tmp_path / "source"
    source.mkdir()
    (source / "data").write_bytes(b"data")

    def swaps(request: Request) -> bool:
        return request.method == "PUT" and "if-match" in request.headers

    with use(Quick()):
        await aio.put(source, f"{url}0", storage_options=options)
        az_proxy.requests.clear()
        az_proxy.rules.append(Rule(match=swaps, action=drop_reply))
        after = Rule(
            match=lambda request: any(swaps(earlier) for earlier in az_proxy.requests[:-1]),
            action=page(body),
            times=None,
        )
        az_proxy.rules.append(after)
        with pytest.raises(OutcomeUnknownError):
            await aio.put(source, url, storage_options=options)
        with pytest.raises(OSError, match="not the store's own answer"):
            await aio.is_committed(url, storage_options=options)
        az_proxy.rules.clear()
        assert await aio.is_committed(url, storage_options=options)


def answer(status: int, code: str) -> Callable[[Request, Send], Reply]:
    return lambda request, send: Reply(status, {"x-ms-error-code": code}, b"")


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (409, "BlobImmutableDueToPolicy", "object lock, a hold or a retention rule"),
        (409, "BlobArchived", "it is archived, and cannot be read before it is restored"),
        (403, "KeyVaultEncryptionKeyNotFound", "the encryption key cannot be used"),
        (403, "AuthenticationFailed", "check the credentials"),
        (403, "AuthorizationPermissionMismatch", "what they may do there"),
    ],
)
async def test_a_refusal_says_what_it_is_and_what_to_do(
    azure: Storage, bucket: str, az_proxy: Proxy, status: int, code: str, words: str
) -> None:
    az_proxy.rules.append(Rule(match=everything, action=answer(status, code), times=None))
    with pytest.raises(AccessError, match=f"{status} {code}: .*{words}"):
        await azure.get(f"{bucket}/run/a")


async def test_what_is_hidden_from_requests_without_credentials_is_not_absent(az_proxy: Proxy, bucket: str) -> None:
    """A container that is not public answers as if nothing were there."""
    options = {"connection_string": f"BlobEndpoint={az_proxy.url}/devstoreaccount1", "anon": True}
    storage = AzureBackend().open(options, Environment())
    az_proxy.rules.append(Rule(match=everything, action=answer(404, "ResourceNotFound"), times=None))
    with pytest.raises(AccessError, match="without credentials"):
        await storage.stat(f"{bucket}/run/a")
