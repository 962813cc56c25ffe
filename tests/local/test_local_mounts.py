"""What is promised where, by the mount a path is really on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from atomicpath._commit.explanation import explained
from atomicpath.guarantees import Guarantee, Profile
from atomicpath_local.file_systems import BY_KIND, Refusal
from atomicpath_local.mounts import (
    Mount,
    by_prefix,
    declaration_of,
    gluster_volume,
    mount_id,
    parse_mountinfo,
)
from atomicpath_local.storage import LocalStorage

COMMIT_FILE = Guarantee.EXCLUSIVE_CREATE | Guarantee.ATOMIC_WRITE | Guarantee.LIST_AFTER_WRITE
RENAME = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE

MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
36 27 98:0 /mnt1 /mnt/with\040space\011and\134 rw,noatime master:1 shared:7 - xfs /dev/my\040disk rw,errors=continue
40 27 0:50 / /data rw - nfs4 server:/export rw
41 40 0:51 / /data/bucket rw - fuse.gcsfuse bucket rw
42 27 0:52 / /data2 rw - tmpfs tmpfs rw
43 42 0:53 / /data2 rw - fuse.mount-s3 mountpoint-s3 rw
nonsense
44 27 0:54 / /short
"""


def mount(kind: str) -> Mount:
    return Mount(number=1, point="/data", kind=kind, device="/dev/vda")


def test_octal_escapes_and_optional_fields_are_understood() -> None:
    found = parse_mountinfo(MOUNTINFO)
    assert found[2] == Mount(number=36, point="/mnt/with space\tand\\", kind="xfs", device="/dev/my disk")
    assert [mount.number for mount in found] == [22, 27, 36, 40, 41, 42, 43]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/database", "ext4"),
        ("/data", "nfs4"),
        ("/data/x/y", "nfs4"),
        ("/data/bucket/x", "fuse.gcsfuse"),
        ("/data/buckets", "nfs4"),
        ("/data2/x", "fuse.mount-s3"),
    ],
)
def test_a_name_belongs_to_the_deepest_and_then_the_last_mount_above_it(path: str, kind: str) -> None:
    found = by_prefix(parse_mountinfo(MOUNTINFO), path)
    assert found
    assert found.kind == kind


def test_the_number_of_a_descriptors_mount_is_read() -> None:
    assert mount_id("pos:\t0\nflags:\t012200000\nmnt_id:\t27\nino:\t2\n") == 27
    assert mount_id("pos:\t0\n") is None


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "overlay", "tmpfs"])
def test_a_known_disk_declares_what_both_strategies_need(kind: str) -> None:
    found = declaration_of(mount(kind))
    expected = RENAME | COMMIT_FILE | Guarantee.SYNC | Guarantee.DIRECTORIES | Guarantee.RENAME_EXCHANGE
    assert found.declared == expected
    assert set(found.evidence) == set(expected)
    assert found.evidence[Guarantee.SYNC].startswith(f"{kind} at /data (device /dev/vda): ")


def test_zfs_declares_no_exchange() -> None:
    found = declaration_of(mount("zfs")).declared
    assert RENAME & ~found == Guarantee(0)
    assert Guarantee.RENAME_EXCHANGE not in found


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_a_memory_file_system_says_that_nothing_survives(kind: str) -> None:
    assert "nothing survives a power cut" in declaration_of(mount(kind)).evidence[Guarantee.SYNC]
    assert "nothing survives" not in declaration_of(mount("ext4")).evidence[Guarantee.SYNC]


@pytest.mark.parametrize("kind", ["nfs", "nfs4"])
def test_nfs_stale_listing_on_another_host(kind: str) -> None:
    """So that a listing shows what was written is not declared there; the rename is, and says how."""
    found = declaration_of(mount(kind))
    assert Guarantee.LIST_AFTER_WRITE not in found.declared | found.observable
    assert RENAME & ~found.declared == Guarantee(0)
    assert Guarantee.RENAME_EXCHANGE not in found.declared
    assert "mkdir" in found.evidence[Guarantee.RENAME_NOREPLACE]


@pytest.mark.parametrize(
    "kind",
    [
        "fuse.gcsfuse",
        "fuse.mount-s3",
        "fuse.rclone",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.goofys",
        "fuse",
        "fuseblk",
        "9p",
        "virtiofs",
        "cifs",
        "smb3",
        "wekafs",
        "nfsd",
        "vfat",
    ],
)
def test_a_local_path_is_not_a_promise(kind: str) -> None:
    found = declaration_of(mount(kind))
    assert found.declared == Guarantee(0)
    assert found.observable == Guarantee.DIRECTORIES | Guarantee.LIST_AFTER_WRITE
    assert found.refutable == RENAME | Guarantee.EXCLUSIVE_CREATE
    words = found.evidence[Guarantee.ATOMIC_RENAME]
    assert kind in words
    assert "guarantees=" in explained(Profile(evidence=found.evidence)).reason


CLUSTER = ("lustre", "ceph", "fuse.ceph-fuse", "beegfs", "gpfs", "fuse.glusterfs")


