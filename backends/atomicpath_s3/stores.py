"""The implementations of S3 that are known, as data: how each is recognised, what it promises, where that is written.

A row has only what was read in the source that it cites, or measured on a server that ran in a test. Where a source
does not speak of something, the row does not either: probes and `manners` find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from atomicpath.guarantees import NONE, Guarantee

__all__ = ["CONDITIONS", "PARTS", "STORES", "Store", "known"]

CONDITIONS = (
    Guarantee.LIST_AFTER_WRITE | Guarantee.EXCLUSIVE_CREATE | Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE
)
"""What a store of objects needs for the commit file and for cleaning."""

PARTS = Guarantee.EXCLUSIVE_MULTIPART
"""What a large file in parts needs."""

_PUT = Guarantee.EXCLUSIVE_CREATE | Guarantee.COMPARE_AND_SWAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One implementation.

    Args:
        name: For people.
        hosts: It is at an endpoint whose host is one of these, or ends with one of them after a dot.
        servers: Its replies have a `Server` header that begins so, in lower case.
        promises: What it documents to hold, each with the source.
        lacks: What it is documented or was measured not to do, each with the source; shown to people, while probes
            find out what is so at the very bucket.
        beyond_probes: What holds or not by a setting whose effect one place on the network cannot see. Probes may
            refute it; the user asserts it.
        quoted: The form in which it wants an ETag in `If-Match`, if one is documented or was measured.
        form_source: Where that is written.
        is_vendor: It is S3 itself: what it documents is not put to the test.
    """

    name: str
    hosts: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    promises: Mapping[Guarantee, str] = field(default_factory=dict[Guarantee, str], hash=False)
    lacks: Mapping[Guarantee, str] = field(default_factory=dict[Guarantee, str], hash=False)
    beyond_probes: Guarantee = NONE
    quoted: bool | None = None
    form_source: str = ""
    is_vendor: bool = False

    def is_at(self, endpoint: str) -> bool:
        """Tell whether the endpoint is one of the store's own."""
        host = (urlsplit(endpoint).hostname or "").lower()
        return any(host == own or host.endswith(f".{own}") for own in self.hosts)


