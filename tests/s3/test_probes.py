"""A probe refutes by what it sees, judges each guarantee alone, and learns how a store is to be asked."""

from __future__ import annotations

import logging
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import atomicpath
import atomicpath_s3.multipart
import atomicpath_s3.storage
import atomicpath_s3.stores
from atomicpath import Guarantee, GuaranteeError
from atomicpath._core.layout import PROBE_PREFIX
from atomicpath._profile import contests, probing
from atomicpath._profile.location import locate
from atomicpath._profile.probing import profile_of
from atomicpath.guarantees import NONE
from atomicpath_s3 import manners
from atomicpath_s3.stores import CONDITIONS, PARTS, STORES, Store, known
from tests.support.proxy import Proxy, Reply, Request, Rule, Send, drop_reply, hold, is_, refuse
from tests.support.servers.base import free_port

Truth = Callable[[], dict[str, bytes]]
RACED = {Guarantee.EXCLUSIVE_CREATE: "if-none-match", Guarantee.COMPARE_AND_SWAP: "if-match"}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "_PAUSES", (0.01, 0.02, 0.03))


@pytest.fixture
def url(bucket: str) -> str:
    return f"s3://{bucket}/run/step_1"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "data").write_bytes(b"the data")
    return tmp_path / "source"


def look(url: str, options: dict[str, object], wanted: Guarantee = CONDITIONS) -> atomicpath.Profile:
    async def main() -> atomicpath.Profile:
        return await profile_of(locate(url, options), wanted=wanted)

    return anyio.run(main)


def believe(url: str, options: dict[str, object]) -> None:
    """As if probes had shown the conditions before, and nothing had been tried of uploads in parts."""
    findings = probing._Findings(tried=CONDITIONS, observed=CONDITIONS)
    probing._known[locate(url, options).parent.identity] = findings


def of_a_trial(guarantee: Guarantee, method: str = "PUT") -> Callable[[Request], bool]:
    return lambda request: request.method == method and f"/{str(guarantee).lower()}" in request.path


def of_a_probe(request: Request) -> bool:
    return PROBE_PREFIX in request.path


# silence is no verdict


@pytest.mark.parametrize("guarantee", RACED, ids=str)
def test_a_race_whose_winner_never_hears_of_it_is_won_all_the_same(
    guarantee: Guarantee, url: str, options: dict[str, object], proxy: Proxy
) -> None:
    """The client repeats a request without a reply, and hears of its own that something is there."""
    lost = threading.Event()

    def lose_success(request: Request, send: Send) -> Reply | None:
        reply = send(request)
        if reply.status == 200 and not lost.is_set():
            lost.set()
            return None
        return reply

    trial = of_a_trial(guarantee)
    proxy.rules.append(Rule(lambda r: trial(r) and RACED[guarantee] in r.conditions, lose_success, times=None))
    found = look(url, options)
    assert lost.is_set(), "the fault did not happen"
    assert guarantee in found.observed
    assert found.refuted == NONE


@pytest.mark.parametrize("guarantee", RACED, ids=str)
@pytest.mark.parametrize(
    ("status", "code"), [(409, "ConditionalRequestConflict"), (503, "SlowDown"), (429, "SlowDown")]
)
def test_no_answer_shows_nothing_and_is_tried_again_alone_the_next_time(
    guarantee: Guarantee, status: int, code: str, url: str, options: dict[str, object], proxy: Proxy
) -> None:
    options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
    trial = of_a_trial(guarantee)
    rule = Rule(lambda r: trial(r) and RACED[guarantee] in r.conditions, refuse(status, code), times=None)
    proxy.rules.append(rule)
    before = look(url, options)
    assert guarantee not in before.refuted | before.observed
    assert f"{status} {code}" in before.evidence[guarantee]
    assert CONDITIONS & ~guarantee in before.observed, "the others are judged by themselves"
    proxy.rules.clear()
    proxy.requests.clear()
    after = look(url, options)
    assert guarantee in after.observed
    tried = {request.path.rpartition("/")[2] for request in proxy.requests if request.method == "PUT"}
    assert tried == {str(guarantee).lower()}, "what was shown is not probed again"
    proxy.requests.clear()
    assert look(url, options) == after
    assert proxy.requests == []