@pytest.mark.parametrize("kind", CLUSTER)
def test_the_file_systems_of_clusters_need_no_argument(kind: str) -> None:
    found = declaration_of(mount(kind))
    assert (RENAME | Guarantee.SYNC | Guarantee.DIRECTORIES) & ~found.declared == Guarantee(0)
    assert Guarantee.RENAME_EXCHANGE not in found.declared
    assert found.renames_between_directories is (False if kind == "beegfs" else None)


def test_a_volume_that_renames_brick_by_brick_promises_no_rename() -> None:
    several = b"((<DISTRIBUTE:v-dht> <POSIX(/b2):h:/b2/> <POSIX(/b1):h:/b1/>) (v-dht-layout (v-client-0 0 1)))"
    replicas = b"(<REPLICATE:v-replicate-0> <POSIX(/b2):h:/b2/> <POSIX(/b1):h:/b1/>)"
    for told, whole in ((several, False), (b"", False), (replicas, True), (b"<POSIX(/b1):h:/b1/>", True)):
        found = declaration_of(replace(mount("fuse.glusterfs"), volume=gluster_volume(told)))
        assert (Guarantee.ATOMIC_RENAME in found.declared) == whole, told
        assert (Guarantee.ATOMIC_RENAME in found.refutable) != whole, told
        assert ("brick by brick" in found.evidence[Guarantee.ATOMIC_RENAME]) != whole, told


def test_whatever_is_declared_names_its_sources() -> None:
    for row in BY_KIND.values():
        assert row.sources or not row.declared, row
        assert (row.refusal is Refusal.UNKNOWN) == (Guarantee.RENAME_NOREPLACE not in row.declared), row
        assert not row.is_disk or row.renames_between_directories


def test_an_unknown_mount_is_tried_before_anything_is_renamed_out_of_a_directory() -> None:
    assert declaration_of(mount("ext4")).renames_between_directories is True
    assert declaration_of(mount("fuse.something")).renames_between_directories is None
    assert declaration_of(None).renames_between_directories is None


def test_a_mount_that_cannot_be_found_out_promises_nothing() -> None:
    assert declaration_of(None).declared == Guarantee(0)
    assert "could not be found out" in declaration_of(None).evidence[Guarantee.SYNC]


async def test_a_path_that_does_not_exist_is_where_its_ancestor_is(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    here = (await storage.declare(str(tmp_path))).evidence
    assert (await storage.declare(f"{tmp_path}/a/b/c")).evidence == here
    assert (await storage.declare(f"{tmp_path}/file/b")).evidence == here
    proc = await storage.declare("/proc/self/nothing/below")
    assert proc.declared == Guarantee(0)
    assert proc.evidence[Guarantee.SYNC].startswith("proc at /proc ")


async def test_a_link_to_another_mount_is_on_that_mount(
    storage: LocalStorage, mount: Callable[..., Path], tmp_path: Path
) -> None:
    point = mount("-t", "tmpfs", "tmpfs")
    over = mount("-t", "ramfs", "ramfs")
    (tmp_path / "link").symlink_to(point)
    words = (await storage.declare(f"{tmp_path}/link/a/b")).evidence[Guarantee.SYNC]
    assert words.startswith(f"tmpfs at {point} ")
    assert (await storage.declare(f"{over}/a")).evidence[Guarantee.SYNC].startswith(f"ramfs at {over} ")


async def test_a_bind_mount_is_told_from_its_origin(
    storage: LocalStorage, mount: Callable[..., Path], tmp_path: Path
) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    same = mount("--bind", str(origin))
    assert f" at {same} " in (await storage.declare(f"{same}/a")).evidence[Guarantee.SYNC]
    assert f" at {same} " not in (await storage.declare(f"{origin}/a")).evidence[Guarantee.SYNC]


async def test_without_a_mount_number_the_name_decides(storage: LocalStorage, world, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    world.mount(f"1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {tmp_path} rw - fuse.rclone remote: rw\n")
    words = (await storage.declare(f"{tmp_path}/a")).evidence[Guarantee.SYNC]
    assert words.startswith(f"fuse.rclone at {tmp_path} ")
    assert (await storage.declare(f"{tmp_path}/link")).evidence[Guarantee.SYNC].startswith("ext4 at / ")


async def test_without_proc_nothing_is_promised(storage: LocalStorage, world, tmp_path: Path) -> None:
    from atomicpath_local.lookup import read_proc

    world.refuse(read_proc, 2)
    assert (await storage.declare(str(tmp_path))).declared == Guarantee(0)


async def test_nothing_about_mounts_is_remembered(storage: LocalStorage, world, tmp_path: Path) -> None:
    world.mount("1 0 0:1 / / rw - ext4 /dev/vda rw\n")
    assert (await storage.declare(str(tmp_path))).declared
    world.mount("1 0 0:1 / / rw - fuse.rclone remote: rw\n")
    assert not (await storage.declare(str(tmp_path))).declared