STORES: tuple[Store, ...] = (
    Store(
        name="Amazon S3",
        hosts=("amazonaws.com", "amazonaws.com.cn"),
        promises={
            Guarantee.LIST_AFTER_WRITE: 'Amazon S3 User Guide, "Amazon S3 data consistency model"',
            _PUT | PARTS: "docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html, read November 2026",
            Guarantee.CONDITIONAL_DELETE: (
                "docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html, read November 2026"
            ),
        },
        is_vendor=True,
    ),
    Store(
        name="Cloudflare R2",
        hosts=("r2.cloudflarestorage.com",),
        promises={
            _PUT: "PutObject takes both conditions: developers.cloudflare.com/r2/api/s3/conditional-operations, read"
            " November 2026",
            PARTS: "CompleteMultipartUpload takes both conditions: developers.cloudflare.com/r2/api/s3/"
            "conditional-operations, read November 2026",
        },
        lacks={
            Guarantee.CONDITIONAL_DELETE: "DeleteObject is not among the operations that take conditions:"
            " developers.cloudflare.com/r2/api/s3/conditional-operations, read November 2026"
        },
        quoted=True,
        form_source='"each ETag must be surrounded by double quotes": github.com/apache/opendal, pull request 2226,'
        " May 2023",
    ),
    Store(
        name="OVHcloud Object Storage",
        hosts=("io.cloud.ovh.net",),
        promises={
            _PUT | Guarantee.CONDITIONAL_DELETE: "evaluated atomically, not for SSE-C: github.com/ovh/docs,"
            " s3_conditional_writes/guide.en-gb.md of 2026-04-29",
            PARTS: "evaluated when CompleteMultipartUpload is called: github.com/ovh/docs,"
            " s3_conditional_writes/guide.en-gb.md of 2026-04-29",
        },
        quoted=False,
        form_source='"a bare string without surrounding quotes": github.com/ovh/docs, as above',
    ),
    Store(
        name="Scaleway Object Storage",
        hosts=("scw.cloud",),
        promises={
            _PUT | PARTS: "PutObject and CompleteMultipartUpload: github.com/scaleway/docs-content,"
            " pages/object-storage/api-cli/using-conditional-writes.mdx of 2026-07-01",
        },
    ),
    Store(
        name="CoreWeave AI Object Storage",
        hosts=("cwobject.com",),
        promises={
            _PUT | PARTS: "of two concurrent requests one succeeds and the other is answered 409: docs.coreweave.com/"
            "release-notes/ai-object-storage-conditional-writes, read November 2026",
        },
        quoted=True,
        form_source="docs.coreweave.com/products/storage/object-storage/buckets/conditional-requests, read November"
        " 2026",
    ),
    Store(
        name="DigitalOcean Spaces",
        hosts=("digitaloceanspaces.com",),
        quoted=False,
        form_source="with quotes a swap is answered 412: github.com/slatedb/slatedb, issue 1818, June 2026",
    ),
    Store(
        name="Tigris",
        hosts=("storage.tigris.dev", "t3.storage.dev"),
        lacks={
            CONDITIONS: "strong everywhere for multi-region and single-region buckets only; for global and dual-region"
            " ones conditions may be judged by an older state, seen from another region"
            " (www.tigrisdata.com/docs/concepts/consistency, read November 2026). Where your bucket is one of the"
            " former, or all writers are in one region, guarantees= says so"
        },
        beyond_probes=CONDITIONS,
    ),
    Store(
        name="Google Cloud Storage's XML API",
        hosts=("storage.googleapis.com",),
        lacks={
            _PUT | PARTS | Guarantee.CONDITIONAL_DELETE: "If-Match and If-None-Match are for reads only; a write takes"
            " x-goog-if-generation-match (cloud.google.com/storage/docs/request-preconditions, read November 2026)."
            " Use a gs:// URL: pip install 'atomicpath[gcs]'"
        },
    ),
    Store(
        name="Backblaze B2",
        hosts=("backblazeb2.com",),
        lacks={
            _PUT: "a write with a condition was answered NotImplemented (github.com/sathinduga/"
            "obsidian-s3-sync-and-backup, pull request 84, July 2026)"
        },
    ),
    Store(
        name="Alibaba Cloud OSS",
        hosts=("aliyuncs.com",),
        lacks={
            _PUT: "a write with a condition is answered 501 NotImplemented (github.com/tobi/walgit, issue 67, September"
            " 2026)"
        },
    ),
    Store(
        name="Ceph's gateway",
        servers=("ceph object gateway",),
        lacks={
            Guarantee.CONDITIONAL_DELETE: "version 16 ignores If-Match on DELETE: measured, November 2026. The fix"
            " came in 2025 (github.com/ceph/ceph, pull request 63348)"
        },
    ),
    Store(
        name="MinIO",
        servers=("minio",),
        lacks={
            Guarantee.CONDITIONAL_DELETE: "If-Match is ignored by DeleteObject (github.com/minio/minio, issue 21677,"
            " November 2025, closed without a change)"
        },
    ),
    Store(
        name="SeaweedFS",
        servers=("seaweedfs",),
        lacks={
            PARTS: "in 1 of 4 rounds several concurrent completions succeeded: measured on 4.48, November 2026"
            " (docs/design/0006-multipart-probes.md)"
        },
    ),
)


def known(endpoint: str, server: str) -> Store | None:
    """Return the implementation at an endpoint whose last reply had this `Server` header.

    Return None if it is not known.
    """
    for store in STORES:
        if store.is_at(endpoint):
            return store
    said = server.lower()
    return next((store for store in STORES if any(said.startswith(own) for own in store.servers)), None)
