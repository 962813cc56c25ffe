"""What the S3 storage says, and leaves, when requests and replies are lost, refused, repeated or cut."""

from __future__ import annotations

import errno
import io
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import atomicpath_s3.multipart
import atomicpath_s3.storage
from atomicpath.abc import Environment, Put, StaleVersionError, Storage, Update
from atomicpath.errors import AccessError, BackendError
from atomicpath_s3 import S3Backend
from tests.support.proxy import (
    Proxy,
    Request,
    Rule,
    answer_after,
    drop_reply,
    drop_request,
    duplicate,
    hold,
    ignore_conditions,
    is_,
    refuse,
    truncate,
)
from tests.support.waiting import until

Truth = Callable[[], dict[str, bytes]]
DATA = b"x" * (5 * 2**20) * 2 + b"y"
SECRET = "do-not-show-this-anywhere"


def completes(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of three parts."""
    size = len(DATA) // 2
    monkeypatch.setattr(atomicpath_s3.multipart, "PART", size)
    monkeypatch.setattr(atomicpath_s3.storage, "PART", size)
    source = tmp_path / "source"
    source.write_bytes(DATA)
    return source


@pytest.mark.parametrize("action", [drop_reply, answer_after(500, "InternalError"), answer_after(503, "SlowDown")])
async def test_won_but_412_after_own_retry(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, action: Callable[..., Any]
) -> None:
    proxy.rules.append(Rule(match=is_("PUT"), action=action))
    with pytest.raises(FileExistsError):
        await s3.put(f"{bucket}/run/a", b"ours", mode=Put.CREATE, owner="token")
    assert truth() == {"run/a": b"ours"}
    assert (await s3.stat(f"{bucket}/run/a")).owner == "token"


@pytest.mark.parametrize("action", [drop_request, refuse(500, "InternalError")])
async def test_a_request_that_never_arrived_is_repeated(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, action: Callable[..., Any]
) -> None:
    proxy.rules.append(Rule(match=is_("PUT"), action=action))
    await s3.put(f"{bucket}/run/a", b"ours", mode=Put.CREATE)
    assert truth() == {"run/a": b"ours"}
    assert [request.conditions for request in proxy.requests] == [{"if-none-match": "*"}] * 2


@pytest.mark.parametrize("version", ["named", None])
@pytest.mark.parametrize(
    "action",
    [
        drop_reply,
        drop_request,
        answer_after(500, "InternalError"),
        refuse(503, "SlowDown"),
        refuse(429, "TooManyRequests"),
        refuse(400, "RequestTimeout"),
    ],
)
async def test_a_delete_is_sent_once(
    s3: Storage, bucket: str, proxy: Proxy, action: Callable[..., Any], version: str | None
) -> None:
    """Whatever became of it: a second one could hit what somebody else has put there since."""
    written = await s3.put(f"{bucket}/run/a", b"ours", mode=Put.OVERWRITE)
    proxy.rules.append(Rule(match=is_("DELETE"), action=action))
    with pytest.raises(OSError, match="s3://") as caught:
        await s3.delete(f"{bucket}/run/a", version=written if version else None)
    assert not isinstance(caught.value, (FileNotFoundError, PermissionError, StaleVersionError))
    assert proxy.count(is_("DELETE")) == 1


async def test_500_after_apply_on_a_swap_is_stale_with_our_bytes_stored(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth
) -> None:
    version = await s3.put(f"{bucket}/run/a", b"first", mode=Put.OVERWRITE)
    assert version is not None
    proxy.rules.append(Rule(match=is_("PUT"), action=answer_after(500, "InternalError")))
    with pytest.raises(StaleVersionError):
        await s3.put(f"{bucket}/run/a", b"second", mode=Update(version))
    assert truth() == {"run/a": b"second"}


async def test_409_treated_as_exists(s3: Storage, bucket: str, proxy: Proxy, truth: Truth) -> None:
    proxy.rules.append(Rule(match=is_("PUT"), action=refuse(409, "ConditionalRequestConflict"), times=None))
    with pytest.raises(OSError, match="409 ConditionalRequestConflict") as caught:
        await s3.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)
    assert type(caught.value) is OSError
    assert caught.value.errno == errno.EBUSY
    assert truth() == {}


async def test_412_without_a_condition_in_its_body_means_exists(s3: Storage, bucket: str, proxy: Proxy) -> None:
    proxy.rules.append(Rule(match=is_("PUT"), action=refuse(412, "PreconditionFailed")))
    with pytest.raises(FileExistsError):
        await s3.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)


async def test_an_endpoint_that_answers_nothing_is_unknown(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth
) -> None:
    proxy.rules.append(Rule(match=is_("PUT"), action=drop_request, times=None))
    with pytest.raises(ConnectionError):
        await s3.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)
    assert truth() == {}


async def test_an_endpoint_that_never_answers_is_given_up(
    s3: Storage, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await s3.delete(f"{bucket}/run/a")  # the client is there
    monkeypatch.setattr(atomicpath_s3.storage, "_PATIENCE", 2)
    seen, release = threading.Event(), threading.Event()
    proxy.rules.append(Rule(match=is_("DELETE"), action=hold(seen, release), times=None))
    with pytest.raises(TimeoutError, match="did not answer in time"):
        await s3.delete(f"{bucket}/run/a", version="0" * 32)
    release.set()
    assert seen.is_set()
    assert proxy.count(is_("DELETE")) == 2


async def test_conditional_header_ignored_by_store(s3: Storage, bucket: str, proxy: Proxy, truth: Truth) -> None:
    """The storage cannot see it: this is what a probe is for."""
    proxy.rules.append(Rule(match=is_("PUT"), action=ignore_conditions, times=None))
    await s3.put(f"{bucket}/run/a", b"first", mode=Put.CREATE)
    await s3.put(f"{bucket}/run/a", b"second", mode=Put.CREATE)
    assert truth() == {"run/a": b"second"}


async def test_late_duplicate_put_after_delete(s3: Storage, bucket: str, proxy: Proxy, truth: Truth) -> None:
    """Nothing in S3 prevents it: the object is there again, and its owner says whose it was."""
    when, done = threading.Event(), threading.Event()
    proxy.rules.append(Rule(match=is_("PUT"), action=duplicate(when, done)))
    version = await s3.put(f"{bucket}/run/a", b"late", mode=Put.CREATE, owner="token")
    await s3.delete(f"{bucket}/run/a", version=version)
    assert truth() == {}
    when.set()
    await until(done)
    assert truth() == {"run/a": b"late"}
    assert (await s3.stat(f"{bucket}/run/a")).owner == "token"


async def test_truncated_get_accepted(s3: Storage, bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    await s3.put(f"{bucket}/run/a", b"x" * 10_000_000, mode=Put.OVERWRITE)
    proxy.rules.append(Rule(match=is_("GET"), action=truncate(1), times=None))
    with pytest.raises(OSError, match=r"no usable answer|the connection failed|the reply ended"):
        await s3.download(f"{bucket}/run/a", tmp_path / "copy")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match=r"no usable answer|the connection failed|the reply ended"):
        await s3.get(f"{bucket}/run/a")


async def test_a_client_that_does_not_notice_a_short_body_is_not_believed(
    s3: Storage, bucket: str, tmp_path: Path
) -> None:
    class Short(io.BytesIO):
        async def __aenter__(self) -> Short:
            return self

        async def __aexit__(self, *exception: object) -> None:
            self.close()

        async def read(self, size: int = -1) -> bytes:  # type: ignore[override]
            return super().read(size)

    async def call(operation: str, parameters: object) -> dict[str, object]:
        return {"Body": Short(b"abc"), "ContentLength": 4, "ETag": '"x"'}

    s3._call = call  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="ended after 3 of 4 bytes"):
        await s3.download(f"{bucket}/run/a", tmp_path / "copy")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="ended after 3 of 4 bytes"):
        await s3.get(f"{bucket}/run/a")


@pytest.mark.parametrize("action", [drop_reply, answer_after(500, "InternalError"), answer_after(404, "NoSuchUpload")])
async def test_multipart_complete_reply_lost(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, raw: Any, large: Path, action: Callable[..., Any]
) -> None:
    proxy.rules.append(Rule(match=completes, action=action))
    entry = await s3.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    assert truth() == {"run/a": DATA}
    assert (await s3.list(f"{bucket}/run", recursive=True))[0].version == entry.version
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


async def test_a_completion_that_another_of_the_same_owner_won_is_not_ours(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, large: Path
) -> None:
    await s3.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    first = truth()
    await anyio.Path(large).write_bytes(DATA[::-1])
    proxy.rules.append(Rule(match=completes, action=refuse(404, "NoSuchUpload")))
    with pytest.raises(FileExistsError):
        await s3.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    assert truth() == first


async def test_a_completion_whose_upload_was_aborted_is_unknown(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, large: Path
) -> None:
    proxy.rules.append(Rule(match=completes, action=refuse(404, "NoSuchUpload")))
    with pytest.raises(OSError, match="the upload has ended") as caught:
        await s3.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    assert not isinstance(caught.value, FileExistsError | FileNotFoundError)
    assert truth() == {}


async def test_a_part_that_fails_aborts_the_upload(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, raw: Any, large: Path
) -> None:
    proxy.rules.append(Rule(match=is_("PUT", partNumber="2"), action=refuse(403, "ExpiredToken"), times=None))
    with pytest.raises(AccessError):
        await s3.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    assert truth() == {}
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("action", [drop_request, refuse(500, "InternalError")])
async def test_a_large_put_that_is_repeated_is_sent_from_its_beginning(
    s3: Storage, bucket: str, proxy: Proxy, truth: Truth, large: Path, action: Callable[..., Any]
) -> None:
    proxy.rules.append(Rule(match=is_("PUT"), action=action))
    await s3.upload(large, f"{bucket}/run/a", owner="token", multipart=False)
    assert truth() == {"run/a": DATA}
    assert proxy.count(is_("PUT")) == 2


async def test_a_failed_abort_does_not_mask_the_first_error(
    s3: Storage, bucket: str, proxy: Proxy, large: Path
) -> None:
    proxy.rules.append(Rule(match=is_("PUT", partNumber="2"), action=refuse(400, "BadDigest"), times=None))
    proxy.rules.append(Rule(match=is_("DELETE"), action=refuse(403, "AccessDenied"), times=None))
    with pytest.raises(OSError, match="BadDigest") as caught:
        await s3.upload(large, f"{bucket}/run/a", owner="token", multipart=True)
    assert "parts of an unfinished upload may be left" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (403, "AccessDenied"), (400, "ExpiredToken")],
)
async def test_a_refusal_says_to_check_the_credentials_and_shows_none(
    bucket: str, proxy: Proxy, status: int, code: str
) -> None:
    options = {"endpoint_url": proxy.url, "key": SECRET, "secret": SECRET, "token": SECRET}
    storage = S3Backend().open(options, Environment())
    proxy.rules.append(Rule(match=is_("PUT"), action=refuse(status, code, f"bad key {SECRET}")))
    with pytest.raises(AccessError, match=f"{status} {code}: check the credentials") as caught:
        await storage.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)
    assert proxy.requests[0].headers["x-amz-security-token"] == SECRET
    assert isinstance(caught.value, PermissionError)
    assert SECRET not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None


async def test_no_credentials_at_all_says_so(bucket: str, proxy: Proxy) -> None:
    storage = S3Backend().open({"endpoint_url": proxy.url}, Environment())
    with pytest.raises(AccessError, match="no usable credentials"):
        await storage.get(f"{bucket}/run/a")
    assert proxy.requests == []


async def test_a_missing_bucket_is_to_be_created_first(s3: Storage, proxy: Proxy, raw: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    path = "no-such-bucket/run/a"
    for operation in (
        lambda: s3.put(path, b"x", mode=Put.CREATE),
        lambda: s3.put(path, b"x", mode=Put.OVERWRITE),
        lambda: s3.put(path, b"x", mode=Update("0" * 32)),
        lambda: s3.upload(source, path, owner="token", multipart=True),
        lambda: s3.list("no-such-bucket/run", recursive=True),
    ):
        with pytest.raises(FileNotFoundError, match="bucket does not exist: create it first"):
            await operation()
    assert "no-such-bucket" not in [found["Name"] for found in raw.list_buckets()["Buckets"]]


async def test_enospc_mid_file(s3: Storage, bucket: str, tmp_path: Path) -> None:
    await s3.put(f"{bucket}/run/a", b"x" * 10_000_000, mode=Put.OVERWRITE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            await s3.download(f"{bucket}/run/a", tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


async def test_a_condition_the_client_does_not_know_is_an_error(s3: Storage, bucket: str, proxy: Proxy) -> None:
    """s3fs drops what botocore does not know: a condition gone missing would be an overwrite."""
    with pytest.raises(BackendError, match="pip install -U"):
        await s3.ask(f"{bucket}/a", "put_object", {"Bucket": bucket, "Key": "a", "IfNever": "*"})  # type: ignore[attr-defined]
    assert proxy.requests == []