@pytest.mark.parametrize("status", [429, pytest.param(503, marks=pytest.mark.full)])
def test_a_racer_that_is_throttled_runs_again(status: int, url: str, options: dict[str, object], proxy: Proxy) -> None:
    options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
    rules = [Rule(of_a_trial(g), refuse(status, "SlowDown"), times=2) for g in (*RACED, Guarantee.LIST_AFTER_WRITE)]
    proxy.rules.extend(rules)
    found = look(url, options)
    assert [rule.times for rule in rules] == [0, 0, 0], "the faults did not happen"
    assert found.observed == CONDITIONS


# each guarantee by itself


def test_a_writer_that_may_not_delete_commits_and_is_told_in_one_line_what_is_left(
    url: str, options: dict[str, object], proxy: Proxy, truth: Truth, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of_an_object = Rule(lambda r: r.method == "DELETE" and not r.query, refuse(403, "AccessDenied"), times=None)
    proxy.rules.append(of_an_object)
    with caplog.at_level(logging.WARNING, "atomicpath"):
        atomicpath.put(source, url, storage_options=options)
    assert atomicpath.verify(url, storage_options=options).ok
    found = look(url, options, wanted=NONE)
    assert found.refuted == Guarantee.CONDITIONAL_DELETE
    assert "403 AccessDenied" in found.evidence[Guarantee.CONDITIONAL_DELETE]
    said = [record.getMessage() for record in caplog.records if "could not delete" in record.getMessage()]
    assert len(said) == 1
    left = [f"s3://{url.split('/')[2]}/{key}" for key in truth() if PROBE_PREFIX in key]
    assert left
    assert sorted(re.findall(r"s3://[^ ,]+(?=[ ,])", said[0].partition("(")[0])) == sorted(left)


def test_a_writer_that_may_not_end_an_upload_is_told_where_one_is_left(
    url: str, options: dict[str, object], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.rules.append(Rule(is_("DELETE", uploadId=""), refuse(403, "AccessDenied"), times=None))
    with caplog.at_level(logging.WARNING, "atomicpath"):
        assert look(url, options, PARTS).refuted == PARTS
    (said,) = [record.getMessage() for record in caplog.records if "could not delete" in record.getMessage()]
    assert "AbortMultipartUpload was answered 403" in said


def test_credentials_that_end_during_a_probe_refute_nothing(url: str, options: dict[str, object], proxy: Proxy) -> None:
    trial = of_a_trial(Guarantee.CONDITIONAL_DELETE, "DELETE")
    ended = threading.Event()

    def end(request: Request) -> bool:
        if trial(request):
            ended.set()
        return ended.is_set()

    proxy.rules.append(Rule(end, refuse(400, "ExpiredToken"), times=None))
    found = look(url, options)
    assert ended.is_set()
    assert found.refuted == NONE
    assert "ExpiredToken" in found.evidence[Guarantee.CONDITIONAL_DELETE]


def test_a_store_that_does_not_know_conditions_is_refused_with_its_own_words(
    url: str, options: dict[str, object], proxy: Proxy, truth: Truth, source: Path
) -> None:
    proxy.rules.append(Rule(lambda request: bool(request.conditions), refuse(501, "NotImplemented"), times=None))
    with pytest.raises(GuaranteeError, match=r"(?s)EXCLUSIVE_CREATE, which was refuted \(1\).*501 NotImplemented"):
        atomicpath.put(source, url, storage_options=options)
    found = look(url, options)
    assert found.refuted == CONDITIONS & ~Guarantee.LIST_AFTER_WRITE
    assert truth() == {}


def test_a_bucket_that_takes_no_write_without_a_condition_is_good_enough(
    url: str, options: dict[str, object], proxy: Proxy, source: Path
) -> None:
    """A policy of the bucket's can demand conditions of every write."""
    plain = Rule(lambda r: r.method == "PUT" and not r.conditions, refuse(403, "AccessDenied"), times=None)
    proxy.rules.append(plain)
    assert look(url, options).observed == CONDITIONS
    atomicpath.put(source, url, storage_options=options)
    assert atomicpath.verify(url, storage_options=options).ok


# the manner of a store


def takes_only(quoted: bool, other: tuple[int, str] | None) -> Rule:
    """A store that takes ETags in one form, and refuses the other with `other`, or does not look at it if None."""

    def act(request: Request, send: Send) -> Reply:
        if (request.headers["if-match"].startswith('"')) == quoted:
            return send(request)
        if other is not None:
            return refuse(*other)(request, send)  # type: ignore[return-value]
        headers = {name: value for name, value in request.headers.items() if name != "if-match"}
        return send(replace(request, headers=headers))

    return Rule(lambda request: "if-match" in request.conditions, act, times=None)


@pytest.mark.parametrize(
    ("quoted", "other"),
    [
        pytest.param(True, (400, "InvalidArgument"), id="quoted-else-not-parsed"),
        pytest.param(True, None, id="quoted-else-ignored"),
        pytest.param(False, (412, "PreconditionFailed"), id="unquoted-else-refused"),
        pytest.param(True, (412, "PreconditionFailed"), id="quoted-else-refused", marks=pytest.mark.full),
    ],
)
def test_the_form_in_which_a_store_takes_versions_is_learnt_and_used(
    quoted: bool, other: tuple[int, str] | None, url: str, options: dict[str, object], proxy: Proxy, source: Path
) -> None:
    proxy.rules.append(takes_only(quoted, other))
    assert look(url, options).observed == CONDITIONS
    proxy.requests.clear()
    atomicpath.put(source, url, storage_options=options)
    atomicpath.remove(url, storage_options=options)
    sent = [request.conditions["if-match"] for request in proxy.requests if "if-match" in request.conditions]
    assert len(sent) > 2
    assert {value.startswith('"') for value in sent} == {quoted}
    assert not [request for request in proxy.requests if of_a_probe(request)]


def test_where_no_form_is_taken_the_swap_is_refuted_and_not_probed_before_every_commit(
    url: str, options: dict[str, object], proxy: Proxy, source: Path
) -> None:
    never = Rule(lambda r: "if-match" in r.conditions, refuse(412, "PreconditionFailed"), times=None)
    proxy.rules.append(never)
    found = look(url, options)
    assert found.refuted == Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE
    assert "named the present version was refused" in found.evidence[Guarantee.COMPARE_AND_SWAP]
    proxy.requests.clear()
    atomicpath.put(source, url, storage_options=options)
    assert not [request for request in proxy.requests if of_a_probe(request)]


def test_where_a_listing_gives_other_versions_nothing_is_deleted_or_verified_by_them(
    url: str, options: dict[str, object], proxy: Proxy, source: Path
) -> None:
    def other(request: Request, send: Send) -> Reply:
        reply = send(request)
        return replace(reply, body=re.sub(rb"<ETag>[^<]*</ETag>", b"<ETag>&quot;0-0&quot;</ETag>", reply.body))

    proxy.rules.append(Rule(is_("GET", **{"list-type": "2"}), other, times=None))
    found = look(url, options)
    assert found.refuted == Guarantee.CONDITIONAL_DELETE
    assert "different versions" in found.evidence[Guarantee.CONDITIONAL_DELETE]
    atomicpath.put(source, url, storage_options=options)
    assert atomicpath.verify(url, storage_options=options).ok
    (file,) = [f for f in atomicpath.read_record(url, storage_options=options).files if f.name == "data"]
    assert file.etag is None


def test_a_store_that_keeps_no_metadata_is_spoken_of(
    url: str, options: dict[str, object], proxy: Proxy, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def forget(request: Request, send: Send) -> Reply:
        reply = send(request)
        headers = {n: v for n, v in reply.headers.items() if not n.lower().startswith("x-amz-meta-")}
        return replace(reply, headers=headers)

    proxy.rules.append(Rule(is_("HEAD"), forget, times=None))
    with caplog.at_level(logging.WARNING, "atomicpath"):
        atomicpath.put(source, url, storage_options=options)
        atomicpath.put(source, f"{url}0", storage_options=options)
    assert sum("keeps no metadata" in record.getMessage() for record in caplog.records) == 1


def test_what_could_not_be_learnt_refutes_nothing(url: str, options: dict[str, object], proxy: Proxy) -> None:
    options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
    rule = Rule(is_("PUT", "/learn"), refuse(503, "SlowDown"), times=None)
    proxy.rules.append(rule)
    found = look(url, options)
    assert found.refuted == NONE
    assert found.observed == Guarantee.LIST_AFTER_WRITE | Guarantee.EXCLUSIVE_CREATE
    assert "503 SlowDown" in found.evidence[Guarantee.COMPARE_AND_SWAP]
    proxy.rules.clear()
    assert look(url, options).observed == CONDITIONS


def test_an_endpoint_that_falls_silent_is_not_asked_by_every_trial(
    url: str, options: dict[str, object], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomicpath_s3.storage, "_PATIENCE", 0.3)
    seen, release = threading.Event(), threading.Event()
    proxy.rules.append(Rule(lambda _: True, hold(seen, release), times=None))
    try:
        with pytest.raises(TimeoutError, match="did not answer in time"):
            look(url, options)
    finally:
        release.set()
    assert seen.is_set()
    assert {request.path.rpartition("/")[2] for request in proxy.requests if request.method == "PUT"} == {"learn"}
    proxy.rules.clear()
    monkeypatch.undo()
    assert look(url, options).observed == CONDITIONS, "silence is no finding"


# what no repetition mends


@pytest.fixture
def untrusted(tmp_path: Path, proxy: Proxy) -> str:
    """An endpoint whose certificate nobody has signed."""
    from tests.s3.certificates import self_signed

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    proxy._server.socket = context.wrap_socket(proxy._server.socket, server_side=True)
    return proxy.url.replace("http://", "https://")


def _unreachable(way: str, request: pytest.FixtureRequest) -> tuple[dict[str, object], str]:
    nobody = f"127.0.0.1:{free_port()}"
    match way:
        case "certificate":
            return {"endpoint_url": request.getfixturevalue("untrusted")}, "certificate is not trusted"
        case "proxy":
            configured = {"proxies": {"http": f"http://{nobody}"}}
            return {"endpoint_url": "http://store.example", "config_kwargs": configured}, "proxy cannot be reached"
        case "name":
            return {"endpoint_url": "http://no-such-host.invalid:9000"}, "endpoint cannot be reached"
        case _:
            return {"endpoint_url": f"http://{nobody}"}, "endpoint cannot be reached"


@pytest.mark.parametrize("way", ["certificate", "proxy", "name", "port"])
def test_what_no_repetition_mends_is_said_after_the_first_try(
    way: str, attempts: list[str], source: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    options, words = _unreachable(way, request)
    options |= {"key": "key", "secret": "secret"}
    with caplog.at_level(logging.WARNING, "atomicpath"), pytest.raises(Exception, match=words) as caught:
        atomicpath.put(source, "s3://places/run/step_1", storage_options=options)
    assert len(attempts) == 1, attempts
    assert "guarantees=" not in str(caught.value)
    assert not [record for record in caplog.records if "could not delete" in record.getMessage()]


def test_an_endpoint_that_has_answered_is_asked_again(
    url: str, options: dict[str, object], proxy: Proxy, source: Path
) -> None:
    believe(url, options)
    atomicpath.put(source, url, storage_options=options)
    rule = Rule(is_("PUT", "/data"), drop_reply)
    proxy.rules.append(rule)
    atomicpath.put(source, f"{url}0", storage_options=options)
    assert rule.times == 0
    assert proxy.count(is_("PUT", "step_10/data")) == 2


# the table


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_every_row_is_recognised_and_cites_its_sources(store: Store) -> None:
    assert store.hosts or store.servers
    for host in store.hosts:
        assert known(f"https://bucket.eu.{host}", "nginx") is store
        assert known(f"https://not{host}", "") is not store
    for server in store.servers:
        assert known("https://10.0.0.1:9000", f"{server.title()}/1.2") is store
    for words in (*store.promises.values(), *store.lacks.values()):
        assert re.search(r"\w+\.\w+/|User Guide|measured", words), f"{words!r} cites nothing"
    assert (store.quoted is None) == (not store.form_source)


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> Store:
    """As if the server of the tests were a store that promises this."""
    promised = {Guarantee.EXCLUSIVE_CREATE | Guarantee.COMPARE_AND_SWAP | PARTS: "example.org/conditions"}
    store = Store(name="Acme", hosts=("127.0.0.1",), promises=promised)
    monkeypatch.setattr(atomicpath_s3.stores, "STORES", (store,))
    return store


@pytest.fixture
def large(source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    size = 5 * 2**20
    monkeypatch.setattr(atomicpath_s3.multipart, "PART", size)
    monkeypatch.setattr(atomicpath_s3.storage, "PART", size)
    monkeypatch.setattr(atomicpath_s3.storage.S3Storage, "largest_single", size)
    (source / "model").write_bytes(b"x" * size + b"end")
    return source


def test_where_it_is_documented_a_large_file_goes_up_in_parts(
    documented: Store, large: Path, url: str, options: dict[str, object], proxy: Proxy
) -> None:
    believe(url, options)
    atomicpath.put(large, url, storage_options=options)
    completed = [r for r in proxy.requests if is_("POST", "/model", uploadId="")(r)]
    assert [r.conditions for r in completed] == [{"if-none-match": "*"}]
    assert proxy.count(of_a_trial(PARTS, "POST")), "what is documented is put to the test before it is relied on"
    found = look(url, options)
    assert PARTS | Guarantee.EXCLUSIVE_CREATE in found.declared
    assert "Acme documents it: example.org/conditions" in found.evidence[PARTS]


def test_what_is_documented_and_not_so_is_refuted(
    documented: Store, large: Path, url: str, options: dict[str, object], proxy: Proxy
) -> None:
    believe(url, options)

    def ignore(request: Request, send: Send) -> Reply:
        headers = {name: value for name, value in request.headers.items() if name != "if-none-match"}
        return send(replace(request, headers=headers))

    proxy.rules.append(Rule(is_("POST", uploadId=""), ignore, times=None))
    atomicpath.put(large, url, storage_options=options)
    assert proxy.count(is_("PUT", "/model")) == 1, "one streamed request"
    found = look(url, options)
    assert PARTS in found.refuted
    assert PARTS not in found.effective


def test_a_server_is_recognised_by_its_replies_and_its_conditions_are_put_to_the_test(
    url: str, options: dict[str, object], proxy: Proxy
) -> None:
    def as_minio(request: Request, send: Send) -> Reply:
        headers = request.headers
        if request.method == "DELETE":
            headers = {name: value for name, value in headers.items() if name != "if-match"}
        reply = send(replace(request, headers=headers))
        return replace(reply, headers={**{n: v for n, v in reply.headers.items() if n != "Server"}, "Server": "MinIO"})

    proxy.rules.append(Rule(lambda _: True, as_minio, times=None))
    found = look(url, options)
    assert found.declared == Guarantee.ATOMIC_WRITE, "its version is not known"
    assert found.refuted == Guarantee.CONDITIONAL_DELETE
    assert "minio/minio, issue 21677" in found.evidence[Guarantee.CONDITIONAL_DELETE]


def test_what_one_place_on_the_network_cannot_see_is_the_users_to_assert() -> None:
    found = atomicpath.profile(
        "s3://bucket/run/step_1", storage_options={"endpoint_url": "https://t3.storage.dev"}, probe=False
    )
    assert not found.effective & CONDITIONS
    assert "guarantees= says so" in found.evidence[Guarantee.EXCLUSIVE_CREATE]


@pytest.fixture(autouse=True)
def _nothing_learnt() -> Iterator[None]:
    yield
    manners._manners.clear()
