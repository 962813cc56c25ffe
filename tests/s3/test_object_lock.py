"""A bucket with object lock, whose objects are under retention: what is removed there, and what stays."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

import atomicpath
from tests.cleaning.leftovers import RECORD, commit, from_elsewhere, killed, options_of, sweep
from tests.support.roots import S3Root


@pytest.fixture
def locked(raw: Any, server: str) -> S3Root:
    """A root in a bucket that keeps every version for a day, in governance mode."""
    bucket = f"locked-{uuid.uuid4().hex[:12]}"
    raw.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    raw.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    return S3Root(raw, bucket, server)


def versions_below(place: S3Root, name: str) -> set[tuple[str, str]]:
    """Key and id of each version that is stored."""
    found = place.client.list_object_versions(Bucket=place.bucket, Prefix=f"{place.top}/{name}/")
    return {(one["Key"], one["VersionId"]) for one in found["Versions"]}


def test_readers_see_the_removal_and_the_bucket_keeps_every_version(locked: S3Root) -> None:
    """A delete without the id of a version only adds a marker; retention is about deleting the version itself."""
    for number in (1, 2, 3):
        commit(locked, f"step_{number}")
    before = versions_below(locked, "step_1")
    killed(locked, "step_4", at_request=4)
    from_elsewhere(locked, f"step_4/{RECORD}")
    gone = atomicpath.keep_last(locked.url, 2, **options_of(locked))
    assert [one.name for one in gone] == ["step_1"]
    atomicpath.remove(locked / "step_2", **options_of(locked))
    assert [swept.done for swept in sweep(locked) if swept.path.name == "step_4"] == [True]
    assert {name.partition("/")[0] for name in locked.read_all()} == {"step_3"}
    assert [one.name for one in atomicpath.committed(locked.url, **options_of(locked))] == ["step_3"]

    assert before
    assert before <= versions_below(locked, "step_1"), "nothing was freed"
    for key, version in before:
        with pytest.raises(ClientError, match="AccessDenied"):
            locked.client.delete_object(Bucket=locked.bucket, Key=key, VersionId=version)

    commit(locked, "step_2")  # the name is free
    assert atomicpath.verify(locked / "step_2", **options_of(locked)).ok
