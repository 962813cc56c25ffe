"""A place on Cloud Storage is what was resolved, and only the store's own word means that something is absent there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import fsspec
import fsspec.config
import gcsfs
import pytest
from google.auth.exceptions import RefreshError
from google.oauth2.credentials import Credentials

import atomicpath
from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath._profile.location import locate
from atomicpath.abc import Environment, NoBucketError, Put, StaleVersionError, Storage, Update
from atomicpath.errors import AccessError, AtomicPathError, NotCommittedError, OutcomeUnknownError, ValidationError
from atomicpath_gcs import GcsBackend
from tests.gcs.stores import Store, uploads
from tests.protocol.worlds import Quick
from tests.support.proxy import Reply, Request, Rule, Send, drop_reply, is_
from tests.support.roots import SECRET

STORE = "http://store:9000"
both = pytest.mark.parametrize("store", ["flat", "fake-gcs-server"], indirect=True)
PAGES = pytest.mark.parametrize(
    "body",
    [b"<!DOCTYPE html><h1>404 Not Found</h1>", b'{"error": {"code": 404, "message": "no route"}}', b"Not Found\n", b""],
    ids=["html", "json", "text", "nothing"],
)


def page(body: bytes) -> Callable[[Request, Send], Reply]:
    return lambda request, send: Reply(404, {"Content-Type": "text/html"}, body)


def everything(request: Request) -> bool:
    return True


@pytest.mark.parametrize(
    ("options", "variables", "configuration"),
    [
        ({}, {"STORAGE_EMULATOR_HOST": "store:9000"}, {}),
        ({}, {"STORAGE_EMULATOR_HOST": "http://other"}, {"endpoint_url": STORE}),
        ({}, {}, {"api_endpoint": STORE}),
        ({"endpoint_url": STORE}, {"STORAGE_EMULATOR_HOST": "http://other"}, {"endpoint_url": "http://third"}),
        ({"api_endpoint": STORE}, {}, {}),
        ({"gcs.service.host": STORE}, {}, {}),
    ],
)
def test_wherever_an_endpoint_is_named_it_is_the_places_and_the_clients(
    options: dict[str, Any],
    variables: dict[str, str],
    configuration: dict[str, Any],
    conf: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf["gcs"] = {"token": "anon", **configuration}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert GcsBackend().identity("bucket/run", options) == f"gs://bucket/run at {STORE}"
    filesystem: Any = GcsBackend().open(options, Environment()).filesystem
    assert filesystem.base == f"{STORE}/storage/v1/"


async def test_a_client_that_would_ask_elsewhere_than_its_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = GcsBackend().open({"token": "anon"}, Environment())
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(ValidationError, match="names another endpoint by now"):
        await storage.get("bucket/run")


async def test_another_packages_gs_in_fsspecs_registry_is_not_used(store: Store) -> None:
    class Other(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "gs"

    fsspec.register_implementation("gs", Other, clobber=True)
    try:
        storage: Any = GcsBackend().open({**store.options, "project": "p"}, store.environment)
        await storage.put(store.path("a"), b"x", mode=Put.OVERWRITE)
    finally:
        fsspec.register_implementation("gs", gcsfs.GCSFileSystem, clobber=True)
    assert store.truth() == {"a": b"x"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"project_id": "p", "GOOGLE_SERVICE_ACCOUNT": "f"}, {"project": "p", "token": "f"}),
        ({"google_service_account_key": '{"type": "x"}'}, {"token": {"type": "x"}}),
        ({"gcs.oauth2.token": "t", "gcs.project-id": "p"}, {"token": "t", "project": "p"}),
        ({"anonymous": True}, {"token": "anon"}),
        ({"skip_signature": "false"}, {}),
        ({"user_project": "p"}, {"requester_pays": "p"}),
    ],
)
def test_other_libraries_spellings_are_understood(given: dict[str, Any], meant: dict[str, Any]) -> None:
    assert dict(locate("gs://bucket/run", given).upath.storage_options) == meant
    GcsBackend().open(given, Environment())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokn": SECRET}, "'tokn' in storage_options is no option of gcsfs .is 'token' meant"),
        ({"client_options": {}}, "'client_options'.*endpoint_url"),
        ({"service_account_key": SECRET}, "'service_account_key'.*must be the JSON"),
        ({"token": "/nowhere/key.json"}, "the file /nowhere/key.json, which does not exist"),
        ({"endpoint_url": f"ftp://{SECRET}@host"}, "endpoint_url must be a URL"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options: dict[str, Any], words: str) -> None:
    for call in (atomicpath.is_committed, atomicpath.latest, atomicpath.profile):
        with pytest.raises(ValidationError, match=words) as caught:
            call("gs://bucket/run", storage_options=options)  # type: ignore[operator]
        assert SECRET not in str(caught.value)


def test_a_file_of_credentials_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """gcsfs would go on without any, and find what is public."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(ValidationError, match="GOOGLE_APPLICATION_CREDENTIALS names /nowhere/key.json"):
        atomicpath.is_committed("gs://bucket/run")


def operations(gcs: Storage, path: str, tmp_path: Path) -> dict[str, Callable[[], Awaitable[object]]]:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    return {
        "read": lambda: gcs.get(path),
        "stat": lambda: gcs.stat(path),
        "list": lambda: gcs.list(path, recursive=True),
        "delete": lambda: gcs.delete(path),
        "delete of a version": lambda: gcs.delete(path, version="123"),
        "create": lambda: gcs.put(path, b"x", mode=Put.CREATE),
        "swap": lambda: gcs.put(path, b"x", mode=Update("123")),
        "upload": lambda: gcs.upload(source, path, owner="o", multipart=True),
        "download": lambda: gcs.download(path, tmp_path / "copy"),
    }


