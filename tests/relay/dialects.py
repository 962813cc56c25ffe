"""How each store's protocol says what a behaviour is about: conditions, versions, listings, metadata, errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.proxy import CONDITIONS, Reply, Request
from tests.support.roots import SECRET
from tests.support.servers.s3 import KEY

__all__ = ["AZURE", "DIALECTS", "GCS", "S3", "Dialect", "edited"]


_OF_THE_SIGNATURE = ("authorization", "x-amz-date", "x-amz-content-sha256")


@dataclass(frozen=True)
class Dialect:
    """One protocol, as far as the behaviours need it.

    `versions`: headers that carry a version, and patterns that find one in a body. `metadata`: the prefix of headers
    with an object's metadata, or the name of the field with it. `page`: what ends a listing's page, and what to put
    there for one that never ends.
    """

    name: str
    is_listing: Callable[[Request], bool]
    has_condition: Callable[[Request], bool]
    without_conditions: Callable[[Request], Request]
    error: Callable[[int, str], Reply]
    version_headers: frozenset[str]
    version_in_body: re.Pattern[bytes]
    version_in_listing: re.Pattern[bytes]
    page_end: Callable[[bytes, str], bytes]
    without_metadata: Callable[[Request], Request]
    quotes_versions: bool = False


def edited(reply: Reply, body: bytes) -> Reply:
    """A reply with another body."""
    headers = {name: value for name, value in reply.headers.items() if name.lower() != "content-length"}
    return replace(reply, headers=headers, body=body)


def _without_headers(match: Callable[[str], bool]) -> Callable[[Request], Request]:
    def change(request: Request) -> Request:
        return replace(request, headers={name: value for name, value in request.headers.items() if not match(name)})

    return change


def _signed_without_headers(match: Callable[[str], bool]) -> Callable[[Request], Request]:
    """The same for S3, which has headers under the signature: some servers check it."""

    def change(request: Request) -> Request:
        if not any(match(name) for name in request.headers):
            return request
        kept = {
            name: value for name, value in request.headers.items() if not match(name) and name not in _OF_THE_SIGNATURE
        }
        url = f"http://{request.headers['host']}{request.target}"
        signed = AWSRequest(method=request.method, url=url, headers=kept, data=request.body)
        S3SigV4Auth(Credentials(KEY, SECRET), "s3", "us-east-1").add_auth(signed)
        return replace(request, headers={name.lower(): value for name, value in signed.headers.items()})

    return change


def _xml_error(status: int, code: str) -> Reply:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test asked</Message></Error>".encode()
    return Reply(status, {"Content-Type": "application/xml", "x-ms-error-code": code}, body)


def _json_error(status: int, code: str) -> Reply:
    body = f'{{"error": {{"code": {status}, "errors": [{{"reason": "{code}"}}]}}}}'.encode()
    return Reply(status, {"Content-Type": "application/json"}, body)


def _s3_page(body: bytes, token: str) -> bytes:
    body = re.sub(rb"<IsTruncated>\w+</IsTruncated>|<NextContinuationToken>[^<]*</NextContinuationToken>", b"", body)
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    return body.replace(b"</ListBucketResult>", more.encode() + b"</ListBucketResult>")


def _gcs_page(body: bytes, token: str) -> bytes:
    rest = body.strip()[1:]
    comma = b"," if rest.strip() != b"}" else b""
    return f'{{"nextPageToken": "{token}"'.encode() + comma + rest


def _azure_page(body: bytes, token: str) -> bytes:
    body = re.sub(rb"<NextMarker>[^<]*</NextMarker>|<NextMarker ?/>", b"", body)
    return body.replace(b"</EnumerationResults>", f"<NextMarker>{token}</NextMarker></EnumerationResults>".encode())


def _gcs_without_conditions(request: Request) -> Request:
    parts = urlsplit(request.target)
    query = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ifGeneration")]
    return replace(request, target=parts._replace(query=urlencode(query)).geturl())


S3 = Dialect(
    name="S3",
    is_listing=lambda request: request.method == "GET" and "list-type" in request.query,
    has_condition=lambda request: bool(request.conditions),
    without_conditions=_signed_without_headers(CONDITIONS.__contains__),
    error=_xml_error,
    version_headers=frozenset({"etag"}),
    version_in_body=re.compile(rb"<ETag>[^<]*</ETag>"),
    version_in_listing=re.compile(rb"(?<=<ETag>)[^<]*(?=</ETag>)"),
    page_end=_s3_page,
    without_metadata=_signed_without_headers(lambda name: name.startswith("x-amz-meta-")),
    quotes_versions=True,
)
GCS = Dialect(
    name="GCS",
    is_listing=lambda request: request.method == "GET" and request.path.endswith("/o"),
    has_condition=lambda request: any(name.startswith("ifGeneration") for name in request.query),
    without_conditions=_gcs_without_conditions,
    error=_json_error,
    version_headers=frozenset({"x-goog-generation"}),
    version_in_body=re.compile(rb'"generation": ?"?\d+"?,?'),
    version_in_listing=re.compile(rb'(?<="generation":")\d+'),
    page_end=_gcs_page,
    without_metadata=lambda request: replace(request, body=request.body.replace(b'"metadata":', b'"netadata":')),
)
AZURE = Dialect(
    name="Azure",
    is_listing=lambda request: request.method == "GET" and request.query.get("comp") == "list",
    has_condition=lambda request: bool(request.conditions),
    without_conditions=_without_headers(CONDITIONS.__contains__),
    error=_xml_error,
    version_headers=frozenset({"etag"}),
    version_in_body=re.compile(rb"<Etag>[^<]*</Etag>"),
    version_in_listing=re.compile(rb"(?<=<Etag>)[^<]*(?=</Etag>)"),
    page_end=_azure_page,
    without_metadata=_without_headers(lambda name: name.startswith("x-ms-meta-")),
)
DIALECTS = {dialect.name: dialect for dialect in (S3, GCS, AZURE)}
