"""A place on S3, what is declared of it and the client that asks there come from one reading of the options."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import fsspec.config
import pytest
import s3fs
from upath import UPath

import atomicpath
from atomicpath._profile.location import locate
from atomicpath.abc import Environment, Put, Storage
from atomicpath.errors import AccessError, ValidationError
from atomicpath_s3 import S3Backend
from tests.support.proxy import Proxy, Rule, ignore_conditions, is_, refuse
from tests.support.roots import SECRET

STORE = "http://store:9000"
AWS_FILE = f"""
[default]
region = us-east-1

[profile direct]
endpoint_url = {STORE}

[profile by-service]
services = mine

[services mine]
s3 =
  endpoint_url = {STORE}

[profile other]
endpoint_url = http://other:9000
"""


@pytest.fixture(autouse=True)
def aws_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file of the AWS tools with several profiles."""
    file = tmp_path / "config"
    file.write_text(AWS_FILE)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    return file


def opened(options: dict[str, Any]) -> Storage:
    return S3Backend().open({"key": "k", "secret": SECRET, **options}, Environment())


async def endpoint_of(options: dict[str, Any]) -> str:
    """The endpoint that the client really has."""
    filesystem: Any = opened(options).filesystem  # type: ignore[attr-defined]
    storage: Any = opened(options)

    async def look() -> str:
        await filesystem.set_session()
        return str(filesystem._s3.meta.endpoint_url)

    return str(await storage.there(look))