@PAGES
async def test_a_proxys_404_is_no_word_of_the_stores(store: Store, tmp_path: Path, body: bytes) -> None:
    await store.storage.kind(store.path("run"))
    store.proxy.rules.append(Rule(match=everything, action=page(body), times=None))
    for name, operation in operations(store.storage, store.path("run/a"), tmp_path).items():
        with pytest.raises(OSError, match="not the store's own answer") as caught:
            await operation()
        known = FileNotFoundError | FileExistsError | PermissionError | StaleVersionError
        assert not isinstance(caught.value, known), (name, caught.value)


@both
async def test_the_stores_own_404_still_means_that_nothing_is_there(store: Store, tmp_path: Path) -> None:
    gcs, path = store.storage, store.path("run/a")
    assert await gcs.stat(path) is None
    with pytest.raises(FileNotFoundError, match=f"nothing is at gs://{path}"):
        await gcs.get(path)
    with pytest.raises(FileNotFoundError):
        await gcs.download(path, tmp_path / "copy")
    await gcs.delete(path)
    assert await gcs.list(path, recursive=True) == []


async def test_googles_own_words_for_the_bytes_of_an_object_need_no_second_request(store: Store) -> None:
    path = store.path("run/a")
    text = f"No such object: {path}".encode()
    store.proxy.rules.append(Rule(match=is_("GET", alt="media"), action=page(text), times=None))
    await store.storage.stat(path)
    store.proxy.requests.clear()
    with pytest.raises(FileNotFoundError, match="nothing is at"):
        await store.storage.get(path)
    assert len(store.proxy.requests) == 1


async def test_a_bucket_that_is_missing_is_no_answer_to_a_reader(store: Store) -> None:
    error = b'{"error":{"code":404,"message":"The specified bucket does not exist.","errors":[{"reason":"notFound"}]}}'
    store.proxy.rules.append(Rule(match=everything, action=page(error), times=None))
    for operation in (store.storage.get(store.path("a")), store.storage.stat(store.path("a"))):
        with pytest.raises(NoBucketError, match="the bucket does not exist: create it first"):
            await operation
    with pytest.raises(NotCommittedError, match="the bucket does not exist"):
        await aio.is_committed(f"gs://{store.path('run')}", storage_options=store.options)


@PAGES
async def test_a_lost_reply_and_a_proxys_404_leave_the_outcome_unknown(
    store: Store, tmp_path: Path, body: bytes
) -> None:
    url = f"gs://{store.path('run/step_1')}"
    source = tmp_path / "source"
    source.mkdir()
    (source / "data").write_bytes(b"data")

    def swaps(request: Request) -> bool:
        return uploads(request) and request.query.get("ifGenerationMatch", "0") != "0"

    with use(Quick()):
        atomicpath_options: Any = {"storage_options": store.options}
        await aio.put(source, f"{url}0", **atomicpath_options)
        store.proxy.requests.clear()
        store.proxy.rules.append(Rule(match=swaps, action=drop_reply))
        after = Rule(
            match=lambda request: any(swaps(earlier) for earlier in store.proxy.requests[:-1]),
            action=page(body),
            times=None,
        )
        store.proxy.rules.append(after)
        with pytest.raises(OutcomeUnknownError):
            await aio.put(source, url, **atomicpath_options)
        for call in (aio.is_committed, aio.remove):
            with pytest.raises((OSError, AtomicPathError)) as caught:
                await call(url, **atomicpath_options)
            assert not isinstance(caught.value, FileNotFoundError)
        store.proxy.rules.clear()
        assert await aio.is_committed(url, **atomicpath_options)


async def test_a_client_is_dropped_with_its_credentials(store: Store) -> None:
    class Expired(Credentials):  # type: ignore[misc]
        @property
        def valid(self) -> bool:
            return False

        def refresh(self, request: object) -> None:
            raise RefreshError(SECRET)

    options = {**store.options, "token": Expired("x")}
    storage: Any = GcsBackend().open(options, store.environment)
    before = storage.filesystem
    with pytest.raises(AccessError, match="check the credentials") as caught:
        await storage.get(store.path("a"))
    assert SECRET not in str(caught.value)
    assert storage.filesystem is not before


@pytest.mark.parametrize(
    ("status", "reason", "text", "words"),
    [
        (403, "retentionPolicyNotMet", "", "object lock, a hold or a retention rule"),
        (403, "forbidden", "Permission denied on Cloud KMS key.", "the encryption key cannot be used"),
        (400, "required", "Bucket is a requester pays bucket but no user project provided.", "pass requester_pays"),
        (403, "quotaExceeded", "", "a quota or the storage itself is used up"),
        (401, "authError", "", "check the credentials"),
    ],
)
async def test_a_refusal_says_what_it_is_and_what_to_do(
    store: Store, status: int, reason: str, text: str, words: str
) -> None:
    body = f'{{"error":{{"code":{status},"message":"{text} {SECRET}","errors":[{{"reason":"{reason}"}}]}}}}'
    answer = Reply(status, {"Content-Type": "application/json"}, body.encode())
    store.proxy.rules.append(Rule(match=everything, action=lambda request, send: answer, times=None))
    with pytest.raises(AccessError, match=words) as caught:
        await store.storage.put(store.path("a"), b"x", mode=Put.CREATE)
    assert SECRET not in str(caught.value)
