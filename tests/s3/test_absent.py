"""Only the store's own word means that something is absent on S3: no proxy's page, and no file the client lacks."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import atomicpath
from atomicpath import aio
from atomicpath._core.environment import use
from atomicpath.abc import Environment, NoBucketError, Put, StaleVersionError, Storage, Update
from atomicpath.errors import AccessError, AtomicPathError, NotCommittedError, OutcomeUnknownError
from atomicpath_s3 import S3Backend
from tests.protocol.worlds import Quick
from tests.support.proxy import Proxy, Reply, Request, Rule, Send, answer_after, drop_reply, is_, refuse
from tests.support.roots import SECRET

HTML = b"<!DOCTYPE html><html><head><title>404</title></head><body><h1>404 Not Found</h1><hr>nginx</body></html>"
XHTML = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head/><body>not found</body></html>'
JSON = b'{"message": "no Route matched with those values"}'
PAGES = pytest.mark.parametrize("body", [HTML, XHTML, JSON, b""], ids=["html", "xhtml", "json", "nothing"])


def page(body: bytes, status: int = 404) -> Callable[[Request, Send], Reply]:
    """What a load balancer answers for a store that it does not find."""
    headers = {"Content-Type": "text/html", "Server": "nginx"}
    return lambda request, send: Reply(status, headers, b"" if request.method == "HEAD" else body)


def everything(request: Request) -> bool:
    return True


def operations(s3: Storage, path: str, tmp_path: Path) -> dict[str, Callable[[], Awaitable[object]]]:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    return {
        "read": lambda: s3.get(path),
        "stat": lambda: s3.stat(path),
        "kind": lambda: s3.kind(path),
        "list": lambda: s3.list(path, recursive=True),
        "delete": lambda: s3.delete(path),
        "delete of a version": lambda: s3.delete(path, version="0" * 32),
        "create": lambda: s3.put(path, b"x", mode=Put.CREATE),
        "swap": lambda: s3.put(path, b"x", mode=Update("0" * 32)),
        "write": lambda: s3.put(path, b"x", mode=Put.OVERWRITE),
        "upload": lambda: s3.upload(source, path, owner="o", multipart=True),
        "create in parts": lambda: s3.create_in_parts(path, b"x"),
        "download": lambda: s3.download(path, tmp_path / "copy"),
    }


@PAGES
async def test_a_proxys_404_is_no_word_of_the_stores(
    s3: Storage, bucket: str, proxy: Proxy, tmp_path: Path, body: bytes
) -> None:
    path = f"{bucket}/run/a"
    proxy.rules.append(Rule(match=everything, action=page(body), times=None))
    for name, operation in operations(s3, path, tmp_path).items():
        with pytest.raises(OSError, match="404") as caught:
            await operation()
        known = FileNotFoundError | FileExistsError | PermissionError | StaleVersionError
        assert not isinstance(caught.value, known), (name, caught.value)
        assert "not the store's own answer" in str(caught.value), name


@PAGES
async def test_a_proxys_page_that_claims_success_is_no_empty_directory(
    s3: Storage, bucket: str, proxy: Proxy, body: bytes
) -> None:
    path = f"{bucket}/run"
    proxy.rules.append(Rule(match=everything, action=page(body, 200), times=None))
    for looking in (s3.list(path, recursive=True), s3.list(path, recursive=False), s3.kind(path), s3.get(path)):
        with pytest.raises(OSError, match=r"reply|answer") as caught:
            await looking
        assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("body", [HTML, XHTML, JSON], ids=["html", "xhtml", "json"])
async def test_a_proxys_page_that_claims_success_deletes_nothing(
    s3: Storage, bucket: str, proxy: Proxy, body: bytes
) -> None:
    version = await s3.put(f"{bucket}/run/a", b"data", mode=Put.CREATE)
    for named in (None, version):
        proxy.rules.append(Rule(match=is_("DELETE"), action=page(body, 200)))
        with pytest.raises(OSError, match=r"answer") as caught:
            await s3.delete(f"{bucket}/run/a", version=named)
        assert not isinstance(caught.value, PermissionError | StaleVersionError)
    assert proxy.count(is_("DELETE")) == 2, "once each"
    assert (await s3.get(f"{bucket}/run/a")).data == b"data"


async def test_a_look_alike_may_say_200_to_a_delete(s3: Storage, bucket: str, proxy: Proxy) -> None:
    await s3.put(f"{bucket}/run/a", b"data", mode=Put.CREATE)

    def done(request: Request, send: Send) -> Reply:
        assert send(request).status == 204
        return Reply(200, {})

    proxy.rules.append(Rule(match=is_("DELETE"), action=done))
    await s3.delete(f"{bucket}/run/a")
    assert await s3.stat(f"{bucket}/run/a") is None


async def test_the_stores_own_404_still_means_that_nothing_is_there(
    s3: Storage, bucket: str, proxy: Proxy, tmp_path: Path
) -> None:
    path = f"{bucket}/run/a"
    assert await s3.stat(path) is None
    assert [request.method for request in proxy.requests] == ["HEAD", "GET"]
    proxy.requests.clear()
    with pytest.raises(FileNotFoundError, match=f"nothing is at s3://{path}"):
        await s3.get(path)
    with pytest.raises(FileNotFoundError):
        await s3.download(path, tmp_path / "copy")
    await s3.delete(path)
    assert await s3.kind(path) is None
    assert await s3.list(path, recursive=True) == []
    with pytest.raises(StaleVersionError):
        await s3.put(path, b"x", mode=Update("0" * 32))


async def test_a_head_that_a_proxy_answered_is_asked_again(s3: Storage, bucket: str, proxy: Proxy) -> None:
    """A reply without a body says neither whose it is nor what is missing."""
    version = await s3.put(f"{bucket}/run/a", b"data", mode=Put.CREATE, owner="o")
    proxy.rules.append(Rule(match=is_("HEAD"), action=page(b"")))
    found = await s3.stat(f"{bucket}/run/a")
    assert found is not None
    assert (found.version, found.owner, found.size) == (version, "o", 4)
    proxy.rules.append(Rule(match=is_("HEAD"), action=page(b""), times=None))
    with pytest.raises(OSError, match="404") as caught:
        await s3.stat(f"{bucket}/run/a")
    assert not isinstance(caught.value, FileNotFoundError)


async def test_a_bucket_that_is_missing_is_no_answer_to_a_reader(
    s3: Storage, options: dict[str, object], tmp_path: Path
) -> None:
    path = "no-such-bucket/run/a"
    for operation in (s3.get(path), s3.stat(path), s3.download(path, tmp_path / "copy")):
        with pytest.raises(NoBucketError, match="the bucket does not exist: create it first"):
            await operation
    for reader in (aio.is_committed, aio.resolve, aio.read_record, aio.verify):
        with pytest.raises(NotCommittedError, match="the bucket does not exist"):
            await reader("s3://no-such-bucket/run/step_1", storage_options=options)


@PAGES
async def test_nobody_is_told_that_nothing_is_committed_by_a_proxy(
    options: dict[str, Any], bucket: str, proxy: Proxy, source: Path, body: bytes
) -> None:
    url = f"s3://{bucket}/run/step_1"
    with use(Quick()):
        await aio.put(source, url, storage_options=options)
        proxy.rules.append(Rule(match=everything, action=page(body), times=None))
        for call in (aio.is_committed, aio.resolve, aio.verify, aio.remove, aio.read_record):
            with pytest.raises((OSError, AtomicPathError)) as caught:
                await call(url, storage_options=options)
            assert not isinstance(caught.value, FileNotFoundError), caught.value
        for call in (aio.latest, aio.committed, aio.attempts, aio.sweep):
            with pytest.raises((OSError, AtomicPathError)) as caught:
                await call(url.rpartition("/")[0], storage_options=options)
            assert not isinstance(caught.value, FileNotFoundError), caught.value
        proxy.rules.clear()
        assert await aio.is_committed(url, storage_options=options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "data").write_bytes(b"data")
    return directory


def commits(request: Request) -> bool:
    return request.method == "PUT" and request.path.endswith("_commit_record.json") and "if-match" in request.headers


@PAGES
@pytest.mark.parametrize("action", [drop_reply, answer_after(500, "InternalError")])
async def test_a_lost_reply_and_a_proxys_404_leave_the_outcome_unknown(
    options: dict[str, Any], bucket: str, proxy: Proxy, source: Path, action: Any, body: bytes
) -> None:
    """Whoever committed is never told that the attempt was abandoned."""
    url = f"s3://{bucket}/run/step_1"
    with use(Quick()):
        await aio.put(source, f"{url}0", storage_options=options)
        proxy.requests.clear()
        proxy.rules.append(Rule(match=commits, action=action))
        proxy.rules.append(Rule(match=_after_commit(proxy), action=page(body), times=None))
        with pytest.raises(OutcomeUnknownError):
            await aio.put(source, url, storage_options=options)
        proxy.rules.clear()
        assert await aio.is_committed(url, storage_options=options)


def _after_commit(proxy: Proxy) -> Callable[[Request], bool]:
    return lambda request: any(commits(earlier) for earlier in proxy.requests[:-1])


def _lacks_a_token_file(storage: Any, after: int) -> None:
    """Have the client look for its token file once so many requests were sent, as it does to renew a token."""
    seen: list[object] = []

    def missing(**_: object) -> None:
        seen.append(None)
        if len(seen) > after:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/var/run/secrets/token")

    storage.filesystem._s3.meta.events.register_first("request-created.s3", missing)


async def test_a_file_that_the_client_lacks_is_named_and_is_no_absence(
    bucket: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/nowhere/token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/writer")
    options = {"endpoint_url": proxy.url}
    s3 = S3Backend().open(options, Environment())
    for name, operation in operations(s3, f"{bucket}/run/a", tmp_path).items():
        with pytest.raises(AccessError, match="AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/nowhere/token") as caught:
            await operation()
        assert "nothing was sent" in str(caught.value), name
    for call in (atomicpath.is_committed, atomicpath.latest, atomicpath.remove):
        with pytest.raises(AccessError, match="AWS_WEB_IDENTITY_TOKEN_FILE"):
            call(f"s3://{bucket}/run", storage_options=options)  # type: ignore[operator]
    assert proxy.requests == []


async def test_a_certificate_file_that_is_missing_is_named(
    bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/nowhere/ca.pem")
    options = {"endpoint_url": proxy.url.replace("http:", "https:"), "key": "k", "secret": SECRET}
    with pytest.raises(AccessError, match="AWS_CA_BUNDLE=/etc/nowhere/ca.pem"):
        await S3Backend().open(options, Environment()).get(f"{bucket}/run/a")


async def test_a_file_that_is_missing_after_a_request_leaves_its_outcome_unknown(
    s3: Storage, bucket: str, proxy: Proxy
) -> None:
    await s3.stat(f"{bucket}/run/b")
    _lacks_a_token_file(s3, after=1)
    proxy.rules.append(Rule(match=is_("PUT"), action=answer_after(500, "InternalError")))
    with pytest.raises(OSError, match=r"/var/run/secrets/token.*outcome is unknown") as caught:
        await s3.put(f"{bucket}/run/a", b"x", mode=Put.CREATE)
    assert type(caught.value) is OSError


async def test_a_commit_whose_reply_and_token_file_are_lost_is_told_what_became_of_it(
    options: dict[str, Any], bucket: str, proxy: Proxy, source: Path
) -> None:
    """The request that was sent again has no answer; the next one looks for credentials anew, and reads the record."""
    url = f"s3://{bucket}/run/step_1"
    with use(Quick()):
        await aio.put(source, f"{url}0", storage_options=options)

        def cut(request: Request, send: Send) -> Reply | None:
            _lacks_a_token_file(S3Backend().open(options, Environment()), after=0)
            return answer_after(500, "InternalError")(request, send)

        proxy.rules.append(Rule(match=commits, action=cut))
        await aio.put(source, url, storage_options=options)
        assert proxy.count(commits) == 2  # this one's and the first commit's: it was not sent again
        assert await aio.is_committed(url, storage_options=options)


@pytest.mark.parametrize(
    ("status", "code", "text", "words"),
    [
        (403, "QuotaExceeded", "", "a quota or the storage itself is used up: free space"),
        (400, "XMinioAdminBucketQuotaExceeded", "", "a quota or the storage itself is used up"),
        (507, "XMinioStorageFull", "", "a quota or the storage itself is used up"),
        (403, "AccessDenied", "storage cap exceeded", "a quota or the storage itself is used up"),
        (403, "InvalidObjectState", "", "it is archived, and cannot be read before it is restored"),
        (403, "AccessDenied", "Access Denied because object protected by object lock.", "object lock, a hold or a ret"),
        (400, "ObjectLocked", "Object is WORM protected", "object lock, a hold or a retention rule"),
        (403, "AccessDenied", "no identity-based policy allows the kms:GenerateDataKey action", "the encryption key"),
        (400, "KMS.DisabledException", "", "the encryption key cannot be used: enable it"),
        (403, "AccessDenied", "", "what they may do there; where the requester pays, pass requester_pays"),
        (400, "ExpiredToken", "", "they have expired. Renew them"),
        (403, "RequestTimeTooSkewed", "", "set the clock of this host"),
    ],
)
async def test_a_refusal_says_what_it_is_and_what_to_do(
    options: dict[str, Any], bucket: str, proxy: Proxy, status: int, code: str, text: str, words: str
) -> None:
    s3 = S3Backend().open({**options, "config_kwargs": {"retries": {"total_max_attempts": 1}}}, Environment())
    proxy.rules.append(Rule(match=everything, action=refuse(status, code, f"{text} {SECRET}"), times=None))
    for operation in (s3.put(f"{bucket}/run/a", b"x", mode=Put.CREATE), s3.get(f"{bucket}/run/a")):
        with pytest.raises(AccessError, match=words) as caught:
            await operation
        assert f"{status} {code}" in str(caught.value)
        assert SECRET not in str(caught.value) + repr(caught.value)
        assert caught.value.__cause__ is None