@pytest.mark.parametrize(
    ("options", "variables", "configuration"),
    [
        ({"profile": "direct"}, {}, {}),
        ({"profile": "by-service"}, {}, {}),
        ({"profile_name": "direct"}, {}, {}),
        ({}, {"AWS_PROFILE": "direct"}, {}),
        ({}, {"AWS_PROFILE": "by-service"}, {}),
        ({}, {"AWS_ENDPOINT_URL": STORE}, {}),
        ({}, {"AWS_ENDPOINT_URL_S3": STORE, "AWS_ENDPOINT_URL": "http://other:9000"}, {}),
        ({"profile": "other"}, {"AWS_ENDPOINT_URL_S3": STORE}, {}),
        ({}, {}, {"endpoint_url": STORE}),
        ({}, {}, {"AWS_ENDPOINT_URL": STORE}),
        ({}, {}, {"profile": "direct"}),
        ({"client_kwargs": {"endpoint_url": STORE}, "profile": "other"}, {}, {}),
        ({"endpoint_url": STORE}, {"AWS_PROFILE": "other"}, {"endpoint_url": "http://other:9000"}),
    ],
)
async def test_wherever_an_endpoint_is_named_it_is_the_places_and_the_clients(
    options: dict[str, Any],
    variables: dict[str, str],
    configuration: dict[str, Any],
    conf: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf["s3"] = configuration
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert S3Backend().identity("b/run", options) == f"s3://b/run at {STORE}"
    assert await endpoint_of(options) == STORE
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    assert await endpoint_of({"endpoint_url": "http://third:9000"}) == "http://third:9000"


async def test_a_profile_that_is_to_be_ignored_is_ignored_by_both() -> None:
    options = {"profile": "direct", "config_kwargs": {"ignore_configured_endpoint_urls": True}}
    assert S3Backend().identity("b/run", options) == "s3://b/run"
    assert "amazonaws.com" in await endpoint_of(options)


def test_buckets_of_another_partition_are_other_places() -> None:
    place = S3Backend().identity
    assert place("b/run", {"region": "eu-west-1"}) == place("b/run", {}) == "s3://b/run"
    assert place("b/run", {"region": "cn-north-1"}) == "s3://b/run in cn-north-1"
    assert place("b/run", {"client_kwargs": {"region_name": "us-gov-west-1"}}) == "s3://b/run in us-gov-west-1"


def test_what_one_store_was_seen_to_do_is_not_believed_of_another(
    server: str, proxy: Proxy, bucket: str, aws_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two profiles and one name of a bucket: both would commit where conditions are ignored."""
    proxy.rules.append(Rule(match=lambda request: bool(request.conditions), action=ignore_conditions, times=None))
    aws_file.write_text(f"[profile kept]\nendpoint_url={server}\n[profile ignored]\nendpoint_url={proxy.url}\n")
    options = {"storage_options": {"key": "key", "secret": SECRET}}
    url = f"s3://{bucket}/run/step_1"
    monkeypatch.setenv("AWS_PROFILE", "kept")
    assert not atomicpath.profile(url, **options).refuted
    monkeypatch.setenv("AWS_PROFILE", "ignored")
    assert atomicpath.Guarantee.EXCLUSIVE_CREATE in atomicpath.profile(url, **options).refuted
    with pytest.raises(atomicpath.GuaranteeError), atomicpath.commit(url, **options):
        pass


async def test_other_credentials_in_the_environment_make_another_client(
    proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"endpoint_url": proxy.url}
    for key in ("first", "second"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        await S3Backend().open(options, Environment()).put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)
    keys = [
        request.headers["authorization"].partition("Credential=")[2].partition("/")[0] for request in proxy.requests
    ]
    assert keys == ["first", "second"]


@pytest.mark.parametrize(
    ("status", "code", "is_dropped"),
    [
        (400, "ExpiredToken", True),
        (403, "InvalidAccessKeyId", True),
        (403, "SignatureDoesNotMatch", True),
        (403, "AccessDenied", False),
        (503, "SlowDown", False),
    ],
)
async def test_a_client_is_dropped_with_its_credentials(
    options: dict[str, object], proxy: Proxy, bucket: str, status: int, code: str, is_dropped: bool
) -> None:
    storage: Any = S3Backend().open(options, Environment())
    users = locate(f"s3://{bucket}/run", options).upath.fs
    before = storage.filesystem
    proxy.rules.append(Rule(match=is_("PUT"), action=refuse(status, code), times=None))
    with pytest.raises(OSError, match=code):
        await storage.put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)
    assert (storage.filesystem is not before) == is_dropped
    assert (locate(f"s3://{bucket}/run", options).upath.fs is not users) == is_dropped
    proxy.rules.clear()
    await storage.put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)


async def test_credentials_that_come_are_found_by_the_next_call(
    proxy: Proxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    storage = S3Backend().open({"endpoint_url": proxy.url}, Environment())
    with pytest.raises(AccessError, match="no usable credentials"):
        await storage.put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)
    file.write_text(f"[default]\naws_access_key_id = late\naws_secret_access_key = {SECRET}\n")
    await storage.put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)
    assert "Credential=late/" in proxy.requests[-1].headers["authorization"]


async def test_what_fsspec_is_configured_with_is_kept(
    proxy: Proxy, bucket: str, conf: dict[str, dict[str, Any]]
) -> None:
    conf["s3"] = {
        "config_kwargs": {"user_agent_extra": "configured/1", "read_timeout": 7},
        "region": "eu-west-1",
        "endpoint_url": proxy.url,
    }
    storage: Any = opened({})
    await storage.put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)
    assert "configured/1" in proxy.requests[0].headers["user-agent"]
    assert "/eu-west-1/s3/" in proxy.requests[0].headers["authorization"]
    config = storage.filesystem._s3.meta.config
    assert (config.read_timeout, config.connect_timeout, config.max_pool_connections) == (7, 5, 80)


async def test_another_packages_s3_in_fsspecs_registry_is_not_used(
    options: dict[str, object], bucket: str, truth: Callable[[], dict[str, bytes]]
) -> None:
    class Other(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "s3"

    fsspec.register_implementation("s3", Other, clobber=True)
    try:
        storage: Any = S3Backend().open({**options, "use_ssl": False}, Environment())
        await storage.put(f"{bucket}/a", b"x", mode=Put.OVERWRITE)
    finally:
        fsspec.register_implementation("s3", s3fs.S3FileSystem, clobber=True)
    assert isinstance(storage.filesystem, s3fs.S3FileSystem)
    assert truth() == {"a": b"x"}


KEYS = {"key": "k", "secret": "s", "token": "t"}
SPELLINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"aws_access_key_id": "k", "aws_secret_access_key": "s", "aws_session_token": "t"}, KEYS),
    ({"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}, KEYS),
    ({"access_key": "k", "secret_key": "s", "session_token": "t"}, KEYS),
    ({"s3.access-key-id": "k", "s3.secret-access-key": "s", "s3.session-token": "t"}, KEYS),
    ({"fs.s3a.access.key": "k", "fs.s3a.secret.key": "s", "fs.s3a.session.token": "t"}, KEYS),
    ({"accessKeyId": "k", "secretAccessKey": "s", "sessionToken": "t"}, KEYS),
    ({"region": "r"}, {"client_kwargs": {"region_name": "r"}}),
    (
        {"region_name": "r", "client_kwargs": {"verify": False}},
        {"client_kwargs": {"verify": False, "region_name": "r"}},
    ),
    ({"AWS_REGION": "r"}, {"client_kwargs": {"region_name": "r"}}),
    ({"aws_endpoint": STORE}, {"endpoint_url": STORE}),
    ({"endpoint": STORE}, {"endpoint_url": STORE}),
    ({"AWS_ENDPOINT_URL": STORE, "AWS_ALLOW_HTTP": "true"}, {"endpoint_url": STORE}),
    ({"force_path_style": True}, {"config_kwargs": {"s3": {"addressing_style": "path"}}}),
    ({"force_path_style": False}, {}),
    ({"fs.s3a.path.style.access": "true"}, {"config_kwargs": {"s3": {"addressing_style": "path"}}}),
    ({"virtual_hosted_style_request": "true"}, {"config_kwargs": {"s3": {"addressing_style": "virtual"}}}),
    ({"virtual_hosted_style_request": "false"}, {"config_kwargs": {"s3": {"addressing_style": "path"}}}),
    ({"aws_skip_signature": "true"}, {"anon": True}),
    ({"anonymous": False}, {}),
    ({"request_payer": "requester"}, {"requester_pays": True}),
    ({"verify": "/etc/ca.pem"}, {"client_kwargs": {"verify": "/etc/ca.pem"}}),
    ({"key": "k", "aws_access_key_id": "k"}, {"key": "k"}),
]


@pytest.mark.parametrize(("given", "meant"), SPELLINGS, ids=lambda options: ",".join(options) or "nothing")
def test_other_libraries_spellings_are_understood_and_reach_the_users_path(
    given: dict[str, Any], meant: dict[str, Any]
) -> None:
    before = repr(given)
    path = locate("s3://bucket/run", given).upath
    assert dict(path.storage_options) == meant
    assert repr(given) == before
    assert locate(path).storage_options == meant
    S3Backend().open(given, Environment())
    S3Backend().identity("b/run", {**given, "endpoint_url": STORE})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regoin": "r"}, "'regoin' in storage_options is no option of s3fs"),
        ({"requester_pay": True}, "is 'requester_pays' meant"),
        ({"aws_conditional_put": "etag"}, "'aws_conditional_put'.*client_kwargs, .*endpoint_url"),
        ({"role_arn": "arn"}, "'role_arn'"),
        ({"config": object()}, "'config'"),
        ({"batch_size": 3}, "'batch_size'"),
        ({"key": SECRET, "aws_access_key_id": "other"}, "'key' and 'aws_access_key_id'.*differ"),
        ({"key": "x", "client_kwargs": {"aws_access_key_id": SECRET}}, "client_kwargs.*'key'.*differ"),
        ({"client_kwargs": {"regoin": SECRET}}, "'regoin'.*client_kwargs of s3fs.*region_name"),
        ({"client_kwargs": SECRET}, "'client_kwargs'.*must be a dictionary"),
        ({"config_kwargs": {"time_out": SECRET}}, "'time_out'.*config_kwargs of s3fs"),
        ({"force_path_style": SECRET}, "'force_path_style'.*must be True or False"),
        ({"AWS_SECRET_ACCESS_KEY": 12345}, "'AWS_SECRET_ACCESS_KEY'.*must be text"),
        ({"aws_endpoint": f"{SECRET}:9000"}, "'aws_endpoint'.*must be a URL"),
        ({"allow_http": False}, "'allow_http'.*write https://"),
        ({"profile": "nobody"}, r"nobody.*correct AWS_PROFILE or profile="),
    ],
)
def test_an_option_that_cannot_be_used_is_named_before_anything_is_asked(
    options: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    for call in (atomicpath.is_committed, atomicpath.latest, atomicpath.profile, atomicpath.sweep):
        with pytest.raises(ValidationError, match=words) as caught:
            call("s3://bucket/run", storage_options=options)  # type: ignore[operator]
        assert SECRET not in str(caught.value) + repr(caught.value) + caplog.text
        assert caught.value.__cause__ is None


def test_a_services_section_that_is_missing_is_named(aws_file: Path) -> None:
    aws_file.write_text("[profile lost]\nservices = nowhere\n")
    with pytest.raises(ValidationError, match="nowhere"):
        S3Backend().identity("b/run", {"profile": "lost"})


def test_a_chained_url_says_which_url_to_pass() -> None:
    for url in ("simplecache::s3://bucket/run", "filecache::s3://bucket/run"):
        with pytest.raises(ValidationError, match=r"chained URL.*Pass the store's own URL, 's3://bucket/run'"):
            atomicpath.is_committed(url)


def test_a_path_of_a_user_shows_no_secret() -> None:
    location = locate("s3://bucket/run", {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ACCESS_KEY_ID": "k"})
    assert isinstance(location.upath, UPath)
    settings: Any = location.open()._settings  # type: ignore[attr-defined]
    assert SECRET not in repr(location) + repr(settings) + location.identity + os.fspath(str(location))
