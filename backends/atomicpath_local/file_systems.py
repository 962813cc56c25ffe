"""The table of file systems: what each kind promises, by which way, and on whose word; data only.

A row declares what its sources say and nothing else; docs/design/0014-cluster-file-systems.md says more.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from atomicpath.guarantees import NONE, Guarantee

__all__ = ["BY_KIND", "GLUSTER_DISTRIBUTED", "FileSystem", "Locks", "Refusal"]

_RENAME = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE
_FILES = Guarantee.ATOMIC_WRITE | Guarantee.EXCLUSIVE_CREATE | Guarantee.DIRECTORIES | Guarantee.SYNC
_DISK = _FILES | _RENAME | Guarantee.LIST_AFTER_WRITE
_LINUX_DISK = _DISK | Guarantee.RENAME_EXCHANGE
_CLUSTER = _RENAME | Guarantee.ATOMIC_WRITE | Guarantee.DIRECTORIES | Guarantee.SYNC

GLUSTER_DISTRIBUTED = "(distributed)"
"""Follows the kind of a GlusterFS mount whose volume spreads directories over several bricks."""


class Refusal(enum.Enum):
    """How a rename comes to refuse an existing target."""

    FLAG = "the kernel's flag"
    PLACEHOLDER = "an exclusive mkdir of the target, and a rename that takes the place of that empty directory"
    PLAIN = "rename(2) itself, which there never takes the place of a directory, not even of an empty one"
    UNKNOWN = "nothing is declared"


class Locks(enum.Enum):
    """Which processes see a flock(2) on a file."""

    HOST = "those of this host"
    CLUSTER = "those of every host"
    OPTION = "those of every host or of this one only, as the mount or the server is set up"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """One row.

    `kinds`: the types that the kernel reports. `declared`: the promises, and `reason` in words for people.
    `renames_between_directories`: True where it always works, False where it is not one step, None where it is tried.
    `sources`: repository and path at the version read, or the title of a document. `is_disk`: one host's own.
    """

    kinds: tuple[str, ...]
    declared: Guarantee = NONE
    reason: str
    refusal: Refusal = Refusal.UNKNOWN
    locks: Locks = Locks.UNKNOWN
    renames_between_directories: bool | None = None
    sources: tuple[str, ...] = ()
    is_disk: bool = False


def _disk(*kinds: str, declared: Guarantee = _LINUX_DISK, reason: str = "a known disk file system") -> FileSystem:
    return FileSystem(
        kinds=kinds,
        declared=declared,
        reason=reason,
        refusal=Refusal.FLAG,
        locks=Locks.HOST,
        renames_between_directories=True,
        sources=("rename(2)", "fsync(2)", "flock(2)"),
        is_disk=True,
    )


_ROWS = (
    _disk("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs"),
    _disk("overlay", reason="a known disk file system, as durable as its upper layer"),
    _disk("tmpfs", "ramfs", reason="a memory file system: sync succeeds, nothing survives a power cut"),
    _disk(
        "zfs",
        declared=_DISK,
        reason="a known disk file system; whether it exchanges two names depends on its version",
    ),
    _disk("apfs", "hfs", "NTFS", declared=_DISK, reason="a known disk file system; untested"),
    FileSystem(
        kinds=("nfs", "nfs4"),
        declared=_FILES | _RENAME,
        reason=f"a network file system: a rename that refuses an existing target is {Refusal.PLACEHOLDER.value}; other"
        " hosts may list what was there up to a minute ago",
        refusal=Refusal.PLACEHOLDER,
        locks=Locks.OPTION,
        sources=("RFC 1813, 3.3.9 and 3.3.14", "RFC 8881, 18.4 and 18.26", "nfs(5): local_lock, nolock"),
    ),
    FileSystem(
        kinds=("lustre",),
        declared=_CLUSTER,
        reason="Lustre: a rename is one transaction under locks on both names, and takes the place of an empty"
        " directory; a refusal of any other target is an exclusive mkdir before it",
        refusal=Refusal.PLACEHOLDER,
        locks=Locks.OPTION,
        sources=(
            "lustre/lustre-release c881f8ebcb: lustre/llite/namei.c (ll_rename: every flag is EINVAL)",
            "the same: lustre/mdd/mdd_dir.c (mdd_rename, mdd_may_delete), lustre/mdt/mdt_reint.c (EXDEV, EEXIST)",
            "the same: lustre/llite/dir.c (fsync of directories), Documentation/man8/mount.lustre.8 (flock)",
        ),
    ),
    FileSystem(
        kinds=("ceph", "fuse.ceph-fuse", "fuse.ceph"),
        declared=_CLUSTER | Guarantee.LIST_AFTER_WRITE | Guarantee.EXCLUSIVE_CREATE,
        reason="CephFS: processes on different hosts see what processes on one host would; a rename that refuses an"
        " existing target is an exclusive mkdir and a rename over that empty directory",
        refusal=Refusal.PLACEHOLDER,
        sources=(
            "ceph/ceph: doc/cephfs/posix.rst (Differences from POSIX; fsync)",
            "torvalds/linux: fs/ceph/dir.c (ceph_rename: every flag is EINVAL, EXDEV between quota realms)",
        ),
    ),
    FileSystem(
        kinds=("beegfs", "beegfs_nodev"),
        declared=_CLUSTER,
        reason="BeeGFS: a rename in one directory is made under that directory's lock on the server, and refuses every"
        " existing directory; one from another directory is two steps; fsync of a file reaches the servers, names are"
        " as durable as the metadata servers make them",
        refusal=Refusal.PLAIN,
        locks=Locks.OPTION,
        renames_between_directories=False,
        sources=(
            "ThinkParQ/beegfs 87d28c1a: meta/source/storage/MetaStoreRename.cpp (checkRenameOverwrite: EXISTS)",
            "the same: meta/source/net/message/storage/moving/RenameV2MsgEx.cpp (renameDir: insert, then remove)",
            "the same: client_module/source/filesystem/FhgfsOpsInode.c (FhgfsOps_rename: every flag is EINVAL)",
            "the same: client_module/source/filesystem/FhgfsOpsFile.c (FhgfsOps_fsync: of a directory it does nothing)",
            "the same: client_module/build/dist/etc/beegfs-client.conf (tuneUseGlobalFileLocks, false by default)",
        ),
    ),
    FileSystem(
        kinds=("gpfs", "mmfs"),
        declared=_CLUSTER | Guarantee.EXCLUSIVE_CREATE,
        reason="GPFS: standard POSIX semantics on every node, kept by tokens; a rename that refuses an existing target"
        " is the kernel's flag, or an exclusive mkdir and a rename over that empty directory",
        refusal=Refusal.PLACEHOLDER,
        locks=Locks.UNKNOWN,
        sources=(
            "D. Hildebrand, F. Schmuck: GPFS, in High Performance Parallel I/O (standard POSIX semantics)",
            "IBM Storage Scale 5.2.3: File consistency (token management)",
            "IBM Storage Scale 5.2.0: Considerations for GPFS applications (the exceptions are stat() and ACLs)",
        ),
    ),
    FileSystem(
        kinds=("fuse.glusterfs",),
        declared=_CLUSTER,
        reason="GlusterFS, a volume of one brick or of its replicas: a rename is made under locks on both names, and"
        " takes the place of an empty directory; a refusal of any other target is an exclusive mkdir before it",
        refusal=Refusal.PLACEHOLDER,
        locks=Locks.CLUSTER,
        sources=(
            "gluster/glusterfs 595745f8e4: xlators/mount/fuse/src/fuse-bridge.c (no FUSE_RENAME2)",
            "the same: xlators/cluster/dht/src/dht-rename.c (ENOTEMPTY before anything is renamed)",
            "the same: xlators/storage/posix/src/posix-entry-ops.c (posix_mkdir, posix_rename), posix-inode-fd-ops.c"
            " (posix_fsyncdir)",
            "tests/cluster, which measure it on two mounts of one volume",
        ),
    ),
    FileSystem(
        kinds=(f"fuse.glusterfs {GLUSTER_DISTRIBUTED}",),
        reason="GlusterFS, a volume that spreads directories over several bricks, or does not tell: it renames a"
        " directory brick by brick, and another host sees a part of the files meanwhile",
        locks=Locks.CLUSTER,
        sources=("gluster/glusterfs 595745f8e4: xlators/cluster/dht/src/dht-rename.c (dht_rename_hashed_dir_cbk)",),
    ),
    FileSystem(
        kinds=("fuse.juicefs",),
        declared=_CLUSTER & ~Guarantee.SYNC,
        reason="JuiceFS: a rename is one transaction of the metadata engine, which knows the kernel's flag",
        refusal=Refusal.FLAG,
        locks=Locks.CLUSTER,
        sources=(
            "juicedata/juicefs a6a0299bd: pkg/meta/redis.go (RenameNoReplace: EEXIST), pkg/meta/base.go",
            "the same: docs/en/introduction/comparison/juicefs_vs_alluxio.md (Atomic metadata operation)",
            "the same: docs/en/introduction/README.md (File Lock)",
        ),
    ),
    FileSystem(
        kinds=("fuse.mountpoint-s3", "fuse.mount-s3"),
        reason="Mountpoint for S3 does not rename directories",
        sources=("awslabs/mountpoint-s3 58817cab2: doc/SEMANTICS.md (File and directory rename)",),
    ),
    FileSystem(
        kinds=("fuse.gcsfuse", "fuse.gcsfuse_dynamic"),
        reason="gcsfuse renames directories in one step only in buckets with a hierarchical namespace",
        sources=("GoogleCloudPlatform/gcsfuse 7b3929278: docs/semantics.md (Missing features)",),
    ),
    FileSystem(kinds=("wekafs",), reason="nothing that promises it has been read of WekaFS"),
    FileSystem(kinds=("orangefs", "pvfs2", "panfs"), reason="nothing that promises it has been read of this kind"),
    FileSystem(kinds=("virtiofs", "9p"), reason="what holds there is what holds on the host that shares it"),
    FileSystem(kinds=("cifs", "smb3"), reason="what holds there depends on the server"),
    FileSystem(kinds=("fuse.sshfs",), reason="what holds there depends on the server"),
    FileSystem(kinds=("fuse.rclone",), reason="what holds there depends on the remote: most copy and delete"),
)

BY_KIND = {kind: row for row in _ROWS for kind in row.kinds}
"""The row of each type that the kernel reports."""
