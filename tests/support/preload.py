"""The clients of the stores, for the fork server, which imports them once for all processes that it forks.

It goes on without this module where a client is not installed: there, no test talks to a store.
"""

from __future__ import annotations

import adlfs
import aiobotocore.client
import anyio._backends._asyncio
import gcsfs
import s3fs
import upath.implementations.cloud

import atomicpath_azure.storage
import atomicpath_gcs.storage
import atomicpath_s3.storage
from atomicpath._profile import registry

__all__ = ["IMPORTED"]

IMPORTED = (
    adlfs,
    aiobotocore.client,
    anyio._backends._asyncio,
    gcsfs,
    s3fs,
    upath.implementations.cloud,
    atomicpath_azure.storage,
    atomicpath_gcs.storage,
    atomicpath_s3.storage,
)
for _scheme in ("s3", "gs", "abfs"):
    registry.backend_for(_scheme)
